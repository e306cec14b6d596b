"""What of a config depends on another part of it: the annotation files of loaders and evaluators."""

from __future__ import annotations

import filecmp
import inspect
import os
from collections.abc import Iterator
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS, METRICS, DefaultScope

from ..datasets import class_of
from ..datasets.sources import sources
from .configs import entries_of
from .messages import fail


def match_annotation_files(cfg: Config, *splits: str) -> None:
    """Gives evaluators without an annotation file that of their loader.

    Ends the program if an evaluator names another file than its loader: it would compare the results of some images
    with the truth of others. A copy of the file is the same file. Loaders of several files are left alone, as an
    evaluator may read what they have in common.

    Args:
        cfg: The config, its ``custom_imports`` done.
        splits: ``'val'``, ``'test'`` or both.
    """
    with DefaultScope.overwrite_default_scope(str(cfg.get('default_scope') or 'mmengine')):
        for split in splits:
            read = sources(cfg, split)
            file = read[0].path('ann_file') if len(read) == 1 else None
            if file is None:
                continue
            has_coco_format = hasattr(class_of(DATASETS, read[0].cfg), 'COCOAPI')
            for path, metric, parameter in _metrics_with_files(cfg.get(f'{split}_evaluator'), f'{split}_evaluator'):
                named = metric.get('ann_file')
                if named is None and (has_coco_format or parameter.default is parameter.empty):
                    metric['ann_file'] = file
                elif named is not None and not _may_agree(named, file):
                    fail(
                        f'{path}.ann_file and {read[0].key}.ann_file of {cfg.filename} must name the same file, got '
                        f'{named} and {file}: set {path}.ann_file={file}'
                    )


def _metrics_with_files(evaluator: Any, key: str) -> Iterator[tuple[str, dict[str, Any], inspect.Parameter]]:
    """Path, config and parameter ``ann_file`` of each metric that reads an annotation file."""
    for path, node in entries_of(evaluator, key):
        if not isinstance(node, dict) or 'type' not in node:
            continue
        for base in getattr(class_of(METRICS, node), '__mro__', ()):
            parameter = inspect.signature(base).parameters.get('ann_file')
            if parameter is not None:
                yield path, node, parameter
                break


def _may_agree(first: str, second: str) -> bool:
    """Whether two files are the same, have the same content, or are of different formats."""
    if os.path.splitext(first)[1] != os.path.splitext(second)[1]:
        return True
    if '://' in first or '://' in second:
        return first == second
    if os.path.realpath(first) == os.path.realpath(second):
        return True
    return os.path.isfile(first) and os.path.isfile(second) and filecmp.cmp(first, second, shallow=False)
