"""What genuine checkpoints hold is read as torch reads it without care."""

from __future__ import annotations

import re
import sys
from argparse import Namespace
from collections import OrderedDict, defaultdict
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.evaluator import BaseMetric
from mmengine.logging import HistoryBuffer
from mmengine.optim import AmpOptimWrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from mmcv_custom.checkpoint import load_safely
from mmcv_custom.checkpoint.contents import configs_to_text, drop_foreign_paths
from mmcv_custom.mmengine_setup import set_up_mmengine
from tests.mmcv.saved_files import assert_same
from tests.mmcv.tiny_training import Line
from tests.support import DATA


class Half(BaseMetric):
    """A metric that returns numpy numbers, as many do."""

    default_prefix = 'half'

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results.append(0)

    def compute_metrics(self, results: list) -> dict:
        return dict(value=np.float64(0.5), other=np.float32(0.5))


def make_runner(
    work_dir: Path, epochs: int, optimizer: dict | None = None, schedule: list[dict] | None = None, **options: Any
) -> Runner:
    data = dict(dataset=list(torch.rand(4, 3)), batch_size=2, sampler=dict(type='DefaultSampler', shuffle=False))
    schedule = schedule or [
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
        optim_wrapper=dict(optimizer=optimizer or dict(type='AdamW', lr=0.1)),
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


OPTIMIZERS = ['SGD', 'Adam', 'AdamW', 'RMSprop', 'Adagrad', 'Adadelta', 'Adamax', 'NAdam', 'RAdam', 'ASGD', 'Rprop']
SCHEDULERS: dict[str, dict] = {
    'ConstantLR': {},
    'CosineAnnealingLR': dict(T_max=2),
    'CosineRestartLR': dict(periods=[1, 1], restart_weights=[1, 1], eta_min=0.0),
    'ExponentialLR': dict(gamma=0.9),
    'LinearLR': {},
    'LinearMomentum': {},
    'MultiStepLR': dict(milestones=[1]),
    'MultiStepMomentum': dict(milestones=[1]),
    'OneCycleLR': dict(eta_max=0.1, total_steps=20),
    'PolyLR': {},
    'PolyMomentum': {},
    'StepLR': dict(step_size=1),
}


def assert_read_as_torch_reads_it(file: Path) -> None:
    """But for configs, which become text, and for paths that would be deleted."""
    genuine = torch.load(file, weights_only=False)
    configs_to_text(genuine)
    drop_foreign_paths(genuine, file)
    assert_same(load_safely(file), genuine)


@pytest.mark.parametrize('legacy', [False, True], ids=['zip', 'legacy'])
@pytest.mark.parametrize('optimizer', OPTIMIZERS)
def test_training_states_of_mmengine(optimizer: str, legacy: bool, tmp_path: Path) -> None:
    """All optimizers, with all schedulers that suit them and their states, histories and the average of weights."""
    momentum = optimizer in ('SGD', 'Adam', 'AdamW')
    schedule = [dict(type=name, **SCHEDULERS[name]) for name in SCHEDULERS if momentum or 'Momentum' not in name]
    options = dict(momentum=0.9) if optimizer == 'SGD' else {}
    runner = make_runner(tmp_path, 1, dict(type=optimizer, lr=0.01, **options), schedule)
    runner.train()
    file = tmp_path / 'epoch_1.pth'
    torch.save(torch.load(file, weights_only=False), file, _use_new_zipfile_serialization=not legacy)
    assert_read_as_torch_reads_it(file)


RECORDED = DATA / 'checkpoints'


@pytest.mark.parametrize('legacy', [False, True], ids=['zip', 'legacy'])
@pytest.mark.parametrize('name', ['mmengine_0.10.7', 'mmcv_1.7.2'])
def test_recorded_checkpoints(name: str, legacy: bool, tmp_path: Path) -> None:
    assert_read_as_torch_reads_it(RECORDED / f'{name}.pth')
    torch.save(
        torch.load(RECORDED / f'{name}.pth', weights_only=False),
        tmp_path / 'again.pth',
        _use_new_zipfile_serialization=not legacy,
    )
    assert_read_as_torch_reads_it(tmp_path / 'again.pth')


def test_upstream_mmengine_is_resumed(tmp_path: Path, schemes: None) -> None:
    set_up_mmengine()
    file = RECORDED / 'mmengine_0.10.7.pth'
    recorded = load_safely(file)
    assert recorded['meta']['cfg_text'].startswith("note = 'written by upstream MMEngine'")
    assert recorded['meta']['dataset_meta'] == {'classes': ('a', 'b'), 'palette': [(1, 2, 3), (4, 5, 6)]}
    assert recorded['optimizer']['loss_scaler']['scale'] == 512
    assert recorded['ema_state_dict']['steps'] == 4

    schedule = [
        *(dict(type='LinearLR'), dict(type='MultiStepLR', milestones=[1]), dict(type='CosineAnnealingLR', T_max=20)),
        *(dict(type='PolyLR'), dict(type='OneCycleLR', eta_max=0.1, total_steps=20)),
        dict(type='CosineAnnealingMomentum', T_max=2),
        dict(type='ReduceOnPlateauLR', monitor='half/value', rule='greater'),
    ]
    runner = make_runner(tmp_path, 3, schedule=schedule, resume=True, load_from=str(file))
    runner.train()
    assert (runner.epoch, runner.iter) == (3, 6)
    before = recorded['message_hub']['log_scalars']['train/loss'].data[0].tolist()
    after = runner.message_hub.get_scalar('train/loss').data[0].tolist()
    assert len(before) == 4 and len(after) == 6 and after[:4] == before
    assert runner.param_schedulers[0]._global_step == 6
    assert load_safely(tmp_path / 'epoch_3.pth')['ema_state_dict']['steps'] == 6


def test_the_old_official_form() -> None:
    """As mmcv 1 saves it, which the official training code uses."""
    recorded = load_safely(RECORDED / 'mmcv_1.7.2.pth')
    assert recorded.keys() == {'meta', 'state_dict', 'optimizer'}
    assert recorded['meta']['config_text'] == "model = dict(type='Line')\n" and 'config' not in recorded['meta']
    assert recorded['meta']['CLASSES'] == ('a', 'b') and recorded['meta']['epoch'] == 1
    assert recorded['state_dict']._metadata['norm'] == {'version': 2}
    assert recorded['optimizer']['state'][0]['exp_avg'].shape == (3, 3)


def test_scaler_of_mixed_precision(tmp_path: Path) -> None:
    optimizer = torch.optim.SGD(nn.Linear(2, 2).parameters(), 0.1)
    wrapper = AmpOptimWrapper.__new__(AmpOptimWrapper)  # its constructor needs a GPU
    super(AmpOptimWrapper, wrapper).__init__(optimizer)
    wrapper.loss_scaler = torch.amp.GradScaler('cpu')
    state = {'optimizer': wrapper.state_dict()}
    torch.save(state, tmp_path / 'a.pth')
    assert_same(load_safely(tmp_path / 'a.pth'), state)
    assert 'loss_scaler' in state['optimizer']


VALUES: dict[str, Any] = {
    'a view': torch.rand(3, 4)[1:, :2],
    'transposed': torch.rand(3, 4).T,
    'no numbers': torch.zeros(0, 3),
    'one number': torch.tensor(3.0),
    'truth values': torch.tensor([True, False]),
    'bfloat16': torch.ones(2, dtype=torch.bfloat16),
    'uint16': torch.ones(2, dtype=torch.uint16),
    'complex': torch.ones(2, dtype=torch.complex64),
    'a parameter': nn.Parameter(torch.ones(2)),
    'versions of modules': nn.BatchNorm2d(2).state_dict(),
    'no history': HistoryBuffer(),
    'an array in Fortran order': np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    'truth values of numpy': np.array([True, False]),
    'no numbers of numpy': np.zeros((0, 3)),
    'plain values': [
        None,
        True,
        1,
        -(2**40),
        1.5,
        1j,
        'a',
        b'',
        b'a',
        bytearray(b'a'),
        (1,),
        {1, 'a'},
        {1.5: 3, np.int64(4): 5},
    ],
    'numbers': range(3, 9, 2),
    'a frozen set': frozenset({1, 'a'}),
    'default dicts': [defaultdict(kind, {'a': 1}) for kind in (list, int, float, dict, set, str, None)],
    'a namespace': Namespace(lr=0.1, names=['a'], of=Namespace()),
    'texts of numpy': [np.str_('caf\u00e9 \U0001f600'), np.str_(''), {np.str_('a'): 1}],
    'torch': [torch.float16, torch.Size([1, 2]), torch.device('cuda', 1), torch.device('cpu')],
}


@pytest.mark.parametrize('legacy', [False, True], ids=['zip', 'legacy'])
@pytest.mark.parametrize('name', VALUES)
def test_values_of_genuine_files(name: str, legacy: bool, tmp_path: Path) -> None:
    content = {'value': VALUES[name], 'again': VALUES[name], 'meta': {}}
    torch.save(content, tmp_path / 'a.pth', _use_new_zipfile_serialization=not legacy)
    loaded = load_safely(tmp_path / 'a.pth')
    assert_same(loaded, content)
    assert loaded['value'] is loaded['again'] or not isinstance(VALUES[name], Tensor)
    if name == 'versions of modules':
        assert loaded['value']._metadata == VALUES[name]._metadata


@pytest.mark.parametrize('name', VALUES)
def test_values_in_protocol_3(name: str, tmp_path: Path) -> None:
    torch.save({'value': VALUES[name]}, tmp_path / 'a.pth', pickle_protocol=3)
    assert_same(load_safely(tmp_path / 'a.pth'), {'value': VALUES[name]})


def test_default_dicts_keep_their_factory(tmp_path: Path) -> None:
    torch.save([defaultdict(kind) for kind in (list, int, str)], tmp_path / 'a.pth')
    assert [loaded['new'] for loaded in load_safely(tmp_path / 'a.pth')] == [[], 0, '']


def test_config_dicts_become_dicts(tmp_path: Path) -> None:
    torch.save(ConfigDict(classes=('a', 'b'), extra=dict(a=[dict(b=1)])), tmp_path / 'a.pth')
    loaded = load_safely(tmp_path / 'a.pth')
    assert loaded == {'classes': ('a', 'b'), 'extra': {'a': [{'b': 1}]}}
    assert type(loaded) is type(loaded['extra']) is type(loaded['extra']['a'][0]) is dict


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
