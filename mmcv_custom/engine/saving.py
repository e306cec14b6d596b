"""Checkpoints that a crash, a full disk or a diverged training cannot spoil."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook
from mmengine.logging import print_log
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ..checkpoint import CheckpointError, not_finite, unwrapped
from ..checkpoint.errors import first_few, one_line, redacted
from ..checkpoint.readable import require_readable
from .finite import FiniteLossHook
from .resume import LAST, noted_checkpoint

_DRAFT = re.compile(rf'\.(?:.+\.pth|{LAST}|trial)\.(?P<host>.+)-(?P<process>\d{{1,9}})\.draft')
_DAY = 24 * 60 * 60


def draft_of(file: Path) -> Path:
    """The name under which this process writes a file. It tells machine and process, so that others leave it alone."""
    return file.with_name(f'.{file.name}.{socket.gethostname()}-{os.getpid()}.draft')


def _is_abandoned(path: Path) -> bool:
    """Whether a training that has ended left this draft: its process is gone, or it is older than a day."""
    match = _DRAFT.fullmatch(path.name)
    if match is None:
        return False
    if match['host'] == socket.gethostname() and not _runs(int(match['process'])):
        return True
    return time.time() - path.lstat().st_mtime > _DAY


def _runs(process: int) -> bool:
    """Whether another process of this machine has this id."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is of another user
        return True
    return process != os.getpid()


def in_main_process(task: Callable[[], None], what: str) -> None:
    """Does in the main process what every process calls, and ends all of them with the same message if it fails.

    Args:
        task: What to do.
        what: For the message: ``'save the checkpoint x.pth'``.

    Raises:
        CheckpointError: In every process, if ``task`` raises it or an :class:`OSError` such as that of a full disk.
    """
    problem: list[str | None] = [None]
    if is_main_process():
        try:
            task()
        except CheckpointError as error:
            problem = [str(error)]
        except OSError as error:
            problem = [f'cannot {what}: {error}. What was saved before is still there']
    broadcast_object_list(problem)
    if problem[0] is not None:
        raise CheckpointError(problem[0])


def publish(draft: Path, file: Path) -> None:
    """Moves a complete draft to its name, so that the file there is the old one or the new one, whatever happens."""
    with draft.open('rb') as written:
        os.fsync(written.fileno())
    draft.replace(file)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _was_left_out(runner: Runner) -> bool:
    return any(isinstance(hook, FiniteLossHook) and hook.in_a_row for hook in runner.hooks)


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """MMEngine's hook, with each file complete before an older one is touched.

    The order is: new checkpoint, ``last_checkpoint``, deletion of the old one. Weights that are not finite are not
    saved.
    :class:`PortableRunner` uses it wherever a config names ``CheckpointHook``; the arguments are the same.
    """

    def before_train(self, runner: Runner) -> None:
        """Prepares the folder.

        Raises:
            CheckpointError: A checkpoint could not be saved there, or not be resumed because of what it would hold.
        """
        noted_checkpoint(runner.work_dir)  # it can be read, and so replaced
        kept = runner.message_hub.runtime_info.pop('keep_ckpt_ids', [])  # else MMEngine deletes those that are too many
        super().before_train(runner)
        resumed = str(runner._load_from or '')
        here = os.path.realpath(os.path.dirname(resumed)) == os.path.realpath(self.out_dir)
        self._take_over(runner, kept if here else [], here)
        if kept and not here:
            runner.logger.warning(f'{redacted(resumed)} is not of {self.out_dir}, of whose checkpoints none is deleted')
        if isinstance(self.file_backend, LocalBackend):
            in_main_process(self._prepare_folder, f'save checkpoints in {self.out_dir}')
        classes = getattr(runner.train_dataloader.dataset, 'metainfo', {})
        require_readable({'meta': {'dataset_meta': classes}, 'message_hub': runner.message_hub.state_dict()})

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Saves if it is time, but not after a step that was left out (:class:`FiniteLossHook`).

        The weights may have become useless by the step before, and the last good checkpoint must stay.
        """
        if self.is_last_train_iter(runner) or not _was_left_out(runner):
            super().after_train_iter(runner, batch_idx, data_batch, outputs)

    def after_train_epoch(self, runner: Runner) -> None:
        """As :meth:`after_train_iter`."""
        if self.is_last_train_epoch(runner) or not _was_left_out(runner):
            super().after_train_epoch(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Raises :class:`CheckpointError` if the weights are not finite, or if the file could not be read again.

        Hooks that change the checkpoint come before.
        """
        parameters = dict(unwrapped(runner.model).named_parameters())
        states = [checkpoint.get(key, {}) for key in ('state_dict', 'ema_state_dict')]
        found = [name for state in states for name in not_finite(parameters, state)]
        if found:
            meta, last = checkpoint['meta'], noted_checkpoint(runner.work_dir)
            kept = f'the last checkpoint is {one_line(last)}' if last else 'there is no checkpoint yet'
            raise CheckpointError(
                f'nothing was saved at epoch {meta["epoch"]}, iteration {meta["iter"]}: the training has diverged, '
                f'{len(found)} tensors of the model are not finite ({first_few(found)}); {kept}. '
                'Lower the learning rate, or clip gradients by optim_wrapper.clip_grad'
            )
        require_readable(checkpoint)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        outdated = None
        if self.max_keep_ckpts > 0 and step not in list(self.keep_ckpt_ids)[-1:]:
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                outdated = self.keep_ckpt_ids.popleft()
            self.keep_ckpt_ids.append(step)
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        name = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir,
            name,
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )

        def note_and_tidy() -> None:
            note = Path(runner.work_dir, LAST)
            draft = draft_of(note)
            draft.write_bytes(os.fsencode(str(self.last_ckpt)))
            publish(draft, note)
            if outdated is not None:
                self._remove(self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(outdated)))

        in_main_process(note_and_tidy, f'note {self.last_ckpt} in {LAST}')

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        if not self.save_best:
            return
        before = self._best()
        self._set_best(dict.fromkeys(before))  # MMEngine deletes the old one first if it knows of it
        super()._save_best_checkpoint(runner, metrics)
        after = {key: path or before.get(key) for key, path in self._best().items()}
        self._set_best(after)

        def tidy() -> None:
            for path in {*before.values()} - {*after.values()}:
                if path is not None:
                    self._remove(path)

        in_main_process(tidy, 'delete the previous best checkpoint')

    def _take_over(self, runner: Runner, kept: list[int], here: bool) -> None:
        """Makes what a resumed training saved ours, to be deleted when it is replaced, if it lies in our folder."""
        if self.save_best is not None:  # the work folder may have been moved since they were saved
            best = {key: self._in_out_dir(path) if path and here else None for key, path in self._best().items()}
            self._set_best(best)
        if self.max_keep_ckpts > 0:
            self.keep_ckpt_ids.extend(kept)
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))

            def tidy() -> None:
                for step in kept[: -self.max_keep_ckpts]:
                    self._remove(self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(step)))

            in_main_process(tidy, 'delete old checkpoints')

    def _prepare_folder(self) -> None:
        folder = Path(self.out_dir)
        folder.mkdir(parents=True, exist_ok=True)
        trial = draft_of(folder / 'trial')
        trial.touch()
        trial.unlink()
        for draft in filter(_is_abandoned, folder.glob('.*.draft')):
            draft.unlink()
            print_log(f'deleted {draft}, which a training that was killed has left', 'current')

    def _best(self) -> dict[str, str | None]:
        """The paths of the best checkpoints by their metric; the key is empty if there is only one metric."""
        return {'': self.best_ckpt_path} if len(self.key_indicators) == 1 else dict(self.best_ckpt_path_dict)

    def _set_best(self, paths: dict[str, str | None]) -> None:
        if len(self.key_indicators) == 1:
            self.best_ckpt_path = paths['']
        else:
            self.best_ckpt_path_dict = dict(paths)

    def _in_out_dir(self, path: str) -> str:
        return self.file_backend.join_path(self.out_dir, Path(path).name)

    def _remove(self, path: str) -> None:
        if self.file_backend.isfile(path):
            self.file_backend.remove(path)
        elif self.file_backend.isdir(path):  # of DeepSpeed
            self.file_backend.rmtree(path)
