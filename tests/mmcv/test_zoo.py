"""The model zoo: complete, consistent, found by any name, and in the format of OpenMMLab's tools."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.fileio import load
from mmengine.registry import METRICS

from mmcv_custom import zoo
from mmcv_custom.models.arch import PRESETS
from tests.support import CONFIGS, OFFICIAL_CHECKPOINTS, ROOT

MASK_RCNN_T = 'mask-rcnn_internimage-t_fpn_1x_coco'
DATASETS = {model.dataset: model for model in zoo.models().values() if 'Metric Keys' in model.metadata}


def test_every_config_is_in_the_zoo() -> None:
    configs = {path for task in ('detection', 'segmentation') for path in (CONFIGS / task).glob('*/*.py')}
    configs = {path for path in configs if '_base_' not in path.parts}
    assert {model.config for model in zoo.models().values()} == configs
    assert len(zoo.models()) == len(configs)  # no name twice
    assert all(model.name == model.config.stem for model in zoo.models().values())
    assert len({model.published['Config'] for model in zoo.models().values()}) == len(configs)


@pytest.mark.parametrize(
    ('name', 'checkpoint', 'facts', 'results'),
    [
        (
            MASK_RCNN_T,
            'mask_rcnn_internimage_t_fpn_1x_coco.pth',
            {'Pre-training': 'ImageNet-1K', 'Parameters': '49M', 'FLOPs': '270G'},
            {'published': {'box AP': 47.2, 'mask AP': 42.5}},
        ),
        (
            'dino-4scale_internimage-l_8xb2-12e-layer-wise-lr_coco',
            'dino_4scale_internimage_l_1x_coco_layer_wise_lr.pth',
            {'Pre-training': 'ImageNet-22K', 'Parameters': '241M', 'FLOPs': None},
            {'published': {'box AP': 57.5}},
        ),
        (
            'internimage-l_segformer_8xb2-160k_mapillary-cityscapes-512x1024',
            'segformer_internimage_l_512x1024_160k_mapillary2cityscapes.pth',
            {'Pre-training': 'Mapillary', 'Parameters': '220M', 'FLOPs': '1580G'},
            {'published': {'mIoU': 85.16, 'mIoU (TTA)': 85.67}},
        ),
        (
            'cascade-rcnn_internimage-xl_fpn_3x_crowdhuman',
            None,
            {'Pre-training': 'ImageNet-22K', 'Parameters': None, 'FLOPs': None},
            {},
        ),
    ],
)
def test_facts_of_the_published_tables(name: str, checkpoint: str | None, facts: dict, results: dict) -> None:
    model = zoo.models()[name]
    assert model.checkpoint == (checkpoint and OFFICIAL_CHECKPOINTS + checkpoint)
    assert {'Pre-training': model.metadata['Pre-training']} | {
        key: model.published.get(key) for key in ('Parameters', 'FLOPs')
    } == facts
    assert model.results == results


def test_checkpoints_are_where_the_official_tables_link_to() -> None:
    entries = [*zoo.models().values(), *zoo.backbones().values()]
    assert {model.checkpoint.rpartition('/')[0] + '/' for model in entries if model.checkpoint} == {
        OFFICIAL_CHECKPOINTS
    }
    assert zoo.backbones()['internimage_t_1k_224'].checkpoint == OFFICIAL_CHECKPOINTS + 'internimage_t_1k_224.pth'


@pytest.mark.slow
def test_trainings_start_from_files_of_the_zoo() -> None:
    known = {model.checkpoint for model in [*zoo.models().values(), *zoo.backbones().values()] if model.checkpoint}
    known |= {f'{OFFICIAL_CHECKPOINTS}dino_4scale_cbinternimage_h_objects365_{count}classes.pth' for count in (20, 80)}
    assert {name for name, model in zoo.models().items() if start(model.config) not in known} == {
        'dino-4scale_internimage-h_b1-20k_objects365-coco',  # not published
        'dino-4scale_internimage-g_b1-20k_objects365-coco',
    }


def start(config: Path) -> str | None:
    """The file that a training starts from, if the config names one."""
    cfg = Config.fromfile(config)
    return cfg.get('load_from') or (cfg.model.backbone.get('init_cfg') or {}).get('checkpoint')


def test_every_arch_has_a_checkpoint_and_a_config() -> None:
    assert {backbone.metadata['Arch'] for backbone in zoo.backbones().values()} == set(PRESETS)
    configs = {backbone.config: Config.fromfile(backbone.config).backbone for backbone in zoo.backbones().values()}
    for backbone in zoo.backbones().values():
        assert configs[backbone.config].arch == backbone.metadata['Arch']
    known = {backbone.checkpoint for backbone in zoo.backbones().values()}
    assert {config.init_cfg.checkpoint for config in configs.values()} <= known


@pytest.mark.parametrize('model', DATASETS.values(), ids=DATASETS)
def test_metrics_are_called_as_the_evaluators_call_them(model: zoo.Model) -> None:
    cfg = Config.fromfile(model.config)
    with METRICS.switch_scope_and_registry(cfg.default_scope) as registry:
        prefix = registry.get(cfg.test_evaluator.type).default_prefix
    keys = model.metadata['Metric Keys']
    for key in keys.values():
        assert key.split('/')[:-1] == ([prefix] if prefix else [])
    # mmdet's evaluators return fractions, mmseg's return percent.
    assert model.metadata['Metric Unit'] == ('fraction' if cfg.default_scope == 'mmdet' else 'percent')
    allowed = {metric + suffix for metric in keys for suffix in ('', ' (TTA)', ' (TTA, test-dev)')}
    for other in zoo.models().values():
        assert other.dataset != model.dataset or set(other.results.get('published', {})) <= allowed


@pytest.mark.parametrize(
    'name',
    [
        MASK_RCNN_T,
        f'configs/detection/coco/{MASK_RCNN_T}.py',
        'mask_rcnn_internimage_t_fpn_1x_coco',
        'mask_rcnn_internimage_t_fpn_1x_coco.pth',
    ],
)
def test_models_are_found_by_any_of_their_names(name: str) -> None:
    assert zoo.find(name).name == MASK_RCNN_T


def test_a_checkpoint_of_another_name_than_its_config_is_found() -> None:
    for model in zoo.models().values():
        if model.checkpoint:
            assert zoo.find(Path(model.checkpoint).name).checkpoint == model.checkpoint
    assert zoo.find('dino_4scale_cbinternimage_h_objects365_lvis.pth').name.endswith('minival')


def test_an_unknown_name_is_told_with_those_close_to_it() -> None:
    with pytest.raises(
        zoo.UnknownModelError, match=f"no model 'mask-rcnn_internimage-t'; close to it: .*{MASK_RCNN_T}"
    ):
        zoo.find('mask-rcnn_internimage-t')
    with pytest.raises(zoo.UnknownModelError, match=r"no model 'yolo'; `mm-internimage list` names all"):
        zoo.find('yolo')


def test_the_path_from_any_folder(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, '-m', 'mmcv_custom', 'path', MASK_RCNN_T],
        cwd=tmp_path,
        env={'PYTHONPATH': str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f'{CONFIGS / "detection/coco" / MASK_RCNN_T}.py\n'


def test_the_index_of_openmmlab_tools() -> None:
    index = load(ROOT / 'model-index.yml')['Import']
    assert index == sorted(path.relative_to(ROOT).as_posix() for path in CONFIGS.glob('**/metafile.yml'))
    entries = [entry for file in index for entry in load(ROOT / file)['Models']]
    assert [entry['Name'] for entry in entries if not (ROOT / entry['Config']).is_file()] == []
    assert [entry['Name'] for entry in entries] == [*zoo.backbones(), *zoo.models()]
    (entry,) = (entry for entry in entries if entry['Name'] == MASK_RCNN_T)
    facts = {
        'Training Data': 'COCO',
        'Epochs': 12,
        'Batch Size': 16,
        'Parameters': 48_920_544,
        'FLOPs': 269_294_064_640,
    }
    assert facts.items() <= zoo.models()[MASK_RCNN_T].metadata.items()
    assert set(facts) - set(entry['Metadata']) == {'Training Data'}  # the same for the whole collection
    metrics = {'box AP': 47.2, 'mask AP': 42.5}
    assert entry['Results'] == [
        {'Task': 'Object Detection', 'Dataset': 'COCO', 'Origin': 'published', 'Metrics': metrics}
    ]
    assert entry['Weights'].endswith('/mask_rcnn_internimage_t_fpn_1x_coco.pth')
