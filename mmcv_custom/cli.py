"""What tools/train.py and tools/test.py share: their common arguments, and mistakes of the user told in one line."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from mmengine.config import Config, DictAction
from mmengine.registry import RUNNERS
from mmengine.runner import Runner, find_latest_checkpoint

from .checkpoint import register_safe_loader
from .runner import LAUNCHERS, PortableRunner


def fail(message: str) -> NoReturn:
    """Leave the program with one line on stderr and exit code 1."""
    raise SystemExit(f'error: {message}')


def new_parser(description: str) -> argparse.ArgumentParser:
    """A parser with the arguments that every tool takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('config', help='config file')
    parser.add_argument('--work-dir', help='folder of logs and checkpoints (default: work_dir of the config, else work_dirs/<name of the config>)')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE', help='config entries to override, as in optim_wrapper.optimizer.lr=1e-4')
    parser.add_argument('--launcher', choices=['none', *LAUNCHERS], default='none', help='what started the processes (default %(default)s)')
    parser.add_argument('--local-rank', '--local_rank', type=int, help=argparse.SUPPRESS)  # old torch.distributed.launch passes it
    return parser


def load_config(args: argparse.Namespace) -> Config:
    """The config named on the command line, with its overrides, launcher and work_dir."""
    if not Path(args.config).is_file():
        fail(f'there is no config file {args.config}')
    try:
        cfg = Config.fromfile(args.config)
        cfg.merge_from_dict(args.cfg_options or {})
    except Exception as problem:
        raise SystemExit(f'error: cannot read config {args.config}: {type(problem).__name__}: {problem}') from problem
    cfg.launcher = args.launcher
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or str(Path('work_dirs', Path(args.config).stem))
    return cfg


def existing_file(path: str, what: str) -> str:
    """`path`, unless it is a local path where there is no file."""
    if '://' not in path and not Path(path).is_file():
        fail(f'there is no {what} {path}')
    return path


def newest_checkpoint(work_dir: str) -> str:
    """The checkpoint that a training in `work_dir` wrote last, also after the folder was moved."""
    latest = find_latest_checkpoint(work_dir) if (Path(work_dir) / 'last_checkpoint').exists() else None
    if latest is None:
        fail(f'nothing to resume: no checkpoint was saved in {work_dir}')
    return existing_file(str(Path(work_dir, Path(latest).name)), 'checkpoint')


def _data_paths(dataset: dict) -> Iterator[str]:
    """The files and folders that a dataset config reads from, those of wrapped datasets included."""
    for wrapped in [dataset.get('dataset'), *dataset.get('datasets', [])]:
        if wrapped:
            yield from _data_paths(wrapped)
    prefixes = dataset.get('data_prefix') or {}
    for path in [dataset.get('ann_file'), *prefixes.values()]:
        if path:
            yield os.path.join(dataset.get('data_root') or '', path)


def check_data(cfg: Config, *splits: str) -> None:
    """Leave the program unless the data of the splits ('train', 'val', 'test') is where the config says."""
    for split in splits:
        dataset = (cfg.get(f'{split}_dataloader') or {}).get('dataset') or {}
        for path in _data_paths(dataset):
            if '://' not in path and not os.path.exists(path):
                fail(f'{split}_dataloader.dataset of {cfg.filename} reads {path}, which does not exist')


def build_runner(cfg: Config) -> Runner:
    """The runner of a config: ``runner_type`` if it names one, else the portable one. Checkpoints are read safely."""
    register_safe_loader()
    cfg.setdefault('runner_type', PortableRunner.__name__)
    return RUNNERS.build(cfg)
