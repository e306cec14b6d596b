"""How images are resized and cropped: changes to the pipelines of a model's config."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.config import ConfigDict

from .bases import Base, parts_of
from .data import Data
from .source import Code

Variables = list[tuple[str, Any]]  # targets of assignments, and values
NAMES = dict(train='train_pipeline', val='test_pipeline', test='test_pipeline')
STEP = 32  # pixels of an image per pixel of the coarsest features


def detection(base: Base, size: tuple[int, int] | None, replaced: bool, notes: list[str]) -> Variables:
    """The pipelines of a detector, if they need a name: where its datasets are replaced or its images resized.

    Args:
        base: The detector's config.
        size: The height and width that images are made to fit; ``None`` for those of its config.
        replaced: Whether the datasets are replaced.
        notes: Gets what the user should know.
    """
    resizers = ('Resize', 'RandomResize', 'RandomChoice')
    if size is None:
        longer, shorter = _step(_pipeline(base, 'test')[1], resizers)[1].scale
        notes.append(f'images are resized to at most {longer}x{shorter} pixels; --size changes it')
    variables: Variables = []
    for split in ('train', 'test') if replaced or size else ():
        path, pipeline = _pipeline(base, split)
        variables.append((NAMES[split], Code(path)))
        if size is None:
            continue
        scale = (max(size), min(size))  # mmdet: the longer side, then the shorter
        index, step = _step(pipeline, resizers)
        if step.type == 'Resize':
            variables.append((f'{NAMES[split]}[{index}].scale', scale))
        else:
            smallest = (scale[0], round(0.6 * scale[1]))  # 480 of 800, as most models have it
            several = dict(type='RandomResize', scale=[smallest, scale], keep_ratio=True)
            variables.append((f'{NAMES[split]}[{index}]', several))
    if size and 'tta_pipeline' in base.cfg:
        variables += [('tta_pipeline', Code('_base_.tta_pipeline')), ('tta_pipeline[1].transforms[0][0].scale', scale)]
    return variables


def fitting_crop(base: Base, data: Data) -> tuple[int, int]:
    """The crop of a segmentor's config, made smaller in proportion where most images are smaller."""
    crop = _crop(base)
    if data.size is None or min(data.size) >= min(crop):
        return crop
    factor = -(-min(data.size) // STEP) * STEP / min(crop)
    height, width = (max(STEP, round(side * factor / STEP) * STEP) for side in crop)
    return height, width


def segmentation(base: Base, crop: tuple[int, int], notes: list[str]) -> tuple[Variables, dict[str, Any]]:
    """The pipelines of a segmentor, with crops of a height and width, and what its model must know about these.

    Images are resized in proportion to the crops: what a model's config says about 512 pixels holds for the new size.
    """
    old = _crop(base)
    notes.append(f'crops of {crop[0]}x{crop[1]} pixels (height x width); --size changes them')
    variables: Variables = [('crop_size', crop)] if crop != old else []
    for split in ('train', 'test'):
        path, pipeline = _pipeline(base, split)
        variables.append((NAMES[split], Code(path)))
        index, loading = _step(pipeline, ('LoadAnnotations',))
        if loading.get('reduce_zero_label'):
            variables.append((f'{NAMES[split]}[{index}]', dict(type='LoadAnnotations')))
        for index, step in enumerate(pipeline if crop != old else ()):
            if step.type in ('Resize', 'RandomResize'):
                width, height = (round(side * crop[0] / old[0]) for side in step.scale)
                variables.append((f'{NAMES[split]}[{index}].scale', (width, height)))
            elif step.type == 'RandomCrop':
                variables.append((f'{NAMES[split]}[{index}].crop_size', Code('crop_size')))
    if crop == old:
        return variables, {}
    model: dict[str, Any] = dict(data_preprocessor=dict(size=Code('crop_size')))
    if base.cfg.model.get('test_cfg', {}).get('mode') == 'slide':
        model['test_cfg'] = dict(crop_size=Code('crop_size'), stride=(crop[0] // 2, crop[1] // 2))
    return variables, model


def _crop(base: Base) -> tuple[int, int]:
    return tuple(base.cfg.model.data_preprocessor.size)


def _pipeline(base: Base, split: str) -> tuple[str, Sequence[ConfigDict]]:
    """The pipeline of a split in a model's config, with its path."""
    path, dataset = next(parts_of(base.cfg[f'{split}_dataloader'].dataset, f'_base_.{split}_dataloader.dataset'))
    return f'{path}.pipeline', dataset.pipeline


def _step(pipeline: Sequence[ConfigDict], types: tuple[str, ...]) -> tuple[int, ConfigDict]:
    """The first step of one of the types, with its index."""
    return next((index, step) for index, step in enumerate(pipeline) if step.type in types)
