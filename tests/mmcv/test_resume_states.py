"""Averaged weights, optimizers and schedules go on where they stopped, or the log says what differs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIMIZERS

from mmcv_custom import PortableRunner
from mmcv_custom.checkpoint import CheckpointError, load_safely
from mmcv_custom.engine import resume
from tests.mmcv.test_genuine_checkpoints import SCHEDULERS
from tests.mmcv.test_resume import NAN, Content, drop, put
from tests.mmcv.tiny_training import runner

EMA: dict[str, Any] = dict(custom_hooks=[dict(type='EMAHook', momentum=0.1)])
AVERAGE = ('ema_state_dict', 'module.head.weight')
BROKEN_AVERAGES: dict[str, tuple[Callable[[Content], None], str]] = {
    'half': (drop(*AVERAGE), r'in its ema_state_dict 1 tensors are missing \(module.head.weight\)'),
    'empty': (put({}, 'ema_state_dict'), r'in its ema_state_dict 5 tensors are missing \(steps, module.ba'),
    'foreign': (put({'x': torch.zeros(1)}, 'ema_state_dict'), r'1 tensors are unknown to the model \(x\)'),
    'one more': (put(torch.zeros(1), 'ema_state_dict', 'x'), r'1 tensors are unknown to the model \(x\)'),
    'one more text': (put('a', 'ema_state_dict', 'x'), 'its ema_state_dict holds other entries: x'),
    'text': (put('abc', 'ema_state_dict'), 'its ema_state_dict is damaged: expected a mapping .* got str'),
    'nothing': (put(None, 'ema_state_dict'), 'its ema_state_dict is damaged: expected a mapping .* got NoneType'),
    'another shape': (put(torch.zeros(7), *AVERAGE), r'module.head.weight: \(7,\) for \(1, 3\)'),
    'NaN': (put(torch.full((1, 3), NAN), *AVERAGE), r'NaN or infinite numbers in 1 tensors \(module.head.weight\)'),
    'infinity': (put(torch.full((1, 3), float('inf')), *AVERAGE), 'NaN or infinite numbers in 1 tensors'),
    'whole numbers': (put(torch.ones(1, 3).int(), *AVERAGE), 'holds torch.int32 for module.head.weight, expected torc'),
    'negative steps': (put(torch.tensor(-5), 'ema_state_dict', 'steps'), 'its ema_state_dict counts -5 steps'),
    'half a step': (put(torch.tensor(1.5), 'ema_state_dict', 'steps'), 'holds torch.float32 for steps, expected torch'),
    'NaN in the average': (
        put(torch.full((1, 3), NAN), 'state_dict', 'head.weight'), 'its averaged state_dict holds NaN or infinite num',
    ),
    'half an average': (drop('state_dict', 'head.weight'), 'head.weight'),
    'a number for steps': (put(5, 'ema_state_dict', 'steps'), r'1 tensors are missing \(steps\)'),
}  # fmt: skip


@pytest.fixture(scope='module')
def averaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('averaged')
    runner(folder, 4, interval=2, **EMA).train()
    return folder


@pytest.mark.parametrize('change, message', BROKEN_AVERAGES.values(), ids=BROKEN_AVERAGES)
def test_averaged_weights_must_be_whole(
    change: Callable[[Content], None], message: str, averaged: Path, tmp_path: Path
) -> None:
    content = load_safely(averaged / 'iter_2.pth')
    change(content)
    torch.save(content, tmp_path / 'odd.pth')
    training = runner(tmp_path / 'work', 4, resume=True, load_from=str(tmp_path / 'odd.pth'), **EMA)
    with pytest.raises(CheckpointError, match=message) as caught:
        training.train()
    assert 'odd.pth' in str(caught.value) and '\n' not in str(caught.value)
    if 'average' in message or change is BROKEN_AVERAGES['half an average'][0]:
        return
    without = runner(tmp_path / 'without', 2, resume=True, load_from=str(tmp_path / 'odd.pth'))
    without.load_or_resume()  # no hook reads it
    assert without.iter == 2


def test_averaged_weights_go_on(averaged: Path, trained: Path, tmp_path: Path) -> None:
    """The average ends where one without a break ends. A config may also add an average later."""
    runner(tmp_path / 'resumed', 4, resume=True, load_from=str(averaged / 'iter_2.pth'), **EMA).train()
    one, other = (load_safely(folder / 'iter_4.pth') for folder in (averaged, tmp_path / 'resumed'))
    for part in ('state_dict', 'ema_state_dict'):
        for name, tensor in one[part].items():
            torch.testing.assert_close(other[part][name], tensor, rtol=0, atol=0)
    added = runner(tmp_path / 'added', 5, resume=True, load_from=str(trained / 'iter_4.pth'), **EMA)
    added.train()
    assert load_safely(tmp_path / 'added' / 'iter_5.pth')['ema_state_dict']['steps'] == 1


def test_an_optimizer_without_state_goes_on(tmp_path: Path) -> None:
    plain = dict(optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)))
    runner(tmp_path, 1, **plain).train()
    resumed = runner(tmp_path, 2, resume=True, **plain)
    resumed.train()
    assert resumed.iter == 2
    momentum = runner(tmp_path, 3, resume=True, optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9)))
    with pytest.raises(CheckpointError, match='its optimizer has no state for 4 of 4 trained tensors'):
        momentum.train()


@pytest.mark.parametrize('iterations', [4, 8])
def test_accumulated_gradients_go_on(iterations: int, tmp_path: Path) -> None:
    """Before the first step of the optimizer there is no state yet; after it, there must be."""
    wrapper = dict(optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.1), accumulative_counts=8))
    first = runner(tmp_path, 20, interval=4, **wrapper)
    first.train_loop._max_iters = iterations + 1  # else the last iteration makes a step in any case
    first.train()
    file = tmp_path / f'iter_{iterations}.pth'
    content = load_safely(file)
    assert bool(content['optimizer']['state']) == (iterations == 8)
    resumed = runner(tmp_path / 'resumed', 20, interval=20, resume=True, load_from=str(file), **wrapper)
    resumed.train()
    assert resumed.iter == 20

    content['optimizer']['state'] = {}
    torch.save(content, tmp_path / 'odd.pth')
    odd = runner(tmp_path / 'odd', 20, resume=True, load_from=str(tmp_path / 'odd.pth'), **wrapper)
    if iterations == 8:
        with pytest.raises(CheckpointError, match='its optimizer has no state for 4 of 4 trained tensors'):
            odd.train()
    else:
        odd.load_or_resume()


def test_an_empty_parameter_group(tmp_path: Path) -> None:
    def training(iterations: int, **options: Any) -> PortableRunner:
        made = runner(tmp_path, iterations, param_scheduler=[], **options)
        groups = [dict(params=[]), dict(params=[*made.model.parameters()])]
        made.optim_wrapper = OptimWrapper(torch.optim.AdamW(groups, lr=0.1))
        return made

    training(1).train()
    resumed = training(2, resume=True)
    resumed.train()
    assert resumed.iter == 2
    content = load_safely(tmp_path / 'iter_2.pth')
    content['optimizer']['state'][0]['exp_avg'] = torch.ones(7)
    torch.save(content, tmp_path / 'odd.pth')
    odd = training(3, resume=True, load_from=str(tmp_path / 'odd.pth'))
    with pytest.raises(CheckpointError, match='of another shape or not finite'):
        odd.train()


class Plain(torch.optim.Optimizer):
    """An optimizer from elsewhere without state for parameters. It counts steps in its groups, as LAMB does."""

    def __init__(self, params: Any, lr: float = 0.1, d: float = 1.0) -> None:
        super().__init__(params, dict(lr=lr, d=d, flag=False))

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            group['step'] = group.get('step', 0) + 1
            group['d'] *= 2
            for parameter in group['params']:
                parameter.add_(parameter.grad, alpha=-group['lr'] / group['step'])


@pytest.fixture
def plain_optimizer() -> Iterator[dict]:
    OPTIMIZERS.register_module(module=Plain)
    yield dict(optim_wrapper=dict(optimizer=dict(type='Plain')))
    OPTIMIZERS.module_dict.pop('Plain')


def test_state_in_parameter_groups_goes_on(plain_optimizer: dict, tmp_path: Path) -> None:
    """It ends where a training without a break ends; what is no number is the config's."""
    runner(tmp_path, 4, **plain_optimizer).train()
    content = load_safely(tmp_path / 'iter_2.pth')
    (group,) = content['optimizer']['param_groups']
    assert (group['step'], group['d']) == (2, 4)
    group.update(flag=True, note='a')
    torch.save(content, tmp_path / 'odd.pth')
    resumed = runner(tmp_path / 'b', 4, resume=True, load_from=str(tmp_path / 'odd.pth'), **plain_optimizer)
    resumed.train()
    one, other = (load_safely(folder / 'iter_4.pth') for folder in (tmp_path, tmp_path / 'b'))
    torch.testing.assert_close(one['state_dict'], other['state_dict'], rtol=0, atol=0)
    (group,) = resumed.optim_wrapper.optimizer.param_groups
    assert (group['step'], group['d'], group['flag']) == (4, 16, False) and 'note' not in group


@pytest.mark.parametrize('kind, state', [('SGD', 'momentum_buffer'), ('RMSprop', 'square_avg, step')])
def test_another_optimizer_is_named(kind: str, state: str, trained: Path, tmp_path: Path) -> None:
    other = dict(type=kind, lr=0.1, momentum=0.9) if kind == 'SGD' else dict(type=kind, lr=0.1)
    wrapper = dict(optim_wrapper=dict(optimizer=other))
    training = runner(tmp_path, 5, resume=True, load_from=str(trained / 'iter_4.pth'), **wrapper)
    with pytest.raises(
        CheckpointError, match=f"keeps exp_avg, .* for backbone.weight, the config's {kind} {state}: it is"
    ):
        training.train()
    runner(tmp_path / 'own', 1, **wrapper).train()
    resumed = runner(tmp_path / 'own', 2, resume=True, **wrapper)
    resumed.train()
    assert resumed.iter == 2


@pytest.mark.parametrize(
    'options', [dict(amsgrad=True), dict(type='NAdam'), dict(type=torch.optim.Adafactor), dict(type='Adagrad')]
)
def test_every_optimizer_of_torch_goes_on(options: dict, tmp_path: Path) -> None:
    wrapper = dict(optim_wrapper=dict(optimizer=dict(dict(type='AdamW', lr=0.1), **options)))
    runner(tmp_path, 1, **wrapper).train()
    resumed = runner(tmp_path, 2, resume=True, **wrapper)
    resumed.train()
    assert resumed.iter == 2


def test_options_are_those_of_the_config(trained: Path, tmp_path: Path) -> None:
    """A file cannot turn the training around, and one of AdamW does not make AdamW of Adam."""
    content = load_safely(trained / 'iter_4.pth')
    (saved,) = content['optimizer']['param_groups']
    saved.update(maximize=True, amsgrad=True, betas='ab', differentiable=True, lr=0.25, weight_decay=0.5)
    del saved['eps']
    torch.save(content, tmp_path / 'odd.pth')
    optimizer = dict(optimizer=dict(type='Adam', lr=0.1, betas=(0.5, 0.9)))
    training = runner(
        tmp_path,
        5,
        resume=True,
        load_from=str(tmp_path / 'odd.pth'),
        optim_wrapper=optimizer,
        param_scheduler=[
            dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=2),
            dict(type='CosineAnnealingMomentum', eta_min=0.1, T_max=9, by_epoch=False),
        ],
    )
    with pytest.raises(CheckpointError, match=r'param_schedulers\[1\] is of another kind'):
        training.train()
    training = runner(tmp_path, 5, resume=True, load_from=str(tmp_path / 'odd.pth'), optim_wrapper=optimizer)
    training.load_or_resume()
    (group,) = training.optim_wrapper.optimizer.param_groups
    assert (group['lr'], group['weight_decay'], group['eps'], group['betas']) == (0.25, 0.5, 1e-8, (0.5, 0.9))
    assert not group['maximize'] and not group['amsgrad'] and not group['differentiable']
    assert not group.get('decoupled_weight_decay')
    training.train()
    assert training.iter == 5


def cosine(end: int) -> list[dict]:
    warmup = dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=2)
    return [warmup, dict(type='CosineAnnealingLR', T_max=end, by_epoch=False, end=end)]


@pytest.mark.parametrize(
    'end, lr, changed',
    [
        (4, 0.1, ''),
        (8, 0.1, 'T_max 4 in CosineAnnealingLR, in the config 8'),
        (8, 0.1, 'end 4 in CosineAnnealingLR, in the config 8'),
        (4, 0.5, 'lr 0.1, in the config 0.5'),
    ],
)
def test_a_changed_schedule_is_named(
    end: int, lr: float, changed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file's counts, and one line says so."""
    lines: list[str] = []
    monkeypatch.setattr(resume, 'print_log', lambda text, *_: lines.append(text))
    runner(tmp_path, 4, param_scheduler=cosine(4)).train()
    wrapper = dict(optimizer=dict(type='AdamW', lr=lr))
    resumed = runner(tmp_path, 8, resume=True, param_scheduler=cosine(end), optim_wrapper=wrapper)
    resumed.load_or_resume()
    assert len(lines) == bool(changed)
    if changed:
        assert changed in lines[0] and 'iter_4.pth was trained with ' in lines[0] and 'Its values count' in lines[0]
    assert resumed.param_schedulers[1].T_max == 4
    assert resumed.optim_wrapper.param_groups[0]['initial_lr'] == 0.1


@pytest.mark.parametrize('name', SCHEDULERS)
def test_the_same_schedule_is_not_called_changed(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(resume, 'print_log', lambda text, *_: lines.append(text))
    schedule = dict(param_scheduler=[dict(type=name, by_epoch=False, end=9, **SCHEDULERS[name])])
    runner(tmp_path, 2, **schedule).train()
    resumed = runner(tmp_path, 4, resume=True, **schedule)
    resumed.train()
    assert (resumed.iter, lines) == (4, [])


def test_scheduled_momentum_goes_on(tmp_path: Path) -> None:
    options = dict(
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9)),
        param_scheduler=[dict(type='LinearMomentum', start_factor=0.1, by_epoch=False, end=9)],
    )
    first = runner(tmp_path, 3, **options)
    first.train()
    resumed = runner(tmp_path, 4, resume=True, **options)
    resumed.load_or_resume()
    one, other = (training.optim_wrapper.optimizer.param_groups[0]['momentum'] for training in (first, resumed))
    assert one == other != 0.9
