"""The model must have as many classes as the datasets, in every family of the zoo."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config, ConfigDict
from mmengine.registry import DATASETS

import mmdet_custom  # noqa: F401
import mmseg_custom  # noqa: F401
from mmcv_custom.engine.classes import needed_changes
from tests.configs.helpers import LEAVES, build, unwrap
from tests.support import CONFIGS

DEMO, COCO, ADE20K = CONFIGS / 'demo', CONFIGS / 'detection/coco', CONFIGS / 'segmentation/ade20k'
MASK_RCNN = DEMO / 'mask-rcnn_digits.py'
UPERNET = DEMO / 'upernet_digits.py'
CASCADE = COCO / 'cascade-mask-rcnn_internimage-l_fpn_1x_coco.py'
MASK2FORMER = ADE20K / 'internimage-h_mask2former_16xb1-80k_coco-stuff164k-ade20k-896x896.py'
CASCADE_HEADS = [*(f'bbox_head.{stage}' for stage in range(3)), 'mask_head']
SEGFORMER = CONFIGS / 'segmentation/cityscapes/internimage-l_segformer_8xb2-160k_mapillary-cityscapes-512x1024.py'
# One size of each: others differ in the backbone.
VARIANTS = {re.sub('internimage-(t|s|b|l|xl)_', '', path.stem): path for path in LEAVES}.values()
COUNTED = dict(OpenImagesDataset=601)  # its names stand in a file beside the images


def metainfo(dataset: ConfigDict, scope: str) -> dict[str, Any]:
    """The classes that a dataset would have if its files were there."""
    if dataset.type in COUNTED:
        return dict(classes=range(COUNTED[dataset.type]))
    with DATASETS.switch_scope_and_registry(scope) as registry:
        return {**registry.get(dataset.type).METAINFO, **(dataset.get('metainfo') or {})}


def load(path: Path, **changes: Any) -> Config:
    cfg = Config(Config.fromfile(path).to_dict(), format_python_code=False)  # formatting takes seconds
    cfg.merge_from_dict({f'model.{key}': value for key, value in changes.items()})
    return cfg


def changes_for(cfg: Config, classes: int) -> list[str]:
    """Needed changes for a dataset of so many classes, without the common beginning ``model.``."""
    model = build(copy.deepcopy(cfg))  # building may add to a config
    found = needed_changes(model, cfg.model, dict(classes=range(classes)), cfg.get('unused_classes', 0))
    assert all(text.startswith('model.') for text in found)
    return [text.removeprefix('model.') for text in found]


def numbers(node: Any, key: str = '') -> set[str]:
    """The keys below an entry of a config that depend on the classes."""
    items = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ()
    inner = {name for name, value in items for name in numbers(value, f'{key}.{name}')}
    return inner | ({key} if re.search(r'\.(num_classes|class_weight)$', key) and 'rpn_head' not in key else set())


@pytest.mark.parametrize('path', VARIANTS, ids=lambda path: path.stem)
def test_every_config_fits_its_own_datasets_and_no_others(path: Path) -> None:
    cfg = load(path)
    model = build(copy.deepcopy(cfg))
    for split in ('train', 'val', 'test'):
        for dataset in unwrap(cfg[f'{split}_dataloader'].dataset):
            known = metainfo(dataset, cfg.default_scope)
            assert needed_changes(model, cfg.model, known, cfg.get('unused_classes', 0)) == []
    needed = needed_changes(model, cfg.model, dict(classes=range(7)))
    assert {re.split('[= ]', text)[0] for text in needed} == numbers(cfg.model, 'model')


@pytest.mark.parametrize(
    ('path', 'classes', 'expected'),
    [
        (CASCADE, 3, [f'roi_head.{head}.num_classes=3 (is 80)' for head in CASCADE_HEADS]),
        (DEMO / 'dino_digits.py', 3, ['bbox_head.num_classes=3 (is 10)']),
        (
            MASK2FORMER,
            3,
            [
                'decode_head.num_classes=3 (is 150)',
                'decode_head.loss_cls.class_weight to 4 numbers, the last for no object (has 151)',
            ],
        ),
        (
            UPERNET,
            3,
            [
                'decode_head.num_classes=3 (is 11)',
                'decode_head.loss_decode.class_weight to 3 numbers or None (has 11)',
                'auxiliary_head.num_classes=3 (is 11)',
                'auxiliary_head.loss_decode.class_weight to 3 numbers or None (has 11)',
            ],
        ),
        (SEGFORMER, 19, []),  # and 131 unused
        (SEGFORMER, 150, []),
        (SEGFORMER, 20, ['decode_head.num_classes=20 (is 150)']),
    ],
)  # fmt: skip
def test_the_text(path: Path, classes: int, expected: list[str]) -> None:
    assert changes_for(load(path), classes) == expected


@pytest.mark.parametrize(
    ('path', 'changes', 'expected'),
    [
        (UPERNET, {'auxiliary_head.num_classes': 12}, ['auxiliary_head.num_classes=11 (is 12)']),
        (UPERNET, {'decode_head.loss_decode.class_weight': None}, []),
        (UPERNET, {'decode_head.ignore_index': 0}, []),
        (
            UPERNET,
            {'decode_head.loss_decode.class_weight': [1.0] * 10},
            ['decode_head.loss_decode.class_weight to 11 numbers or None (has 10)'],
        ),
        (
            UPERNET,
            {'decode_head.loss_decode': [dict(type='CrossEntropyLoss', class_weight=[1.0] * 10)]},
            ['decode_head.loss_decode.0.class_weight to 11 numbers or None (has 10)'],
        ),
        (
            UPERNET,
            {'decode_head.num_classes': 9, 'decode_head.out_channels': 9, 'decode_head.loss_decode.class_weight': None},
            ['decode_head.num_classes=11 (is 9)', 'decode_head.out_channels=11 (is 9)'],
        ),
        (MASK_RCNN, {'roi_head.mask_head.num_classes': 80}, []),  # class-agnostic
        (
            MASK_RCNN,
            {'roi_head.mask_head.num_classes': 80, 'roi_head.mask_head.class_agnostic': False},
            ['roi_head.mask_head.num_classes=10 (is 80)'],
        ),
        (MASK_RCNN, {'rpn_head.num_classes': 1}, []),
        (
            MASK_RCNN,
            {'roi_head.bbox_head.loss_cls.class_weight': [1.0] * 10},
            ['roi_head.bbox_head.loss_cls.class_weight to 11 numbers, the last for no object (has 10)'],
        ),
        (MASK_RCNN, {'roi_head.bbox_head.loss_cls.class_weight': [1.0] * 11}, []),
        (
            MASK_RCNN,
            {
                'roi_head.bbox_head.num_classes': 1203,
                'roi_head.bbox_head.loss_cls': dict(_delete_=True, type='SeesawLoss', num_classes=1203),
            },
            [f'roi_head.bbox_head.{key}num_classes=10 (is 1203)' for key in ('', 'loss_cls.')],
        ),
    ],
)
def test_one_head_of_several(path: Path, changes: dict[str, Any], expected: list[str]) -> None:
    assert changes_for(load(path, **changes), 11 if path == UPERNET else 10) == expected


@pytest.mark.parametrize(('classes', 'expected'), [(2, []), (3, ['num_classes=3 (is 2)', 'out_channels=3 (is 1)'])])
def test_a_segmentor_of_two_classes_with_one_output(classes: int, expected: list[str]) -> None:
    head = dict(
        num_classes=2, out_channels=1, threshold=0.5, loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=True)
    )
    cfg = load(UPERNET)
    cfg.model.pop('auxiliary_head')
    cfg.model.decode_head.update(head)
    assert changes_for(cfg, classes) == [f'decode_head.{text}' for text in expected]


def test_one_box_head_for_all_stages_is_one_entry() -> None:
    cfg = load(CASCADE)
    cfg.model.roi_head.bbox_head = cfg.model.roi_head.bbox_head[0]
    assert changes_for(cfg, 3) == [f'roi_head.{head}.num_classes=3 (is 80)' for head in ('bbox_head', 'mask_head')]


@pytest.mark.parametrize(
    ('names', 'expected'),
    [
        (dict(classes=range(133), thing_classes=range(80), stuff_classes=range(53)), []),
        (
            dict(classes=range(5), thing_classes=range(3), stuff_classes=range(2)),
            [f'{head}.num_{kind}_classes={new} (is {old})' for head in ('panoptic_head', 'panoptic_fusion_head')
             for kind, new, old in (('things', 3, 80), ('stuff', 2, 53))],
        ),
        (
            dict(classes=range(80)),
            [f'{head}.num_stuff_classes=0 (is 53)' for head in ('panoptic_head', 'panoptic_fusion_head')],
        ),
    ],
)  # fmt: skip
def test_things_and_stuff(names: dict[str, Any], expected: list[str]) -> None:
    cfg = Config.fromstring("_base_ = 'mmdet::maskformer/maskformer_r50_ms-16xb1-75e_coco.py'", '.py')
    found = needed_changes(build(copy.deepcopy(cfg)), cfg.model, names)
    assert [text.removeprefix('model.') for text in found if 'class_weight' not in text] == expected
