"""The detection configs have the official hyper-parameters, which tests/data/official_detectors.json records."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config, ConfigDict
from mmengine.optim import build_optim_wrapper
from torch import nn

from mmcv_custom.models.internimage import Block
from tests.configs.helpers import build, unwrap
from tests.support import CONFIGS, DATA, OFFICIAL_CHECKPOINTS

DETECTION = CONFIGS / 'detection'
OFFICIAL: list[dict[str, Any]] = json.loads((DATA / 'official_detectors.json').read_text())
IDS = [row['config'] for row in OFFICIAL]
# The official files do not state the number of GPUs of these schedules; ours assume 64.
GPUS_OF_ONE_IMAGE = 64


def test_every_official_config_has_one_of_ours() -> None:
    ours = {path.relative_to(DETECTION).as_posix() for path in DETECTION.glob('*/*.py')}
    assert {path for path in ours if not path.startswith('_base_')} == set(IDS)
    assert len({row['official'] for row in OFFICIAL}) == len(OFFICIAL) == 22


@pytest.mark.parametrize('row', OFFICIAL, ids=IDS)
def test_the_first_line_names_the_official_config(row: dict) -> None:
    first = (DETECTION / row['config']).read_text().splitlines()[0]
    assert first.startswith('# ') and first.endswith(f': the official {row["official"]}.')


@pytest.mark.parametrize('row', OFFICIAL, ids=IDS)
def test_hyper_parameters_of_the_official_config(row: dict) -> None:
    cfg = Config.fromfile(DETECTION / row['config'])
    model = build(cfg)
    check_model(cfg, model, row)
    check_optimizer(cfg, model, row)
    check_schedule(cfg, row)
    check_data(cfg, row)


def check_model(cfg: Config, model: nn.Module, row: dict) -> None:
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert row['parameters'] in (None, parameters)
    if row['published_parameters']:  # such as 2.18B
        published, unit = row['published_parameters'][:-1], row['published_parameters'][-1]
        digits = len(published.partition('.')[2])
        assert round(parameters / dict(M=1e6, B=1e9)[unit], digits) == float(published)

    backbone = listed(asdict(model.backbone.arch))
    assert {name: backbone[name] for name in row['backbone']} == row['backbone']
    blocks = [module for module in model.backbone.modules() if isinstance(module, Block)]
    assert blocks[-1].drop_path.drop_prob == pytest.approx(row['drop_path_rate'])
    assert {block.with_cp for block in blocks} == {row['with_cp']}
    start = dict(type='Pretrained', checkpoint=f'{OFFICIAL_CHECKPOINTS}{row["pretrained"]}')
    assert cfg.model.backbone.get('init_cfg') == (start if row['pretrained'] else None)
    assert cfg.load_from == (f'{OFFICIAL_CHECKPOINTS}{row["load_from"]}' if row['load_from'] else None)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert model.data_preprocessor.pad_size_divisor == row['pad']

    for head in box_heads(cfg.model):
        assert head.num_classes == row['num_classes']
        assert {name: head[name] for name in row['losses']} == row['losses']
    if row['dn_queries']:
        assert model.backbone.out_indices == (1, 2, 3)
        assert (model.dn_query_generator.num_dn_queries, model.num_queries) == (row['dn_queries'], 900)
    else:
        assert model.backbone.out_indices == (0, 1, 2, 3)
    assert cfg.model.test_cfg.get('rcnn', cfg.model.test_cfg).max_per_img == row['max_per_img']
    assert cfg.tta_model.tta_cfg.max_per_img == row['max_per_img']


def check_optimizer(cfg: Config, model: nn.Module, row: dict) -> None:
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    assert (cfg.optim_wrapper.type, type(wrapper.optimizer).__name__) == ('OptimWrapper', row['optimizer'])
    assert cfg.optim_wrapper.get('clip_grad') == row['clip_grad']
    groups = wrapper.optimizer.param_groups
    by_layer = row['layer_decay_rate'] is not None
    assert {group['weight_decay'] for group in groups} == (
        {0.0, row['weight_decay']} if by_layer else {row['weight_decay']}
    )

    rates: dict[str, set[float]] = {'stem': set(), 'level_embed': set(), 'sampling_offsets': set(), 'rest': set()}
    rate_of = {id(parameter): group['lr'] for group in groups for parameter in group['params']}
    for name, parameter in model.named_parameters():
        part = 'stem' if 'patch_embed' in name else next((part for part in rates if part in name), 'rest')
        if part != 'rest' or not name.startswith('backbone.'):
            rates[part].add(rate_of[id(parameter)] / row['lr'])
    lowest = row['layer_decay_rate'] ** (sum(row['backbone']['depths']) + 1) if by_layer else row['backbone_lr_mult']
    # The official code ignores composite backbones here and treats the level embedding like the stem.
    expected = {
        'stem': [1.0 if 'cb-internimage' in row['config'] else lowest],
        'level_embed': [lowest if by_layer else 1.0] if row['dn_queries'] else [],
        'sampling_offsets': [row['offset_lr_scale']] if row['dn_queries'] else [],
        'rest': [1.0],
    }
    for part, factors in expected.items():
        assert sorted(rates[part]) == pytest.approx(factors), part


def check_schedule(cfg: Config, row: dict) -> None:
    warm_up, *steps = cfg.param_scheduler
    assert [warm_up.type, warm_up.end, warm_up.start_factor] == ['LinearLR', *row['warm_up'][1:]]
    assert (warm_up.begin, warm_up.by_epoch) == (0, False)
    assert [step.milestones for step in steps] == ([row['milestones']] if row['milestones'] else [])
    assert all((step.type, step.gamma, step.by_epoch) == ('MultiStepLR', 0.1, True) for step in steps)
    loop = 'IterBasedTrainLoop' if row['iterations'] else 'EpochBasedTrainLoop'
    assert (cfg.train_cfg.type, cfg.train_cfg.val_interval) == (loop, row['val_interval'])
    assert (cfg.train_cfg.get('max_epochs'), cfg.train_cfg.get('max_iters')) == (row['epochs'], row['iterations'])
    saved = cfg.default_hooks.checkpoint
    assert (saved.interval, saved.max_keep_ckpts) == (row['checkpoint_interval'], row['max_keep_ckpts'])
    for counter in (saved, cfg.log_processor):
        assert counter.get('by_epoch', True) == (row['iterations'] is None)

    assert cfg.train_dataloader.batch_size == row['images_per_gpu']
    assert cfg.auto_scale_lr.base_batch_size == (row['gpus'] or GPUS_OF_ONE_IMAGE) * row['images_per_gpu']
    hooks = [hook for hook in cfg.get('custom_hooks', []) if hook.type == 'EMAHook']
    assert [hook.momentum for hook in hooks] == ([row['ema']] if row['ema'] else [])
    # As in mmdet 2: the momentum starts exponentially, and the statistics of SyncBN are averaged too.
    assert all((hook.ema_type, hook.update_buffers) == ('ExpMomentumEMA', True) for hook in hooks)


def check_data(cfg: Config, row: dict) -> None:
    train, test = unwrap(cfg.train_dataloader.dataset), unwrap(cfg.test_dataloader.dataset)
    assert all(listed(geometry(dataset.pipeline)) == row['train'] for dataset in train)
    for dataset in (*test, *unwrap(cfg.val_dataloader.dataset)):
        assert listed(geometry(dataset.pipeline)) == [['resize to one of', [row['test_scale']]]]
    views = cfg.tta_pipeline[1].transforms
    assert listed(geometry(views[0])) == [['resize to one of', [row['test_scale']]]]
    assert listed(geometry(views[1])) == [['flip', 0.0], ['flip', 1.0]]

    # The official code converts CrowdHuman's annotations first: other suffixes.
    assert annotations(train) == without_suffixes(row['train_annotations'])
    assert annotations(test) == without_suffixes(row['test_annotations'])
    assert annotations(unwrap(cfg.val_dataloader.dataset)) == without_suffixes(row['val_annotations'])
    assert image_folders(train) == [Path(folder) for folder in row['train_images']]
    assert image_folders(test) == [Path(folder) for folder in row['test_images']]
    for dataset in train:  # what mmdet 2 filters out
        assert dataset.get('filter_cfg') in (None, dict(filter_empty_gt=True, min_size=32))
    for evaluator, datasets in ((cfg.val_evaluator, cfg.val_dataloader), (cfg.test_evaluator, cfg.test_dataloader)):
        if 'ann_file' in evaluator:
            assert without_suffixes([evaluator.ann_file]) == annotations(unwrap(datasets.dataset))


def geometry(pipeline: Iterable[ConfigDict]) -> Iterator[list]:
    """What a pipeline does to the image size, transform by transform."""
    for step in pipeline:
        if step.type == 'RandomFlip':
            yield ['flip', step.prob]
        elif step.type in ('Resize', 'RandomChoiceResize', 'RandomResize'):
            assert step.keep_ratio
            how = 'resize between' if step.type == 'RandomResize' else 'resize to one of'
            yield [how, step.get('scales') or (step.scale if isinstance(step.scale, list) else [step.scale])]
        elif step.type == 'RandomCrop':
            yield ['crop', step.crop_size, step.crop_type, step.allow_negative_crop]
        elif step.type == 'RandomChoice':
            yield ['one of', [list(geometry(steps)) for steps in step.transforms]]
        else:
            assert step.type in ('LoadImageFromFile', 'LoadAnnotations', 'PackDetInputs')


def listed(value: Any) -> Any:
    """Tuples and iterators as lists, as in JSON."""
    if isinstance(value, dict):
        return {name: listed(item) for name, item in value.items()}
    return [listed(item) for item in value] if isinstance(value, Iterable) and not isinstance(value, str) else value


def box_heads(model: ConfigDict) -> list[ConfigDict]:
    heads = model.bbox_head if 'bbox_head' in model else model.roi_head.bbox_head
    return heads if isinstance(heads, list) else [heads]


def annotations(datasets: Sequence[ConfigDict]) -> list[Path]:
    return without_suffixes(dataset.data_root + dataset.ann_file for dataset in datasets)


def without_suffixes(paths: Iterable[str]) -> list[Path]:
    return [Path(path).with_suffix('') for path in paths]


def image_folders(datasets: Sequence[ConfigDict]) -> list[Path]:
    (names,) = {tuple(dataset.data_prefix) for dataset in datasets}
    assert names in (('img',), ('sub_data_root',))
    return [Path(dataset.data_root, dataset.data_prefix[names[0]]) for dataset in datasets]


def config(pattern: str) -> Config:
    (path,) = DETECTION.glob(pattern)
    return Config.fromfile(path)


def test_voc_counts_small_objects_and_scores_as_each_year_does() -> None:
    """mmdet's own VOC config ignores objects of less than 32 pixels."""
    voc07, voc12 = config('voc/*voc07.py'), config('voc/*voc12.py')
    assert voc07.test_evaluator.eval_mode == voc12.val_evaluator.eval_mode == '11points'
    assert voc12.test_evaluator.eval_mode == 'area'


def test_open_images_draws_by_class() -> None:
    cfg = config('openimages/*.py')
    assert cfg.train_dataloader.sampler == dict(type='ClassAwareSampler', num_sample_class=1)
    for views in (cfg.test_dataloader.dataset.pipeline, cfg.tta_pipeline[1].transforms[-1]):
        assert {'instances', 'image_level_labels'} <= set(views[-1].meta_keys)
    assert cfg.default_hooks.checkpoint.save_best == 'openimages/mAP'


def test_cascade_heads_of_large_models() -> None:
    """As in the official cascade_internimage_*: four convolutions with SyncBN, one linear layer, boxes per class."""
    heads = box_heads(config('coco/cascade*-l_fpn_1x*').model)
    assert [head.bbox_coder.target_stds[0] for head in heads] == [0.1, 0.05, 0.033]
    for head in heads:
        assert (head.type, head.num_shared_convs, head.num_shared_fcs) == ('ConvFCBBoxHead', 4, 1)
        assert (head.norm_cfg.type, head.reg_class_agnostic, head.reg_decoded_bbox) == ('SyncBN', False, True)
