"""The model zoo as data: what the official repository published, where it is here, and what the models cost.

    python -m mmcv_custom.zoo list --dataset coco
    python -m mmcv_custom.zoo show mask-rcnn_internimage-t_fpn_1x_coco
    python -m mmcv_custom.zoo path mask-rcnn_internimage-t_fpn_1x_coco

``published.yml`` holds the facts, ``measured.yml`` what tools/analysis/make_zoo.py finds in the configs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from mmengine.fileio import load

PUBLISHED = Path(__file__).with_name('published.yml')
MEASURED = Path(__file__).with_name('measured.yml')
CONFIGS = Path(__file__).parents[2] / 'configs'
# Image sizes (height, width) for FLOPs, by the default_scope of a config: those of the official tools.
IMAGES = {'mmdet': (800, 1280), 'mmseg': (512, 2048)}
TTA = ' (TTA)'  # ends the name of a metric with test-time augmentation


class UnknownModelError(LookupError):
    """No model of that name. The text is meant for the user."""


@dataclass(frozen=True)
class Dataset:
    """A data set.

    ``metrics`` maps the names of metrics in the published tables to those of our evaluators, whose values are percent
    after multiplication by ``scale``.
    """

    title: str
    task: str
    scale: int
    metrics: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What published models and backbones have in common; numbers as they are printed, such as ``'1.31B'``."""

    backbone: str
    pretrain: str
    params: str | None = None
    flops: str | None = None
    differs: dict[str, str] = field(default_factory=dict)
    tables: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Backbone(Entry):
    """A classification checkpoint. ``accuracy`` is top-1 on ImageNet-1K, in percent."""

    file: str
    arch: str
    resolution: int
    accuracy: float | None = None

    @property
    def name(self) -> str:
        return self.file.removesuffix('.pth')

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image for FLOPs."""
        return self.resolution, self.resolution


@dataclass(frozen=True, kw_only=True)
class Model(Entry):
    """A detector or segmentor. ``results`` maps origins (published, ...) to metrics in percent."""

    config: str
    official: str
    dataset: str
    method: str
    schedule: str
    checkpoint: str | None = None
    resolution: str | None = None
    results: dict[str, dict[str, float]] = field(default_factory=dict)
    image: Sequence[int] | None = None
    notes: str = ''

    @property
    def name(self) -> str:
        """The config's, without folder and suffix."""
        return Path(self.config).stem

    @property
    def path(self) -> Path:
        """The config."""
        return CONFIGS / self.config

    @property
    def scope(self) -> str:
        """The config's default_scope."""
        return 'mmdet' if self.config.startswith('detection/') else 'mmseg'

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image for FLOPs."""
        height, width = self.image or IMAGES[self.scope]
        return height, width

    @property
    def url(self) -> str | None:
        """Where the official checkpoint is."""
        return self.checkpoint and url(self.checkpoint)


@cache
def _published() -> dict[str, Any]:
    return load(PUBLISHED)


def official() -> dict[str, str]:
    """The official repository: its address (``repository``), ``commit``, and where its ``files`` are."""
    return _published()['official']


def omitted() -> list[dict[str, str]]:
    """Official configs without a counterpart here (``official``), and the ``reason``."""
    return _published()['omitted']


def unpublished() -> list[dict[str, Any]]:
    """Published results (``results``: metrics in percent) whose config and checkpoint were not."""
    return _published()['unpublished']


def url(file: str) -> str:
    """Where a file of the official repository is."""
    return official()['files'] + file


@cache
def datasets() -> dict[str, Dataset]:
    """All data sets, by the names of their folders."""
    return {name: Dataset(**entry) for name, entry in _published()['datasets'].items()}


@cache
def backbones() -> dict[str, Backbone]:
    """All classification checkpoints, by name."""
    found = [Backbone(**entry) for entry in _published()['backbones']]
    return {backbone.name: backbone for backbone in found}


@cache
def models() -> dict[str, Model]:
    """All detectors and segmentors, by name."""
    found = [Model(**entry) for entry in _published()['models']]
    return {model.name: model for model in found}


@cache
def measured() -> dict[str, dict[str, Any]]:
    """What tools/analysis/make_zoo.py found out about each model and backbone, by name."""
    return load(MEASURED)


def find(name: str) -> Model:
    """A model by its name, by that of its official config, or by that of its official checkpoint.

    Of a checkpoint that serves two configs, the first is meant.

    Raises:
        UnknownModelError: There is none.
    """
    by_file = {Path(model.checkpoint).stem: model for model in reversed(models().values()) if model.checkpoint}
    known = by_file | {Path(model.official).stem: model for model in models().values()} | models()
    stem = Path(name).name.removesuffix('.py').removesuffix('.pth')
    if stem not in known:
        close = get_close_matches(stem, known, n=5)
        hint = f'; close to it: {", ".join(close)}' if close else ''
        raise UnknownModelError(f'there is no model {name!r}{hint}; `python -m mmcv_custom.zoo list` names all')
    return known[stem]


def printed_number(text: str) -> tuple[float, float]:
    """A number as tables print it, such as ``'1.31B'``, and half a unit of its last digit.

    Raises:
        ValueError: It is not of that form.
    """
    match = re.fullmatch(r'(\d+(?:\.(\d+))?)([KMGB])', text)
    if not match:
        raise ValueError(f"expected a number with a unit, such as '49M', got {text!r}")
    unit = {'K': 1e3, 'M': 1e6, 'G': 1e9, 'B': 1e9}[match[3]]
    return float(match[1]) * unit, 0.5 * unit * 10.0 ** -len(match[2] or '')
