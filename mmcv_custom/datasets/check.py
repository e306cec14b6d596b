"""The data check: what a config will train on and evaluate, before the first step."""

from __future__ import annotations

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import DefaultScope

from ..errors import UserError
from .loading import same_random_states
from .report import Harm, Report
from .sources import DatasetCheck, new_check, sources

LAYERS = ('structure', 'conservation', 'oracle')


def check_datasets(
    cfg: Config, splits: Collection[str], full: bool = False, layers: Collection[str] = LAYERS
) -> Report:
    """Checks the datasets of a config. Random states stay as they are.

    A split of which a layer finds errors is not taken to the next layer, which would stumble over the same.

    Args:
        cfg: The config, its ``custom_imports`` done.
        splits: Some of ``'train'``, ``'val'`` and ``'test'``. Training data that are not among them only decide the
            labels of classes.
        full: Look at every image and mask, not at a sample.
        layers: Some of ``'structure'``, ``'conservation'``, ``'oracle'``.

    Returns:
        What was found.
    """
    report = Report()
    with _scope_of(cfg), same_random_states():
        checks = _checks(cfg, splits, report, full)
        for layer in LAYERS[:2]:
            for split, of_split in checks.items():
                if layer in layers and not report.kinds(split):
                    for check in of_split:
                        getattr(check, layer)()
        train = checks.get('train') or _training(cfg, report)
        if 'conservation' in layers and not report.failed:
            _compare_labels([*train, *checks.get('val', ()), *checks.get('test', ())], report)
            _compare_images(checks, report)
        if 'oracle' in layers and not report.failed:
            labels = {name: label for check in train for name, label in check.labels().items()}
            for check in [*checks.get('val', ()), *checks.get('test', ())]:
                check.oracle(labels or check.labels())
    return report


def fix_datasets(cfg: Config, splits: Collection[str], folder: str) -> list[str]:
    """Writes repaired annotations and masks of a config's datasets into a folder; says what was changed, line by line.

    Raises:
        UserError: A file that would be written exists.
    """
    with _scope_of(cfg), same_random_states():
        checks = _checks(cfg, splits, Report(), full=False)
        lines = [line for of_split in checks.values() for check in of_split for line in check.fix(folder)]
    if 'test' in splits and 'test' not in checks:  # the same data as val
        lines += [re.sub('^val_', 'test_', line) for line in lines if re.match('val_[^:]+=', line)]
    return lines


def _scope_of(cfg: Config) -> AbstractContextManager:
    return DefaultScope.overwrite_default_scope(str(cfg.get('default_scope') or 'mmengine'))


def _checks(cfg: Config, splits: Collection[str], report: Report, full: bool) -> dict[str, list[DatasetCheck]]:
    """The checks of each split. Test data that are those of val are left out."""
    same = 'val' in splits and _data_of(cfg, 'val') == _data_of(cfg, 'test')
    return {
        split: [check for source in sources(cfg, split) if (check := new_check(source, report, full))]
        for split in ('train', 'val', 'test')
        if split in splits and not (split == 'test' and same)
    }


def _data_of(cfg: Config, split: str) -> tuple:
    return (cfg.get(f'{split}_dataloader') or {}).get('dataset'), cfg.get(f'{split}_evaluator')


def _training(cfg: Config, report: Report) -> list[DatasetCheck]:
    """The checks of training data of which only the labels are asked, if their annotation files can be read."""
    found = []
    for check in _checks(cfg, ('train',), report, full=False).get('train', ()):
        try:
            check.labels()
        except UserError as problem:
            report.leave_out(f'labels of training ({problem})')
        else:
            found.append(check)
    return found


def _compare_labels(checks: Sequence[DatasetCheck], report: Report) -> None:
    """Reports classes that have other labels in one dataset than in the first one."""
    for check in checks[1:]:
        first, labels = checks[0], check.labels()
        differing = [name for name, label in first.labels().items() if labels.get(name, label) != label]
        if differing:
            name = differing[0]
            report.error(
                Harm.WRONG,
                'labels of classes',
                check.source.split,
                f'{len(differing)} classes have another label in {check.source.key} than in {first.source.key}: '
                f'{name!r} has {labels[name]} and there {first.labels()[name]}; metainfo.classes and the categories of '
                'annotation files must have the same order in all datasets',
                len(differing),
            )


def _compare_images(checks: Mapping[str, Sequence[DatasetCheck]], report: Report) -> None:
    """Notes images that are evaluated and trained on: the same path, or files of the same content."""
    train = {os.path.realpath(path) for check in checks.get('train', ()) for path in check.images()}
    by_size: dict[int, list[str]] = defaultdict(list)
    for path in train:
        if os.path.isfile(path):
            by_size[os.path.getsize(path)].append(path)
    digests: dict[str, bytes] = {}

    def digest(path: str) -> bytes:
        if path not in digests:
            digests[path] = hashlib.sha256(Path(path).read_bytes()).digest()
        return digests[path]

    for split in ('val', 'test'):
        paths = {os.path.realpath(path) for check in checks.get(split, ()) for path in check.images()}
        shared = len(paths & train)
        for path in paths - train:
            if os.path.isfile(path) and (alike := by_size.get(os.path.getsize(path))):
                shared += any(digest(path) == digest(other) for other in alike)
        report.note(split, 'images that are in the training data too', shared)
