"""Checkpoints that a crash, a full disk or a diverged training cannot spoil."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ..checkpoint import CheckpointError, not_finite, unwrapped
from ..checkpoint.errors import first_few
from .finite import FiniteLossHook
from .resume import LAST

DRAFT = '.{}.draft'  # the name under which a file is written


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
            CheckpointError: A checkpoint could not be saved there.
        """
        super().before_train(runner)
        if Path(runner.work_dir, LAST).is_dir():
            raise CheckpointError(
                f'{Path(runner.work_dir, LAST)} is a folder, but must name the newest checkpoint: move it away'
            )
        if self.save_best is not None:  # the work folder may have been moved since they were saved
            self._set_best({key: path and self._in_out_dir(path) for key, path in self._best().items()})
        if isinstance(self.file_backend, LocalBackend):
            in_main_process(self._prepare_folder, f'save checkpoints in {self.out_dir}')

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
        """Raises :class:`CheckpointError` if the weights are not finite. Hooks that change them come before."""
        found = [
            name
            for key in ('state_dict', 'ema_state_dict')
            for name in not_finite(unwrapped(runner.model), checkpoint.get(key, {}))
        ]
        if found:
            meta, last = checkpoint['meta'], Path(runner.work_dir, LAST)
            kept = f'the last checkpoint is {last.read_text()}' if last.is_file() else 'there is no checkpoint yet'
            raise CheckpointError(
                f'nothing was saved at epoch {meta["epoch"]}, iteration {meta["iter"]}: the training has diverged, '
                f'{len(found)} tensors of the model are not finite ({first_few(found)}); {kept}. '
                'Lower the learning rate, or clip gradients by optim_wrapper.clip_grad'
            )

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
            draft = Path(runner.work_dir, DRAFT.format(LAST))
            draft.write_text(str(self.last_ckpt))
            publish(draft, Path(runner.work_dir, LAST))
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

    def _prepare_folder(self) -> None:
        folder = Path(self.out_dir)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / DRAFT.format('trial')).touch()
        for draft in folder.glob(DRAFT.format('*')):  # also of a training that was killed
            draft.unlink()

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
