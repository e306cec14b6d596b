"""What the tools share: common arguments, loading configs, and one clear line for a user's mistake."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from mmengine.config import Config, ConfigDict, DictAction
from mmengine.registry import RUNNERS
from mmengine.runner import Runner, find_latest_checkpoint

from .checkpoint import CheckpointError
from .engine.runner import LAUNCHERS, LauncherError, PortableRunner


def fail(message: str) -> NoReturn:
    """Ends the program with one line on stderr and exit code 1."""
    raise SystemExit(f'error: {message}')


@contextmanager
def checkpoint_errors_in_one_line() -> Iterator[None]:
    """Inside this context a checkpoint that cannot be used ends the program, like :func:`fail`."""
    try:
        yield
    except CheckpointError as problem:
        raise SystemExit(f'error: {" ".join(str(problem).split())}') from problem


def new_parser(description: str) -> argparse.ArgumentParser:
    """A parser of the arguments that every tool takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--work-dir', help='folder of logs and checkpoints (default: work_dir of the config, else work_dirs/<its name>)'
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='entries of the config to override, as in optim_wrapper.optimizer.lr=1e-4',
    )
    parser.add_argument(
        '--launcher', choices=['none', *LAUNCHERS], default='none', help='what started this process (%(default)s)'
    )
    return parser


def read_config(path: str, overrides: dict | None = None) -> Config:
    """The config in a file. Ends the program if it cannot be read."""
    existing_file(path, 'config file')
    try:
        cfg = Config.fromfile(path)
        cfg.merge_from_dict(overrides or {})
    except Exception as problem:  # a config is a program: it can raise anything
        reason = ' '.join(str(problem).split())
        raise SystemExit(f'error: cannot read config {path}: {type(problem).__name__}: {reason}') from problem
    return cfg


def load_config(args: argparse.Namespace) -> Config:
    """The config named on the command line, with its overrides, launcher and work folder."""
    cfg = read_config(args.config, args.cfg_options)
    cfg.launcher = args.launcher
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or str(Path('work_dirs', Path(args.config).stem))
    return cfg


def existing_file(path: str, what: str) -> str:
    """``path``. Ends the program if it is a local path and there is no such file."""
    if '://' not in path and not Path(path).is_file():
        fail(f'there is no {what} {path}')
    return path


def newest_checkpoint(work_dir: str) -> str:
    """The last checkpoint that a training saved in ``work_dir``, even if the folder has been moved since."""
    latest = find_latest_checkpoint(work_dir) if Path(work_dir, 'last_checkpoint').exists() else None
    if latest is None:
        fail(f'nothing to resume: no checkpoint was saved in {work_dir}')
    return existing_file(str(Path(work_dir, Path(latest).name)), 'checkpoint')


def check_data(cfg: Config, *splits: str) -> None:
    """Ends the program if files of the splits (``'train'``, ``'val'``, ``'test'``) are not where the config says."""
    for split in splits:
        for path in _data_paths((cfg.get(f'{split}_dataloader') or {}).get('dataset') or {}):
            if '://' not in path and not os.path.exists(path):
                fail(f'{path} does not exist: {split}_dataloader.dataset of {cfg.filename} reads it')


def _data_paths(dataset: Mapping) -> Iterator[str]:
    """The files and folders that a dataset config reads, including those of the datasets that it wraps."""
    for wrapped in [dataset.get('dataset'), *dataset.get('datasets', [])]:
        if wrapped:
            yield from _data_paths(wrapped)
    for path in [dataset.get('ann_file'), *(dataset.get('data_prefix') or {}).values()]:
        if path:
            yield os.path.join(dataset.get('data_root') or '', path)


def use_tta(cfg: Config) -> None:
    """Makes a config test with test-time augmentation, with its ``tta_model`` and ``tta_pipeline``."""
    if not {'tta_model', 'tta_pipeline'} <= set(cfg):
        fail(f'--tta needs tta_model and tta_pipeline in {cfg.filename}')
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline


def build_runner(cfg: Config) -> Runner:
    """The runner of a config: its ``runner_type``, by default :class:`mmcv_custom.engine.PortableRunner`."""
    try:
        return RUNNERS.build(cfg) if 'runner_type' in cfg else PortableRunner.from_cfg(cfg)
    except LauncherError as problem:
        fail(str(problem))


def table(rows: Iterable[Sequence[Any]]) -> str:
    """Rows of cells as lines of text with aligned columns."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ('  '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)
    return '\n'.join(line.rstrip() for line in lines)
