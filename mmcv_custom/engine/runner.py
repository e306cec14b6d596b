"""MMEngine's runner for GPUs and for CPUs, careful with checkpoints."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch.distributed as dist
from mmengine.device import get_device
from mmengine.fileio import LocalBackend, get_file_backend
from mmengine.hooks import CheckpointHook, Hook
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import RUNNERS
from mmengine.runner import CheckpointLoader, Runner
from torch import nn
from torch.utils.data import DataLoader

from ..checkpoint import CheckpointError, adapt, fill, renamed, unwrapped
from ..checkpoint.errors import redacted
from ..errors import UserError
from .gloo import let_gloo_finish_at_exit
from .hooks import CompleteCheckpointHook
from .optimizer_state import use_options_of_config
from .pipeline import name_images
from .resume import newest_checkpoint, require_training, scheduled_options
from .saving import SafeCheckpointHook, draft_of, in_main_process, publish

# The environment variables in which each launcher puts rank, number of processes and rank within the machine.
LAUNCHERS = {
    'pytorch': ('RANK', 'WORLD_SIZE', 'LOCAL_RANK'),
    'slurm': ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID'),
    'mpi': ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_LOCAL_RANK'),
}

# Options of a loader that DataLoader refuses where there are no workers.
WORKERS = {'persistent_workers', 'prefetch_factor'}

# Hooks that guard every training. A config changes one by `default_hooks = dict(finite_loss=dict(limit=9))`, and leaves
# it out by None.
GUARDS = dict(class_check='ClassCheckHook', batch_size_check='BatchSizeCheckHook', finite_loss='FiniteLossHook')


class LauncherError(UserError):
    """The environment lacks what the chosen launcher would have set."""


def export_rank(launcher: str) -> None:
    """Copies a launcher's environment variables to the names that torch.distributed reads.

    Sets ``RANK``, ``WORLD_SIZE`` and ``LOCAL_RANK``, and if they are not set ``MASTER_ADDR`` (under Slurm the first
    node of the job) and ``MASTER_PORT`` (29500).

    Args:
        launcher: ``'pytorch'`` (torchrun), ``'slurm'`` or ``'mpi'`` (Open MPI).

    Raises:
        LauncherError: ``launcher`` did not start this process, a variable has an impossible value, or the address of
            the first process is unknown.
    """
    missing = [name for name in LAUNCHERS[launcher] if name not in os.environ]
    if missing:
        raise LauncherError(
            f'launcher {launcher!r} was asked for, but {", ".join(missing)} is missing in the environment: '
            'start the program through that launcher, or without one'
        )
    rank_name, size_name, local_name = LAUNCHERS[launcher]
    size = _integer(size_name, 0, 2**31)
    for name in (rank_name, local_name):
        _integer(name, 0, max(size, 1))
    for ours, theirs in zip(LAUNCHERS['pytorch'], LAUNCHERS[launcher], strict=True):
        os.environ[ours] = os.environ[theirs]
    if launcher == 'slurm' and 'MASTER_ADDR' not in os.environ:
        os.environ['MASTER_ADDR'] = _first_slurm_node()
    if not os.environ.get('MASTER_ADDR'):
        raise LauncherError(f'launcher {launcher!r} needs the address of the first process in MASTER_ADDR')
    os.environ.setdefault('MASTER_PORT', '29500')
    _integer('MASTER_PORT', 1, 2**16)


def _integer(name: str, low: int, end: int) -> int:
    """The value of an environment variable, an int in [low, end)."""
    text = os.environ[name]
    if not text.isdecimal() or not low <= int(text) < end:
        raise LauncherError(
            f'the environment variable {name} must be a whole number from {low} to {end - 1}, got {text!r}'
        )
    return int(text)


def _first_slurm_node() -> str:
    """The name of the first node of the Slurm job."""
    try:
        command = ['scontrol', 'show', 'hostnames', os.environ['SLURM_NODELIST']]
        return subprocess.check_output(command, text=True).split()[0]
    except (KeyError, IndexError, OSError, subprocess.CalledProcessError) as problem:
        raise LauncherError(
            'scontrol does not tell the first node of SLURM_NODELIST '
            f'({type(problem).__name__}: {problem}): set MASTER_ADDR to its name'
        ) from problem


@RUNNERS.register_module()
class PortableRunner(Runner):
    """MMEngine's runner, which can also train in several processes on CPUs.

    Where ``mmengine.device.get_device()`` is ``'cpu'``, the processes communicate over gloo, the model is wrapped
    without device ids, and SyncBatchNorm, which needs GPUs, becomes BatchNorm.

    Checkpoints that do not hold what is asked of them are refused, and are saved so that no crash can spoil them.

    Three more default hooks guard the training: ``class_check`` (:class:`ClassCheckHook`), ``batch_size_check``
    (:class:`BatchSizeCheckHook`) and ``finite_loss`` (:class:`FiniteLossHook`). Errors of pipelines name the image.
    """

    optim_wrapper: Any
    param_schedulers: Any
    _load_from: str | None
    _resume: bool
    _resuming = False  # within resume()

    def setup_env(self, env_cfg: dict) -> None:
        """Joins the process group if there are several processes. Called by the constructor."""
        if self.distributed and not dist.is_initialized():
            export_rank(self.launcher)
            if get_device() == 'cpu':  # MMEngine does it for GPUs
                seconds = env_cfg.get('dist_cfg', {}).get('timeout')
                dist.init_process_group('gloo', timeout=timedelta(seconds=seconds) if seconds else None)
        super().setup_env(env_cfg)
        if dist.is_initialized():
            let_gloo_finish_at_exit()

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """Moves the model to its device and wraps it for several processes. Called by the constructor."""
        if self.distributed and get_device() == 'cpu':
            self.logger.info('No GPU: SyncBatchNorm layers, if any, become BatchNorm with statistics per process.')
            model = revert_sync_batchnorm(model)
            model_wrapper_cfg = {
                'broadcast_buffers': False,
                'find_unused_parameters': self.cfg.get('find_unused_parameters', False),
                **(model_wrapper_cfg or {}),
                'device_ids': None,
            }
        return super().wrap_model(model_wrapper_cfg, model)

    def load_or_resume(self) -> None:
        """Loads what ``load_from`` names, or resumes: from there or, without it, from the newest in the work folder."""
        if self._resume and self._load_from is None:
            self._load_from = newest_checkpoint(self.work_dir)
            self._resume = self._load_from is not None  # else the training starts
        super().load_or_resume()

    def resume(self, filename: str, *args: Any, **options: Any) -> None:
        """Goes on with the training that a checkpoint holds.

        Raises:
            CheckpointError: It does not hold all of the model, of the optimizer and of the schedule.
        """
        self.optim_wrapper = self.build_optim_wrapper(self.optim_wrapper)  # if train() has not built it yet
        if self.param_schedulers is not None:
            self.param_schedulers = self.build_param_scheduler(self.param_schedulers)
        self._resuming = True
        try:
            super().resume(filename, *args, **options)
        finally:
            self._resuming = False

    def load_checkpoint(
        self,
        filename: str,
        map_location: Any = 'cpu',
        strict: bool = False,
        revise_keys: Sequence[tuple[str, str]] = ((r'^module\.', ''),),
    ) -> dict[str, Any]:
        """Loads the weights of a file, logs how much of the model they fill, and returns its content.

        A file that holds only a backbone, under its own names, fills that of the model.

        Args:
            filename: File or URL.
            map_location: As for ``torch.load``.
            strict: Every tensor of the model must be filled, and nothing is added. It is so when resuming.
                With :class:`CompleteCheckpointHook` every tensor must be filled, too.
            revise_keys: Pairs of a regular expression and its replacement, applied to the names in the file.

        Raises:
            CheckpointError: As :func:`mmcv_custom.checkpoint.load_converted` does, and
                :func:`mmcv_custom.checkpoint.fill`.
        """
        checkpoint = CheckpointLoader.load_checkpoint(filename, map_location)
        state = checkpoint['state_dict']
        model, source = unwrapped(self.model), redacted(filename)
        strict = strict or self._resuming
        try:
            for pattern, replacement in revise_keys:
                state = renamed(state, partial(re.sub, pattern, replacement))
            if not strict:
                state = adapt(state, model.state_dict(), source)
        except ValueError as error:
            raise CheckpointError(f'cannot load {source}: {error}') from error
        if self._resuming:
            require_training(checkpoint, self, source)
            use_options_of_config(checkpoint['optimizer'], self.optim_wrapper, scheduled_options(self.param_schedulers))
        checkpoint['state_dict'] = state
        self.call_hook('after_load_checkpoint', checkpoint=checkpoint)  # may exchange the weights
        complete = strict or any(isinstance(hook, CompleteCheckpointHook) for hook in self.hooks)
        fill(model, checkpoint['state_dict'], source, complete)
        self._has_loaded = True
        return checkpoint

    @staticmethod
    def build_dataloader(
        dataloader: DataLoader | dict, seed: int | None = None, diff_rank_seed: bool = False
    ) -> DataLoader:
        """Builds a loader as MMEngine does. Without workers, options of workers do not count."""
        if isinstance(dataloader, dict) and not dataloader.get('num_workers') and not WORKERS.isdisjoint(dataloader):
            options = ((key, value) for key, value in dataloader.items() if key not in WORKERS)
            dataloader = type(dataloader)(options)
        loader = Runner.build_dataloader(dataloader, seed, diff_rank_seed)
        name_images(loader.dataset)
        return loader

    def register_default_hooks(self, hooks: dict[str, Hook | dict | None] | None = None) -> None:
        """Registers MMEngine's default hooks and ``GUARDS``, with the changes of a config."""
        given: dict[str, Any] = dict(hooks or {})
        for name, kind in GUARDS.items():
            guard = given.get(name, {})
            if guard is None:
                del given[name]
            elif isinstance(guard, Mapping):
                given[name] = {'type': kind, **guard}
        super().register_default_hooks(given)

    def register_hook(self, hook: Hook | dict, priority: Any = None) -> None:
        """Registers a hook. ``CheckpointHook`` means :class:`SafeCheckpointHook`."""
        names = ('CheckpointHook', 'mmengine.CheckpointHook', CheckpointHook)
        if isinstance(hook, Mapping) and hook.get('type') in names:
            hook = {**hook, 'type': SafeCheckpointHook}
        super().register_hook(hook, priority)

    def save_checkpoint(
        self,
        out_dir: str,
        filename: str,
        file_client_args: dict | None = None,
        save_optimizer: bool = True,
        save_param_scheduler: bool = True,
        meta: dict | None = None,
        by_epoch: bool = True,
        backend_args: dict | None = None,
    ) -> None:
        """Saves a checkpoint; under its name there is never a part of one. Every process must call it.

        Arguments are those of MMEngine, which writes to backends other than the local disk as it always does.

        Raises:
            CheckpointError: It cannot be written, in every process.
        """
        local = file_client_args is None and isinstance(
            get_file_backend(out_dir, backend_args=backend_args), LocalBackend
        )
        file = Path(out_dir, filename)
        draft = draft_of(file)

        def save() -> None:
            name = str(Path(filename).with_name(draft.name)) if local else filename
            options = (save_optimizer, save_param_scheduler, meta, by_epoch, backend_args)
            try:
                super(PortableRunner, self).save_checkpoint(out_dir, name, file_client_args, *options)
                if local:
                    publish(draft, file)
            finally:
                if local:
                    draft.unlink(missing_ok=True)

        in_main_process(save, f'save the checkpoint {file}')
