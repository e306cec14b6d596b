"""The data check as the tools run it."""

from __future__ import annotations

import os
import sys

from mmengine.config import Config

from ops_dcnv3 import __version__

from ..datasets import Cache, Report, check_datasets, key_of
from .messages import fail


def print_errors(report: Report) -> None:
    """Prints the errors of a report on stderr, one line each."""
    for line in report.error_lines():
        print(f'error: {line}', file=sys.stderr)


def check_data(cfg: Config, *splits: str) -> None:
    """Checks the datasets of a config, unless the same data passed before. Ends the program if there is an error.

    Only the first of several processes checks; the others wait for it where they first meet.

    Args:
        cfg: The config. Its work folder holds what passed.
        splits: Some of ``'train'``, ``'val'`` and ``'test'``; those that the config has not are left out.
    """
    if os.environ.get('RANK', '0') != '0' and cfg.get('launcher', 'none') != 'none':
        return
    used = [split for split in splits if cfg.get(f'{split}_dataloader')]
    # The training data decide the labels of test data.
    cache, key = Cache(cfg.work_dir), key_of(cfg, {*used, 'train'}, full=False, version=__version__)
    summary = cache.find(key)
    if summary is None:
        report = check_datasets(cfg, used)
        if report.failed:
            print_errors(report)
            fail(
                f'the data of {cfg.filename} have errors, see above; tools/check_data.py --fix DIR repairs some, '
                '--skip-data-check goes on with the data as they are'
            )
        cache.add(key, summary := report.summary())
    print(f'data check passed: {summary}', flush=True)
