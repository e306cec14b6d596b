"""Resuming demands a whole training, takes the newest checkpoint that can be read, and says what is wrong."""

from __future__ import annotations

import copy
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIMIZERS

from mmcv_custom import PortableRunner
from mmcv_custom.checkpoint import UNSAFE_LOAD_VARIABLE, CheckpointError, load_safely
from mmcv_custom.engine import optimizer_state, resume
from tests.mmcv.test_genuine_checkpoints import SCHEDULERS
from tests.mmcv.tiny_training import runner

Content = dict[str, Any]


@pytest.fixture(scope='module')
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder with iter_1.pth to iter_4.pth and the best of them."""
    folder = tmp_path_factory.mktemp('trained')
    runner(folder, 4, checkpoint=dict(save_best='growing/value', rule='greater')).train()
    return folder


@pytest.fixture
def work_dir(trained: Path, tmp_path: Path) -> Path:
    """A copy of it, in another place."""
    return Path(shutil.copytree(trained, tmp_path / 'moved'))


def drop(*path: Any) -> Callable[[Content], None]:
    def change(content: Content) -> None:
        for key in path[:-1]:
            content = content[key]
        del content[path[-1]]

    return change


def put(value: Any, *path: Any) -> Callable[[Content], None]:
    def change(content: Content) -> None:
        for key in path[:-1]:
            content = content[key]
        content[path[-1]] = value

    return change


NAN = float('nan')
ADAM = ('optimizer', 'state', 0, 'exp_avg')
STEP = ('optimizer', 'state', 0, 'step')
GROUP = ('optimizer', 'param_groups', 0)
INFO = ('message_hub', 'runtime_info')
INCOMPLETE: dict[str, tuple[Callable[[Content], None], str]] = {
    'no weights': (put({}, 'state_dict'), 'cannot load .*: it holds no weights: its state dict is empty'),
    'half of them': (
        drop('state_dict', 'head.weight'), r'does not fill Line: 1 tensors are missing \(head.weight\)',
    ),
    'foreign weights': (
        put({'fc.weight': torch.ones(2)}, 'state_dict'),
        r'does not fill Line: 4 tensors are missing .*, 1 tensors are unknown to the model \(fc.weight\)',
    ),
    'other classes': (
        put(torch.ones(5, 3), 'state_dict', 'head.weight'), r'head.weight: \(5, 3\) for \(1, 3\)',
    ),
    'weights without values': (
        put(torch.empty(1, 3, device='meta'), 'state_dict', 'head.weight'), 'head.weight: on the meta device',
    ),
    'no meta': (drop('meta'), 'count epoch from 0, but holds None; its meta should count iter from 0, but holds None'),
    'no epoch': (drop('meta', 'epoch'), 'its meta should count epoch from 0, but holds None'),
    'negative iteration': (put(-5, 'meta', 'iter'), 'its meta should count iter from 0, but holds -5'),
    'text for an iteration': (put('4', 'meta', 'iter'), "its meta should count iter from 0, but holds '4'"),
    'a longer training': (put(10**9, 'meta', 'iter'), 'it is at iter 1000000000, but the config trains up to 5'),
    'no training': (drop('message_hub'), 'it holds weights, but no training by MMEngine that could go on'),
    'no messages': (put({}, 'message_hub'), 'its message_hub does not hold log_scalars, runtime_info, resumed_keys'),
    'no optimizer': (drop('optimizer'), 'it holds no optimizer'),
    'empty optimizer': (put({}, 'optimizer'), "its optimizer is damaged .*'param_groups'"),
    'optimizer without state': (
        put({}, 'optimizer', 'state'), r'no state for 4 of 4 trained tensors \(backbone.weight, .*, \.\.\.\)',
    ),
    'no parameter groups': (
        put([], 'optimizer', 'param_groups'), "has 0 parameter groups with 0 tensors, not .* config's 1 with 4",
    ),
    'no learning rate': (drop('optimizer', 'param_groups', 0, 'lr'), "its optimizer has lr None in parameter group 0"),
    'moments of another shape': (
        put(torch.ones(7), *ADAM), r'has 1 states that are of another shape or not finite \(backbone.weight: exp_avg\)',
    ),
    'moments without values': (
        put(torch.empty(3, 3, device='meta'), *ADAM), 'its optimizer is damaged .*exp_avg: on the meta device',
    ),
    'no moments': (drop(*ADAM), r'its optimizer keeps exp_avg_sq, step for backbone.weight, .*AdamW exp_avg, exp'),
    'moments of truth values': (put(torch.ones(3, 3) > 0, *ADAM), r'not finite \(backbone.weight: exp_avg\)'),
    'moments that are NaN': (put(torch.full((3, 3), NAN), *ADAM), r'not finite \(backbone.weight: exp_avg\)'),
    'moments are a number': (put(0, *ADAM), r'not finite \(backbone.weight: exp_avg\)'),
    'an empty step': (put(torch.empty(0), *STEP), r'not finite \(backbone.weight: step\)'),
    'a negative step': (put(torch.tensor(-5.0), *STEP), r'not finite \(backbone.weight: step\)'),
    'no step': (drop(*STEP), 'its optimizer keeps exp_avg, exp_avg_sq for backbone.weight'),
    'text for a learning rate': (put('abc', *GROUP, 'lr'), "its optimizer has lr 'abc' in parameter group 0"),
    'a learning rate of NaN': (put(NAN, *GROUP, 'lr'), 'its optimizer has lr nan in parameter group 0'),
    'no weight decay': (put(None, *GROUP, 'weight_decay'), 'its optimizer has weight_decay None in parameter group 0'),
    'a parameter twice': (put([0, 0, 1, 2], *GROUP, 'params'), 'its parameters are not numbered'),
    'lists for parameters': (put([[0], [1], [2], [3]], *GROUP, 'params'), 'its parameters are not numbered'),
    'a number for names': (put(5, *GROUP, 'param_names'), 'its optimizer is damaged'),
    'text for a seed': (put('abc', 'meta', 'seed'), "its meta holds the seed 'abc', expected a whole number"),
    'a seed of 71 bits': (put(2**70, 'meta', 'seed'), 'its meta holds the seed 1180591620717411303424, expected'),
    'a negative seed': (put(-1, 'meta', 'seed'), 'its meta holds the seed -1'),
    'a number among messages': (put(2, *INFO, 1), 'its message_hub has 1 among the names in runtime_info, expec'),
    'nothing among messages': (put(2, 'message_hub', 'log_scalars', None), 'has None among the names in log_scalars'),
    'text for a score': (put('abc', *INFO, 'best_score'), "its message_hub holds best_score 'abc', expected a number"),
    'text for a step of a schedule': (
        put('a', 'param_schedulers', 0, 'last_step'), r"its param_schedulers\[0\] has the last_step 'a', expected",
    ),
    'a schedule of something else': (
        put('params', 'param_schedulers', 0, 'param_name'), r"\[0\] has the param_name 'params', .* like 'lr'",
    ),
    'values for fewer groups': (put([], 'param_schedulers', 1, 'base_values'), r'\[1\] has the base_values \[\], exp'),
    'text for values': (put(['a'], 'param_schedulers', 1, 'base_values'), r"\[1\] has the base_values \['a'\], exp"),
    'list for milestones': (put([9], 'param_schedulers', 1, 'milestones'), r'\[1\] has the milestones \[9\], expected'),
    'no schedulers': (drop('param_schedulers'), 'it holds no param_schedulers, the config has 2'),
    'a scheduler less': (drop('param_schedulers', 0), 'it holds 1 param_schedulers, the config has 2'),
    'empty schedulers': (put([{}, {}], 'param_schedulers'), r'its param_schedulers\[0\] is of another kind'),
}  # fmt: skip


@pytest.mark.parametrize('change, message', INCOMPLETE.values(), ids=INCOMPLETE)
def test_what_is_not_a_whole_training_is_refused(
    change: Callable[[Content], None],
    message: str,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(UNSAFE_LOAD_VARIABLE, '1')  # else tensors without values are not even read
    content = copy.deepcopy(load_safely(trained / 'iter_4.pth'))
    change(content)
    torch.save(content, tmp_path / 'odd.pth')
    training = runner(tmp_path / 'work', 5, resume=True, load_from=str(tmp_path / 'odd.pth'))
    with pytest.raises(CheckpointError, match=message) as caught:
        training.train()
    assert 'odd.pth' in str(caught.value) and '\n' not in str(caught.value)
    assert not list((tmp_path / 'work').glob('*.pth'))


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
    assert 'cannot resume from' in str(caught.value) and '\n' not in str(caught.value)
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


def test_a_whole_training_goes_on(trained: Path, tmp_path: Path) -> None:
    """It ends where one without a break ends."""
    resumed = runner(tmp_path / 'resumed', 6, resume=True, load_from=str(trained / 'iter_4.pth'))
    resumed.train()
    whole = runner(tmp_path / 'whole', 6)
    whole.train()
    for name, tensor in whole.model.state_dict().items():
        torch.testing.assert_close(resumed.model.state_dict()[name], tensor, rtol=0, atol=0)
    assert resumed.optim_wrapper.get_lr() == whole.optim_wrapper.get_lr()
    one, other = (load_safely(tmp_path / name / 'iter_6.pth')['optimizer'] for name in ('resumed', 'whole'))
    assert torch.equal(one['state'][0]['exp_avg'], other['state'][0]['exp_avg'])


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


def test_a_few_tensors_without_state_start_anew(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They may have had no gradients yet. The log names them."""
    lines: list[str] = []
    monkeypatch.setattr(optimizer_state, 'print_log', lambda text, *_: lines.append(text))
    content = load_safely(trained / 'iter_4.pth')
    del content['optimizer']['state'][0]
    torch.save(content, tmp_path / 'odd.pth')
    runner(tmp_path / 'work', 5, resume=True, load_from=str(tmp_path / 'odd.pth')).train()
    assert lines == ['its optimizer has no state for 1 of 4 trained tensors (backbone.weight); they start anew']


def test_the_best_checkpoint_is_for_tests(trained: Path, tmp_path: Path) -> None:
    best = trained / 'best_growing_value_iter_4.pth'
    training = runner(tmp_path, 5, resume=True, load_from=str(best))
    with pytest.raises(CheckpointError, match=f'cannot resume from {best}: it holds no optimizer .*best_.* load_from'):
        training.train()
    started = runner(tmp_path / 'started', 1, load_from=str(best))
    started.load_or_resume()
    assert torch.equal(started.model.head.weight, load_safely(best)['state_dict']['head.weight'])


# --- the newest checkpoint --------------------------------------------------------------------------------------------


def newest(work_dir: Path) -> str | None:
    found = resume.newest_checkpoint(str(work_dir))
    return found and Path(found).relative_to(work_dir).as_posix()


def damage(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:500])


def test_the_newest_in_a_moved_folder(work_dir: Path, trained: Path) -> None:
    assert (work_dir / 'last_checkpoint').read_text() == str(trained / 'iter_4.pth')
    assert newest(work_dir) == 'iter_4.pth'


def test_what_cannot_be_read_is_skipped_and_named(work_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(resume, 'print_log', lambda text, *_: lines.append(text))
    damage(work_dir / 'iter_4.pth')
    (work_dir / 'iter_3.pth').unlink()
    (work_dir / 'iter_9.pth').write_bytes((work_dir / 'iter_2.pth').read_bytes())  # of a training before this one
    assert newest(work_dir) == 'iter_2.pth'
    assert len(lines) == 1 and re.search(r'skipped in .*: .*iter_4.pth .*could not be read', lines[0])

    for name in ('iter_2.pth', 'iter_1.pth'):
        damage(work_dir / name)
    assert newest(work_dir) == 'iter_9.pth'
    damage(work_dir / 'iter_9.pth')
    with pytest.raises(CheckpointError, match=r'nothing to resume in .*iter_4.pth.*iter_2.pth.*iter_1.pth.*iter_9.pth'):
        newest(work_dir)


@pytest.mark.parametrize(
    'noted, message',
    [
        ('', 'last_checkpoint is empty'),
        ('/gone/iter_7.pth', 'names /gone/iter_7.pth, which does not exist'),
        ('x' * 5000, r'names x{300}\.\.\., which does not exist'),
        ('<html>' * 1000, 'names <html><html>'),
        ('a\0b\nc', r'names a\?b c, which does not exist'),
        ('\udcff', r'names \?, which does not exist'),
    ],
)
def test_a_last_checkpoint_that_names_nothing(
    noted: str, message: str, work_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    monkeypatch.setattr(resume, 'print_log', lambda text, *_: lines.append(text))
    (work_dir / 'last_checkpoint').write_bytes(os.fsencode(noted))
    assert newest(work_dir) == 'iter_4.pth'
    assert len(lines) == 1 and re.search(message, lines[0]) and lines[0].isprintable()
    for file in work_dir.glob('iter_*.pth'):
        file.unlink()
    with pytest.raises(CheckpointError, match=f'nothing to resume in .*{message}'):
        newest(work_dir)


def test_numbers_count_as_numbers(work_dir: Path) -> None:
    (work_dir / 'last_checkpoint').unlink()
    (work_dir / 'iter_4.pth').rename(work_dir / 'iter_10.pth')
    assert newest(work_dir) == 'iter_10.pth'


def test_a_hook_that_saves_elsewhere(tmp_path: Path) -> None:
    runner(tmp_path / 'work', 1, checkpoint=dict(out_dir=str(tmp_path / 'out'))).train()
    assert resume.newest_checkpoint(str(tmp_path / 'work')) == str(tmp_path / 'out' / 'work' / 'iter_1.pth')


@pytest.mark.parametrize('make', [os.mkdir, os.mkfifo])
def test_last_checkpoint_is_no_file(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / 'last_checkpoint')
    message = 'cannot read .*last_checkpoint, which names the newest checkpoint: it is no file; move it away'
    with pytest.raises(CheckpointError, match=message):
        newest(tmp_path)
    training = runner(tmp_path, 1)
    with pytest.raises(CheckpointError, match=message):
        training.train()
    assert training.iter == 0


def test_a_config_that_resumes_starts_where_nothing_was_saved(tmp_path: Path) -> None:
    first = runner(tmp_path, 1, resume=True)
    first.train()
    second = runner(tmp_path, 2, resume=True)
    second.load_or_resume()
    assert (first.iter, second.iter) == (1, 1)


@pytest.mark.parametrize('metrics', [['growing/value'], ['growing/value', 'growing/other']])
def test_a_moved_folder_keeps_one_best_file(metrics: list[str], tmp_path: Path) -> None:
    options = dict(save_best=metrics, rule='greater')
    runner(tmp_path / 'here', 2, checkpoint=options).train()
    moved = (tmp_path / 'here').rename(tmp_path / 'there')
    runner(moved, 4, checkpoint=options, resume=True).train()
    assert len(list(moved.glob('best_*.pth'))) == len(metrics)
    assert not (tmp_path / 'here').exists()
