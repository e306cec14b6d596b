"""Official files, converted by the tool or while they are loaded: the same weights, the same results."""

from __future__ import annotations

import gzip
import importlib
import json
import os
import pickle
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import CheckpointLoader
from safetensors.torch import save_file
from torch import Tensor, nn

from mmcv_custom import convert_state_dict
from mmcv_custom.checkpoint import CheckpointError, convert, load_safely
from mmcv_custom.cli import build_runner
from tests.mmcv.saved_files import assert_same
from tests.shrink import shrink
from tests.support import ROOT
from tools import convert_checkpoint, test, train

CONFIGS = {
    'dino': ROOT / 'configs/detection/coco/dino-4scale_internimage-t_8xb2-12e-layer-wise-lr_coco.py',
    'upernet': ROOT / 'configs/segmentation/ade20k/internimage-t_upernet_8xb2-160k_ade20k-512x512.py',
}
OFFICIAL_DINO = ROOT / 'tests/data/full_models/dino_4scale_internimage_t_1x_coco_layer_wise_lr.json.gz'
CLASSES = tuple('0123456789')
NECK = 'neck.convs.0.gn.weight'
Program = Callable[..., str]


@pytest.fixture(scope='module')
def configs(workplace: Path) -> dict[str, Path]:
    """A small DINO and a small UperNet, as files in the workplace."""
    paths = {}
    for name, path in CONFIGS.items():
        cfg = shrink(path, workplace / 'data/digits', lr=1e-3, iterations=2)
        cfg.log_level = 'INFO'
        paths[name] = workplace / f'small_{name}.py'
        cfg.dump(paths[name])
    return paths


def random_model(config: Path) -> nn.Module:
    cfg = Config.fromfile(config)
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model)
    model.init_weights()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    return model


def official_form(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of the conversion, which tests/mmcv/test_conversion.py tests."""
    listed = json.loads(gzip.decompress(OFFICIAL_DINO.read_bytes()))
    renamed = convert({name: torch.empty(shape, device='meta') for name, shape in listed}).renamed
    names = {new: old for old, new in renamed.items()}
    return {names.get(name, name): tensor for name, tensor in state.items()}


@pytest.fixture(scope='module')
def official(configs: dict[str, Path], workplace: Path) -> dict[str, Path]:
    """What MMCV 1 writes in training: see its ``save_checkpoint`` and the ``meta`` of mmdet 2 and mmseg 0."""
    paths = {}
    for name, config in configs.items():
        model = random_model(config)
        state = official_form(model.state_dict()) if name == 'dino' else model.state_dict()
        optimizer = torch.optim.AdamW(model.parameters())
        sum(parameter.sum() for parameter in model.parameters()).backward()
        optimizer.step()
        meta = dict(
            CLASSES=CLASSES if name == 'dino' else ('background', *CLASSES),
            PALETTE=[[index, 0, 0] for index in range(11)],
            config="model = dict(type='DINO')\n",
            env_info='Python: 3.7',
            epoch=12,
            exp_name='official.py',
            hook_msgs=dict(best_score=0.5, best_ckpt='epoch_12.pth'),
            iter=87960,
            mmcv_version='1.5.0',
            seed=0,
            time='Thu Nov 10 00:00:00 2022',
        )
        paths[name] = workplace / f'official_{name}.pth'
        torch.save(dict(meta=meta, state_dict=state, optimizer=optimizer.state_dict()), paths[name])
    return paths


@pytest.fixture
def call(workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Program]:
    """Calls a program's ``main`` in the workplace, and returns what it printed."""
    monkeypatch.chdir(workplace)

    def start(program: Any, *arguments: str | Path) -> str:
        monkeypatch.setattr('sys.argv', [program.__name__, *map(str, arguments)])
        capsys.readouterr()
        program.main()
        return capsys.readouterr().out

    yield start


def fails(call: Program, message: str, *arguments: Any) -> None:
    with pytest.raises(SystemExit) as caught:
        call(*arguments)
    assert re.search(message, str(caught.value)), caught.value
    assert str(caught.value).startswith('error: ') and '\n' not in str(caught.value)


def in_order(content: dict[str, Any]) -> list[tuple[str, Tensor]]:
    return sorted(content['state_dict'].items())


# --- the tool ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
@pytest.mark.parametrize('name', CONFIGS)
def test_a_converted_file(
    name: str, suffix: str, call: Program, configs: dict[str, Path], official: dict[str, Path], tmp_path: Path
) -> None:
    target = tmp_path / 'new folder' / f'converted{suffix}'
    printed = call(convert_checkpoint, official[name], target, '--config', configs[name])
    assert f'fits the model of {configs[name]}' in printed and f'wrote {target}' in printed
    assert [path.name for path in target.parent.iterdir()] == [target.name]  # no draft is left
    assert target.stat().st_mode & 0o777 == (tmp_path / 'new folder').stat().st_mode & 0o666

    source, written = load_safely(official[name]), load_safely(target)
    assert_same(in_order(written), sorted(convert_state_dict(source['state_dict']).items()))
    meta = written['meta']
    assert list(meta['dataset_meta']['classes']) == list(source['meta']['CLASSES'])
    assert meta['dataset_meta']['palette'] == source['meta']['PALETTE']
    assert Config.fromstring(meta['cfg_text'], '.py').model == Config.fromfile(configs[name]).model
    assert 'mmengine_version' in meta and meta['converted_from'] == official[name].name

    again = tmp_path / 'again.safetensors'
    assert ' 0 renamed' in call(convert_checkpoint, target, again)
    assert_same(in_order(load_safely(again)), in_order(written))


def test_the_report(call: Program, official: dict[str, Path], configs: dict[str, Path], tmp_path: Path) -> None:
    printed = call(convert_checkpoint, official['dino'], tmp_path / 'a.pth')
    model = random_model(configs['dino'])
    first, title, *rows, last, _ = printed.splitlines()
    assert re.fullmatch(r'DINO: \d+ tensors, \d+ renamed', first)
    assert title.split() == ['module', 'tensors', 'parameters', 'renamed']
    counts = {row.split()[0]: [int(number.replace(',', '')) for number in row.split()[-3:]] for row in [*rows, last]}
    for module in ('backbone', 'neck', 'bbox_head', 'encoder', 'decoder', 'query_embedding'):
        part = model.get_submodule(module)
        tensors = len(part.state_dict())
        renamed = 0 if module in ('backbone', 'neck', 'bbox_head') else tensors
        assert counts[module] == [tensors, sum(parameter.numel() for parameter in part.parameters()), renamed]
    *parts, total = counts.values()
    assert total == [sum(column) for column in zip(*parts, strict=True)]
    assert total[1] == sum(parameter.numel() for parameter in model.parameters())


def test_mistakes_get_one_clear_line(
    call: Program, official: dict[str, Path], configs: dict[str, Path], tmp_path: Path
) -> None:
    source, target = official['dino'], tmp_path / 'target.pth'
    content = load_safely(source)
    state = content['state_dict']
    files = {
        'truncated': source.read_bytes()[:-1000],
        'classification': {'model': {name[9:]: state[name] for name in state if name.startswith('backbone.')}},
        'unknown': {'state_dict': {'backbone.conv1.weight': torch.ones(1), 'bbox_head.fc.weight': torch.ones(1)}},
        'mixed': state | {'module.neck.bias': torch.ones(1)},
        'list': [1, 2],
    }
    for name, value in files.items():
        torch.save(value, tmp_path / f'{name}.pth')
    (tmp_path / 'truncated.pth').write_bytes(files['truncated'])
    messages = {
        'truncated': r'truncated.pth \(\d+ bytes\) could not be read',
        'classification': 'cannot convert .*classification.pth: it holds a backbone only .*init_cfg',
        'unknown': 'cannot convert .*unknown.pth: it is of no known family',
        'mixed': 'cannot convert .*mixed.pth: mixed prefixes',
        'list': 'cannot convert .*list.pth: expected a mapping of names to tensors, got list',
        'absent': 'there is no checkpoint .*absent.pth',
    }
    for name, message in messages.items():
        fails(call, message, convert_checkpoint, tmp_path / f'{name}.pth', target)
    fails(call, 'expected a local file', convert_checkpoint, 's3://bucket/a.pth', target)
    fails(
        call, r'must end in .pth or .safetensors, got .*target.bin', convert_checkpoint, source, tmp_path / 'target.bin'
    )
    fails(call, 'there is no config file no.py', convert_checkpoint, source, target, '--config', 'no.py')
    fails(
        call,
        r'not those of the model of .*small_upernet.py: \d+ tensors are missing \(.* are unknown to the model',
        *(convert_checkpoint, source, target, '--config', configs['upernet']),
    )
    state['bbox_head.cls_branches.0.bias'] = torch.ones(3)
    torch.save(content, tmp_path / 'other_classes.pth')
    fails(
        call,
        r'1 tensors are of another shape \(bbox_head.cls_branches.0.bias: \(3,\) for \(10,\)\)',
        *(convert_checkpoint, tmp_path / 'other_classes.pth', target, '--config', configs['dino']),
    )
    whole = {name: tensor.to(torch.int8) for name, tensor in load_safely(source)['state_dict'].items()}
    torch.save({'meta': content['meta'], 'state_dict': whole}, tmp_path / 'quantized.pth')
    quantized = [convert_checkpoint, tmp_path / 'quantized.pth', target, '--config', configs['dino']]
    fails(call, r'does not hold real numbers in \d+ tensors .*torch.int8', *quantized)
    assert not list(tmp_path.glob('*target*'))


def test_a_check_that_was_asked_for_is_made(call: Program, official: dict[str, Path], tmp_path: Path) -> None:
    """Also with a config that holds nothing."""
    (tmp_path / 'empty.py').write_text('')
    arguments = [convert_checkpoint, official['dino'], tmp_path / 'target.pth', '--config']
    fails(call, 'empty.py holds no model to check the weights against', *arguments, tmp_path / 'empty.py')
    fails(call, 'there is no config file', *arguments, '')
    assert not (tmp_path / 'target.pth').exists()


@pytest.mark.parametrize(
    'value', [torch.ones(10, device='meta'), torch.ones(10).to_sparse(), torch.full((10,), torch.nan)]
)
def test_weights_without_values_are_not_converted(
    value: Tensor, call: Program, official: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = 'bbox_head.cls_branches.0.bias'
    content = load_safely(official['dino'])
    content['state_dict'][name] = value
    torch.save(content, tmp_path / 'hollow.pth')
    monkeypatch.setenv('MM_INTERNIMAGE_UNSAFE_LOAD', '1')  # else most of them are not even read
    target = tmp_path / 'target.pth'
    fails(call, rf'hollow.pth.* \(?{name}', convert_checkpoint, tmp_path / 'hollow.pth', target)
    assert not target.exists()


def test_a_buffer_may_be_infinite(
    call: Program, official: dict[str, Path], configs: dict[str, Path], tmp_path: Path
) -> None:
    content, source, target = load_safely(official['upernet']), tmp_path / 'source.pth', tmp_path / 'target.pth'
    name = 'decode_head.lateral_convs.0.bn.running_var'
    for value in (torch.inf, torch.nan):
        content['state_dict'][name].fill_(value)
        torch.save(content, source)
        for options in ([], ['--config', configs['upernet']]):
            arguments = [convert_checkpoint, source, target, '--force', *options]
            if value == torch.inf:
                call(*arguments)
            else:
                fails(call, rf'source.pth holds NaN or infinite numbers in 1 tensors \({name}\)', *arguments)


def test_a_config_in_the_file_is_left_behind(
    call: Program, official: dict[str, Path], configs: dict[str, Path], tmp_path: Path
) -> None:
    """MMEngine would run it. A converted file has the config of --config, or none."""
    content = load_safely(official['dino'])
    content['meta'] |= dict(cfg='import os', config='import os')
    torch.save(content, tmp_path / 'foreign.pth')
    call(convert_checkpoint, tmp_path / 'foreign.pth', tmp_path / 'a.pth')
    assert not {'cfg_text', 'config_text'} & load_safely(tmp_path / 'a.pth')['meta'].keys()
    call(convert_checkpoint, tmp_path / 'foreign.pth', tmp_path / 'b.pth', '--config', configs['dino'])
    written = load_safely(tmp_path / 'b.pth')['meta']['cfg_text']
    assert Config.fromstring(written, '.py').model == Config.fromfile(configs['dino']).model


def test_an_existing_file_is_overwritten_only_by_force(
    call: Program, official: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / 'target.safetensors'
    target.write_text('precious')
    fails(call, 'target.safetensors exists already; --force', convert_checkpoint, official['dino'], target)
    with monkeypatch.context() as patch:
        patch.setattr(convert_checkpoint, 'save_file', lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):  # a full disk, perhaps
            call(convert_checkpoint, official['dino'], target, '--force')
    assert target.read_text() == 'precious' and len(list(tmp_path.iterdir())) == 1
    call(convert_checkpoint, official['dino'], target, '--force')
    assert len(load_safely(target)['state_dict']) > 100
    os.mkfifo(tmp_path / 'pipe.pth')
    fails(call, 'pipe.pth is no regular file', convert_checkpoint, official['dino'], tmp_path / 'pipe.pth', '--force')


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_tied_and_coarse_weights(suffix: str, call: Program, official: dict[str, Path], tmp_path: Path) -> None:
    """Checkpoints of models whose heads share weights, and of 8 bits."""
    state = load_safely(official['dino'])['state_dict']
    state['bbox_head.cls_branches.1.bias'] = state['bbox_head.cls_branches.0.bias']
    state[NECK] = state[NECK].to(torch.float8_e4m3fn)
    torch.save(state, tmp_path / 'tied.pth')
    call(convert_checkpoint, tmp_path / 'tied.pth', tmp_path / f'target{suffix}')
    written = load_safely(tmp_path / f'target{suffix}')['state_dict']
    for name, tensor in convert_state_dict(state).items():
        assert written[name].dtype is tensor.dtype and torch.equal(written[name], tensor), name


def test_what_json_cannot_hold_needs_a_pth_file(call: Program, official: dict[str, Path], tmp_path: Path) -> None:
    content = load_safely(official['dino'])
    content['meta'] |= dict(mmcv_version='1.7', CLASSES=CLASSES, PALETTE=b'abc')
    torch.save(content, tmp_path / 'odd.pth')
    target = tmp_path / 'target.safetensors'
    fails(call, 'cannot hold the dataset_meta .*: write a .pth', convert_checkpoint, tmp_path / 'odd.pth', target)
    assert len(list(tmp_path.iterdir())) == 1
    call(convert_checkpoint, tmp_path / 'odd.pth', target.with_suffix('.pth'))
    assert load_safely(target.with_suffix('.pth'))['meta']['dataset_meta']['palette'] == b'abc'


# --- on the fly -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('name', CONFIGS)
def test_an_official_file_gives_the_results_of_the_converted_one(
    name: str, call: Program, configs: dict[str, Path], official: dict[str, Path], workplace: Path
) -> None:
    converted = workplace / f'converted_{name}.safetensors'
    call(convert_checkpoint, official[name], converted)
    results = {}
    for form, checkpoint in (('official', official[name]), ('converted', converted)):
        work_dir = workplace / f'{form}_{name}'
        options = ['--work-dir', work_dir, '--out', work_dir / 'out.pkl']
        # MMEngine names an experiment after the second in which it starts, and two of one name share a log.
        call(test, configs[name], checkpoint, *options, '--cfg-options', f'experiment_name={form}_{name}')
        results[form] = pickle.loads((work_dir / 'out.pkl').read_bytes())
        family = {'dino': 'DINO', 'upernet': 'UperNet'}[name]
        note = rf'converted {official[name]}: {family}: \d+ tensors, \d+ renamed'
        assert bool(re.search(note, max(work_dir.glob('*/*.log')).read_text())) is (form == 'official')
    assert len(results['official']) == 8
    assert_same(results['official'], results['converted'])
    if name == 'dino':
        assert all(len(result['pred_instances']['scores']) for result in results['official'])


@pytest.mark.parametrize('name', CONFIGS)
def test_training_starts_from_an_official_file(
    name: str, configs: dict[str, Path], official: dict[str, Path], tmp_path: Path
) -> None:
    cfg = Config.fromfile(configs[name])
    cfg.merge_from_dict(dict(work_dir=str(tmp_path), load_from=str(official[name])))
    runner = build_runner(cfg)
    runner.load_or_resume()
    assert_same(dict(runner.model.state_dict()), convert_state_dict(load_safely(official[name])['state_dict']))


def test_a_training_of_mmcv_1_cannot_go_on(
    call: Program, configs: dict[str, Path], official: dict[str, Path], workplace: Path
) -> None:
    source = official['upernet']
    message = f'cannot resume from {source}: it holds weights, but no training by MMEngine .* load_from'
    fails(call, message, train, configs['upernet'], '--resume', source, '--work-dir', workplace / 'resumed')


def test_weights_that_do_not_fill_the_model_are_not_evaluated(
    call: Program, configs: dict[str, Path], official: dict[str, Path], workplace: Path
) -> None:
    state = dict(load_safely(official['upernet'])['state_dict'])
    arguments = [test, configs['upernet'], 'odd.pth', '--work-dir', workplace / 'odd']
    harmless = {f'module.{name}': state[name] for name in state if not name.endswith('num_batches_tracked')}
    torch.save(harmless | {'module.useless': torch.ones(1)}, workplace / 'odd.pth')
    call(*arguments)

    name = 'decode_head.conv_seg.bias'
    torch.save({other: tensor for other, tensor in state.items() if other != name}, workplace / 'odd.pth')
    fails(call, rf'odd.pth does not fill EncoderDecoder: 1 tensors are missing \({name}\); was', *arguments)
    torch.save(state | {name: torch.ones(3)}, workplace / 'odd.pth')
    fails(call, rf'EncoderDecoder: 1 tensors are of another shape \({name}: \(3,\) for \(11,\)\)', *arguments)
    arguments[2] = official['dino']
    fails(call, r'official_dino.pth does not fill EncoderDecoder: \d+ tensors are missing .* unknown', *arguments)


@pytest.mark.parametrize('form', ['official', 'converted'])
@pytest.mark.parametrize('name', CONFIGS)
def test_apis_of_mmdet_and_mmseg(
    name: str, form: str, call: Program, configs: dict[str, Path], official: dict[str, Path], tmp_path: Path
) -> None:
    checkpoint = official[name]
    if form == 'converted':
        checkpoint = tmp_path / 'converted.safetensors'
        call(convert_checkpoint, official[name], checkpoint)
    module, function = {'dino': ('mmdet.apis', 'init_detector'), 'upernet': ('mmseg.apis', 'init_model')}[name]
    model = getattr(importlib.import_module(module), function)(str(configs[name]), str(checkpoint), device='cpu')
    source = load_safely(official[name])
    assert list(model.dataset_meta['classes']) == list(source['meta']['CLASSES'])
    assert 'palette' in model.dataset_meta
    assert_same(dict(model.state_dict()), convert_state_dict(source['state_dict']))


def test_mmengine_reads_through_the_conversion(official: dict[str, Path], tmp_path: Path) -> None:
    loaded = CheckpointLoader.load_checkpoint(str(official['dino']), 'cpu')
    assert set(loaded) == {'meta', 'state_dict'} and 'level_embed' in loaded['state_dict']
    state = load_safely(official['dino'])['state_dict']
    mixed = tmp_path / 'mixed.safetensors'
    save_file({**state, 'level_embed': torch.ones(1)}, mixed)
    with pytest.raises(CheckpointError, match='cannot convert .*mixed.safetensors: half converted'):
        CheckpointLoader.load_checkpoint(str(mixed))
