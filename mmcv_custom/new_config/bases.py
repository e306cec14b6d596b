"""The model that a new config starts from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mmengine.config import Config

from .. import zoo
from ..errors import UserError
from .source import Code, expression, extended

CONFIGS = (zoo.MIM / 'configs').resolve()


@dataclass(frozen=True)
class Base:
    """A config of the model zoo or of the demo.

    Attributes:
        path: Where it is.
        title: Method and backbone.
        checkpoint: URL of the official checkpoint; ``None`` if there is none.
    """

    path: Path
    title: str
    checkpoint: str | None

    @cached_property
    def cfg(self) -> Config:
        """Its content."""
        return Config.fromfile(self.path)

    @property
    def detects(self) -> bool:
        """Whether it is a detector; else it is a segmentor."""
        return self.cfg.default_scope == 'mmdet'

    @property
    def batch_size(self) -> int:
        """Images per step that the learning rate belongs to."""
        return self.cfg.get('auto_scale_lr', {}).get('base_batch_size') or self.cfg.train_dataloader.batch_size

    @property
    def needs_masks(self) -> bool:
        """Whether its objects need masks."""
        return 'mask_head' in self.cfg.model.get('roi_head', {})

    def written_as(self, out: Path) -> str:
        """How the config ``out`` names it under ``_base_``: relative in a checkout, else as part of the package."""
        checkout = CONFIGS.parent
        if (zoo.MIM / 'configs').is_symlink() and out.resolve().is_relative_to(checkout):
            return Path(os.path.relpath(self.path, out.resolve().parent)).as_posix()
        return f'mmcv_custom::{self.path.relative_to(CONFIGS).as_posix()}'


def find_base(name: str) -> Base:
    """The model of a name: one of the zoo, under any name that :func:`mmcv_custom.zoo.find` knows, or of the demo.

    Raises:
        UserError: There is none.
    """
    demo = {path.stem: path for path in (CONFIGS / 'demo').glob('*.py')}
    stem = Path(name).name.removesuffix('.py')
    if stem in demo:
        return Base(demo[stem], f'{stem} of the demo', None)
    try:
        model = zoo.find(name)
    except zoo.UnknownModelError as problem:
        raise UserError(f'{problem}, and for a CPU there are {", ".join(sorted(demo))}') from problem
    return Base(model.config, ' on '.join(model.metadata['Architecture']), model.checkpoint)


def class_edits(
    node: Any, classes: int, lists: list[tuple[str, Any]], path: str = '_base_.model', old: int = 0
) -> dict[str, Any]:
    """What to change in a model's config for a number of classes: every ``num_classes`` and the weights of classes.

    Weights per class belong to other classes, so they are dropped; the weight of "no object" in Mask2Former stays.

    Args:
        node: The model's config or a part of it.
        classes: The number of classes.
        lists: Gets a variable per list of heads, because MMEngine replaces lists as a whole.
        path: Where ``node`` stands.
        old: ``num_classes`` next to ``node`` or around it; 0 if there is none.
    """
    old = node.get('num_classes', old)
    edits: dict[str, Any] = dict(num_classes=classes) if 'num_classes' in node else {}
    for key, value in node.items():
        if key == 'class_weight' and isinstance(value, list):
            edits[key] = Code(f'[1.0] * {classes} + [{value[-1]}]') if len(value) == old + 1 else None
        elif isinstance(value, Mapping) and (changes := class_edits(value, classes, lists, f'{path}.{key}', old)):
            edits[key] = changes
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            changes = class_edits(value[0], classes, lists, '', old)
            if changes:
                lists.append((f'{key}s', Code(f'[{expression(extended("head", **changes))} for head in {path}.{key}]')))
                edits[key] = Code(f'{key}s')
    return edits
