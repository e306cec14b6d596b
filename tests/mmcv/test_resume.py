"""Resuming demands a whole training, takes the newest checkpoint that can be read, and says what is wrong."""

from __future__ import annotations

import copy
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mmcv_custom.checkpoint import UNSAFE_LOAD_VARIABLE, CheckpointError, load_safely
from mmcv_custom.engine import optimizer_state, resume
from tests.mmcv.tiny_training import runner

Content = dict[str, Any]


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
