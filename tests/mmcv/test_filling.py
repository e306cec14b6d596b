"""How much of a model ``load_from`` must fill, and what it says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.model import BaseModel
from torch import Tensor, nn

from mmcv_custom import InternImage, PortableRunner
from mmcv_custom.checkpoint import CheckpointError, convert_state_dict, filling
from tests.mmcv.test_conversion import official_state, our_model

State = dict[str, Tensor]


class Detector(BaseModel):
    """A small InternImage under a head that is larger than it."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        sizes: dict[str, Any] = dict(channels=16, depths=(1, 1, 2, 1), groups=(1, 2, 4, 8), core_op='DCNv3_pytorch')
        self.backbone = InternImage(**sizes, layer_scale=1e-5)
        self.head = nn.Linear(1500, 1500)
        self.classifier = nn.Linear(1500, classes)

    def forward(self, *inputs: Tensor, mode: str) -> Any:
        raise NotImplementedError


def weights(seed: int = 1, classes: int = 10) -> State:
    torch.manual_seed(seed)
    model = Detector(classes)
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    return dict(model.state_dict())


def bare(state: State) -> State:
    return {name.removeprefix('backbone.'): state[name] for name in state if name.startswith('backbone.')}


@pytest.fixture
def load(tmp_path: Path) -> Callable[[Any], State]:
    """Loads a content as ``load_from`` does; returns the state of the model."""

    def start(content: Any) -> State:
        torch.save(content, tmp_path / 'file.pth')
        options = dict(work_dir=str(tmp_path), experiment_name=tmp_path.name, log_level='ERROR')
        runner = PortableRunner(Detector(), load_from=str(tmp_path / 'file.pth'), **options)
        runner.load_or_resume()
        return dict(runner.model.state_dict())

    return start


def test_the_whole_model(load: Callable[[Any], State], log: list[str]) -> None:
    state = weights()
    assert all(torch.equal(state[name], tensor) for name, tensor in load(state).items())
    (line,) = log
    assert line.startswith('loaded 100.0% of Detector from ') and '0 missing, 0 unexpected, 0 misshaped' in line


def test_other_classes_are_left_out_and_reported(load: Callable[[Any], State], log: list[str]) -> None:
    state = weights(classes=3)
    loaded = load({'state_dict': state})
    assert torch.equal(loaded['head.weight'], state['head.weight']) and len(loaded['classifier.bias']) == 10
    assert '2 misshaped (classifier.weight, classifier.bias)' in log[0]


@pytest.mark.parametrize('prefix', ['', 'module.', 'model.', 'backbone.'])
def test_a_backbone_is_enough(prefix: str, load: Callable[[Any], State], log: list[str]) -> None:
    """Under whatever names, although the head is larger. The line counts, with three examples."""
    state = bare(weights())
    loaded = load({'model': {prefix + name: tensor for name, tensor in state.items()}})
    assert all(torch.equal(loaded[f'backbone.{name}'], tensor) for name, tensor in state.items())
    assert '4 missing (head.weight, head.bias, classifier.weight, ...)' in log[0] and len(log[0]) < 500


def test_layer_scale_that_the_file_lacks_is_one(load: Callable[[Any], State], log: list[str]) -> None:
    state = {name: tensor for name, tensor in bare(weights()).items() if 'gamma' not in name}
    factors = [tensor for name, tensor in load(state).items() if 'gamma' in name]
    assert factors and all((factor == 1).all() for factor in factors)
    assert 'has no layer scale: the 10 factors become 1' in log[0]


def test_less_than_half_is_an_error(load: Callable[[Any], State]) -> None:
    state = weights()
    kept = {name: state[name] for name in state if name.startswith(('backbone.levels.0.', 'classifier.'))}
    with pytest.raises(
        CheckpointError, match=r'file.pth holds only \d% of the parameters of Detector: \d+ tensors are'
    ):
        load(kept)
    other = {name: tensor.repeat_interleave(2, 0) for name, tensor in bare(state).items()}
    with pytest.raises(CheckpointError, match=r'its stem is 32 channels wide.*16 channels wide; is it another variant'):
        load(other)


def test_the_published_segformer_starts_an_upernet() -> None:
    """As the configs of Cityscapes ask for: it fills the backbone alone."""
    state = convert_state_dict(official_state('segformer_internimage_l_512x1024_160k_mapillary2cityscapes'))
    model = our_model('segmentation/cityscapes/internimage-l_upernet_8xb2-160k_mapillary-cityscapes-512x1024')
    report = filling.compare(model.state_dict(), state)
    filling.require_half(model, state, report, 'segformer')
    assert filling.filled_share(model, report, 'backbone.') == 1
