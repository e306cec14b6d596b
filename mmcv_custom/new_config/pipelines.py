"""How images are resized and cropped: changes to the pipelines of a model's config."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.config import ConfigDict

from ..datasets import sources
from .bases import Base
from .data import Data
from .source import Code

Variables = list[tuple[str, Any]]  # targets of assignments, and values
NAMES = dict(train='train_pipeline', val='test_pipeline', test='test_pipeline')
STEP = 32  # pixels of an image per pixel of the coarsest features


def detection(
    base: Base, size: tuple[int, int] | None, resizes: Mapping[str, Any], replaced: bool, notes: list[str]
) -> Variables:
    """The pipelines of a detector, if they need a name: where its datasets are replaced or its images resized.

    Args:
        base: The detector's config.
        size: The height and width that images are made to fit; ``None`` for those of its config.
        resizes: By ``'train'`` and ``'test'``, the step that resizes images, if ``size`` is ``None``.
        replaced: Whether the datasets are replaced.
        notes: Gets what the user should know.
    """
    resizers = ('Resize', 'RandomResize', 'RandomChoice')
    if size:
        scale = (max(size), min(size))  # mmdet: the longer side, then the shorter
        resizes = dict.fromkeys(('train', 'test'), dict(type='Resize', scale=scale, keep_ratio=True))
        if _step(_pipeline(base, 'train')[1], resizers)[1].type != 'Resize':  # several sizes
            smallest = (scale[0], round(0.6 * scale[1]))  # 480 of 800, as most models have it
            resizes['train'] = dict(type='RandomResize', scale=[smallest, scale], keep_ratio=True)
    variables: Variables = []
    for split in ('train', 'test') if replaced or resizes else ():
        path, pipeline = _pipeline(base, split)
        variables.append((NAMES[split], Code(path)))
        if split in resizes:
            index, step = _step(pipeline, resizers)
            variables.append(_changed(f'{NAMES[split]}[{index}]', step, resizes[split]))
    scale = resizes['test']['scale'] if 'test' in resizes else _step(_pipeline(base, 'test')[1], resizers)[1].scale
    notes.append(f'images are resized to at most {max(scale)}x{min(scale)} pixels; --size changes it')
    if 'test' in resizes and 'tta_pipeline' in base.cfg:
        variables += [('tta_pipeline', Code('_base_.tta_pipeline')), ('tta_pipeline[1].transforms[0][0].scale', scale)]
    return variables


def _changed(target: str, step: ConfigDict, new: Mapping[str, Any]) -> tuple[str, Any]:
    """The assignment that makes a step of a pipeline another one."""
    if {**step, 'scale': None} == {**new, 'scale': None}:
        return f'{target}.scale', new['scale']
    return target, new


def fitting_crop(base: Base, data: Data) -> tuple[int, int]:
    """The crop of a segmentor's config, made smaller in proportion where most images are smaller."""
    crop = _crop(base)
    if data.size is None or min(data.size) >= min(crop):
        return crop
    factor = -(-min(data.size) // STEP) * STEP / min(crop)
    height, width = (max(STEP, round(side * factor / STEP) * STEP) for side in crop)
    return height, width


def segmentation(
    base: Base, crop: tuple[int, int], resizes: Mapping[str, Any], notes: list[str]
) -> tuple[Variables, dict[str, Any]]:
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
        for index, step in enumerate(pipeline):
            if step.type in ('Resize', 'RandomResize') and (crop != old or split in resizes):
                scale = tuple(round(side * crop[0] / old[0]) for side in step.scale)
                variables.append(
                    _changed(f'{NAMES[split]}[{index}]', step, resizes.get(split, dict(step, scale=scale)))
                )
            elif step.type == 'RandomCrop' and crop != old:
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
    first = sources(base.cfg, split)[0]
    path = re.sub(r'\.(\d+)', r'[\1]', first.key)  # "datasets.0" is "datasets[0]" in Python
    return f'_base_.{path}.pipeline', first.cfg['pipeline']


def _step(pipeline: Sequence[ConfigDict], types: tuple[str, ...]) -> tuple[int, ConfigDict]:
    """The first step of one of the types, with its index."""
    return next((index, step) for index, step in enumerate(pipeline) if step.type in types)
