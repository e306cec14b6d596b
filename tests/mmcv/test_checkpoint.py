"""The backbone's weights out of every form of file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.model import PretrainedInit
from safetensors.torch import save_file
from torch import Tensor, nn

from mmcv_custom import InternImage
from mmcv_custom.checkpoint import (
    CheckpointError,
    backbone,
    backbone_state_dict,
    conversion,
    filling,
    load_pretrained_backbone,
    safe_loading,
)

SMALL: dict[str, Any] = dict(channels=16, depths=(1, 1, 2, 1), groups=(1, 2, 4, 8), core_op='DCNv3_pytorch')
HEAD = {'head.weight': torch.ones(10, 4), 'conv_head.0.weight': torch.ones(2, 2), 'fc_norm.bias': torch.ones(4)}
NECK = {'neck.lateral_convs.0.conv.weight': torch.ones(2, 2), 'bbox_head.fc.levels.bias': torch.ones(3)}


def make_backbone(seed: int = 0, **options: Any) -> InternImage:
    torch.manual_seed(seed)
    model = InternImage(**(SMALL | options))
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    return model


def with_prefix(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


def assert_equal(model: nn.Module, state: dict[str, Tensor]) -> None:
    own = model.state_dict()
    assert own.keys() == state.keys()
    for name, tensor in own.items():
        assert torch.equal(tensor, state[name]), name


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    for module in (backbone, filling, conversion, safe_loading):
        monkeypatch.setattr(module, 'print_log', lambda text, *_: lines.append(text))
    return lines


FORMS: dict[str, Callable[[dict[str, Tensor]], dict[str, Any]]] = {
    'official classification': lambda s: {
        'model': s | HEAD,
        'epoch': 299,
        'model_ema': with_prefix('module.', s | HEAD),
    },
    'DeepSpeed': lambda s: {'module': s | HEAD},
    'bare': lambda s: dict(s),
    'bare, data parallel': lambda s: with_prefix('module.', s | HEAD),
    'detector': lambda s: {'state_dict': with_prefix('backbone.', s) | NECK, 'meta': {'CLASSES': ('a',)}},
    'detector, data parallel': lambda s: {'state_dict': with_prefix('module.', with_prefix('backbone.', s) | NECK)},
    'backbone, data parallel': lambda s: {'state_dict': with_prefix('backbone.module.', s)},
    'Hugging Face': lambda s: with_prefix(
        'model.', {name.replace('gamma', 'layer_scale'): tensor for name, tensor in (s | HEAD).items()}
    ),
}


@pytest.mark.parametrize(
    'form, save, suffix',
    [(form, torch.save, '.pth') for form in FORMS]
    + [(form, save_file, '.safetensors') for form in ('bare', 'bare, data parallel', 'Hugging Face')],
    ids=lambda value: value if isinstance(value, str) else '',
)
def test_every_form_loads(form: str, save: Callable, suffix: str, tmp_path: Path, log: list[str]) -> None:
    source, model, file = make_backbone(1).state_dict(), make_backbone(2), tmp_path / f'file{suffix}'
    save(FORMS[form](source), file)
    report = load_pretrained_backbone(model, file)
    assert_equal(model, source)
    assert report.matched == list(source)
    assert not report.missing and not report.unexpected and not report.misshaped
    assert log == [
        f'loaded 100.0% of InternImage from {file}: {len(source)} matched, 0 missing, 0 unexpected, 0 misshaped'
    ]


@pytest.mark.parametrize('form', ['dict', 'list', 'class'])
def test_runner_checkpoint_and_init_cfg(tmp_path: Path, form: str) -> None:
    """A backbone trained in a runner's model starts another, in whichever form MMEngine's configs may ask for it."""
    source = make_backbone(1)
    model = nn.ModuleDict({'backbone': source, 'head': nn.Linear(3, 1)})
    file = tmp_path / 'epoch_1.pth'
    torch.save({'meta': {}, 'state_dict': model.state_dict(), 'message_hub': {'best': np.float64(1)}}, file)
    init_cfg = dict(type=PretrainedInit if form == 'class' else 'Pretrained', checkpoint=str(file))
    fresh = InternImage(**SMALL, init_cfg=[init_cfg] if form == 'list' else init_cfg)
    fresh.init_weights()
    assert_equal(fresh, dict(source.state_dict()))


def test_init_cfg_needs_a_checkpoint() -> None:
    with pytest.raises(ValueError, match="init_cfg of type Pretrained must name a checkpoint, got {'type'"):
        InternImage(**SMALL, init_cfg=dict(type='Pretrained')).init_weights()


@pytest.mark.parametrize('prefix', ['ema.backbone', 'ema.backbone.'])
def test_prefix_chooses_among_backbones(prefix: str) -> None:
    first, second = make_backbone(1).state_dict(), make_backbone(2).state_dict()
    both = {'state_dict': with_prefix('backbone.', first) | with_prefix('ema.backbone.', second)}
    assert torch.equal(backbone_state_dict(both)['patch_embed.conv1.bias'], first['patch_embed.conv1.bias'])
    found = backbone_state_dict(both, prefix)
    assert found.keys() == second.keys()
    assert torch.equal(found['patch_embed.conv1.bias'], second['patch_embed.conv1.bias'])


def test_wrong_prefix_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / 'file.pth'
    torch.save({'state_dict': with_prefix('backbone.', make_backbone().state_dict()) | NECK}, file)
    for prefix in ('neck', 'backbon', ''):
        with pytest.raises(RuntimeError, match=r"from .*file.pth: no InternImage weights under prefix='.*'backbone.'"):
            load_pretrained_backbone(make_backbone(), file, prefix=prefix)


def test_missing_layer_scale_is_one(tmp_path: Path, log: list[str]) -> None:
    source, file = make_backbone(1, layer_scale=None).state_dict(), tmp_path / 'file.pth'
    torch.save({'model': source}, file)
    model = make_backbone(2, layer_scale=1e-5)
    report = load_pretrained_backbone(model, file)
    assert len(report.matched) == len(model.state_dict())
    gammas = {name: torch.ones_like(t) for name, t in model.state_dict().items() if name.endswith(('gamma1', 'gamma2'))}
    assert len(gammas) == 10 and not report.missing
    assert_equal(model, source | gammas)
    assert log[0] == f'{file} has no layer scale: the 10 factors become 1'


def test_partial_layer_scale_is_missing(tmp_path: Path) -> None:
    source, file = make_backbone(1).state_dict(), tmp_path / 'file.pth'
    name = 'levels.0.blocks.0.gamma1'
    torch.save({'model': {key: tensor for key, tensor in source.items() if key != name}}, file)
    model = make_backbone(2)
    before = model.levels[0].blocks[0].gamma1.clone()
    assert load_pretrained_backbone(model, file).missing == [name]
    assert torch.equal(model.levels[0].blocks[0].gamma1, before)


def test_what_does_not_fit_is_logged_and_left(tmp_path: Path, log: list[str]) -> None:
    source, file, model = make_backbone(1).state_dict(), tmp_path / 'file.pth', make_backbone(2)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    missing, misshaped = 'patch_embed.conv1.weight', 'patch_embed.conv1.bias'
    changed = {name: tensor for name, tensor in source.items() if name != missing}
    changed |= {misshaped: torch.ones(3), 'extra.weight': torch.ones(1)}
    torch.save(changed, file)
    report = load_pretrained_backbone(model, file)
    assert report[1:] == ([missing], ['extra.weight'], [misshaped])
    assert f'1 missing ({missing}), 1 unexpected (extra.weight), 1 misshaped ({misshaped})' in log[0]
    assert_equal(model, dict(source) | {name: before[name] for name in (missing, misshaped)})


def dcnv4_like() -> dict[str, Tensor]:
    state = make_backbone().state_dict()
    renamed = {name.replace('.dcn.offset.', '.dcn.offset_mask.'): tensor for name, tensor in state.items()}
    return {name: tensor for name, tensor in renamed.items() if '.mlp.' not in name and '.downsample.' not in name}


UNFIT: dict[str, tuple[Callable[[], Any], str]] = {
    'another variant': (
        lambda: make_backbone(channels=160, groups=(10, 20, 40, 80)).state_dict(),
        r"only 0% .*its stem is 160 channels wide \(large\), the model's 16 channels wide; is it another variant",
    ),
    'another network': (
        lambda: {'state_dict': nn.Linear(2, 2).state_dict()},
        'no InternImage weights; its keys begin with weight, bias',
    ),
    'empty': (lambda: {'state_dict': {}}, 'no InternImage weights; its keys begin with nothing'),
    'no mapping': (lambda: [1, 2], 'expected a mapping of names to tensors, got list'),
    'another operator': (dcnv4_like, r'it is of DCNv4 \(FlashInternImage\)'),
    'a part': (
        lambda: {k: v for k, v in make_backbone().state_dict().items() if k[:8] not in ('levels.2', 'levels.3')},
        r'only \d+% of the parameters of InternImage: \d+ tensors are missing \(levels.2',
    ),
}


@pytest.mark.parametrize('content, message', UNFIT.values(), ids=list(UNFIT))
def test_below_half_is_an_error(content: Callable[[], Any], message: str, tmp_path: Path) -> None:
    file = tmp_path / 'file.pth'
    torch.save(content(), file)
    with pytest.raises(RuntimeError, match=message) as caught:
        load_pretrained_backbone(make_backbone(2), file)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize('half, enough', [(0.45, False), (0.55, True)])
def test_half_is_counted_in_numbers(half: float, enough: bool, tmp_path: Path) -> None:
    model, file = make_backbone(2, layer_scale=None), tmp_path / 'file.pth'
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    kept, total = {}, 0
    for name, tensor in sorted(
        make_backbone(1, layer_scale=None).state_dict().items(), key=lambda item: -item[1].numel()
    ):
        if total + sizes[name] <= half * sum(sizes.values()):
            kept[name] = tensor
            total += sizes[name]
    torch.save(kept, file)
    if enough:
        assert len(load_pretrained_backbone(model, file).matched) == len(kept)
    else:
        with pytest.raises(RuntimeError, match=r'holds only 4\d% of the parameters'):
            load_pretrained_backbone(model, file)


def test_schemes_of_mmengine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name in its tables leads to a file in its home folder."""
    source = make_backbone(1)
    torch.save(source.state_dict(), tmp_path / 'internimage.pth')
    monkeypatch.setenv('MMENGINE_HOME', str(tmp_path))
    (tmp_path / 'open_mmlab.json').write_text('{"internimage": "internimage.pth"}')
    for name in ('open-mmlab://internimage', 'openmmlab://internimage'):
        model = InternImage(**SMALL, init_cfg=dict(type='Pretrained', checkpoint=name))
        model.init_weights()
        assert_equal(model, dict(source.state_dict()))
    with pytest.raises(CheckpointError, match='there is no model open-mmlab://other in the table of MMEngine'):
        load_pretrained_backbone(make_backbone(), 'open-mmlab://other')
    with pytest.raises(CheckpointError, match='cannot fetch s3://bucket/a.pth'):
        load_pretrained_backbone(make_backbone(), 's3://bucket/a.pth')


def test_secrets_in_urls_are_not_printed(log: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Password and query of a URL, whether the file is of use or not."""
    model = make_backbone()
    contents = iter([{'state_dict': model.state_dict()}, {'state_dict': {'fc.weight': torch.ones(2, 2)}}])
    monkeypatch.setattr(backbone, 'load_safely', lambda *_: next(contents))
    url = 'https://user:secret@host/file.pth?token=secret'
    load_pretrained_backbone(model, url)
    with pytest.raises(CheckpointError) as refused:
        load_pretrained_backbone(model, url)
    texts = [*log, str(refused.value)]
    assert len(texts) == 2
    for text in texts:
        assert 'host/file.pth' in text and 'secret' not in text
