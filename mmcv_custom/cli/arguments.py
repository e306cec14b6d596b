"""The arguments of the tools, and the files and folders that they name."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, NoReturn
from urllib.parse import urlsplit

from mmengine.config import DictAction
from mmengine.runner import CheckpointLoader

from ..engine.runner import LAUNCHERS
from .messages import fail


class Parser(argparse.ArgumentParser):
    """argparse's parser, which answers mistakes like :func:`fail`."""

    def error(self, message: str) -> NoReturn:
        """Ends the program. Called by argparse."""
        fail(f'{message}; --help explains the arguments')


class Overrides(DictAction):
    """MMEngine's action of ``--cfg-options``, which refuses what MMEngine would misread."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Adds KEY=VALUE pairs to the namespace. Called by argparse."""
        for pair in values:
            key, equals, value = pair.partition('=')
            if not equals or not all(key.split('.')):
                raise argparse.ArgumentError(self, f'expected KEY=VALUE, as in train_cfg.max_iters=9, got {pair!r}')
            if value.count('(') != value.count(')') or value.count('[') != value.count(']'):
                raise argparse.ArgumentError(self, f'brackets must be closed, got {pair!r}')
            if re.search(r'[^\s,(\[]\s+[^\s,)\]]', value):
                raise argparse.ArgumentError(
                    self, f'MMEngine would drop the space in {pair!r}: write this value in the config file'
                )
        try:
            super().__call__(parser, namespace, values, option_string)
        except RecursionError:
            raise argparse.ArgumentError(self, 'brackets are nested too deeply') from None


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments ``config``, ``--cfg-options`` and ``--debug``."""
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=Overrides,
        metavar='KEY=VALUE',
        help='entries of the config to override, as in optim_wrapper.optimizer.lr=1e-4',
    )
    parser.add_argument('--debug', action='store_true', help='print the traceback of every error')


def new_parser(description: str) -> argparse.ArgumentParser:
    """A parser of the arguments that train.py and test.py share."""
    parser = Parser(description=description)
    add_config_arguments(parser)
    parser.add_argument(
        '--work-dir', help='folder of logs and checkpoints (default: work_dir of the config, else work_dirs/<its name>)'
    )
    parser.add_argument('--skip-data-check', action='store_true', help='do not check the data before the start')
    parser.add_argument(
        '--launcher', choices=['none', *LAUNCHERS], default='none', help='what started this process (%(default)s)'
    )
    return parser


def existing_file(path: str, what: str, source: str = '') -> str:
    """``path``. Ends the program if it is a local path and there is no such file, or an impossible URL.

    Args:
        path: File or URL.
        what: What it is, for the error text.
        source: Where it is named, for the end of the error text.
    """
    if '://' in path:
        _check_url(path, what, source)
    elif not os.path.isfile(os.path.expanduser(path)):
        fail(f'there is no {what} {path or repr(path)}{": it is a folder" if os.path.isdir(path) else ""}{source}')
    return path


def _check_url(url: str, what: str, source: str) -> None:
    schemes = [prefix for prefix in CheckpointLoader._schemes if prefix]
    if not any(re.match(prefix, url) for prefix in schemes):
        fail(f'{what} {url}: expected a file, or a URL that begins with https:// or http://{source}')
    if url.startswith(('http://', 'https://')):
        try:
            parts = urlsplit(url)
            complete = parts.hostname and Path(parts.path).name and (parts.port or True) and not re.search(r'\s', url)
        except ValueError:  # brackets that are not closed, a port that is no number
            complete = False
        if not complete:
            fail(f'{what} {url}: expected a URL with a host and a file, as in https://host/file.pth{source}')


def make_folder(path: str, what: str) -> None:
    """Makes a folder. Ends the program if this or writing a file there fails, with ``what`` in the error text."""
    if os.path.exists(path) and not os.path.isdir(path):
        fail(f'{what} {path}: it is no folder; name another one')
    try:
        os.makedirs(path, exist_ok=True)
        with TemporaryFile(dir=path) as file:
            file.write(bytes(4096))  # on a full disk there is place for an empty file
    except OSError as problem:
        fail(f'{what} {path}: cannot write there: {problem.strerror}; name another folder')


def new_folder(path: str, what: str) -> None:
    """Makes a folder for new files. Ends the program if it holds files already, with ``what`` in the error text."""
    if os.path.isdir(path) and os.listdir(path):
        fail(f'{what} {path}: the folder is not empty, and nothing is written over; name a new one')
    make_folder(path, what)


def check_output_file(path: str, what: str) -> None:
    """Makes the folder of a file to be written later. Ends the program if the file cannot be opened."""
    make_folder(os.path.dirname(path) or '.', f'folder of {what}')
    is_new = not os.path.exists(path)
    try:
        with open(path, 'ab'):
            pass
        if is_new:
            Path(path).unlink(missing_ok=True)  # another process may have done it
    except OSError as problem:
        fail(f'{what} {path}: cannot write it: {problem.strerror}; name another file')
