"""What the portable runner reads from launchers, without starting any."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from mmengine.device import get_device
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import RUNNERS
from torch import nn

from mmcv_custom.engine.runner import LAUNCHERS, LauncherError, PortableRunner, export_rank

OURS = ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT')


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in {*OURS, *(name for names in LAUNCHERS.values() for name in names)}:
        monkeypatch.setenv(name, 'restored after the test')
        monkeypatch.delenv(name)


@pytest.mark.parametrize('launcher', LAUNCHERS)
def test_each_launchers_rank_is_found(launcher: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in zip(LAUNCHERS[launcher], ('3', '8', '1'), strict=True):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv('MASTER_ADDR', 'host')
    export_rank(launcher)
    assert [os.environ[name] for name in OURS] == ['3', '8', '1', 'host', '29500']


def test_a_given_port_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in LAUNCHERS['pytorch']:
        monkeypatch.setenv(name, '0')
    monkeypatch.setenv('MASTER_ADDR', 'host')
    monkeypatch.setenv('MASTER_PORT', '1234')
    export_rank('pytorch')
    assert os.environ['MASTER_PORT'] == '1234'


def test_slurm_asks_for_the_first_node(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in LAUNCHERS['slurm']:
        monkeypatch.setenv(name, '0')
    monkeypatch.setenv('SLURM_NODELIST', 'node[7-9]')
    program = os.path.join(tmp_path, 'scontrol')
    with open(program, 'w') as file:
        file.write('#!/bin/sh\n[ "$*" = "show hostnames node[7-9]" ] && printf "node7\\nnode8\\nnode9\\n"\n')
    os.chmod(program, 0o755)
    monkeypatch.setenv('PATH', str(tmp_path), prepend=os.pathsep)
    export_rank('slurm')
    assert os.environ['MASTER_ADDR'] == 'node7'


@pytest.mark.parametrize('launcher', LAUNCHERS)
def test_a_launcher_that_did_not_start_us(launcher: str) -> None:
    with pytest.raises(LauncherError, match=f"'{launcher}'.*{LAUNCHERS[launcher][0]}.*missing"):
        export_rank(launcher)


def test_an_unknown_master(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in LAUNCHERS['mpi']:
        monkeypatch.setenv(name, '0')
    with pytest.raises(LauncherError, match='MASTER_ADDR'):
        export_rank('mpi')


def test_one_process_joins_no_group(tmp_path: Path) -> None:
    runner = PortableRunner(nn.Linear(1, 1), work_dir=str(tmp_path), experiment_name='one', log_level='ERROR')
    assert (runner.rank, runner.world_size) == (0, 1)
    assert not dist.is_initialized()
    assert RUNNERS.get('PortableRunner') is PortableRunner


@pytest.mark.skipif(get_device() != 'cpu', reason='on a GPU MMEngine joins the processes')
@pytest.mark.parametrize('launcher', LAUNCHERS)
def test_without_a_gpu_processes_meet_over_gloo(
    launcher: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    for name, value in zip(LAUNCHERS[launcher], '010', strict=True):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv('MASTER_ADDR', '127.0.0.1')
    monkeypatch.setenv('MASTER_PORT', str(free_port))
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.SyncBatchNorm(4))
    options = dict(work_dir=str(tmp_path), experiment_name=launcher, log_level='ERROR', launcher=launcher)
    try:
        runner = PortableRunner(model, env_cfg=dict(dist_cfg=dict(backend='nccl', timeout=60)), **options)
        assert dist.get_backend() == 'gloo'
        assert isinstance(runner.model, MMDistributedDataParallel)
        assert not any(isinstance(module, nn.SyncBatchNorm) for module in runner.model.modules())
        assert runner.model(torch.rand(2, 3, 5, 5)).shape == (2, 4, 5, 5)
    finally:
        dist.destroy_process_group()
