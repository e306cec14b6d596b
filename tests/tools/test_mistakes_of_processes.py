"""Processes that do not meet, lose each other or were started wrongly end with one line."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.device import get_device

from mmcv_custom import cli
from mmcv_custom.cli import messages, running
from mmcv_custom.engine.runner import LAUNCHERS
from tests.support import ROOT
from tests.tools.helpers import DETECTOR, Mistake, everything
from tools import train

ALONE = dict(RANK='0', WORLD_SIZE='1', LOCAL_RANK='0', MASTER_ADDR='127.0.0.1', MASTER_PORT='29500')


@pytest.mark.parametrize(('rank', 'waits'), [('0', []), ('1', [messages.HEAD_START])])
def test_only_the_first_process_speaks_at_once(
    cluttered: Path, rank: str, waits: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(messages.time, 'sleep', slept.append)
    monkeypatch.setenv('RANK', rank)
    with pytest.raises(SystemExit, match='error: a mistake'):
        cli.fail('a mistake')
    assert slept == waits


@pytest.mark.parametrize('text', ['[pair.cc:1] Connection closed by peer [127.0.0.1]:1', 'a bug'])
@pytest.mark.parametrize('together', [True, False])
def test_a_process_that_lost_the_others(text: str, together: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only in a process group, and only that text: any other error is a bug."""
    monkeypatch.setattr(running.dist, 'is_initialized', lambda: together)
    monkeypatch.setattr(running.dist, 'get_rank', lambda: 3)
    lost = together and 'closed' in text
    with pytest.raises(SystemExit if lost else RuntimeError) as left, cli.mistakes_in_one_line(Config()):
        raise RuntimeError(text)
    if lost:
        assert left.value.code.startswith('error: process 3 stops, because another one has ended; its message says why')


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(RANK='abc'), "RANK must be a whole number from 0 to 0, got 'abc'"),
        (dict(RANK='1'), "RANK must be a whole number from 0 to 0, got '1'"),
        (dict(WORLD_SIZE='0'), 'WORLD_SIZE in the environment, must be at least 1, got 0'),
        (dict(WORLD_SIZE='-2'), "WORLD_SIZE must be a whole number .* got '-2'"),
        (dict(LOCAL_RANK=''), "LOCAL_RANK must be a whole number .* got ''"),
        (dict(MASTER_PORT='99999'), "MASTER_PORT must be a whole number from 1 to 65535, got '99999'"),
        (dict(MASTER_ADDR=''), 'needs the address of the first process in MASTER_ADDR'),
        (dict(MASTER_ADDR='no..host'), 'MASTER_ADDR in the environment must be the address .* got no..host'),
    ],
)
def test_launcher_variables(
    mistake: Mistake, change: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages, 'HEAD_START', 0)
    for name, value in (ALONE | change).items():
        monkeypatch.setenv(name, value)
    assert re.search(message, mistake(train, DETECTOR, '--launcher', 'pytorch'))


def test_a_launcher_that_did_not_start_us(mistake: Mistake) -> None:
    assert "launcher 'slurm' was asked for, but SLURM_PROCID" in mistake(train, DETECTOR, '--launcher', 'slurm')


def test_slurm_without_scontrol(mistake: Mistake, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in zip(LAUNCHERS['slurm'], '010', strict=True):
        monkeypatch.setenv(name, value)
    assert 'set MASTER_ADDR to its name' in mistake(train, DETECTOR, '--launcher', 'slurm')


@pytest.mark.skipif(get_device() != 'cpu', reason='GPUs meet over NCCL')
def test_processes_that_do_not_meet(
    mistake: Mistake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], free_port: int
) -> None:
    """The first of two processes waits as long as the config says; a port in use ends it at once."""
    command = [DETECTOR, '--launcher', 'pytorch', '--work-dir', 'work', '--cfg-options', 'env_cfg.dist_cfg.timeout=2']
    for name, value in (ALONE | dict(WORLD_SIZE='2', MASTER_PORT=str(free_port))).items():
        monkeypatch.setenv(name, value)
    text = mistake(train, *command, leaves=('work',))
    assert re.search(rf'the 2 processes could not meet at 127.0.0.1:{free_port} .*Timed out', text)
    assert f'process 0 of 2 waits for the others at 127.0.0.1:{free_port}' in capsys.readouterr().out
    with socket.socket() as taken:
        taken.bind(('0.0.0.0', 0))
        taken.listen()
        monkeypatch.setenv('MASTER_PORT', str(taken.getsockname()[1]))
        assert re.search('could not meet at .* address already in use', mistake(train, *command, leaves=('work',)))


@pytest.mark.parametrize(
    ('script', 'arguments', 'variables', 'message'),
    [
        ('dist_train.sh', ['c.py', 'two'], {}, "PROCESSES must be a positive number, auto, cpu or gpu, got 'two'"),
        ('dist_train.sh', ['c.py', '0'], {}, "PROCESSES must be .* got '0'"),
        ('dist_test.sh', ['c.py', 'c.pth', ''], {}, "PROCESSES must be .* got ''"),
        ('dist_train.sh', ['c.py', '1'], dict(NNODES='x'), "NNODES must be .* got 'x'"),
        ('dist_train.sh', ['c.py', '1'], dict(NODE_RANK='1'), "NODE_RANK must be a number below NNODES=1, got '1'"),
        ('dist_train.sh', ['c.py', '1'], dict(PORT='99999'), "PORT must be a number from 1 to 65535, got '99999'"),
        ('dist_train.sh', ['c.py', '1'], dict(PYTHON='no-python'), "there is no program 'no-python'"),
        ('slurm_train.sh', ['p', 'j', 'c.py'], dict(GPUS='x'), "GPUS must be a positive number, got 'x'"),
        ('slurm_train.sh', ['p', 'j', 'c.py'], {}, "there is no program 'srun'"),
    ],
)
def test_shell_scripts(
    cluttered: Path, script: str, arguments: list[str], variables: dict[str, str], message: str
) -> None:
    before = everything(cluttered)
    environment = {**os.environ, 'PYTHON': sys.executable, **variables}
    command = [str(ROOT / 'tools' / script), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and re.fullmatch(f'error: {message}.*\n', done.stderr), done.stderr
    assert everything(cluttered) == before


def test_a_port_in_use(cluttered: Path) -> None:
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        taken.listen()
        environment = {**os.environ, 'PYTHON': sys.executable, 'PORT': str(taken.getsockname()[1])}
        command = [str(ROOT / 'tools/dist_train.sh'), 'c.py', '1']
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and re.fullmatch(r'error: port \d+ is in use.*\n', done.stderr), done.stderr


def test_torchrun_adds_no_traceback(cluttered: Path, free_port: int) -> None:
    environment = {**os.environ, 'PYTHON': sys.executable, 'PORT': str(free_port), 'CUDA_VISIBLE_DEVICES': ''}
    command = [str(ROOT / 'tools/dist_train.sh'), 'no.py', '1']
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and 'error: there is no config file no.py\n' in done.stderr
    assert 'Traceback' not in done.stderr
