"""Configs made so small that they train on a CPU within seconds: the same classes, smaller numbers, the demo's data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict

from mmcv_custom.models.arch import PRESETS
from tools.demo.digits import CLASSES

SIZE = 64  # of the images, in pixels
STAGES = [16, 32, 64, 128]  # widths of the backbone
WIDTH = 64  # of necks and heads
# The most that a model's config may say under such a name, wherever in it.
LIMITS = dict(
    in_channels=WIDTH,
    out_channels=WIDTH,
    channels=WIDTH,
    feat_channels=WIDTH,
    embed_dims=WIDTH,
    conv_out_channels=WIDTH // 2,
    fc_out_channels=256,
    feedforward_channels=2 * WIDTH,
    num_feats=WIDTH // 2,
    num_heads=4,
    num_groups=8,
    num_layers=2,
    num_convs=1,
    num_shared_convs=1,
    num_queries=20,
    num_dn_queries=20,
    num_points=256,  # of a mask; attention has 4
    num=16,  # anchors or boxes of an image that have a loss
    nms_pre=500,
    max_per_img=200,  # no less: among fewer proposals of an untrained RPN there are no objects to learn from
)


def shrink(path: Path, data: Path, lr: float, iterations: int) -> Config:
    """A config of ``configs/`` as one that learns a few images by heart, on the CPU.

    Model, optimizer and custom hooks keep their types and options but for sizes, counts and what would be downloaded.
    Datasets, pipelines, evaluators and schedule are replaced: the model is evaluated on the images it was trained on.

    Args:
        path: The config.
        data: Root of a dataset of :mod:`tools.demo.digits`, of images of ``SIZE`` pixels.
        lr: Learning rate, constant.
        iterations: Steps of training, on four images each.
    """
    cfg = Config(Config.fromfile(path).to_dict(), format_python_code=False)  # formatting takes seconds
    cfg.model = shrink_model(cfg.model)
    detects = cfg.default_scope == 'mmdet'
    dataset = _instances(data) if detects else _segments(data)
    loader = dict(batch_size=4, num_workers=0, persistent_workers=False)
    cfg.train_dataloader = dict(dataset=dataset, sampler=dict(type='InfiniteSampler'), **loader)
    cfg.val_dataloader = dict(
        dataset=dict(dataset, test_mode=True), sampler=dict(type='DefaultSampler', shuffle=False), **loader
    )
    if detects:
        metrics = ['bbox', 'segm'] if 'mask_head' in cfg.model.get('roi_head', {}) else ['bbox']
        cfg.val_evaluator = dict(type='CocoMetric', ann_file=str(data / dataset['ann_file']), metric=metrics)
    else:
        cfg.val_evaluator = dict(type='IoUMetric')
    cfg.test_dataloader, cfg.test_evaluator = cfg.val_dataloader, cfg.val_evaluator

    cfg.optim_wrapper.optimizer.lr = lr
    cfg.param_scheduler = []
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=iterations, val_interval=iterations)
    cfg.default_hooks = dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=iterations))
    cfg.log_processor = dict(by_epoch=False)
    cfg.log_level = 'ERROR'
    cfg.load_from = None
    cfg.randomness = dict(seed=0)
    return cfg


def shrink_model(model: ConfigDict) -> ConfigDict:
    """The model of a config of ``configs/`` with one block per stage, for images of ``SIZE`` pixels with digits."""
    model = _limited(model, num_classes=len(CLASSES) + (model.type == 'EncoderDecoder'))  # plus the background
    model.backbone.update(channels=STAGES[0], depths=[1] * 4, groups=[1, 2, 4, 8], drop_path_rate=0.0, init_cfg=None)
    if PRESETS[model.backbone.get('arch', 'tiny')].level2_post_norm:
        model.backbone.level2_post_norm_block_ids = [0]
    if 'auxiliary_head' in model:
        model.auxiliary_head.in_channels = STAGES[model.auxiliary_head.in_index]
    if 'dn_cfg' in model:
        model.bbox_head.embed_dims = WIDTH  # 256 unless said
    if 'size' in model.data_preprocessor:
        model.data_preprocessor.size = (SIZE, SIZE)
    if model.test_cfg.get('mode') == 'slide':
        model.test_cfg.update(crop_size=(SIZE * 3 // 4, SIZE * 3 // 4), stride=(SIZE // 2, SIZE // 2))
    return model


def _limited(node: Any, num_classes: int, key: str = '') -> Any:
    """A copy of a part of a model's config with smaller numbers; ``key`` is its name in the dict that holds it."""
    if isinstance(node, dict):
        return ConfigDict({name: _limited(value, num_classes, name) for name, value in node.items()})
    if isinstance(node, list):
        match key:
            case 'in_channels':
                return STAGES[-len(node) :]
            case 'scales':  # of the anchors, in strides
                return [4]
            case 'class_weight':
                return node[:1] * num_classes + node[-1:]
        return [_limited(item, num_classes) for item in node]
    if key == 'num_classes':
        return num_classes
    return min(node, LIMITS[key]) if key in LIMITS and isinstance(node, int) else node


def _instances(data: Path) -> dict[str, Any]:
    keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
    return dict(
        type='CocoDataset',
        metainfo=dict(classes=CLASSES),
        data_root=str(data),
        ann_file='annotations/train.json',
        data_prefix=dict(img='images/train'),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
            dict(type='Resize', scale=(SIZE, SIZE)),
            dict(type='PackDetInputs', meta_keys=keys),
        ],
    )


def _segments(data: Path) -> dict[str, Any]:
    return dict(
        type='BaseSegDataset',
        metainfo=dict(classes=('background', *CLASSES)),
        img_suffix='.png',
        data_root=str(data),
        data_prefix=dict(img_path='images/train', seg_map_path='masks/train'),
        pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')],
    )
