"""What the shell scripts start, and how the options of tools/train.py reach the config."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from mmengine.config import Config

from tests.support import ROOT
from tools import train

DETECTOR = ROOT / 'configs/demo/mask-rcnn_digits.py'
COCO = ROOT / 'configs/detection/coco/mask-rcnn_internimage-t_fpn_1x_coco.py'


def start(script: str, *arguments: str, programs: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, 'PATH': f'{programs}:{os.environ["PATH"]}', **variables}
    command = [str(ROOT / 'tools' / script), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder with programs that only print what they were asked to do."""
    for name in ('srun', 'fake-python'):
        (tmp_path / name).write_text('#!/bin/sh\necho "$@"\n')
        (tmp_path / name).chmod(0o755)
    return tmp_path


def test_slurm_on_gpu_nodes(programs: Path) -> None:
    variables = dict(GPUS='16', GPUS_PER_NODE='8', SRUN_ARGS='--time 5 --exclusive', PYTHON='py')
    done = start('slurm_train.sh', 'part', 'job', 'c.py', '--resume', programs=programs, **variables)
    assert done.stdout.split() == [
        *('--partition', 'part', '--job-name', 'job', '--ntasks', '16', '--cpus-per-task', '5'),
        *('--gres', 'gpu:8', '--ntasks-per-node', '8', '--kill-on-bad-exit=1', '--time', '5', '--exclusive'),
        *('py', '-u', f'{ROOT}/tools/train.py', 'c.py', '--resume', '--launcher', 'slurm'),
    ]


def test_slurm_on_cpu_nodes(programs: Path) -> None:
    variables = dict(GPUS='2', GPUS_PER_NODE='0')
    done = start('slurm_test.sh', 'part', 'job', 'c.py', 'c.pth', programs=programs, **variables)
    assert '--gres' not in done.stdout and '--ntasks 2' in done.stdout
    assert done.stdout.endswith('tools/test.py c.py c.pth --launcher slurm\n')


@pytest.mark.parametrize(
    ('script', 'arguments', 'started'),
    [
        ('dist_train.sh', ['c.py', '4', '--amp'], 'train.py c.py --amp --launcher pytorch'),
        ('dist_test.sh', ['c.py', 'c.pth', '4', '--tta'], 'test.py c.py c.pth --tta --launcher pytorch'),
    ],
)
def test_several_processes_of_one_machine(programs: Path, script: str, arguments: list[str], started: str) -> None:
    done = start(script, *arguments, programs=programs, PYTHON=str(programs / 'fake-python'), PORT='1234')
    assert '--nnodes 1 --node-rank 0 --nproc-per-node 4 --master-addr 127.0.0.1 --master-port 1234' in done.stdout
    assert done.stdout.endswith(f'/tools/{started}\n')


@pytest.mark.parametrize('script', ['dist_train.sh', 'dist_test.sh', 'slurm_train.sh', 'slurm_test.sh'])
def test_too_few_arguments(programs: Path, script: str) -> None:
    done = start(script, 'one', programs=programs)
    assert done.returncode == 2 and done.stderr.startswith(f'usage: tools/{script} ')


@pytest.fixture
def config_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """The config that a command line makes, without the training."""

    def parse(*arguments: str | Path) -> Config:
        configs = []
        monkeypatch.setattr('sys.argv', ['train.py', *map(str, arguments), '--work-dir', str(tmp_path)])
        monkeypatch.setattr(train, 'check_paths', lambda *_: None)
        monkeypatch.setattr(train, 'check_initial_weights', lambda *_: None)
        monkeypatch.setattr(train, 'check_data', lambda *_: None)
        monkeypatch.setattr(train, 'add_terminal_hooks', lambda _: None)
        monkeypatch.setattr(
            train, 'build_runner', lambda cfg: configs.append(cfg) or SimpleNamespace(train=lambda: None)
        )
        train.main()
        return configs[0]

    return parse


def test_the_learning_rate_scales_only_when_asked(config_of) -> None:
    assert not config_of(COCO).auto_scale_lr.enable
    scaled = config_of(COCO, '--auto-scale-lr').auto_scale_lr
    assert scaled.enable and scaled.base_batch_size == 16


@pytest.mark.parametrize(('device', 'wrapper'), [('cpu', 'CPUAmpOptimWrapper'), ('cuda', 'AmpOptimWrapper')])
def test_mixed_precision_fits_the_device(config_of, device: str, wrapper: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, 'get_device', lambda: device)
    assert config_of(DETECTOR, '--amp').optim_wrapper.type == wrapper
    assert config_of(DETECTOR).optim_wrapper.type == 'OptimWrapper'
