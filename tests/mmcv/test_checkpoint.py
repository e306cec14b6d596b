"""Safe reading of checkpoints, and the backbone's weights out of every form of file."""

from __future__ import annotations

import os
import re
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel, PretrainedInit
from mmengine.runner import CheckpointLoader, Runner
from safetensors.torch import save_file
from torch import Tensor, nn

from mmcv_custom import InternImage
from mmcv_custom.checkpoint import (
    UNSAFE_LOAD_VARIABLE,
    backbone_state_dict,
    conversion,
    filling,
    load_pretrained_backbone,
    load_safely,
    safe_loading,
)
from mmcv_custom.mmengine_setup import set_up_mmengine

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
    for module in (filling, conversion, safe_loading):
        monkeypatch.setattr(module, 'print_log', lambda text, *_: lines.append(text))
    return lines


@pytest.fixture
def schemes() -> Iterator[None]:
    """Puts MMEngine's own loaders back."""
    before = CheckpointLoader._schemes.copy()
    yield
    CheckpointLoader._schemes = before


# --- reading safely ---------------------------------------------------------------------------------------------------


class Call:
    """Pickles as a call of a function, which is made where the pickle is read without care."""

    def __init__(self, function: Callable, *args: Any) -> None:
        self.function, self.args = function, args

    def __reduce__(self) -> tuple[Callable, tuple]:
        return self.function, self.args


class Innocent:
    """A class that a checkpoint has no business with, though it does no harm."""


BOMBS: dict[str, Callable[[Path], Call]] = {
    'posix.mkdir': lambda crater: Call(os.mkdir, str(crater)),
    'exec': lambda crater: Call(exec, f'open({str(crater)!r}, "w").close()'),
}


@pytest.mark.parametrize('culprit', BOMBS)
def test_pickle_bomb_is_refused_and_not_run(culprit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crater, file = tmp_path / 'crater', tmp_path / 'bomb.pth'
    torch.save({'state_dict': {}, 'meta': BOMBS[culprit](crater)}, file)
    monkeypatch.delenv(UNSAFE_LOAD_VARIABLE, raising=False)
    with pytest.raises(
        RuntimeError, match=f'refused to read {file}: .* {culprit}, .* set MM_INTERNIMAGE_UNSAFE_LOAD=1'
    ):
        load_safely(file)
    assert not crater.exists()

    torch.load(file, weights_only=False)
    assert crater.exists(), 'a dud proves nothing'


@pytest.mark.parametrize('legacy', [False, True], ids=['zip', 'legacy'])
def test_refusal_names_file_global_and_remedy(legacy: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / 'odd.pth'
    torch.save({'meta': Innocent()}, file, _use_new_zipfile_serialization=not legacy)
    for value in ('', '0'):
        monkeypatch.setenv(UNSAFE_LOAD_VARIABLE, value)
        with pytest.raises(RuntimeError, match=f'refused to read {file}: it needs the global {__name__}.Innocent'):
            load_safely(file)


def test_opting_in_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: list[str]) -> None:
    file = tmp_path / 'odd.pth'
    torch.save({'meta': Innocent()}, file)
    monkeypatch.setenv(UNSAFE_LOAD_VARIABLE, '1')
    assert isinstance(load_safely(file)['meta'], Innocent)
    assert len(log) == 1 and f'{__name__}.Innocent' in log[0]

    torch.save({'meta': 1}, file)
    assert load_safely(file) == {'meta': 1}
    assert len(log) == 1  # nothing to say of a harmless file


@pytest.mark.parametrize('owner, name', [(HistoryBuffer, '__init__'), (np.ndarray, 'tofile'), (OrderedDict, 'mean')])
def test_getattr_reaches_only_what_mmengine_saves(owner: Any, name: str, tmp_path: Path) -> None:
    file = tmp_path / 'reach.pth'
    torch.save(Call(getattr, HistoryBuffer, 'mean'), file)
    assert load_safely(file) is HistoryBuffer.mean
    torch.save(Call(getattr, owner, name), file)
    with pytest.raises(RuntimeError, match='refused to read .*reach.pth: it needs the global builtins.getattr'):
        load_safely(file)


@pytest.mark.parametrize('value', [np.float64(0.5), np.float32(0.5), np.int64(3), np.bool_(True), np.arange(3.0)])
@pytest.mark.parametrize('module', [b'numpy.core.', b'numpy._core.'])
def test_numpy_of_either_generation(module: bytes, value: Any, tmp_path: Path) -> None:
    file = tmp_path / 'numpy.pth'
    torch.save({'value': value}, file, _use_new_zipfile_serialization=False)  # a form that can be edited in place
    content = file.read_bytes()
    assert re.search(rb'numpy\._?core\.multiarray', content)
    file.write_bytes(re.sub(rb'numpy\._?core\.', module, content))
    loaded = load_safely(file)['value']
    assert type(loaded) is type(value) and np.array_equal(loaded, value)


def test_yacs_config_of_the_classification_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType('yacs.config')
    module.CfgNode = type('CfgNode', (dict,), {'__module__': 'yacs.config'})  # type: ignore[attr-defined]
    config = module.CfgNode(MODEL=module.CfgNode(NAME='intern_image'))
    config.__dict__['__immutable__'] = True
    file = tmp_path / 'ckpt_epoch_1.pth'
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, 'yacs', ModuleType('yacs'))
        patch.setitem(sys.modules, 'yacs.config', module)
        torch.save({'model': {}, 'config': config}, file)
    loaded = load_safely(file)['config']
    assert loaded == {'MODEL': {'NAME': 'intern_image'}} and type(loaded) is OrderedDict


def test_missing_file(tmp_path: Path) -> None:
    for path in (tmp_path / 'none.pth', tmp_path, 's3://bucket/none.pth'):
        with pytest.raises(FileNotFoundError, match=f'no checkpoint at {path}: expected a local file'):
            load_safely(path)


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
@pytest.mark.parametrize(
    'damage', [lambda data: data[:-100], lambda data: data[:7], lambda data: b'', lambda data: b'<html>']
)
def test_damaged_file(damage: Callable[[bytes], bytes], suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f'file{suffix}'
    (save_file if suffix == '.safetensors' else torch.save)({'a': torch.rand(100)}, file)
    assert load_safely(file)['a'].shape == (100,)
    file.write_bytes(damage(file.read_bytes()))
    message = rf'{file} \({file.stat().st_size} bytes\) could not be read: (.|\n)*fetch it again'
    with pytest.raises(RuntimeError, match=message):
        load_safely(file)


def test_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('HOME', str(tmp_path))
    torch.save({'a': 1}, tmp_path / 'a.pth')
    assert load_safely('~/a.pth') == {'a': 1}


# --- downloads --------------------------------------------------------------------------------------------------------


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """A web of a few files behind torch's downloader, with an empty cache."""
    pages: dict[str, bytes] = {}

    def download(url: str, dst: str, progress: bool) -> None:
        if url not in pages:
            raise OSError('HTTP Error 404: Not Found')
        Path(dst).write_bytes(pages[url])

    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    monkeypatch.setattr(torch.hub, 'download_url_to_file', download)
    return pages


def test_download_is_cached_and_safe(web: dict[str, bytes], tmp_path: Path) -> None:
    torch.save({'a': 1}, tmp_path / 'a.pth')
    url = 'https://example.org/models/a.pth?download=true'
    web[url] = (tmp_path / 'a.pth').read_bytes()
    assert load_safely(url) == {'a': 1}
    assert (tmp_path / 'hub' / 'checkpoints' / 'a.pth').is_file()
    del web[url]
    assert load_safely(url) == {'a': 1}

    torch.save(Call(os.mkdir, str(tmp_path / 'crater')), tmp_path / 'bomb.pth')
    web['http://example.org/bomb.pth'] = (tmp_path / 'bomb.pth').read_bytes()
    with pytest.raises(RuntimeError, match='refused to read'):
        load_safely('http://example.org/bomb.pth')
    assert not (tmp_path / 'crater').exists()


def test_failed_download(web: dict[str, bytes]) -> None:
    with pytest.raises(RuntimeError, match='could not download https://example.org/b.pth to .*b.pth: HTTP Error 404'):
        load_safely('https://example.org/b.pth')


# --- MMEngine ---------------------------------------------------------------------------------------------------------


class Line(BaseModel):
    """The smallest model that a runner trains."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 1)

    def forward(self, *inputs: Tensor, mode: str) -> Any:
        outputs = self.linear(torch.stack(inputs))
        return dict(loss=outputs.square().mean()) if mode == 'loss' else list(outputs)


class Half(BaseMetric):
    """A metric that returns numpy numbers, as many do."""

    default_prefix = 'half'

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results.append(0)

    def compute_metrics(self, results: list) -> dict:
        return dict(value=np.float64(0.5), other=np.float32(0.5))


def make_runner(work_dir: Path, epochs: int, **options: Any) -> Runner:
    data = dict(dataset=list(torch.rand(4, 3)), batch_size=2, sampler=dict(type='DefaultSampler', shuffle=False))
    schedule: list[dict] = [
        dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=2),
        dict(type='MultiStepLR', milestones=[1]),
        dict(type='OneCycleLR', eta_max=0.1, total_steps=20),
        dict(type='CosineAnnealingMomentum', T_max=2),
        dict(type='ReduceOnPlateauLR', monitor='half/value', rule='greater'),
    ]
    return Runner(
        Line(),
        str(work_dir),
        train_dataloader=data,
        val_dataloader=data,
        val_evaluator=dict(type=Half),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        val_cfg=dict(),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.1)),
        param_scheduler=schedule,
        custom_hooks=[dict(type='EMAHook')],
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', save_best='half/value', rule='greater')),
        experiment_name=f'{work_dir.name}_{epochs}',
        **options,
    )


def test_runner_round_trip(tmp_path: Path, schemes: None) -> None:
    set_up_mmengine()
    runner = make_runner(tmp_path, 1)
    runner.train()
    file = tmp_path / 'epoch_1.pth'

    checkpoint = load_safely(file)
    assert checkpoint.keys() == {
        'meta', 'state_dict', 'ema_state_dict', 'message_hub', 'optimizer', 'param_schedulers',
    }  # fmt: skip
    history = checkpoint['message_hub']['log_scalars']['train/loss']
    assert isinstance(history, HistoryBuffer) and history.mean() > 0
    assert type(checkpoint['message_hub']['runtime_info']['best_score']) is np.float64
    unsafe = set(torch.serialization.get_unsafe_globals_in_checkpoint(file))
    assert {'builtins.getattr', 'mmengine.logging.history_buffer.HistoryBuffer'} < unsafe  # plain weights_only fails

    resumed = make_runner(tmp_path, 2, resume=True, load_from=str(file))
    resumed.train()
    assert (resumed.epoch, resumed.iter) == (2, 4)
    assert len(resumed.message_hub.get_scalar('train/loss').data[0]) == 4


def test_registered_loader_serves_mmengine(
    tmp_path: Path, schemes: None, web: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(UNSAFE_LOAD_VARIABLE, raising=False)
    set_up_mmengine()
    set_up_mmengine()  # again does no harm
    bomb, good = tmp_path / 'bomb.pth', tmp_path / 'good.safetensors'
    torch.save(Call(os.mkdir, str(tmp_path / 'crater')), bomb)
    save_file({'a': torch.ones(2)}, good)
    web['https://example.org/bomb.pth'] = bomb.read_bytes()
    web['https://example.org/good.safetensors'] = good.read_bytes()
    for place in (f'{tmp_path}/', 'https://example.org/'):
        with pytest.raises(RuntimeError, match='refused to read'):
            CheckpointLoader.load_checkpoint(f'{place}bomb.pth', 'cpu')
        loaded = CheckpointLoader.load_checkpoint(f'{place}good.safetensors')
        assert loaded.keys() == {'meta', 'state_dict'} and torch.equal(loaded['state_dict']['a'], torch.ones(2))
    assert not (tmp_path / 'crater').exists()
    assert CheckpointLoader._get_checkpoint_loader('open-mmlab://resnet50').__module__ == 'mmengine.runner.checkpoint'


# --- the backbone's weights -------------------------------------------------------------------------------------------

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
    model = Line()
    model.backbone = source
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
    gammas = {name: torch.ones_like(t) for name, t in model.state_dict().items() if name.endswith(('gamma1', 'gamma2'))}
    assert len(gammas) == 10 and not report.missing
    assert_equal(model, source | gammas)
    assert log[0].endswith('; it has no layer scale, whose factors are 1 now')


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
    file, model = tmp_path / 'file.pth', make_backbone(2)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.save(content(), file)
    with pytest.raises(RuntimeError, match=message) as caught:
        load_pretrained_backbone(model, file)
    assert str(file) in str(caught.value)
    assert_equal(model, before)


@pytest.mark.parametrize('half, enough', [(0.45, False), (0.55, True)])
def test_half_is_counted_in_numbers(half: float, enough: bool, tmp_path: Path) -> None:
    model, file = make_backbone(2), tmp_path / 'file.pth'
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    kept, total = {}, 0
    for name, tensor in sorted(make_backbone(1).state_dict().items(), key=lambda item: -item[1].numel()):
        if total + sizes[name] <= half * sum(sizes.values()):
            kept[name] = tensor
            total += sizes[name]
    torch.save(kept, file)
    if enough:
        assert len(load_pretrained_backbone(model, file).matched) == len(kept)
    else:
        with pytest.raises(RuntimeError, match=r'holds only 4\d% of the parameters'):
            load_pretrained_backbone(model, file)
