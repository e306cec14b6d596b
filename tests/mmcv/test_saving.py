"""Saving loses nothing: not to a kill, not to a full disk, not to weights that are not finite."""

from __future__ import annotations

import os
import random
import resource
import signal
import socket
import time
from argparse import Namespace
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.hooks import CheckpointHook, Hook
from torch import nn

from mmcv_custom.checkpoint import UNSAFE_LOAD_VARIABLE, CheckpointError, load_safely
from mmcv_custom.checkpoint.readable import require_readable
from mmcv_custom.engine import PortableRunner, SafeCheckpointHook, resume, saving
from tests.mmcv.tiny_training import runner
from tests.support import Run

ONE = dict(max_keep_ckpts=1)
BEST = dict(ONE, save_best='growing/value', rule='greater')


def listing(work_dir: Path) -> list[str]:
    return sorted(path.name for path in work_dir.iterdir() if path.is_file() and path.suffix != '.py')


def test_only_the_new_files_remain(tmp_path: Path) -> None:
    training = runner(tmp_path, 3, checkpoint=BEST)
    training.train()
    assert any(isinstance(hook, SafeCheckpointHook) for hook in training.hooks)
    assert listing(tmp_path) == ['best_growing_value_iter_3.pth', 'iter_3.pth', 'last_checkpoint']
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'iter_3.pth')
    hub = load_safely(tmp_path / 'iter_3.pth')['message_hub']['runtime_info']
    assert hub['best_ckpt'] == str(tmp_path / 'best_growing_value_iter_3.pth')
    assert hub['keep_ckpt_ids'] == [3]


@pytest.mark.parametrize('kind', ['CheckpointHook', 'mmengine.CheckpointHook', CheckpointHook])
def test_every_name_of_mmengines_hook_means_ours(kind: object, tmp_path: Path) -> None:
    training = runner(tmp_path, 1, default_hooks=dict(checkpoint=dict(type=kind, interval=1)))
    assert [type(hook) for hook in training.hooks if isinstance(hook, CheckpointHook)] == [SafeCheckpointHook]


def test_files_are_written_before_old_ones_are_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end of every write the old checkpoint, and what last_checkpoint names, is still there."""
    seen = []

    def watch(draft: str, target: Path) -> None:
        if (note := tmp_path / 'last_checkpoint').exists():
            assert Path(note.read_text()).exists(), target
        seen.append((target.name, listing(tmp_path)))
        os.rename(draft, target)

    monkeypatch.setattr(Path, 'replace', watch)
    runner(tmp_path, 2, checkpoint=BEST).train()
    order = [name for name, _ in seen]
    assert order == [
        'iter_1.pth', 'last_checkpoint', 'best_growing_value_iter_1.pth', 'iter_1.pth', 'last_checkpoint',
        'iter_2.pth', 'last_checkpoint', 'best_growing_value_iter_2.pth', 'iter_2.pth', 'last_checkpoint',
    ]  # fmt: skip
    before = dict(zip(range(len(seen)), (files for _, files in seen), strict=True))
    assert 'iter_1.pth' in before[6] and 'best_growing_value_iter_1.pth' in before[9]


@pytest.fixture
def small_files() -> Iterator[Callable[[int], None]]:
    """A function that limits the size of the files that this process may write, as a full disk does."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


class LimitFiles(Hook):
    """Limits the size of files after the second iteration."""

    priority = 'LOWEST'

    def __init__(self, limit: Callable[[int], None]) -> None:
        self.limit = limit

    def after_train_iter(self, runner: PortableRunner, batch_idx: int, data_batch: object, outputs: object) -> None:
        if runner.iter == 1:
            self.limit(2000)


@pytest.mark.parametrize('options', [ONE, BEST], ids=['last', 'best'])
def test_a_full_disk_costs_only_the_newest(options: dict, tmp_path: Path, small_files: Callable[[int], None]) -> None:
    training = runner(tmp_path, 5, checkpoint=options, custom_hooks=[LimitFiles(small_files)])
    file = 'best_growing_value_iter_2' if 'save_best' in options else 'iter_3'
    with pytest.raises(CheckpointError, match=f'cannot save the checkpoint .*/{file}.pth: .*too large.* still there'):
        training.train()
    small_files(resource.RLIM_INFINITY)
    kept = ['iter_2.pth', 'last_checkpoint']
    assert [name for name in listing(tmp_path) if not name.startswith('best')] == kept  # no draft is left
    assert load_safely(tmp_path / 'iter_2.pth')['meta']['iter'] == 2
    resumed = runner(tmp_path, 4, checkpoint=options, resume=True)
    resumed.train()
    assert resumed.iter == 4


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """A work folder with iter_1.pth to iter_3.pth and the best, of a training that keeps three."""
    runner(tmp_path / 'earlier', 3, checkpoint=dict(BEST, max_keep_ckpts=3)).train()
    return tmp_path / 'earlier'


def test_a_resumed_training_deletes_its_own(earlier: Path) -> None:
    runner(earlier, 4, checkpoint=dict(BEST, max_keep_ckpts=2), resume=True).train()
    best = 'best_growing_value_iter_4.pth'
    assert listing(earlier) == [best, 'iter_3.pth', 'iter_4.pth', 'last_checkpoint']


def test_a_resumed_training_deletes_nothing_in_another_folder(earlier: Path, tmp_path: Path) -> None:
    """Files there may have the same names: iter_1.pth and the best one of the training before."""
    work_dir = tmp_path / 'work'
    work_dir.mkdir()
    users = ['best_growing_value_iter_3.pth', 'iter_1.pth', 'iter_2.pth', 'iter_3.pth']
    for name in users:
        (work_dir / name).write_text('of the user')
    options = dict(checkpoint=dict(BEST, max_keep_ckpts=1), resume=True, load_from=str(earlier / 'iter_3.pth'))
    runner(work_dir, 5, **options).train()
    assert all((work_dir / name).read_text() == 'of the user' for name in users)
    assert set(listing(work_dir)) - {*users} == {'best_growing_value_iter_5.pth', 'iter_5.pth', 'last_checkpoint'}
    assert set(listing(earlier)) == {*users, 'last_checkpoint'}


def test_a_hook_with_a_folder_of_its_own_deletes_there(tmp_path: Path) -> None:
    options = dict(checkpoint=dict(max_keep_ckpts=1, out_dir=str(tmp_path / 'out')))
    runner(tmp_path / 'work', 2, **options).train()
    runner(tmp_path / 'work', 3, resume=True, **options).train()
    assert listing(tmp_path / 'out' / 'work') == ['iter_3.pth']


def draft(name: str, host: str = socket.gethostname(), process: int = 999_999_999) -> str:
    return f'.{name}.{host}-{process}.draft'


ABANDONED = [draft('iter_2.pth'), draft('last_checkpoint'), draft('best_a.pth', process=os.getpid())]
OLD = draft('epoch_1.pth', 'elsewhere')
FOREIGN = ['.paper.draft', '.iter_2.pth.draft', 'iter_2.pth.draft', draft('paper'), draft('iter_2.pth', 'elsewhere')]
RUNNING = draft('iter_9.pth', process=os.getppid())


def test_only_abandoned_drafts_are_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(saving, 'print_log', lambda text, *_: lines.append(text))
    for name in (*ABANDONED, OLD, *FOREIGN, RUNNING):
        (tmp_path / name).touch()
    for name in (OLD, '.paper.draft'):
        os.utime(tmp_path / name, (0, 0))
    runner(tmp_path, 1).train()
    assert {path.name for path in tmp_path.glob('*.draft')} == {*FOREIGN, RUNNING}
    assert sorted(lines) == sorted(
        f'deleted {tmp_path / name}, which a training that was killed has left' for name in (*ABANDONED, OLD)
    )


def test_a_folder_whose_name_is_no_utf_8(tmp_path: Path) -> None:
    work_dir = Path(os.fsdecode(os.fsencode(tmp_path) + b'/w\xff'))
    runner(work_dir, 1, experiment_name='bytes').train()
    assert resume.newest_checkpoint(str(work_dir)) == str(work_dir / 'iter_1.pth')


def test_a_folder_that_cannot_be_made_is_found_before_the_first_iteration(tmp_path: Path) -> None:
    (tmp_path / 'out').write_text('a file')
    training = runner(tmp_path / 'work', 2, checkpoint=dict(out_dir=str(tmp_path / 'out')))
    with pytest.raises(CheckpointError, match='cannot save checkpoints in .*out/work'):
        training.train()
    assert training.iter == 0


class Spoil(Hook):
    """Gives the model a bad value after the second iteration."""

    def __init__(self, name: str, value: float) -> None:
        self.name, self.value = name, value

    def after_train_iter(self, runner: PortableRunner, batch_idx: int, data_batch: object, outputs: object) -> None:
        if runner.iter == 1:
            runner.model.state_dict()[self.name].flatten()[0] = self.value


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_weights_that_are_not_finite_are_not_saved(value: float, tmp_path: Path) -> None:
    training = runner(tmp_path, 4, checkpoint=ONE, custom_hooks=[Spoil('head.weight', value)])
    message = (
        r'nothing was saved at epoch 0, iteration 2: .* 1 tensors of the model are not finite \(head.weight\); '
        rf'the last checkpoint is {tmp_path}/iter_1.pth'
    )
    with pytest.raises(CheckpointError, match=message):
        training.train()
    assert listing(tmp_path) == ['iter_1.pth', 'last_checkpoint']


@pytest.mark.parametrize('value, allowed', [(float('inf'), True), (float('nan'), False)])
def test_buffers_may_be_infinite(value: float, allowed: bool, tmp_path: Path) -> None:
    training = runner(tmp_path, 1)
    training.model.register_buffer('mask', torch.tensor([0.0, value]))
    if allowed:
        training.train()
        assert load_safely(tmp_path / 'iter_1.pth')['state_dict']['mask'][1] == value
    else:
        with pytest.raises(CheckpointError, match=r'not finite \(mask\); there is no checkpoint yet'):
            training.train()


def test_averaged_weights_that_are_not_finite(tmp_path: Path) -> None:
    training = runner(tmp_path, 2, custom_hooks=[dict(type='EMAHook'), Spoil('head.weight', float('nan'))])
    with pytest.raises(CheckpointError, match=r'1 tensors of the model are not finite \(module.head.weight\)'):
        training.train()


class Noting(Hook):
    """Puts a value into the message hub, which is saved, at some iteration."""

    priority = 'NORMAL'

    def __init__(self, value: Any, at: int, **options: Any) -> None:
        self.value, self.at, self.options = value, at, options

    def before_train(self, runner: Any) -> None:
        self.before_train_iter(runner, -1)

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        if batch_idx == self.at:
            runner.message_hub.update_info('note', self.value, **self.options)


UNREADABLE: dict[str, tuple[Any, str]] = {
    'class': ({'a': [1, Path('b')]}, r'message_hub.runtime_info.note.a.1 needs the global pathlib.PosixPath'),
    'tuple as a key': ({(1, 2): 3}, r'message_hub.runtime_info.note would be refused: a tuple is the key of a dict'),
    'function': (lambda: 0, r'message_hub.runtime_info.note cannot be pickled \('),
    'sparse tensor': (torch.eye(2).to_sparse(), 'note needs the global torch._utils._rebuild_sparse_tensor'),
}


@pytest.mark.parametrize(
    'tensor, message',
    [
        (torch.ones(2, device='meta'), 'state.0.a needs the global torch._utils._rebuild_meta_tensor_no_storage'),
        (torch.ones(2, dtype=torch.complex64).conj(), 'state.0.a would be refused: a tensor is a conjugate'),
        (torch.eye(2).to_sparse(), 'state.0.a needs the global torch._utils._rebuild_sparse_tensor'),
        (torch.ones(2), ''),
    ],
)
def test_tensors_that_could_not_be_resumed(tensor: torch.Tensor, message: str, tmp_path: Path) -> None:
    content = {'state': {0: {'a': tensor}}}
    torch.save(content, tmp_path / 'a.pth')
    if not message:
        require_readable(content)
        load_safely(tmp_path / 'a.pth')
        return
    with pytest.raises(CheckpointError, match=message):
        require_readable(content)
    with pytest.raises(CheckpointError):
        load_safely(tmp_path / 'a.pth')


@pytest.mark.parametrize('at', [-1, 1], ids=['from the start', 'later'])
@pytest.mark.parametrize('name', UNREADABLE)
def test_what_could_not_be_resumed_is_not_saved(name: str, at: int, tmp_path: Path) -> None:
    value, message = UNREADABLE[name]
    training = runner(tmp_path, 3, custom_hooks=[Noting(value, at)])
    with pytest.raises(CheckpointError, match=f'nothing was saved, as the file could not be resumed: .*{message}'):
        training.train()
    assert training.iter == at + (at < 0)  # before the first iteration, or at the first save
    assert listing(tmp_path) == ([] if at < 0 else ['iter_1.pth', 'last_checkpoint'])
    runner(tmp_path / 'without', 1, custom_hooks=[Noting(value, -1, resumed=False)]).train()


@pytest.mark.parametrize(
    'value',
    [
        ConfigDict(classes=('a',), extra=dict(a=1)),
        defaultdict(list, a=[np.str_('b')]),
        [range(3), frozenset({1}), Namespace(a=1), torch.ones(2), nn.Parameter(torch.ones(1)), np.arange(3)],
    ],
    ids=['ConfigDict', 'defaultdict', 'list'],
)
def test_what_is_saved_can_be_resumed(value: Any, tmp_path: Path) -> None:
    runner(tmp_path, 1, custom_hooks=[Noting(value, -1)]).train()
    resumed = runner(tmp_path, 2, resume=True)
    resumed.train()
    assert resumed.iter == 2 and resumed.message_hub.get_info('note') is not None


def test_with_consent_anything_is_saved_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(UNSAFE_LOAD_VARIABLE, '1')
    runner(tmp_path, 1, custom_hooks=[Noting(Path('b'), -1)]).train()
    resumed = runner(tmp_path, 2, resume=True)
    resumed.train()
    assert resumed.message_hub.get_info('note') == Path('b')


def train_in_a_child(work_dir: Path) -> int:
    """Starts a long training, or goes on with it, in another process. Returns its id."""
    child = os.fork()
    if not child:
        try:
            with open(os.devnull, 'w') as nowhere:
                os.dup2(nowhere.fileno(), 1)
                os.dup2(nowhere.fileno(), 2)
            runner(work_dir, 10**6, width=20_000, checkpoint=BEST, resume=True).train()
        finally:
            os._exit(1)
    return child


@pytest.mark.parametrize('kills', [3, pytest.param(60, marks=pytest.mark.slow)])
def test_a_kill_at_any_moment_costs_only_the_newest(kills: int, tmp_path: Path) -> None:
    """A readable checkpoint remains, ``last_checkpoint`` names it, and the next training goes on from it."""
    moments = random.Random(0)
    note, reached = tmp_path / 'last_checkpoint', 0
    for _ in range(kills):
        child = train_in_a_child(tmp_path)
        before = note.stat().st_mtime_ns if note.exists() else 0
        deadline = time.monotonic() + 120
        while not note.exists() or note.stat().st_mtime_ns == before:  # until it has saved once more
            assert time.monotonic() < deadline and os.waitpid(child, os.WNOHANG) == (0, 0), 'it does not train'
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.3))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)

        last = Path(note.read_text())
        iteration = load_safely(last)['meta']['iter']
        assert resume.newest_checkpoint(str(tmp_path)) == str(last)
        assert iteration > reached
        reached = iteration
        for file in tmp_path.glob('*.pth'):
            load_safely(file)  # under its name no file is a part of one
    assert len(list(tmp_path.glob('.*.draft'))) <= 1  # those of the trainings before are cleared


PROGRAM = """
import os, resource, sys
from pathlib import Path
from mmcv_custom.checkpoint import CheckpointError
from tests.mmcv.test_saving import LimitFiles
from tests.mmcv.tiny_training import runner

def limit(size):
    if os.environ['RANK'] == '0':
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

try:
    runner(Path(sys.argv[1]), 5, custom_hooks=[LimitFiles(limit)], launcher='pytorch').train()
except CheckpointError as problem:
    print(f'rank {os.environ["RANK"]} ended: {problem}', flush=True)
    os._exit(0)  # gloo's threads sometimes abort a process that ends while they run
"""


def test_all_processes_end_when_one_cannot_save(run: Run, tmp_path: Path, free_port: int) -> None:
    program = tmp_path / 'program.py'
    program.write_text(PROGRAM)
    launch = ['-m', 'torch.distributed.run', '--nproc-per-node', '2', '--master-port', str(free_port)]
    printed = run(*launch, program, tmp_path / 'work').stdout
    for rank in range(2):
        assert f'rank {rank} ended: cannot save the checkpoint {tmp_path / "work" / "iter_3.pth"}' in printed
    assert {'iter_1.pth', 'iter_2.pth', 'last_checkpoint'} <= set(listing(tmp_path / 'work'))
