"""The set-up of .venv: what is due, what is skipped, and one clear line where it cannot go on."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tools import setup_env

ROOT = Path(setup_env.__file__).parent.parent
SCRIPT = ROOT / 'tools' / 'setup_env.py'


def run_script(*arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SCRIPT, *arguments],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=120,
    )


def add_package(venv: Path, name: str, version: str) -> Path:
    """The traces that pip leaves of a complete installation."""
    info = venv / f'lib/python3.11/site-packages/{name}-{version}.dist-info'
    info.mkdir(parents=True, exist_ok=True)
    for file in ('METADATA', 'INSTALLER', 'RECORD'):
        (info / file).touch()
    return info


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakePip:
    """A set-up in which pip and venv only leave traces."""
    fake = FakePip(tmp_path / 'venv', tmp_path / 'project')
    (fake.project / 'ops_dcnv3' / 'csrc').mkdir(parents=True)
    for name in ('pyproject.toml', 'setup.py', 'ops_dcnv3/_build.py'):
        (fake.project / name).write_text((ROOT / name).read_text())
    (fake.project / 'requirements').symlink_to(ROOT / 'requirements')
    monkeypatch.setattr(setup_env, 'ROOT', fake.project)
    monkeypatch.setattr(setup_env, 'run', fake)
    monkeypatch.setattr(setup_env, 'succeeds', lambda code, venv: not fake.misfits)
    return fake


class FakePip:
    def __init__(self, venv: Path, project: Path) -> None:
        self.venv, self.project = venv, project
        self.calls: list[str] = []
        self.misfits = False  # whether what comes out of pip's cache does not fit
        self.dies_at: str | None = None  # word of the command that is cut short

    def __call__(self, command: list[object], venv: Path) -> None:
        words = ' '.join(str(word) for word in command[2:])
        self.calls.append(words)
        if self.dies_at and self.dies_at in words:
            raise setup_env.SetupError('cut short')
        if words.startswith('venv'):
            shutil.rmtree(venv, ignore_errors=True)
            for name in ('python', 'activate'):
                (venv / 'bin' / name).parent.mkdir(parents=True, exist_ok=True)
                (venv / 'bin' / name).touch()
            add_package(venv, 'pip', '25.0')
        for requirements in (setup_env.STACK, setup_env.ONEDL):
            if requirements in words:
                for name, version in setup_env.pins(requirements).items():
                    add_package(venv, name.replace('-', '_'), '2.13.0+cpu' if name == 'torch' else version)
        if '-e .' in words:
            add_package(venv, 'mm_internimage', '0.1.0')
            (self.project / 'ops_dcnv3' / '_cpu.abi3.so').touch()

    def set_up(self) -> list[str]:
        """The commands that a set-up runs."""
        self.calls.clear()
        setup_env.set_up(self.venv)
        return list(self.calls)


STACK = 'pip install -r requirements/stack.txt'
ONEDL = 'pip install --no-build-isolation --no-deps -r requirements/onedl.txt'
PROJECT = 'pip install --no-build-isolation --no-deps -e .'


def test_first_run_does_everything_and_the_second_nothing(pip: FakePip, capsys: pytest.CaptureFixture[str]) -> None:
    assert pip.set_up() == [f'venv --clear {pip.venv}', STACK, ONEDL, PROJECT]
    assert '11 minutes' in capsys.readouterr().out
    assert pip.set_up() == []
    assert capsys.readouterr().out == ''


def remove_package(pip: FakePip) -> None:
    (pip.venv / 'lib/python3.11/site-packages/pytest-9.2.0.dist-info/RECORD').unlink()


def remove_mmcv(pip: FakePip) -> None:
    (pip.venv / 'lib/python3.11/site-packages/onedl_mmcv-2.3.6.dist-info/INSTALLER').unlink()


def remove_library(pip: FakePip) -> None:
    (pip.project / 'ops_dcnv3' / '_cpu.abi3.so').unlink()


def change_source(pip: FakePip) -> None:
    (pip.project / 'ops_dcnv3/csrc/new.h').write_text('int one = 1;')


def change_build(pip: FakePip) -> None:
    (pip.project / 'setup.py').write_text('')


def remove_pip(pip: FakePip) -> None:
    (pip.venv / 'lib/python3.11/site-packages/pip-25.0.dist-info/RECORD').unlink()
    remove_library(pip)


def remove_interpreter(pip: FakePip) -> None:
    (pip.venv / 'bin/python').unlink()
    (pip.venv / 'bin/python').symlink_to('/nowhere/python')


@pytest.mark.parametrize(
    ('damage', 'repair'),
    [
        (remove_package, [STACK]),
        (remove_mmcv, [ONEDL]),
        (remove_library, [PROJECT]),
        (change_source, [PROJECT]),
        (change_build, [PROJECT]),
        (remove_pip, ['ensurepip --upgrade', PROJECT]),
        (remove_interpreter, ['venv --clear {venv}', STACK, ONEDL, PROJECT]),
    ],
)
def test_only_what_is_missing_or_changed_is_done_again(
    pip: FakePip, damage: Callable[[FakePip], None], repair: list[str]
) -> None:
    pip.set_up()
    damage(pip)
    assert pip.set_up() == [text.format(venv=pip.venv) for text in repair]
    assert pip.set_up() == []


def test_a_package_of_which_pip_left_a_part_is_out_of_its_way(pip: FakePip) -> None:
    pip.set_up()
    fragment = add_package(pip.venv, 'fsspec', '2026.1')  # no pin: a dependency of torch
    (fragment / 'RECORD').unlink()
    remove_package(pip)
    pip.set_up()
    assert not fragment.exists()
    assert (pip.venv / 'lib/python3.11/site-packages/torch-2.13.0+cpu.dist-info').exists()


@pytest.mark.parametrize('step', ['venv', STACK, ONEDL, PROJECT])
def test_a_run_that_was_cut_short_is_continued(pip: FakePip, step: str) -> None:
    everything = [f'venv --clear {pip.venv}', STACK, ONEDL, PROJECT]
    pip.dies_at = step
    with pytest.raises(setup_env.SetupError):
        pip.set_up()
    pip.dies_at = None
    first = next(index for index, command in enumerate(everything) if command.startswith(step))
    assert pip.set_up() == everything[first:]


def test_an_operator_library_is_rebuilt_for_other_architectures(pip: FakePip, monkeypatch: pytest.MonkeyPatch) -> None:
    pip.set_up()
    monkeypatch.setenv('TORCH_CUDA_ARCH_LIST', '12.0')
    assert pip.set_up() == [PROJECT]


def test_mmcv_of_the_cache_that_does_not_fit_is_compiled_again(pip: FakePip) -> None:
    pip.misfits = True
    assert ONEDL.replace('install', 'install --no-cache-dir --force-reinstall') in pip.set_up()


def test_mmcv_is_done_again_for_another_torch(pip: FakePip) -> None:
    pip.set_up()
    requirements = {name: (pip.project / name).read_text() for name in (setup_env.STACK, setup_env.ONEDL)}
    (pip.project / 'requirements').unlink()
    (pip.project / 'requirements').mkdir()
    for name, text in requirements.items():
        (pip.project / name).write_text(text.replace('tqdm==', 'tqdm==9'))
    assert pip.set_up() == [STACK]
    for name, text in requirements.items():
        (pip.project / name).write_text(text.replace('torch==2.13.0', 'torch==2.13.1'))
    assert pip.set_up() == [STACK, ONEDL, PROJECT]


def test_the_trial_of_mmcv_passes_here_and_sees_the_lack_of_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    trial = next(step.trial for step in setup_env.STEPS if step.name == 'onedl')
    exec(trial, {})
    monkeypatch.setattr('torch.cuda.is_available', lambda: True)
    monkeypatch.setattr('mmcv.ops.get_compiling_cuda_version', lambda: 'not available')
    with pytest.raises(AssertionError):
        exec(trial, {})


@pytest.mark.parametrize('nvcc', [None, '/cuda/bin/nvcc'])
def test_mmcv_is_compiled_for_cuda_only_where_nvcc_is(
    nvcc: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    monkeypatch.setattr(setup_env, 'build_rules', lambda: {'find_nvcc': lambda: nvcc})
    assert setup_env.environment(tmp_path).get('CUDA_VISIBLE_DEVICES') == (None if nvcc else '')


def test_commands_find_the_programs_of_the_environment_and_use_all_cores(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv('MAX_JOBS', raising=False)
    variables = setup_env.environment(tmp_path)
    assert variables['PATH'].startswith(f'{tmp_path}/bin{os.pathsep}')
    assert variables['MAX_JOBS'] == str(os.cpu_count())
    monkeypatch.setenv('MAX_JOBS', '1')
    assert setup_env.environment(tmp_path)['MAX_JOBS'] == '1'


# ---- One line and exit code 1


def test_the_script_can_be_read_by_old_pythons() -> None:
    ast.parse(SCRIPT.read_text(), feature_version=(3, 6))


@pytest.mark.parametrize(('version', 'fits'), [((3, 9, 18), 0), ((3, 10, 0), 1), ((3, 13, 9), 1), ((3, 14, 0), 0)])
def test_python_version(
    version: tuple[int, int, int], fits: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, 'version_info', version)
    assert setup_env.main(['--probe']) == 1 - fits
    error = capsys.readouterr().err
    number = '.'.join(map(str, version))
    assert error == '' if fits else f'Python 3.10 to 3.13 is needed and {sys.executable} is {number}' in error


def only_line(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 1
    lines = (result.stdout + result.stderr).splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_no_venv_module(tmp_path: Path) -> None:
    (tmp_path / 'ensurepip.py').write_text('raise ImportError')
    line = only_line(run_script('--venv', tmp_path / 'venv', PYTHONPATH=str(tmp_path)))
    assert line.startswith('error:') and 'no venv module' in line and 'apt install python3-venv' in line


@pytest.mark.parametrize('variables', [{'PATH': '/nowhere', 'CXX': 'c++'}, {'CXX': 'clang++-1'}])
def test_no_compiler(variables: dict[str, str], tmp_path: Path) -> None:
    line = only_line(run_script('--venv', tmp_path / 'venv', **variables))
    assert line == f'error: no C++ compiler {variables["CXX"]} (Debian, Ubuntu: apt install g++; CXX names another)'
    assert not (tmp_path / 'venv').exists()


def test_no_python_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(setup_env.sysconfig, 'get_path', lambda name: str(tmp_path))
    monkeypatch.setenv('CXX', sys.executable)
    assert setup_env.main(['--venv', str(tmp_path / 'venv')]) == 1
    assert 'no Python headers' in capsys.readouterr().err


def test_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """With the real pip, in a real environment, at an index that refuses connections."""
    for name in [name for name in os.environ if name.startswith('PIP_')]:
        monkeypatch.delenv(name)
    monkeypatch.setenv('PIP_CONFIG_FILE', os.devnull)
    monkeypatch.setenv('PIP_INDEX_URL', 'https://127.0.0.1:9/simple')
    monkeypatch.setenv('PIP_RETRIES', '1')
    monkeypatch.setattr(setup_env, 'require_compiler', lambda: None)
    assert setup_env.main(['--venv', str(tmp_path / 'venv')]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith('error: pip cannot reach a package index that offers torch==2.13.0: check the network')


@pytest.mark.parametrize(
    ('output', 'line'),
    [
        (
            'ERROR: Could not find a version that satisfies the requirement a==2 (from versions: 0.1, 1.0)\n'
            'ERROR: No matching distribution found for a==2',
            'no package index offers a==2 for this Python',
        ),
        (
            'ERROR: Could not install packages due to an OSError: Max retries exceeded with url: /a.whl',
            'pip cannot reach a package index: check the network, or the index that pip is configured for',
        ),
        (
            '  WARNING: Retrying after connection broken by NewConnectionError\n'
            '  error: subprocess-exited-with-error\n      a.cpp:3:10: fatal error: b.h: No such file or directory',
            'compilation failed: a.cpp:3:10: fatal error: b.h: No such file or directory',
        ),
        (
            'c++: fatal error: Killed signal terminated program cc1plus',
            'the compiler ran out of memory; try MAX_JOBS=1',
        ),
        ('OSError: [Errno 28] No space left on device', 'the disk is full'),
        ('  error: subprocess-exited-with-error\n      a.b.SomeError: why\n', 'a.b.SomeError: why'),
        ('one\nlast words\n', 'last words'),
        ('', 'the command failed without a word'),
    ],
)
def test_explain(output: str, line: str) -> None:
    assert setup_env.explain(output) == line


@pytest.mark.parametrize(
    ('end', 'cause'),
    [('raise SystemExit(3)', 'last words'), ('os.kill(os.getpid(), 9)', 'a command was ended by signal 9')],
)
def test_a_failed_command_names_its_log(end: str, cause: str, tmp_path: Path) -> None:
    with pytest.raises(setup_env.SetupError, match=rf'^{cause} \(details: .*venv\.log\)$'):
        setup_env.run([sys.executable, '-c', f'import os; print("last words", flush=True); {end}'], tmp_path / 'venv')


def test_a_long_command_gives_signs_of_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(setup_env, 'HEARTBEAT', 0.1)
    setup_env.run([sys.executable, '-c', 'import time; time.sleep(0.5)'], tmp_path / 'venv')
    assert 'at work for 0 min' in capsys.readouterr().out


# ---- An environment of the user's


def test_this_environment_has_what_the_tests_need() -> None:
    setup_env.check_environment('test')


def test_a_foreign_environment_is_told_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(setup_env.NEEDS, 'lint', ('ast', 'no_such_module', 'torch'))
    with pytest.raises(setup_env.SetupError, match=r'make lint needs no_such_module, which .*python.* lacks'):
        setup_env.check_environment('lint')


def test_a_foreign_environment_without_the_operator(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(setup_env, 'ROOT', tmp_path)
    with pytest.raises(setup_env.SetupError, match='-m pip install --no-build-isolation -e .'):
        setup_env.check_environment('test')
    setup_env.check_environment('doctor')


def run_make(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """`make` as a user types it, whatever make this test itself may run under."""
    of_make = ('MAKEFLAGS', 'MAKELEVEL', 'ARGS', 'PYTHON', 'PYTHON_BOOTSTRAP')
    kept = {name: value for name, value in os.environ.items() if name not in of_make}
    return subprocess.run(['make', *arguments], cwd=ROOT, env={**kept, **variables}, capture_output=True, text=True)


def test_make_uses_the_environment_it_is_given(tmp_path: Path) -> None:
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', tmp_path], check=True)
    python = tmp_path / 'bin' / 'python'
    result = run_make('lint', f'PYTHON={python}')
    assert result.returncode != 0
    assert f'error: make lint needs torch, ruff, mypy, clang_format, which {python} lacks' in result.stderr
    assert result.stdout == ''


def test_make_takes_another_python_where_python3_does_not_fit(tmp_path: Path) -> None:
    scripts = {'python3': 'exit 1', 'python3.13': 'exit 127', 'python3.12': f'exec {sys.executable} "$@"'}
    for name, code in scripts.items():
        (tmp_path / name).write_text(f'#!/bin/sh\n{code}\n')
        (tmp_path / name).chmod(0o755)
    plan = run_make('-n', 'doctor', PATH=f'{tmp_path}{os.pathsep}{os.environ["PATH"]}').stdout
    assert [line.strip() for line in plan.splitlines()] == [
        'python3.12 tools/setup_env.py',
        '.venv/bin/python mmcv_custom/doctor.py',
    ]
