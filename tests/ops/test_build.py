"""How the libraries are built: the sources, the choice of architectures and compiler, and the variables."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ops_dcnv3 import _build, extension
from tests.support import ROOT


@pytest.mark.parametrize(
    'text, archs',
    [
        (None, ['8.0', '9.0', '9.0+PTX']),
        (' ', ['8.0', '9.0', '9.0+PTX']),
        ('8.6', ['8.6']),
        ('7.5;8.9+PTX;', ['7.5', '8.9', '8.9+PTX']),
        ('9.0a, 10.0', ['9.0a', '10.0']),
    ],
)
def test_cuda_archs(text, archs, monkeypatch):
    monkeypatch.delenv('TORCH_CUDA_ARCH_LIST', raising=False)
    if text is not None:
        monkeypatch.setenv('TORCH_CUDA_ARCH_LIST', text)
    assert _build.cuda_archs() == archs


def test_unknown_cuda_arch(monkeypatch):
    monkeypatch.setenv('TORCH_CUDA_ARCH_LIST', '8.0 Hopper')
    with pytest.raises(ValueError, match="TORCH_CUDA_ARCH_LIST must hold .*got 'Hopper'"):
        _build.cuda_archs()


def test_nvcc_of_cuda_home(monkeypatch, tmp_path):
    nvcc = tmp_path / 'bin' / 'nvcc'
    monkeypatch.setenv('CUDA_HOME', str(tmp_path))
    assert _build.find_nvcc() is None
    nvcc.parent.mkdir()
    nvcc.touch()
    assert _build.find_nvcc() == str(nvcc)


def test_nvcc_command():
    command = _build.nvcc_command('nvcc', Path('out.so'), ['8.0', '9.0+PTX'])
    assert '-gencode=arch=compute_80,code=sm_80' in command
    assert '-gencode=arch=compute_90,code=compute_90' in command
    assert f'-DDCNV3_SOURCE_HASH="{_build.source_hash()}"' in command
    assert not any('Werror' in option for option in command)
    strict = _build.nvcc_command('nvcc', Path('out.so'), ['8.0'], warnings_as_errors=True)
    assert '-Werror=all-warnings' in strict


def _setup(tmp_path: Path, force: str) -> subprocess.CompletedProcess:
    environment = os.environ | {'FORCE_CUDA': force, 'PATH': str(tmp_path), 'CUDA_HOME': str(tmp_path)}
    command = [sys.executable, 'setup.py', '--name']
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_force_cuda(tmp_path):
    """Without nvcc: an error where CUDA is required, a note where FORCE_CUDA is empty, nothing where it is skipped."""
    required, empty, skipped = (_setup(tmp_path, force) for force in ('1', '', '0'))
    assert required.returncode == 1 and 'FORCE_CUDA=1, but no nvcc was found' in required.stderr
    assert empty.returncode == 0 and 'no nvcc found, building the CPU operator only' in empty.stdout
    assert skipped.returncode == 0 and 'nvcc' not in skipped.stdout


def test_force_cuda_must_be_0_or_1(tmp_path):
    result = _setup(tmp_path, 'yes')
    assert result.returncode == 1 and "FORCE_CUDA must be 0, 1 or unset, got 'yes'" in result.stderr


def test_source_hash_reveals_other_sources(monkeypatch, tmp_path):
    built = extension.describe()
    assert built['cpu']['source_hash'] == built['source_hash'] and not built['cpu']['stale']
    (tmp_path / 'kernel.cpp').write_text('int x;')
    monkeypatch.setattr(_build, 'CSRC', tmp_path)
    assert extension.describe()['cpu']['stale']
    (tmp_path / 'kernel.cpp').unlink()
    assert not extension.describe()['cpu']['stale']  # a wheel without sources
