"""The datasets of a config, without the wrappers around them, and what checks each."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS, Registry

from .contexts import no_garbage_collection, silence
from .report import Report

# What checks a dataset class and those derived from it, registered under the name of that class.
DATA_CHECKS = Registry('data check', scope='mmcv_custom', locations=['mmcv_custom'])


@dataclass
class Source:
    """One dataset of a config.

    Attributes:
        split: ``'train'``, ``'val'`` or ``'test'``.
        key: Its place in the config, such as ``'train_dataloader.dataset.datasets.0'``.
        cfg: Its part of the config.
        evaluators: The metrics that judge it, as in the config.
        model: The model's part of the config, which says which label the losses ignore.
    """

    split: str
    key: str
    cfg: Mapping[str, Any]
    evaluators: list[Mapping[str, Any]] = field(default_factory=list)
    model: Mapping[str, Any] = field(default_factory=dict)

    def path(self, *names: str) -> str | None:
        """The file or folder that a key of the dataset names, with its ``data_root``; ``None`` if it names none.

        Args:
            names: Keys, such as ``'data_prefix', 'img'``.
        """
        value: Any = self.cfg
        for name in names:
            value = value.get(name) if isinstance(value, Mapping) else None
        if not isinstance(value, str):
            return None
        return os.path.join(str(self.cfg.get('data_root') or ''), value)

    def paths(self) -> list[str]:
        """The annotation file and the folders of the dataset."""
        prefixes = self.cfg.get('data_prefix')
        keys = [('data_prefix', key) for key in prefixes] if isinstance(prefixes, Mapping) else [('data_prefix',)]
        paths = [self.path('ann_file'), *(self.path(*key) for key in keys)]
        return [path for path in paths if path]

    def transforms(self) -> Iterator[Mapping[str, Any]]:
        """The transforms of its pipeline, those inside of others too."""
        return _transforms(self.cfg.get('pipeline'))

    @property
    def is_local(self) -> bool:
        """Whether its files are on this machine."""
        backend = (self.cfg.get('backend_args') or {}).get('backend', 'local')
        return backend in ('local', 'disk') and '://' not in str(self.cfg.get('data_root'))

    def build(self, **options: Any) -> Any:
        """The dataset as MMEngine builds it, in the scope of the config; ``options`` replace keys."""
        with silence(), no_garbage_collection():
            return DATASETS.build({**self.cfg, **options})


def _transforms(pipeline: Any) -> Iterator[Mapping[str, Any]]:
    for transform in pipeline if isinstance(pipeline, list | tuple) else ():
        if isinstance(transform, Mapping):
            yield transform
            yield from _transforms(transform.get('transforms'))
        else:
            yield from _transforms(transform)  # RandomChoice and TestTimeAug hold lists of pipelines


def sources(cfg: Config, split: str) -> list[Source]:
    """The datasets of a split with wrappers such as RepeatDataset, ConcatDataset and MultiImageMixDataset opened."""
    evaluators = cfg.get(f'{split}_evaluator') or []
    if isinstance(evaluators, Mapping):
        evaluators = [evaluators]
    loader = cfg.get(f'{split}_dataloader') or {}
    key = f'{split}_dataloader.dataset'
    model = cfg.get('model') or {}
    return [Source(split, place, node, list(evaluators), model) for place, node in _leaves(loader.get('dataset'), key)]


def _leaves(node: Any, key: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if not isinstance(node, Mapping):
        return
    wrapped = {f'{key}.dataset': node.get('dataset')}
    wrapped.update({f'{key}.datasets.{i}': dataset for i, dataset in enumerate(node.get('datasets') or ())})
    inner = [leaf for place, dataset in wrapped.items() for leaf in _leaves(dataset, place)]
    yield from inner or [(key, node)]


class DatasetCheck(ABC):
    """Checks one dataset. Classes of it are registered in ``DATA_CHECKS``.

    Args:
        source: The dataset.
        report: Takes what is found.
        full: Look at every image and mask, not at a sample.
    """

    def __init__(self, source: Source, report: Report, full: bool = False) -> None:
        self.source, self.report, self.full = source, report, full

    @abstractmethod
    def structure(self) -> None:
        """Layer 1: reads the files without the dataset class."""

    @abstractmethod
    def conservation(self) -> None:
        """Layer 2: compares what the files hold with what the dataset and its loading transforms make of them."""

    @abstractmethod
    def oracle(self, labels: Mapping[str, int]) -> None:
        """Layer 3: the truth as prediction must reach the metric's best value.

        Args:
            labels: The label that training gives to each class, by its name.
        """

    @abstractmethod
    def labels(self) -> Mapping[str, int]:
        """The label of each class by its name, also where no layer has run.

        Raises:
            mmcv_custom.errors.UserError: The annotation file cannot be read.
        """

    def fix(self, folder: str) -> list[str]:
        """Writes repaired annotations where there is one right answer; the originals stay as they are.

        Args:
            folder: Folder of the new files.

        Returns:
            What was changed, and the entries of the config that use it; nothing if there is nothing to repair.
        """
        return []

    @abstractmethod
    def images(self) -> Sequence[str]:
        """Paths of the images that the dataset uses, after :meth:`conservation`."""


def class_of(registry: Registry, cfg: Mapping[str, Any]) -> type | None:
    """The class that MMEngine would build from a part of a config, in the scope of the config; ``None`` without any."""
    kind = cfg.get('type')
    if isinstance(kind, type):
        return kind
    with registry.switch_scope_and_registry(cfg.get('_scope_')) as scoped:
        found = scoped.get(str(kind))
    return found if isinstance(found, type) else None


def new_check(source: Source, report: Report, full: bool = False) -> DatasetCheck | None:
    """The check of a dataset; ``None`` if there is none for its class, which the report then says."""
    dataset_class = class_of(DATASETS, source.cfg)
    for base in getattr(dataset_class, '__mro__', ()):
        if check := DATA_CHECKS.get(base.__name__):
            return check(source, report, full)
    report.leave_out(f'{source.key} ({source.cfg.get("type")}: no check knows this class)')
    return None
