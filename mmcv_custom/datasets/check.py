"""The data check: what a config will train on and evaluate, before the first step."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from .report import Report
from .sources import DatasetCheck, new_check, sources

LAYERS = ('structure', 'conservation', 'oracle')


def check_datasets(
    cfg: Config, splits: Collection[str], full: bool = False, layers: Collection[str] = LAYERS
) -> Report:
    """Checks the datasets of a config. Random states stay as they are.

    A layer that finds errors in a dataset is the last for it: the next one would stumble over the same.

    Args:
        cfg: The config, its ``custom_imports`` done.
        splits: Some of ``'train'``, ``'val'`` and ``'test'``. ``'train'`` is read in any case where the others are to
            be judged against it.
        full: Look at every image and mask, not at a sample.
        layers: Some of ``'structure'``, ``'conservation'``, ``'oracle'``.

    Returns:
        What was found.
    """
    report = Report()
    with _scope_of(cfg), _same_random_states():
        checks = {
            split: [check for source in sources(cfg, split) if (check := new_check(source, report, full))]
            for split in ('train', 'val', 'test')
            if split in splits
        }
        for split, of_split in checks.items():
            for layer in ('structure', 'conservation'):
                if layer in layers and not report.kinds(split):
                    for check in of_split:
                        getattr(check, layer)()
        train = checks.get('train', [None])[0] if checks.get('train') else None
        if 'oracle' in layers and not report.failed:
            for split in ('val', 'test'):
                for check in checks.get(split, ()):
                    check.oracle(train)
        _shared_images(checks, report)
    return report


def _shared_images(checks: dict[str, list[DatasetCheck]], report: Report) -> None:
    raise NotImplementedError


@contextmanager
def _scope_of(cfg: Config) -> Iterator[None]:
    scope = str(cfg.get('default_scope') or 'mmengine')
    with DefaultScope.overwrite_default_scope(scope):
        yield


@contextmanager
def _same_random_states() -> Iterator[None]:
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
