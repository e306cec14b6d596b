#!/usr/bin/env python3
"""Makes and completes the virtual environment that `make` works in; returns at once where nothing is missing.

    python3 tools/setup_env.py                  .venv with the pinned stack, the compiled operator and this project
    python3 tools/setup_env.py --check TARGET   installs nothing: says what this interpreter lacks for that make target

What is missing is read off the environment itself, so the next run completes one that was cut short.
Standard library only, and readable by Python 3.6, so that an old interpreter ends in one line and not in a SyntaxError.
"""

import argparse
import collections
import glob
import hashlib
import importlib.util
import os
import re
import runpy
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST, NEWEST = (3, 10), (3, 13)  # the pinned wheels exist for these
STACK = 'requirements/stack.txt'
ONEDL = 'requirements/onedl.txt'
DISTRIBUTION = 'mm-internimage'
LIBRARY = 'ops_dcnv3/_cpu*.so'
BUILD_VARIABLES = ('FORCE_CUDA', 'TORCH_CUDA_ARCH_LIST')
HEARTBEAT = 60.0  # seconds between two signs of life of a long step

TRAINING = ('torch', 'numpy', 'mmengine', 'mmcv', 'mmdet', 'mmseg', 'safetensors', 'skimage', 'sklearn', 'matplotlib')
NEEDS = {
    'cuda-check': ('torch',),
    'demo': TRAINING,
    'doctor': ('torch',),
    'lint': ('torch', 'ruff', 'mypy', 'clang_format'),
    'test': (*TRAINING, 'pytest', 'xdist', 'hypothesis'),
}
NEED_LIBRARY = ('demo', 'test')

NO_INDEX = 'pip cannot reach a package index{}: check the network, or the index that pip is configured for'
# What a failed command's output gives away, the most specific first, and what to say of it.
CAUSES = (
    (r'No space left on device', 'the disk is full'),
    (r'Killed signal|std::bad_alloc|[Vv]irtual memory exhausted', 'the compiler ran out of memory; try MAX_JOBS=1'),
    (r'(\S+: (?:fatal )?error: .+)', 'compilation failed: {}'),
    (r'requirement (\S+) \(from versions: none\)', NO_INDEX.format(' that offers {}')),
    (r'No matching distribution found for (\S+)', 'no package index offers {} for this Python'),
    (r'Max retries exceeded|Read timed out|NewConnectionError|Connection broken', NO_INDEX.format('')),
    (r'(?m)^ *([\w.]+Error: .+)$', '{}'),
)


class SetupError(Exception):
    """Its text is the one line that the user sees."""


# One `pip install` with these arguments; due where is_present(venv) is false or inputs() returns another text than last
# time. trial is Python that fails where what pip had in its cache does not fit the rest; None for no trial.
Step = collections.namedtuple('Step', 'name announcement arguments inputs is_present trial')


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--venv', type=Path, default=ROOT / '.venv', help='environment to make (default: .venv)')
    group = parser.add_mutually_exclusive_group()
    group.add_argument('--check', choices=sorted(NEEDS), metavar='TARGET', help=', '.join(sorted(NEEDS)))
    group.add_argument('--probe', action='store_true', help='only say whether this Python can make the environment')
    options = parser.parse_args(argv)
    try:
        if options.check:
            check_environment(options.check)
        elif options.probe:
            require_python()
        else:
            set_up(Path(os.path.abspath(str(options.venv))))
    except SetupError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('interrupted; the next run continues here', file=sys.stderr)
        return 130
    return 0


def check_environment(target):
    """Raises where this interpreter, which belongs to the user, lacks something that the target needs."""
    if sys.version_info[:2] < OLDEST:
        raise SetupError(f'Python 3.10 or newer is needed and {sys.executable} is {python_version()}')
    missing = [name for name in NEEDS[target] if importlib.util.find_spec(name) is None]
    if missing:
        raise SetupError(f'make {target} needs {", ".join(missing)}, which {sys.executable} lacks')
    if target in NEED_LIBRARY and not library_is_built():
        raise SetupError(f'the operator is not built: {sys.executable} -m pip install --no-build-isolation -e .')


def require_python():
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        raise SetupError(
            f'Python 3.10 to 3.13 is needed and {sys.executable} is {python_version()}; '
            'name another by PYTHON_BOOTSTRAP=/path/to/python3'
        )


def python_version():
    return '.'.join(str(number) for number in sys.version_info[:3])


def library_is_built():
    return bool(glob.glob(str(ROOT / LIBRARY)))


def set_up(venv):
    """Does the steps that are due.

    Raises:
        SetupError: Something is missing that pip cannot bring, or a step failed.
    """
    require_python()
    if has_interpreter(venv) and not due_steps(venv):
        return
    require_venv_module()
    require_compiler()
    print(f'Setting up {venv}', flush=True)
    ensure_venv(venv)
    remove_fragments(venv)
    due = due_steps(venv)
    for number, step in enumerate(due, 1):
        print(f'[{number}/{len(due)}] {step.announcement}', flush=True)
        digest = digest_of(step)
        install(step.arguments, venv)
        if step.trial and not succeeds(step.trial, venv):
            print("      what pip's cache held does not fit and is compiled again", flush=True)
            install(('--no-cache-dir', '--force-reinstall', *step.arguments), venv)
        stamp_of(step, venv).write_text(digest)
    print('Set-up is complete', flush=True)


def due_steps(venv):
    return [step for step in STEPS if not (is_as_stamped(step, venv) and step.is_present(venv))]


def is_as_stamped(step, venv):
    stamp = stamp_of(step, venv)
    return stamp.exists() and stamp.read_text() == digest_of(step)


def stamp_of(step, venv):
    return venv / f'{step.name}.done'


def digest_of(step):
    return hashlib.sha256(step.inputs().encode()).hexdigest()


def require_venv_module():
    try:
        import ensurepip  # noqa: F401  (Debian packs it apart from venv)
        import venv  # noqa: F401
    except ImportError:
        raise SetupError(f'{sys.executable} has no venv module (Debian, Ubuntu: apt install python3-venv)') from None


def require_compiler():
    compiler = os.environ.get('CXX', 'c++')
    if shutil.which(compiler.split()[0]) is None:
        raise SetupError(f'no C++ compiler {compiler} (Debian, Ubuntu: apt install g++; CXX names another)')
    header = Path(sysconfig.get_path('include'), 'Python.h')
    if not header.exists():
        raise SetupError(f'no Python headers {header} (Debian, Ubuntu: apt install python3-dev)')


def ensure_venv(venv):
    if not has_interpreter(venv):
        run([sys.executable, '-m', 'venv', '--clear', venv], venv)
    elif 'pip' not in installed(venv):
        run([python_of(venv), '-m', 'ensurepip', '--upgrade'], venv)


def has_interpreter(venv):
    """Whether `python -m venv` got through; its link to the interpreter may have lost its target since."""
    return python_of(venv).exists() and (venv / 'bin' / 'activate').exists()


def python_of(venv):
    return venv / 'bin' / 'python'


def log_of(venv):
    return venv.with_name(venv.name + '.log')


def dist_infos(venv):
    return venv.glob('lib/python3*/site-packages/*.dist-info')


def is_complete(dist_info):
    """pip writes these two after a package's own files; without them the installation was cut short."""
    return all((dist_info / name).exists() for name in ('RECORD', 'INSTALLER'))


def remove_fragments(venv):
    """Takes away what would make pip believe in a package of which only a part is there."""
    for dist_info in dist_infos(venv):
        if not is_complete(dist_info):
            shutil.rmtree(str(dist_info))


def installed(venv):
    """Versions by normalised name, without local parts such as +cpu."""
    pairs = (info.name[: -len('.dist-info')].rsplit('-', 1) for info in dist_infos(venv) if is_complete(info))
    return {normalise(name): version.split('+')[0] for name, version in pairs}


def normalise(name):
    return re.sub(r'[-_.]+', '-', name).lower()


def pins(requirements):
    """Versions by normalised name, of a file of comments and `name==version`."""
    lines = (line.split('#')[0].strip() for line in (ROOT / requirements).read_text().splitlines())
    pairs = (line.split('==') for line in lines if line)
    return {normalise(name): version for name, version in pairs}


def has_pins(requirements):
    return lambda venv: pins(requirements).items() <= installed(venv).items()


def onedl_inputs():
    """mmcv's operators fit only the torch that they were compiled for."""
    return repr((pins(ONEDL), pins(STACK)['torch']))


def project_inputs():
    """All that the compiled libraries and the editable installation depend on, the place of the checkout included."""
    files = [ROOT / name for name in ('pyproject.toml', 'setup.py', 'ops_dcnv3/_build.py')]
    hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    variables = [os.environ.get(name) for name in BUILD_VARIABLES]
    return repr((str(ROOT), pins(STACK)['torch'], variables, hashes, build_rules()['source_hash']()))


def build_rules():
    return runpy.run_path(str(ROOT / 'ops_dcnv3' / '_build.py'))


def has_project(venv):
    return DISTRIBUTION in installed(venv) and library_is_built()


def install(arguments, venv):
    run([python_of(venv), '-m', 'pip', 'install', *arguments], venv)


def run(command, venv):
    """Runs a command, its output in the log, with a sign of life every minute; raises with the likely cause."""
    start = time.monotonic()
    with log_of(venv).open('w+b') as log:
        process = subprocess.Popen(
            [str(part) for part in command], stdout=log, stderr=subprocess.STDOUT, cwd=str(ROOT), env=environment(venv)
        )
        try:
            while process.poll() is None:
                try:
                    process.wait(HEARTBEAT)
                except subprocess.TimeoutExpired:
                    print(f'      at work for {(time.monotonic() - start) / 60:.0f} min', flush=True)
        finally:
            process.terminate()  # where we were interrupted; on a process that has ended it does nothing
        log.seek(0)
        output = log.read().decode(errors='replace')
    if process.returncode:
        cause = explain(output) if process.returncode > 0 else f'a command was ended by signal {-process.returncode}'
        raise SetupError(f'{cause} (details: {log_of(venv)})')


def succeeds(code, venv):
    command = [str(python_of(venv)), '-c', code]
    quiet = {'stdout': subprocess.DEVNULL, 'stderr': subprocess.DEVNULL}
    return subprocess.call(command, cwd=str(venv), env=environment(venv), **quiet) == 0


def explain(output):
    """One line on why a command failed, from what it printed."""
    for pattern, text in CAUSES:
        match = re.search(pattern, output)
        if match:
            return text.format(*match.groups())
    return (output.strip().splitlines() or ['the command failed without a word'])[-1].strip()


def environment(venv):
    variables = dict(os.environ, PIP_DISABLE_PIP_VERSION_CHECK='1')
    variables['PATH'] = os.pathsep.join([str(venv / 'bin'), os.environ.get('PATH', os.defpath)])  # for ninja
    variables.setdefault('MAX_JOBS', str(os.cpu_count()))
    if build_rules()['find_nvcc']() is None:  # mmcv asks for nvcc wherever a GPU is visible
        variables['CUDA_VISIBLE_DEVICES'] = ''
    return variables


STEPS = (
    Step(
        name='stack',
        announcement='packages that come ready made, torch among them',
        arguments=('-r', STACK),
        inputs=lambda: repr(pins(STACK)),
        is_present=has_pins(STACK),
        trial=None,
    ),
    Step(
        name='onedl',
        announcement='mmcv and its family: compiles mmcv, once, about 11 minutes on 2 cores',
        arguments=('--no-build-isolation', '--no-deps', '-r', ONEDL),
        inputs=onedl_inputs,
        is_present=has_pins(ONEDL),
        trial=(
            'import torch; from mmcv.ops import get_compiling_cuda_version as cuda; '
            'assert not torch.cuda.is_available() or cuda() != "not available"'
        ),
    ),
    Step(
        name='project',
        announcement='this project: compiles its operator',
        arguments=('--no-build-isolation', '--no-deps', '-e', '.'),
        inputs=project_inputs,
        is_present=has_project,
        trial=None,
    ),
)

if __name__ == '__main__':
    sys.exit(main())
