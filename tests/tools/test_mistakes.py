"""A user's mistake gets one line on stderr and exit code 1, before any work is done or anything is written."""

from __future__ import annotations

import re
import resource
from pathlib import Path
from typing import Any

import pytest

from mmcv_custom import cli
from tests.tools.helpers import DETECTOR, LONG, SEGMENTOR, Mistake
from tools import test, train


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
        (
            [DETECTOR, '--cfg-options', 'default_hooks.checkpoint.filename_tmpl={a}'],
            "filename_tmpl of .* a place for a number, as in iter_{}.pth, got '{a}'",
        ),
        ([DETECTOR, '--cfg-options', 'default_hooks.checkpoint.filename_tmpl=a.pth'], "filename_tmpl of .* 'a.pth'"),
        ([DETECTOR, '--cfg-options', f'train_cfg.x={"[" * 3000}{"]" * 3000}'], 'nested too deeply'),
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
    ('bases', 'circle'),
    [
        (dict(a='./a.py'), 'a.py -> a.py'),
        (dict(a='b.py', b='a.py'), 'a.py -> b.py -> a.py'),
        (dict(a=['empty.py', 'b.py'], b='c.py', c='b.py'), 'b.py -> c.py -> b.py'),
        (dict(a=['b.py', 'c.py'], b='empty.py', c='empty.py'), None),  # one base on two ways is no circle
    ],
)
def test_a_base_that_leads_back(cluttered: Path, bases: dict[str, Any], circle: str | None) -> None:
    for name, base in bases.items():
        (cluttered / f'{name}.py').write_text(f'_base_ = {base!r}\n')
    if circle is None:
        cli.read_config('a.py')
        return
    with pytest.raises(SystemExit) as left:
        cli.read_config('a.py')
    assert left.value.code == f'error: cannot read config a.py: it is its own base: {circle}'


def test_a_full_disk(cluttered: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(SystemExit) as left:
            cli.make_folder('work', 'work folder')
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(left.value) == 'error: work folder work: cannot write there: File too large; name another folder'


def test_outputs_are_tested_and_not_made(cluttered: Path) -> None:
    (cluttered / 'old.pkl').write_text('old')
    for path in ('new/x.pkl', 'old.pkl'):
        cli.check_output_file(path, '--out')
    assert list((cluttered / 'new').iterdir()) == [] and (cluttered / 'old.pkl').read_text() == 'old'
