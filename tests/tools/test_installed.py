"""A wheel of the project in a new virtual environment, used from outside the source tree, by our command and by mim."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import mmdet
import pytest

from mmcv_custom import zoo
from tests.support import ROOT

pytestmark = pytest.mark.slow

MASK_RCNN = 'mask-rcnn_internimage-t_fpn_1x_coco'
NOT_SOURCES = ('.git', '.venv', 'build', 'data', 'work_dirs', '*.so', '*.egg-info', '__pycache__', '.*_cache')
TWO_STEPS = ['train_cfg.max_iters=2', 'train_cfg.val_interval=2', 'default_hooks.checkpoint.interval=2']


class Installation:
    """A virtual environment with the wheel, and a folder to work in."""

    def __init__(self, folder: Path) -> None:
        self.packages = folder / f'env/lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages'
        self.folder = folder / 'outside'
        self.folder.mkdir()
        self._bin = folder / 'env/bin'

    def run(self, program: str, *arguments: str | Path, check: bool = True) -> str:
        """What a program of the environment prints. It sees nothing of the source tree."""
        environment = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
        done = subprocess.run(
            [self._bin / program, *arguments],
            cwd=self.folder,
            env={**environment, 'PATH': f'{self._bin}:{os.environ["PATH"]}', 'CUDA_VISIBLE_DEVICES': ''},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
        assert (done.returncode == 0) == check, done.stdout[-3000:]
        return done.stdout


@pytest.fixture(scope='module')
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    folder = tmp_path_factory.mktemp('installation')
    # A copy, because setuptools keeps what earlier builds left in build/.
    shutil.copytree(ROOT, folder / 'source', symlinks=True, ignore=shutil.ignore_patterns(*NOT_SOURCES))
    pip = [sys.executable, '-m', 'pip', '--quiet', '--disable-pip-version-check']
    build = [*pip, 'wheel', '--no-build-isolation', '--no-deps', '--wheel-dir', folder, folder / 'source']
    subprocess.run(build, check=True, env={**os.environ, 'FORCE_CUDA': '0'})
    shutil.rmtree(folder / 'source')
    venv.create(folder / 'env', symlinks=True)
    found = Installation(folder)
    # torch and the MM packages of this environment. Its editable installation of the project does not come along: that
    # is a .pth file, which Python reads in the environment's own folder only.
    (found.packages / 'base.pth').write_text(sysconfig.get_path('purelib'))
    (wheel,) = folder.glob('*.whl')
    install = [*pip, '--python', folder / 'env/bin/python', 'install', '--no-deps']
    subprocess.run([*install, wheel, '-r', ROOT / 'requirements/mim.txt'], check=True)
    return found


@pytest.fixture(scope='module')
def dataset(installation: Installation) -> None:
    """The demo's dataset, small, where its configs look."""
    installation.run('mm-internimage', 'demo/digits', 'data/digits', '--train', '8', '--val', '3', '--size', '64')


def test_the_wheel_holds_all_that_is_needed(installation: Installation) -> None:
    code = 'import mmcv_custom, ops_dcnv3.extension as e; print(mmcv_custom.__file__, e.describe()["cpu"]["path"])'
    printed = installation.run('python', '-W', 'ignore', '-c', code).split()
    assert printed == [
        str(installation.packages / name) for name in ('mmcv_custom/__init__.py', 'ops_dcnv3/_cpu.abi3.so')
    ]
    mim = installation.packages / 'mmcv_custom/.mim'
    shipped = {path.relative_to(mim) for path in mim.rglob('*') if path.is_file() and path.suffix in ('.py', '.yml')}
    configs = {path.relative_to(ROOT) for path in (ROOT / 'configs').rglob('*') if path.suffix in ('.py', '.yml')}
    assert configs | {Path('model-index.yml'), Path('tools/train.py'), Path('tools/test.py')} <= shipped
    assert not any(path.is_symlink() for path in mim.rglob('*'))


def test_configs_are_found(installation: Installation) -> None:
    path = Path(installation.run('mm-internimage', 'path', MASK_RCNN).strip())
    assert path.is_file() and path.is_relative_to(installation.packages)
    assert installation.run('mm-internimage', 'list').split() == list(zoo.models())
    assert installation.run('mm-internimage', 'list', 'mask-rcnn', 't_fpn_1x').split() == [MASK_RCNN]
    assert 'train' in installation.run('mm-internimage')


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['trian'], "error: there is no command 'trian'; expected path, list or a tool: "),
        (['path'], 'error: path needs one name, got 0'),
        (['path', 'mask-rcnn_internimage-t'], "error: there is no model 'mask-rcnn_internimage-t'; close to it: "),
        (['train', 'nowhere.py'], 'error: there is no config file nowhere.py'),
    ],
)
def test_mistakes_get_one_clear_line(installation: Installation, arguments: list[str], message: str) -> None:
    printed = installation.run('mm-internimage', *arguments, check=False)
    assert printed.splitlines()[-1].startswith(message) and 'Traceback' not in printed


def test_our_tools_train_and_test_an_inherited_config(installation: Installation, dataset: None) -> None:
    (installation.folder / 'mine.py').write_text(
        "_base_ = 'mmcv_custom::demo/mask-rcnn_digits.py'\nmodel = _base_.model\nmodel.test_cfg.rcnn.max_per_img = 5\n"
    )
    installation.run('mm-internimage', 'train', 'mine.py', '--cfg-options', *TWO_STEPS)
    printed = installation.run('mm-internimage', 'test', 'mine.py', 'work_dirs/mine/iter_2.pth')
    assert 'coco/bbox_mAP: ' in printed


def test_mim_lists_the_models(installation: Installation) -> None:
    printed = installation.run('mim', 'search', 'mm-internimage', '--valid-config')
    assert [name for name in zoo.models() if f"'{name}'" not in printed] == []
    assert '47.2' in installation.run('mim', 'search', 'mm-internimage', '--config', MASK_RCNN)


def test_mim_trains_and_tests(installation: Installation, dataset: None) -> None:
    """Ours by the config's name, and mmdet's own tools by its path."""
    options = ['--gpus', '0', '--cfg-options', *TWO_STEPS]
    installation.run('mim', 'train', 'mm-internimage', 'mask-rcnn_digits.py', '--work-dir', 'by-mim', *options)
    checkpoint = 'by-mim/iter_2.pth'
    tested = installation.run(
        'mim', 'test', 'mm-internimage', 'mask-rcnn_digits.py', '--checkpoint', checkpoint, '--gpus', '0'
    )
    assert 'coco/bbox_mAP: ' in tested
    mmdet_test = Path(mmdet.__file__).parent / '.mim/tools/test.py'
    config = installation.packages / 'mmcv_custom/.mim/configs/demo/mask-rcnn_digits.py'
    assert 'coco/bbox_mAP: ' in installation.run('python', '-W', 'ignore', mmdet_test, config, checkpoint)
