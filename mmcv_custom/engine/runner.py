"""MMEngine's runner for GPUs and for CPUs."""

from __future__ import annotations

import os
import subprocess
from datetime import timedelta
from typing import Any

import torch.distributed as dist
from mmengine.device import get_device
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from torch import nn

from ..checkpoint import CheckpointError

# The environment variables in which each launcher puts rank, number of processes and rank within the machine.
LAUNCHERS = {
    'pytorch': ('RANK', 'WORLD_SIZE', 'LOCAL_RANK'),
    'slurm': ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID'),
    'mpi': ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_LOCAL_RANK'),
}


class LauncherError(RuntimeError):
    """The environment lacks what the chosen launcher would have set. The text is meant for the user."""


def export_rank(launcher: str) -> None:
    """Copies a launcher's environment variables to the names that torch.distributed reads.

    Sets ``RANK``, ``WORLD_SIZE`` and ``LOCAL_RANK``, and if they are not set ``MASTER_ADDR`` (under Slurm the first
    node of the job) and ``MASTER_PORT`` (29500).

    Args:
        launcher: ``'pytorch'`` (torchrun), ``'slurm'`` or ``'mpi'`` (Open MPI).

    Raises:
        LauncherError: ``launcher`` did not start this process, or the address of the first process is unknown.
    """
    missing = [name for name in LAUNCHERS[launcher] if name not in os.environ]
    if missing:
        raise LauncherError(
            f'launcher {launcher!r} was asked for, but {", ".join(missing)} is missing in the environment: '
            'start the program through that launcher, or without one'
        )
    for ours, theirs in zip(LAUNCHERS['pytorch'], LAUNCHERS[launcher], strict=True):
        os.environ[ours] = os.environ[theirs]
    if launcher == 'slurm' and 'MASTER_ADDR' not in os.environ:
        nodes = subprocess.check_output(['scontrol', 'show', 'hostnames', os.environ['SLURM_NODELIST']], text=True)
        os.environ['MASTER_ADDR'] = nodes.split()[0]
    if 'MASTER_ADDR' not in os.environ:
        raise LauncherError(f'launcher {launcher!r} needs the address of the first process in MASTER_ADDR')
    os.environ.setdefault('MASTER_PORT', '29500')


@RUNNERS.register_module()
class PortableRunner(Runner):
    """MMEngine's runner, which can also train in several processes on CPUs.

    Where ``mmengine.device.get_device()`` is ``'cpu'``, the processes communicate over gloo, the model is wrapped
    without device ids, and SyncBatchNorm, which needs GPUs, becomes BatchNorm.
    """

    def setup_env(self, env_cfg: dict) -> None:
        """Joins the process group if there are several processes. Called by the constructor."""
        if self.distributed and not dist.is_initialized():
            export_rank(self.launcher)
            if get_device() == 'cpu':  # MMEngine does it for GPUs
                seconds = env_cfg.get('dist_cfg', {}).get('timeout')
                dist.init_process_group('gloo', timeout=timedelta(seconds=seconds) if seconds else None)
        super().setup_env(env_cfg)

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

    def load_checkpoint(self, filename: str, *args: Any, **options: Any) -> dict:
        """Loads the weights of a file and returns its content."""
        checkpoint = super().load_checkpoint(filename, *args, **options)
        if self._resume and 'message_hub' not in checkpoint:
            raise CheckpointError(
                f'cannot resume from {filename}: it holds weights, but no training by MMEngine that could go on. '
                'To start a training from these weights name it as load_from, without resume'
            )
        return checkpoint
