"""How much of a model ``load_from`` must fill, and what it says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.models import ResNet
from mmengine.model import BaseModel, BaseModule, BaseTTAModel
from mmengine.runner import checkpoint as mmengine_checkpoint
from mmengine.runner import load_checkpoint
from torch import Tensor, nn

from mmcv_custom import InternImage, PortableRunner
from mmcv_custom.checkpoint import CheckpointError, convert_state_dict, filling, named_tensors
from tests.mmcv.test_conversion import official_state, our_model

State = dict[str, Tensor]
Loader = Callable[..., State]


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
def load(tmp_path: Path) -> Loader:
    """Loads a content as ``load_from`` does; returns the state of the model."""

    def start(content: Any, strict: bool = False) -> State:
        torch.save(content, tmp_path / 'file.pth')
        options = dict(work_dir=str(tmp_path), experiment_name=tmp_path.name, log_level='ERROR')
        runner = PortableRunner(Detector(), **options)
        runner.load_checkpoint(str(tmp_path / 'file.pth'), strict=strict)
        return dict(runner.model.state_dict())

    return start


def test_the_whole_model(load: Loader, log: list[str]) -> None:
    state = weights()
    assert all(torch.equal(state[name], tensor) for name, tensor in load(state).items())
    (line,) = log
    assert line.startswith('loaded 100.0% of Detector from ') and '0 missing, 0 unexpected, 0 misshaped' in line


def test_other_classes_are_left_out_and_reported(load: Loader, log: list[str]) -> None:
    state = weights(classes=3)
    loaded = load({'state_dict': state})
    assert torch.equal(loaded['head.weight'], state['head.weight']) and len(loaded['classifier.bias']) == 10
    assert '2 misshaped (classifier.weight, classifier.bias)' in log[0]


@pytest.mark.parametrize('prefix', ['', 'module.', 'model.', 'backbone.'])
def test_a_backbone_is_enough(prefix: str, load: Loader, log: list[str]) -> None:
    """Under whatever names, although the head is larger. The line counts, with three examples."""
    state = bare(weights())
    loaded = load({'model': {prefix + name: tensor for name, tensor in state.items()}})
    assert all(torch.equal(loaded[f'backbone.{name}'], tensor) for name, tensor in state.items())
    assert '4 missing (head.weight, head.bias, classifier.weight, ...)' in log[0] and len(log[0]) < 500


def test_layer_scale_that_the_file_lacks_is_one(load: Loader, log: list[str]) -> None:
    state = {name: tensor for name, tensor in bare(weights()).items() if 'gamma' not in name}
    factors = [tensor for name, tensor in load(state).items() if 'gamma' in name]
    assert factors and all((factor == 1).all() for factor in factors)
    assert 'has no layer scale: the 10 factors become 1' in log[0]


def test_less_than_half_is_an_error(load: Loader) -> None:
    state = weights()
    kept = {name: state[name] for name in state if name.startswith(('backbone.levels.0.', 'classifier.'))}
    with pytest.raises(
        CheckpointError, match=r'file.pth holds only \d% of the parameters of Detector: \d+ tensors are'
    ):
        load(kept)
    other = {name: tensor.repeat_interleave(2, 0) for name, tensor in bare(state).items()}
    with pytest.raises(CheckpointError, match=r'its stem is 32 channels wide.*16 channels wide; is it another variant'):
        load(other)


FLOATS = (torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2)


@pytest.mark.parametrize('dtype', FLOATS, ids=str)
def test_real_numbers_of_other_types_are_converted(dtype: torch.dtype, load: Loader, log: list[str]) -> None:
    state = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in weights().items()}
    loaded = load(state)
    assert all(torch.equal(loaded[name], tensor.float()) for name, tensor in state.items())
    coarse = f'its numbers are as coarse as {dtype}'
    assert log[0].endswith(coarse) == (dtype.itemsize == 1)


@pytest.mark.parametrize('strict', [False, True])
@pytest.mark.parametrize('dtype', [torch.int8, torch.int64, torch.uint16, torch.bool], ids=str)
def test_whole_numbers_are_no_weights(dtype: torch.dtype, strict: bool, load: Loader) -> None:
    """They are quantized perhaps, and would be taken as they are."""
    state = weights()
    state['head.weight'] = state['head.weight'].abs().to(dtype)
    message = rf'file.pth does not hold real numbers in 1 tensors that need them \(head.weight: {dtype}\)'
    with pytest.raises(CheckpointError, match=message):
        load(state, strict)


@pytest.mark.parametrize('strict', [False, True])
@pytest.mark.parametrize('value', [float('nan'), float('inf')])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float8_e5m2], ids=str)
def test_weights_must_be_finite(value: float, dtype: torch.dtype, strict: bool, load: Loader) -> None:
    state = weights()
    state['head.weight'][3, 5] = value
    state['head.weight'] = state['head.weight'].to(dtype)
    with pytest.raises(CheckpointError, match=r'file.pth holds NaN or infinite numbers in 1 tensors \(head.weight\)'):
        load(state, strict)


def test_what_the_model_does_not_take_may_be_anything(load: Loader) -> None:
    odd = {'unknown': torch.full((2,), float('nan')), 'classifier.bias': torch.full((3,), float('nan'))}
    load(weights() | odd)


class Renaming(nn.Module):
    """A model that renames what it is given, as mmdet's two-stage detectors do."""

    def __init__(self) -> None:
        super().__init__()
        self.new = nn.Linear(2, 2)
        self.register_buffer('mask', torch.zeros(2))
        self.register_buffer('count', torch.tensor(0))

    def _load_from_state_dict(self, state_dict: State, prefix: str, *args: Any) -> None:
        for name in [name for name in state_dict if name.startswith('old.')]:
            state_dict[name.replace('old.', 'new.')] = state_dict.pop(name)
        super()._load_from_state_dict(state_dict, prefix, *args)


OLD = {'weight': torch.ones(2, 2), 'bias': torch.ones(2)}


@pytest.mark.parametrize('complete', [False, True])
@pytest.mark.parametrize('prefix', ['old.', 'new.'])
@pytest.mark.parametrize(
    ('weight', 'message'),
    [
        (torch.full((2, 2), torch.nan), r'a.pth holds NaN or infinite numbers in 1 tensors \(new.weight\)'),
        (torch.full((2, 2), 1e300, dtype=torch.float64), r'holds NaN or infinite numbers in 1 tensors \(new.weight\)'),
        (torch.ones(2, 2, dtype=torch.int8), r'a.pth does not hold real numbers in 1 .* \(new.weight: torch.int8\)'),
        (torch.ones(2, 2, dtype=torch.float64), ''),
    ],
    ids=['NaN', 'too large', 'int8', 'good'],
)
def test_what_a_model_holds_is_judged(complete: bool, prefix: str, weight: Tensor, message: str) -> None:
    """Under whatever names it took it. Buffers may be infinite or count."""
    good = {'mask': torch.full((2,), -torch.inf), 'count': torch.tensor(5), 'unused': torch.tensor(torch.nan)}
    state = {prefix + name: tensor for name, tensor in (OLD | {'weight': weight}).items()} | good
    model = Renaming()
    if message:
        with pytest.raises(CheckpointError, match=message):
            filling.fill(model, state, 'a.pth', complete)
    else:
        report = filling.fill(model, state, 'a.pth', complete)
        assert len(report.matched) == 4 and not report.missing and report.unexpected == ['unused']
        assert (model.new.weight == 1).all() and model.count == 5


class RenamingDetector(Detector):
    """A detector whose head was called trunk."""

    def _load_from_state_dict(self, state_dict: State, prefix: str, *args: Any) -> None:
        for name in [name for name in state_dict if name.startswith('trunk.')]:
            state_dict[name.replace('trunk.', 'head.')] = state_dict.pop(name)
        super()._load_from_state_dict(state_dict, prefix, *args)


@pytest.mark.parametrize('purpose', ['load_from', 'test', 'strict'])
def test_names_that_the_model_understands(purpose: str, tmp_path: Path) -> None:
    """They are complete wherever completeness is asked for."""
    file, state = str(tmp_path / 'a.pth'), weights()
    options = dict(work_dir=str(tmp_path), experiment_name=tmp_path.name, log_level='ERROR')
    hooks = [dict(type='CompleteCheckpointHook')] if purpose == 'test' else []
    runner = PortableRunner(RenamingDetector(), custom_hooks=hooks, **options)
    old = {name.replace('head.', 'trunk.'): tensor for name, tensor in state.items()}
    torch.save(old, file)
    runner.load_checkpoint(file, strict=purpose == 'strict')
    assert torch.equal(runner.model.head.weight, state['head.weight'])

    del old['trunk.bias']
    torch.save(old, file)
    if purpose == 'load_from':
        runner.load_checkpoint(file)
    else:
        message = r'a.pth does not fill RenamingDetector: 1 tensors are missing \(head.bias\)'
        with pytest.raises(CheckpointError, match=message):
            runner.load_checkpoint(file, strict=purpose == 'strict')


class Extra(nn.Linear):
    """A layer with an extra state, as quantized layers and the ones of Transformer Engine have it."""

    version: Any = 0

    def get_extra_state(self) -> Any:
        return self.version

    def set_extra_state(self, state: Any) -> None:
        self.version = state


@pytest.mark.parametrize('version', [7, {'scale': 1.5}, torch.ones(3)], ids=['number', 'dict', 'tensor'])
def test_extra_states(version: Any, tmp_path: Path) -> None:
    source, model, file = Extra(2, 2), Extra(2, 2), str(tmp_path / 'a.pth')
    source.version = version
    torch.save({'state_dict': source.state_dict(), 'meta': {}}, file)
    load_checkpoint(model, file, strict=True)
    assert str(model.version) == str(version)
    report = filling.fill(model, source.state_dict(), 'a.pth', complete=True)
    assert model.version is version and report.matched == ['weight', 'bias', '_extra_state']
    with pytest.raises(CheckpointError, match=r'a.pth does not fill Extra: 1 tensors are missing \(_extra_state\)'):
        filling.fill(model, nn.Linear(2, 2).state_dict(), 'a.pth', complete=True)


@pytest.mark.parametrize(
    ('saved', 'own', 'good'),
    [
        (torch.complex64, torch.complex64, True),
        (torch.float32, torch.complex64, True),
        (torch.int64, torch.complex64, False),
        (torch.complex64, torch.float32, False),
        (torch.complex64, torch.int64, False),
    ],
    ids=str,
)
def test_complex_numbers(saved: torch.dtype, own: torch.dtype, good: bool) -> None:
    """They fit only complex ones."""
    model, state = nn.Module(), named_tensors({'phases': torch.ones(2, dtype=saved)})
    model.register_buffer('phases', torch.zeros(2, dtype=own))
    if good:
        filling.fill(model, state, 'a.pth', complete=True)
        assert (model.get_buffer('phases') == 1).all()
        with pytest.raises(CheckpointError, match=r'holds NaN .* \(phases\)'):
            filling.fill(model, {'phases': state['phases'] * torch.nan}, 'a.pth')
    else:
        with pytest.raises(CheckpointError, match=rf'does not hold real numbers in 1 .* \(phases: {saved}\)'):
            filling.fill(model, state, 'a.pth')


def test_renamed_tensors_of_another_shape() -> None:
    message = r'^a.pth does not fit Renaming: .*size mismatch for new.bias: .*\[3\]'
    with pytest.raises(CheckpointError, match=message) as caught:
        filling.fill(Renaming(), {'old.weight': OLD['weight'], 'old.bias': torch.ones(3)}, 'a.pth')
    assert '\n' not in str(caught.value)


def test_revised_names_hide_none(tmp_path: Path) -> None:
    file = str(tmp_path / 'a.pth')
    torch.save({f'old.{name}': tensor for name, tensor in weights().items()} | {'head.bias': torch.ones(1500)}, file)
    runner = PortableRunner(Detector(), work_dir=str(tmp_path), experiment_name=tmp_path.name, log_level='ERROR')
    with pytest.raises(CheckpointError, match=f'cannot load {file}: several tensors would be called head.bias'):
        runner.load_checkpoint(file, revise_keys=[(r'^old\.', '')])
    runner.load_checkpoint(file, revise_keys=[(r'^head\.bias', 'none'), (r'^old\.', '')])
    block = 'levels.0.blocks.0.'
    torch.save(bare(weights()) | {block + 'layer_scale1': torch.ones(16)}, file)
    with pytest.raises(CheckpointError, match=f'cannot load {file}: several tensors would be called {block}gamma1'):
        runner.load_checkpoint(file)


# --- where MMEngine fills models by itself ----------------------------------------------------------------------------


class Part(BaseModule):
    def __init__(self, **init_cfg: Any) -> None:
        super().__init__(dict(type='Pretrained', **init_cfg))
        self.layer = nn.Linear(3, 3)


@pytest.mark.parametrize('prefix', [None, 'neck.'])
def test_init_cfg_of_a_part(prefix: str | None, tmp_path: Path, log: list[str]) -> None:
    """A neck or a head may be filled in part."""
    names = [f'{prefix or ""}layer.{name}' for name in ('weight', 'bias')]
    file = str(tmp_path / 'a.pth')
    torch.save(dict(zip(names, (torch.ones(3, 3), torch.ones(3)), strict=True)), file)
    part = Part(checkpoint=file, prefix=prefix)
    part.init_weights()
    assert (part.layer.weight == 1).all()

    torch.save({names[1]: torch.ones(3), 'neck.other': torch.ones(9)}, file)
    part = Part(checkpoint=file, prefix=prefix)
    part.init_weights()
    assert (part.layer.bias == 1).all()
    assert log[-1].startswith(f'loaded 25.0% of Part from {file}') and '1 missing (layer.weight)' in log[-1]

    torch.save({f'{prefix or ""}other': torch.ones(9)}, file)
    with pytest.raises(CheckpointError, match=rf'{file} holds only 0% of the parameters of Part: 2 tensors are miss'):
        Part(checkpoint=file, prefix=prefix).init_weights()


def test_a_wrong_prefix_names_the_known_ones(tmp_path: Path) -> None:
    file = str(tmp_path / 'a.pth')
    torch.save({'state_dict': {'neck.layer.weight': torch.ones(3, 3), 'head.bias': torch.ones(3)}, 'meta': {}}, file)
    Part(checkpoint=file, prefix='neck').init_weights()
    for prefix, known in {'nek': "'neck.', 'head.'", 'neck.layr': "'neck.layer.'"}.items():
        message = f"cannot load a part of {file}: it holds no tensors under prefix='{prefix}.', but under {known}$"
        with pytest.raises(CheckpointError, match=message):
            Part(checkpoint=file, prefix=prefix).init_weights()


@pytest.mark.parametrize('prefix', [None, 'backbone.'])
def test_init_cfg_of_a_backbone(prefix: str | None, tmp_path: Path) -> None:
    """Half of it is needed, whatever the prefix."""
    file, options = str(tmp_path / 'a.pth'), dict(type='Pretrained', checkpoint=str(tmp_path / 'a.pth'), prefix=prefix)
    state = {f'{prefix or ""}{name}': tensor for name, tensor in ResNet(18).state_dict().items()}
    torch.save(state, file)
    ResNet(18, init_cfg=options).init_weights()
    torch.save({name: state[name] for name in state if 'layer4' not in name}, file)
    with pytest.raises(
        CheckpointError, match=rf'{file} holds only 25% of the parameters of ResNet: \d+ tensors are mis'
    ):
        ResNet(18, init_cfg=options).init_weights()


class Mask(nn.Module):
    """A part without parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer('mask', torch.zeros(2))


def test_a_part_without_parameters_is_complete(log: list[str]) -> None:
    assert filling.fill(Mask(), {'mask': torch.ones(2)}, 'a.pth').matched == ['mask']
    filling.fill(nn.Identity(), {}, 'a.pth')
    assert [line[:12] for line in log] == ['loaded 100.0'] * 2
    filling.fill(Mask(), {}, 'a.pth')
    with pytest.raises(CheckpointError, match=r'a.pth does not fill Mask: 1 tensors are missing \(mask\)'):
        filling.fill(Mask(), {}, 'a.pth', complete=True)


class Wrapper(BaseTTAModel):
    """A model for test-time augmentation, of which a checkpoint holds the inner one."""

    def merge_preds(self, data_samples_list: Any) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize('strict', [False, True])
def test_load_checkpoint_of_mmengine(strict: bool, tmp_path: Path, log: list[str]) -> None:
    """On which mmdet.apis.init_detector, mmseg.apis.init_model and the inferencers stand."""
    file = str(tmp_path / 'a.pth')
    state = weights(classes=3)
    torch.save({'state_dict': state, 'meta': {}}, file)
    model = Wrapper(Detector())
    if strict:
        with pytest.raises(CheckpointError, match=f'{file} does not fill Detector: .*classifier.weight'):
            load_checkpoint(model, file, strict=True)
    else:  # other classes
        load_checkpoint(model, file)
        assert torch.equal(model.module.head.weight, state['head.weight'])
        assert '2 misshaped (classifier.weight, classifier.bias)' in log[0]
    torch.save({name: state[name] for name in state if name.startswith('classifier')}, file)
    with pytest.raises(CheckpointError, match=f'{file} holds only 0% of the parameters of Detector'):
        load_checkpoint(model, file)
    spoilt = {name: tensor * float('nan') for name, tensor in state.items()}
    with pytest.raises(CheckpointError, match='the state dict holds NaN'):
        mmengine_checkpoint.load_state_dict(model, spoilt)


def test_the_published_segformer_starts_an_upernet() -> None:
    """As the configs of Cityscapes ask for: it fills the backbone alone."""
    state = convert_state_dict(official_state('segformer_internimage_l_512x1024_160k_mapillary2cityscapes'))
    state = {name: torch.zeros(()).expand(tensor.shape) for name, tensor in state.items()}
    model = our_model('segmentation/cityscapes/internimage-l_upernet_8xb2-160k_mapillary-cityscapes-512x1024')
    report = filling.compare(model.state_dict(), state)
    filling.require_enough(model, state, report, 'segformer')
    assert filling.filled_share(model, report, 'backbone.') == 1
