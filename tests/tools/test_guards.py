"""Evaluators read the annotation file of their loader."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config

from mmcv_custom.cli.guards import match_annotation_files
from tests.configs.helpers import LEAVES
from tests.support import CONFIGS

VAL = 'data/digits/annotations/val.json'
WRONG = 'val_evaluator.ann_file and val_dataloader.dataset.ann_file of '


@pytest.fixture
def cfg(tmp_path: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """The demo's detector, in a folder with its data and a copy of an annotation file."""
    (tmp_path / 'data').symlink_to(workplace / 'data')
    shutil.copy(workplace / VAL, tmp_path / 'copy.json')
    monkeypatch.chdir(tmp_path)
    return Config(Config.fromfile(CONFIGS / 'demo/mask-rcnn_digits.py').to_dict(), format_python_code=False)


def changed(cfg: Config, **changes: Any) -> Config:
    cfg.merge_from_dict({key.replace('__', '.'): value for key, value in changes.items()})
    return cfg


@pytest.mark.parametrize('kind', ['CocoMetric', 'LVISMetric', 'mmdet.CocoMetric'])
def test_an_evaluator_without_a_file_gets_its_loaders(cfg: Config, kind: str) -> None:
    cfg.val_evaluator = dict(type=kind, metric='bbox')
    cfg.test_evaluator = [dict(type='DumpDetResults', out_file_path='x.pkl'), dict(type=kind, ann_file=None)]
    match_annotation_files(cfg, 'val', 'test')
    assert cfg.val_evaluator.ann_file == VAL
    assert 'ann_file' not in cfg.test_evaluator[0] and cfg.test_evaluator[1].ann_file == VAL


@pytest.mark.parametrize('file', [VAL, './data/digits/../digits/annotations/val.json', 'copy.json'])
def test_the_same_file(cfg: Config, file: str) -> None:
    match_annotation_files(changed(cfg, val_evaluator__ann_file=file), 'val', 'test')
    assert cfg.val_evaluator.ann_file == file


@pytest.mark.parametrize(
    'file', ['data/digits/annotations/train.json', 'data/coco/annotations/instances_val2017.json', 's3://x/val.json']
)
def test_another_file_is_refused(cfg: Config, file: str) -> None:
    with pytest.raises(SystemExit) as left:
        match_annotation_files(changed(cfg, val_evaluator__ann_file=file), 'val')
    text = str(left.value)
    assert text.startswith(f'error: {WRONG}') and '\n' not in text
    assert text.endswith(f'must name the same file, got {file} and {VAL}: set val_evaluator.ann_file={VAL}')


def test_the_key_of_a_metric_in_a_list_and_of_a_wrapped_dataset(cfg: Config) -> None:
    cfg.test_evaluator = [dict(type='VOCMetric'), dict(type='CocoMetric', ann_file='copy.json')]
    cfg.test_dataloader.dataset = dict(type='RepeatDataset', times=1, dataset=cfg.test_dataloader.dataset)
    match_annotation_files(cfg, 'test')
    Path('copy.json').write_text(json.dumps(dict(images=[])))
    with pytest.raises(SystemExit, match='test_evaluator.1.ann_file and test_dataloader.dataset.dataset.ann_file of'):
        match_annotation_files(cfg, 'test')


def test_what_is_not_compared(cfg: Config) -> None:
    """Several files of a loader, files of another format, and metrics and datasets without files."""
    part = cfg.val_dataloader.dataset
    several = dict(type='ConcatDataset', datasets=[part, dict(part, ann_file='annotations/train.json')])
    voc = dict(type='VOCDataset', data_root='x', ann_file='ImageSets/Main/val.txt')
    own = dict(type='BaseDetDataset', data_root='x', ann_file='val.json')
    for dataset, metric in (
        (several, dict(type='CocoMetric', ann_file='other.json')),
        (several, dict(type='CocoMetric')),
        (voc, dict(type='CocoMetric', ann_file='copy.json')),
        (voc, dict(type='CocoMetric')),
        (own, dict(type='CocoMetric')),  # MMEngine's format: the metric converts it
        (part, dict(type='VOCMetric')),
        (part, dict(type='Unknown', ann_file='other.json')),
    ):
        cfg.val_dataloader.dataset, cfg.val_evaluator = dataset, metric
        match_annotation_files(cfg, 'val')
        assert cfg.val_evaluator == metric


@pytest.mark.parametrize('path', LEAVES, ids=lambda path: path.stem)
def test_every_config_agrees_with_itself(path: Path) -> None:
    cfg = Config(Config.fromfile(path).to_dict(), format_python_code=False)
    before = cfg.to_dict()
    match_annotation_files(cfg, 'val', 'test')
    assert cfg.to_dict() == before
