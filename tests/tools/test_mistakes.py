"""A user's mistake gets one line on stderr and exit code 1, before any work is done or anything is written."""

from __future__ import annotations

import os
import re
import resource
import socket
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config
from mmengine.device import get_device

from mmcv_custom import __main__ as mm_internimage
from mmcv_custom import cli
from mmcv_custom.cli import configs, messages, running
from mmcv_custom.engine.runner import LAUNCHERS, PortableRunner
from tests.support import ROOT
from tools import test, train
from tools.analysis_tools import get_flops
from tools.demo import digits
from tools.zoo import evaluate

DETECTOR = str(ROOT / 'configs/demo/mask-rcnn_digits.py')
SEGMENTOR = str(ROOT / 'configs/demo/upernet_digits.py')
NAME = 'mask-rcnn_internimage-t_fpn_1x_coco'
LONG = 300 * 'x'
Mistake = Callable[..., str]

CONFIGS = {
    'empty.py': b'',
    'binary.py': b'\x00\xff\xfe\x80',
    'syntax.py': b'model = dict(\n',
    'raises.py': b"raise RuntimeError('first line\\nsecond line')\n",
    'exits.py': b'import sys\nsys.exit(0)\n',
    'list.json': b'[1, 2]',
    'text.txt': b'model = None\n',
    'imports.py': b"custom_imports = dict(imports=['nowhere'], allow_failed_imports=False)\n",
    'no_val_cfg.py': f'_base_ = {DETECTOR!r}\nval_cfg = None\n'.encode(),
    'no_model.py': f'_base_ = {DETECTOR!r}\nmodel = None\n'.encode(),
    'text_model.py': f'_base_ = {DETECTOR!r}\nmodel = "MaskRCNN"\n'.encode(),
    'text_loader.py': f'_base_ = {DETECTOR!r}\ntrain_dataloader = "abc"\n'.encode(),
    'no_evaluator.py': f'_base_ = {DETECTOR!r}\ntest_evaluator = test_dataloader = test_cfg = None\n'.encode(),
}


def everything(folder: Path) -> dict[str, int]:
    """All files and folders with the time of their last change."""
    return {str(path.relative_to(folder)): path.lstat().st_mtime_ns for path in folder.rglob('*')}


@pytest.fixture
def place(tmp_path: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the digits, configs, weights, and things that are in the way."""
    (tmp_path / 'data').symlink_to(workplace / 'data')
    for name, content in CONFIGS.items():
        (tmp_path / name).write_bytes(content)
    for name in ('folder', 'folder.pkl', 'no_images', 'pictures'):
        (tmp_path / name).mkdir()
    for name in ('mine.txt', 'mine.pkl', 'weights.pth', 'pictures/mine.png'):
        (tmp_path / name).write_text('mine')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'hub'))
    for name in {'MASTER_ADDR', 'MASTER_PORT', *(name for names in LAUNCHERS.values() for name in names)}:
        monkeypatch.setenv(name, 'restored after the test')
        monkeypatch.delenv(name)
    return tmp_path


@pytest.fixture
def mistake(place: Path, monkeypatch: pytest.MonkeyPatch) -> Mistake:
    """Runs a program that must end with one line, which it returns, and leave nothing but the folder ``work``."""

    def start(program: Any, *arguments: str, leaves: tuple[str, ...] = ()) -> str:
        def others(folder: Path) -> dict[str, int]:
            return {name: time for name, time in everything(folder).items() if name.split('/')[0] not in leaves}

        before = others(place)
        monkeypatch.setattr('sys.argv', ['program', *arguments])
        with pytest.raises(SystemExit) as left:
            program.main()
        text = left.value.code
        assert isinstance(text, str), f'exit code {text!r} without a message'  # Python prints it and exits with 1
        assert text.startswith('error: ') and '\n' not in text and 'Traceback' not in text
        assert others(place) == before
        return text

    return start


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ([], 'arguments are required: config'),
        ([DETECTOR, '--nonsense'], 'unrecognized arguments: --nonsense'),
        ([DETECTOR, '--launcher', 'lsf'], "invalid choice: 'lsf'"),
        ([DETECTOR, '--work-dir', ''], "--work-dir must name a folder, got ''"),
        ([DETECTOR, '--cfg-options', 'resume'], "expected KEY=VALUE, .* got 'resume'"),
        ([DETECTOR, '--cfg-options', '=3'], "expected KEY=VALUE, .* got '=3'"),
        ([DETECTOR, '--cfg-options', 'model..type=3'], "expected KEY=VALUE, .* got 'model..type=3'"),
        ([DETECTOR, '--cfg-options', 'a=(1,2'], r"brackets must be closed, got 'a=\(1,2'"),
        ([DETECTOR, '--cfg-options', 'work_dir=my runs'], "would drop the space in 'work_dir=my runs'"),
        ([DETECTOR, '--cfg-options', 'optim_wraper.x=3'], "has 'optim_wraper'; did you mean optim_wrapper"),
        ([DETECTOR, '--cfg-options', 'custom_imports.imports=a'], 'custom_imports.imports has no effect: write it in'),
        ([DETECTOR, '--cfg-options', 'launcher=slurm'], 'launcher has no effect: use --launcher'),
        ([DETECTOR, '--cfg-options', 'param_scheduler.7.end=3'], '--cfg-options does not fit .*Index 7 exceeds'),
        ([''], "there is no config file ''"),
        (['folder'], 'there is no config file folder: it is a folder'),
        ([50 * LONG], 'there is no config file xxx'),
        (['ünï.py'], 'there is no config file ünï.py'),
        (['empty.py'], 'empty.py has no model, which train.py needs'),
        (['binary.py'], 'cannot read config binary.py: UnicodeDecodeError'),
        (['syntax.py'], "cannot read config syntax.py: SyntaxError: '\\(' was never closed"),
        (['raises.py'], 'cannot read config raises.py: RuntimeError: first line second line'),
        (['exits.py'], 'cannot read config exits.py: SystemExit: 0'),
        (['list.json'], 'cannot read config list.json'),
        (['text.txt'], 'cannot read config text.txt: OSError: Only py'),
        (['imports.py'], 'cannot read config imports.py: ImportError.*nowhere'),
        (['no_model.py'], 'no_model.py has no model, which train.py needs'),
        (['no_val_cfg.py'], 'has no val_cfg: val_dataloader, val_cfg, val_evaluator belong together'),
        (['text_model.py'], "model of text_model.py must be a dict, got 'MaskRCNN'"),
        (['text_loader.py'], "train_dataloader of text_loader.py must be a dict, got 'abc'"),
        ([DETECTOR, '--cfg-options', 'default_hooks=a'], "default_hooks of .* must be a dict, got 'a'"),
        ([DETECTOR, '--cfg-options', 'work_dir=3'], 'work_dir of .* must be a text, got 3'),
        ([DETECTOR, '--cfg-options', 'train_cfg.max_iters=0'], 'max_iters of .* must be a positive .* got 0'),
        ([DETECTOR, '--cfg-options', 'train_cfg.max_iters=nan'], 'max_iters of .* must be a positive .* got nan'),
        ([DETECTOR, '--cfg-options', 'train_cfg.val_interval=0'], 'val_interval of .* must be a positive .* got 0'),
        (
            [DETECTOR, '--cfg-options', 'default_hooks.checkpoint.intervall=2'],
            "unknown 'intervall'; did you mean inter",
        ),
        ([DETECTOR, '--cfg-options', 'default_hooks.checkpoint.interval=a'], "interval of .* must be an int, got 'a'"),
        ([DETECTOR, '--cfg-options', 'optim_wrapper.clip_grad.max_norm=-1'], 'max_norm of .* positive .* got -1'),
        ([DETECTOR, '--cfg-options', 'train_dataloader.dataset=a'], "train_dataloader.dataset of .* a dict, got 'a'"),
        ([DETECTOR, '--auto-scale-lr', '--cfg-options', 'auto_scale_lr=5'], 'auto_scale_lr of .* must be a dict'),
        ([DETECTOR, '--cfg-options', 'load_from=no.pth'], r'there is no checkpoint no.pth \(load_from of'),
        ([DETECTOR, '--cfg-options', 'load_from=5'], 'load_from of .* must be a text, got 5'),
        ([SEGMENTOR], r'there is no checkpoint work_dirs/\S+ \(model.backbone.init_cfg.checkpoint of'),
        ([DETECTOR, '--resume', 'htp://x/y.pth'], 'checkpoint htp://x/y.pth: expected a file, or a URL'),
        ([DETECTOR, '--work-dir', 'mine.txt'], 'work folder mine.txt: it is no folder'),
        ([DETECTOR, '--work-dir', 'mine.txt/work'], 'work folder mine.txt/work: cannot write there: Not a directory'),
        ([DETECTOR, '--work-dir', LONG], 'work folder x*: cannot write there: File name too long'),
        ([DETECTOR, '--work-dir', '/proc/work'], 'work folder /proc/work: cannot write there'),
        (
            [DETECTOR, '--cfg-options', 'default_hooks.checkpoint.out_dir=mine.txt'],
            'default_hooks.checkpoint.out_dir of .* mine.txt: it is no folder',
        ),
    ],
)
def test_train(mistake: Mistake, arguments: list[str], message: str) -> None:
    assert re.search(message, mistake(train, *arguments))


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ([DETECTOR], 'arguments are required: checkpoint'),
        ([DETECTOR, ''], "there is no checkpoint ''"),
        ([DETECTOR, 'folder'], 'there is no checkpoint folder: it is a folder'),
        ([DETECTOR, 'ftp://host/x.pth'], 'checkpoint ftp://host/x.pth: expected a file, or a URL'),
        ([DETECTOR, 'https://'], 'expected a URL with a host and a file'),
        ([DETECTOR, 'https://host/'], 'expected a URL with a host and a file'),
        ([DETECTOR, 'http://host:99999/x.pth'], 'expected a URL with a host and a file'),
        ([DETECTOR, 'https://ho st/x.pth'], 'expected a URL with a host and a file'),
        ([DETECTOR, 'weights.pth', '--tta'], '--tta needs tta_model and tta_pipeline'),
        (['no_evaluator.py', 'weights.pth', '--out', 'x.pkl'], 'no_evaluator.py has no test_dataloader, which test.py'),
        ([DETECTOR, 'weights.pth', '--out', ''], "--out must name a .pkl file, got ''"),
        ([DETECTOR, 'weights.pth', '--out', 'mine.txt/x.pkl'], 'folder of --out mine.txt: it is no folder'),
        ([DETECTOR, 'weights.pth', '--out', 'folder.pkl'], '--out folder.pkl: cannot write it: Is a directory'),
        ([DETECTOR, 'weights.pth', '--out', f'{LONG}.pkl'], '--out x*.pkl: cannot write it: File name too long'),
        ([DETECTOR, 'weights.pth', '--out', 'mine.pkl'], '--out mine.pkl exists: name another file or delete it'),
        ([DETECTOR, 'weights.pth', '--show-dir', 'pictures'], '--show-dir pictures is not empty: name another'),
        ([DETECTOR, 'weights.pth', '--show-dir', ''], "--show-dir must name a folder, got ''"),
        ([DETECTOR, 'weights.pth', '--show-dir', 'mine.txt'], '--show-dir mine.txt: it is no folder'),
        (
            [DETECTOR, 'weights.pth', '--cfg-options', 'test_evaluator.outfile_prefix=mine.txt/x'],
            'folder of test_evaluator.outfile_prefix of .* mine.txt: it is no folder',
        ),
        (
            [SEGMENTOR, 'weights.pth', '--cfg-options', 'test_evaluator.output_dir=mine.txt'],
            'test_evaluator.output_dir of .* mine.txt: it is no folder',
        ),
    ],
)
def test_test(mistake: Mistake, arguments: list[str], message: str) -> None:
    assert re.search(message, mistake(test, *arguments))


@pytest.mark.parametrize(
    ('override', 'message'),
    [
        ('model.type=MaskRCN', "build model of .*: mmdet has no model called 'MaskRCN'; did you mean MaskRCNN"),
        (
            'model.roi_head.mask_head.num_conv=2',
            "build model.roi_head.mask_head of .*'num_conv'; did you mean num_convs",
        ),
        ('model.backbone.depth=[1,1]', "build model.backbone of .* unknown keyword 'depth'"),
        ('model.backbone.channels=abc', 'build model.backbone of .* channels must be even and positive .* got abc'),
        ('default_scope=mmdett', 'build visualizer of .* should default_scope be mmdet or mmseg'),
        ('runner_type=Fast', "build the runner of .* no runner called 'Fast'"),
        ('default_hooks.logger.type=Log', "build default_hooks.logger of .* no hook called 'Log'"),
        ('train_dataloader.batch_size=abc', 'build train_dataloader of .* got batch_size=abc'),
        ('train_dataloader.dataset.type=Coco', "build train_dataloader.dataset of .* no dataset called 'Coco'"),
        ('train_dataloader.dataset.pipeline.2.scales=3', "build train_dataloader.dataset.pipeline.2 of .*'scales'"),
        ('optim_wrapper.optimizer.type=AdamX', "build optim_wrapper of .* no optimizer called 'AdamX'; did you mean"),
        ('optim_wrapper.optimizer.lr=nan', 'build optim_wrapper.optimizer of .* Invalid learning rate: nan'),
        ('val_evaluator.metric=boxes', 'build val_evaluator of .* boxes'),
        ('randomness.sed=3', "build the runner of .* 'sed'"),
    ],
)
def test_what_cannot_be_built(mistake: Mistake, override: str, message: str) -> None:
    overrides = ['--cfg-options', 'train_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False']
    # MMEngine keeps the default scope by experiment and second: two tests may share one.
    overrides += ['train_cfg.max_iters=1', f'experiment_name={override.partition("=")[0]}']
    assert re.search(message, mistake(train, DETECTOR, '--work-dir', 'work', *overrides, override, leaves=('work',)))


def test_an_empty_dataset(mistake: Mistake) -> None:
    images = [
        f'train_dataloader.dataset.{key}=no_images' for key in ('data_prefix.img_path', 'data_prefix.seg_map_path')
    ]
    overrides = [*images, 'train_dataloader.dataset.data_root=.', 'model.backbone.init_cfg=None']
    text = mistake(train, SEGMENTOR, '--work-dir', 'work', '--cfg-options', *overrides, leaves=('work',))
    assert 'the data of' in text and '--skip-data-check' in text
    text = mistake(
        train, SEGMENTOR, '--work-dir', 'work', '--skip-data-check', '--cfg-options', *overrides, leaves=('work',)
    )
    assert 'build train_dataloader.dataset of' in text and 'the dataset is empty' in text


@pytest.mark.parametrize(
    ('bases', 'circle'),
    [
        (dict(a='./a.py'), 'a.py -> a.py'),
        (dict(a='b.py', b='a.py'), 'a.py -> b.py -> a.py'),
        (dict(a=['empty.py', 'b.py'], b='c.py', c='b.py'), 'b.py -> c.py -> b.py'),
        (dict(a=['b.py', 'c.py'], b='empty.py', c='empty.py'), None),  # one base on two ways is no circle
    ],
)
def test_a_base_that_leads_back(place: Path, bases: dict[str, Any], circle: str | None) -> None:
    for name, base in bases.items():
        (place / f'{name}.py').write_text(f'_base_ = {base!r}\n')
    if circle is None:
        cli.read_config('a.py')
        return
    with pytest.raises(SystemExit) as left:
        cli.read_config('a.py')
    assert left.value.code == f'error: cannot read config a.py: it is its own base: {circle}'


@pytest.mark.parametrize(('rank', 'waits'), [('0', []), ('1', [messages.HEAD_START])])
def test_only_the_first_process_speaks_at_once(
    place: Path, rank: str, waits: list[int], monkeypatch: pytest.MonkeyPatch
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


def test_a_full_disk(place: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(SystemExit) as left:
            cli.make_folder('work', 'work folder')
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(left.value) == 'error: work folder work: cannot write there: File too large; name another folder'


def test_outputs_are_tested_and_not_made(place: Path) -> None:
    (place / 'old.pkl').write_text('old')
    for path in ('new/x.pkl', 'old.pkl'):
        cli.check_output_file(path, '--out')
    assert list((place / 'new').iterdir()) == [] and (place / 'old.pkl').read_text() == 'old'


ALONE = dict(RANK='0', WORLD_SIZE='1', LOCAL_RANK='0', MASTER_ADDR='127.0.0.1', MASTER_PORT='29500')


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


def test_debug_prints_the_traceback(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = ['--cfg-options', 'model.type=MaskRCN']
    monkeypatch.setattr('sys.argv', ['train.py', DETECTOR, '--work-dir', 'work', '--debug', *overrides])
    with pytest.raises(KeyError, match='MaskRCN'):
        train.main()


@pytest.mark.parametrize('kind', [RuntimeError, KeyError, TypeError, OSError])
def test_our_own_bugs_keep_their_traceback(place: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]) -> None:
    """An error within the run is no mistake in the config, whatever its type."""

    def broken(runner: PortableRunner) -> None:
        raise kind('a bug')

    monkeypatch.setattr(PortableRunner, 'train', broken)
    monkeypatch.setattr('sys.argv', ['train.py', DETECTOR, '--work-dir', 'work'])
    with pytest.raises(kind, match='a bug'):
        train.main()


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['no.py'], 'there is no config file no.py'),
        (['text_model.py'], "model of text_model.py must be a dict, got 'MaskRCNN'"),
        ([DETECTOR, '--shape', 'a', 'b'], "--shape: invalid int value: 'a'"),
        ([DETECTOR, '--shape', '99999999999', '64'], '--shape must be two positive numbers, got 99999999999 64'),
        ([DETECTOR, '--cfg-options', 'x'], 'expected KEY=VALUE'),
        ([DETECTOR, '--cfg-options', 'model.type=Foo'], "cannot build model of .* no model called 'Foo'"),
        (
            [DETECTOR, '--cfg-options', 'model.backbone.in_channels=4'],
            'model of .* does not run on an image of 800 x 1280',
        ),
    ],
)
def test_get_flops(mistake: Mistake, arguments: list[str], message: str) -> None:
    assert re.search(message, mistake(get_flops, *arguments))


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ([NAME], 'arguments are required: --data-root'),
        ([NAME, '--data-root', 'd', '--tolerance', 'nan'], '--tolerance must be at least 0, got nan'),
        ([NAME, '--data-root', 'd', '--tolerance', '-1'], '--tolerance must be at least 0, got -1.0'),
        ([NAME, '--data-root', 'd', '--checkpoint', ''], "there is no checkpoint ''"),
        ([NAME, '--data-root', 'd', '--checkpoint', 'htp://x/y'], 'checkpoint htp://x/y: expected a file'),
    ],
)
def test_evaluate(mistake: Mistake, arguments: list[str], message: str) -> None:
    assert re.search(message, mistake(evaluate, *arguments))


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['out', '--train', '0'], 'train and val must be at least 1'),
        (['out', '--size', '63'], 'size must be from 64 to 300, got 63'),
        (['out', '--seed', '-1'], 'seed must be at least 0, got -1'),
        (['mine.txt'], 'mine.txt'),
        (['mine.txt/out'], 'Not a directory'),
        (['.'], 'is not empty'),
        ([LONG], 'File name too long'),
    ],
)
def test_digits(mistake: Mistake, arguments: list[str], message: str) -> None:
    assert re.search(message, mistake(digits, *arguments))


@pytest.mark.parametrize('stamp', ['{', '[1]', '{"version": 1}'])
def test_digits_keeps_other_files(place: Path, mistake: Mistake, stamp: str) -> None:
    (place / 'folder/digits.json').write_text(stamp)
    (place / 'folder/mine.txt').touch()
    assert 'did not write' in mistake(digits, 'folder', '--train', '1', '--val', '1', '--size', '64')


def test_digits_leaves_its_neighbours_alone(place: Path) -> None:
    (place / 'out.partial').mkdir()
    (place / 'out.partial/mine.txt').touch()
    assert digits.generate('out', 1, 1, 64)
    assert (place / 'out.partial/mine.txt').exists()
    assert {path.name for path in place.glob('*out*')} == {'out', 'out.partial'}


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--iterations', '0'], '--iterations must be at least 1, got 0'),
        (['--work-dir', 'my runs'], '--work-dir must name a folder without spaces'),
        (['--work-dir', ''], '--work-dir must name a folder'),
        (['--images', 'a', 'b'], "invalid int value: 'a'"),
        (['--images', '0', '1'], 'train and val must be at least 1'),
    ],
)
def test_demo(mistake: Mistake, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / 'tools/demo')
    assert re.search(message, mistake(import_module('tools.demo.run'), *arguments))


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['trian'], "there is no command 'trian'"),
        ([''], "there is no command ''"),
        (['list', 'resnet'], 'no name of a model contains resnet'),
        (['path', 'nothing'], "there is no model 'nothing'"),
        (['train', 'no.py'], 'there is no config file no.py'),
    ],
)
def test_mm_internimage(mistake: Mistake, arguments: list[str], message: str) -> None:
    assert re.search(message, mistake(mm_internimage, *arguments))


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
def test_shell_scripts(place: Path, script: str, arguments: list[str], variables: dict[str, str], message: str) -> None:
    before = everything(place)
    environment = {**os.environ, 'PYTHON': sys.executable, **variables}
    command = [str(ROOT / 'tools' / script), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and re.fullmatch(f'error: {message}.*\n', done.stderr), done.stderr
    assert everything(place) == before


def test_a_port_in_use(place: Path) -> None:
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        taken.listen()
        environment = {**os.environ, 'PYTHON': sys.executable, 'PORT': str(taken.getsockname()[1])}
        command = [str(ROOT / 'tools/dist_train.sh'), 'c.py', '1']
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and re.fullmatch(r'error: port \d+ is in use.*\n', done.stderr), done.stderr


def test_torchrun_adds_no_traceback(place: Path, free_port: int) -> None:
    environment = {**os.environ, 'PYTHON': sys.executable, 'PORT': str(free_port), 'CUDA_VISIBLE_DEVICES': ''}
    command = [str(ROOT / 'tools/dist_train.sh'), 'no.py', '1']
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and 'error: there is no config file no.py\n' in done.stderr
    assert 'Traceback' not in done.stderr


def test_paths_in_messages_name_the_entry_that_is_used() -> None:
    """``val_dataloader`` and ``test_dataloader`` are often the same."""
    cfg = Config.fromfile(DETECTOR)
    entries = list(configs.entries_of(cfg._cfg_dict))
    assert running._path_of(cfg.test_dataloader.dataset, entries) == 'val_dataloader.dataset'
    only_test = [entry for entry in entries if not entry[0].startswith('val_')]
    assert running._path_of(cfg.test_dataloader.dataset, only_test) == 'test_dataloader.dataset'
