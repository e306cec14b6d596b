"""Resuming demands a whole training, takes the newest checkpoint that can be read, and says what is wrong."""

from __future__ import annotations

import copy
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mmcv_custom.checkpoint import UNSAFE_LOAD_VARIABLE, CheckpointError, load_safely
from mmcv_custom.engine import resume
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


ADAM = ('optimizer', 'state', 0, 'exp_avg')
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
    'no learning rate': (drop('optimizer', 'param_groups', 0, 'lr'), "its optimizer is damaged .*'lr'"),
    'moments of another shape': (
        put(torch.ones(7), *ADAM), r'states of another shape for 1 tensors \(backbone.weight\)',
    ),
    'moments without values': (
        put(torch.empty(3, 3, device='meta'), *ADAM), 'its optimizer is damaged .*exp_avg: on the meta device',
    ),
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


def test_an_optimizer_without_state_goes_on(tmp_path: Path) -> None:
    plain = dict(optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)))
    runner(tmp_path, 1, **plain).train()
    resumed = runner(tmp_path, 2, resume=True, **plain)
    resumed.train()
    assert resumed.iter == 2
    momentum = runner(tmp_path, 3, resume=True, optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9)))
    with pytest.raises(CheckpointError, match='its optimizer has no state for 4 of 4 trained tensors'):
        momentum.train()


def test_a_few_tensors_without_state_start_anew(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They may have had no gradients yet. The log names them."""
    lines: list[str] = []
    monkeypatch.setattr(resume, 'print_log', lambda text, *_: lines.append(text))
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
    [('', 'last_checkpoint is empty'), ('/gone/iter_7.pth', 'names /gone/iter_7.pth, which does not exist')],
)
def test_a_last_checkpoint_that_names_nothing(
    noted: str, message: str, work_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    monkeypatch.setattr(resume, 'print_log', lambda text, *_: lines.append(text))
    (work_dir / 'last_checkpoint').write_text(noted)
    assert newest(work_dir) == 'iter_4.pth'
    assert len(lines) == 1 and message in lines[0]
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


def test_last_checkpoint_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / 'last_checkpoint').mkdir()
    with pytest.raises(CheckpointError, match='cannot read .*last_checkpoint, which names the newest checkpoint'):
        newest(tmp_path)
    training = runner(tmp_path, 1)
    with pytest.raises(CheckpointError, match='last_checkpoint is a folder, but must name the newest checkpoint'):
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
