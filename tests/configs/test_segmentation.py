"""The segmentation configs have the hyper-parameters of the official configs."""

from __future__ import annotations

import re
from functools import cache
from typing import Any, NamedTuple

import pytest
from mmengine.config import Config
from mmengine.registry import TRANSFORMS, init_default_scope

from tests.configs.helpers import build
from tests.support import CONFIGS, OFFICIAL_CHECKPOINTS

SEGMENTATION = CONFIGS / 'segmentation'


class Backbone(NamedTuple):
    """A backbone in the official segmentation configs."""

    arch: str
    drop_path_rate: float
    in_channels: list[int]
    pretrained: str
    layer_decay_rate: float
    with_cp: bool = False


BACKBONES = {
    't': Backbone('tiny', 0.2, [64, 128, 256, 512], 'internimage_t_1k_224.pth', 1.0),
    's': Backbone('small', 0.3, [80, 160, 320, 640], 'internimage_s_1k_224.pth', 1.0),
    'b': Backbone('base', 0.4, [112, 224, 448, 896], 'internimage_b_1k_224.pth', 1.0),
    'l': Backbone('large', 0.4, [160, 320, 640, 1280], 'internimage_l_22k_192to384.pth', 0.94),
    'xl': Backbone('xlarge', 0.4, [192, 384, 768, 1536], 'internimage_xl_22k_192to384.pth', 0.94),
    'h': Backbone('huge', 0.5, [320, 640, 1280, 2560], 'internimage_h_jointto22k_384.pth', 0.95),
    'g': Backbone('giant', 0.5, [512, 1024, 2048, 4096], 'internimage_g_pretrainto22k_384.pth', 0.95, with_cp=True),
}


class Recipe(NamedTuple):
    """The rest of an official config. The name of our config has batch size, iterations and crop size."""

    data: str  # type of the training dataset
    scale: tuple[int, int]
    lr: float = 2e-5
    clip: float | None = 0.1
    val_interval: int = 16000
    start: str | None = None  # checkpoint of a whole model, trained on another dataset
    classes: int = 150  # of the head
    wide: bool = False  # Mask2Former
    slides: bool = False
    ratio_range: tuple[float, float] = (0.5, 2.0)
    test_scale: tuple[int, int] | None = None  # scale
    ratios: tuple[float, ...] = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)  # of multi-scale evaluation


ADE_T = Recipe('ADE20KDataset', (2048, 512), 6e-5, None)
ADE_L = Recipe('ADE20KDataset', (2560, 640))
ADE_H = Recipe('ADE20KDataset', (3584, 896))
COCO = 'mask2former_internimage_h_896_80k_cocostuff164k.pth'
ADE_SS = ADE_H._replace(lr=1e-5, val_interval=2000, start=COCO, wide=True)
ADE_MS = ADE_SS._replace(ratios=(768 / 896, 832 / 896, 1.0, 960 / 896, 1024 / 896))
CITY_T = Recipe('CityscapesDataset', (2048, 1024), 6e-5, None)
CITY_L = Recipe('CityscapesDataset', (2048, 1024))
CITY_2 = CITY_L._replace(val_interval=4000, start='segformer_internimage_{}_512x1024_80k_mapillary.pth')
CITY_H = CITY_L._replace(
    lr=1e-5, val_interval=2000, start='mask2former_internimage_h_896x896_80k_mapillary.pth', classes=19, slides=True
)
MAPILLARY_L = Recipe('MapillaryCityscapesDataset', (2048, 1024), val_interval=8000, ratio_range=(0.5, 1.0))
MAPILLARY_H = Recipe('MapillaryCityscapesDataset', (2048, 1024), val_interval=2000, classes=19, slides=True)
COCO_10K = Recipe('COCOStuffDataset', (2048, 512), 1e-5, None, 2000, COCO, classes=171, wide=True)
COCO_164K = Recipe('COCOStuffDataset', (3584, 896), 2e-5, None, 8000, classes=171, wide=True)
NYU = Recipe('NYUDepthV2Dataset', (2048, 512), 2e-5, None, 2000, classes=40, test_scale=(640, 480))
PASCAL = Recipe('PascalContextDataset59', (520, 520), 2e-5, None, 2000, classes=59, test_scale=(4096, 520))

# Our name without .py: the official name and its hyper-parameters.
OFFICIAL = {
    'ade20k/internimage-t_upernet_8xb2-160k_ade20k-512x512': ('upernet_internimage_t_512_160k_ade20k', ADE_T),
    'ade20k/internimage-s_upernet_8xb2-160k_ade20k-512x512': ('upernet_internimage_s_512_160k_ade20k', ADE_T),
    'ade20k/internimage-b_upernet_8xb2-160k_ade20k-512x512': ('upernet_internimage_b_512_160k_ade20k', ADE_T),
    'ade20k/internimage-l_upernet_8xb2-160k_ade20k-640x640': ('upernet_internimage_l_640_160k_ade20k', ADE_L),
    'ade20k/internimage-xl_upernet_8xb2-160k_ade20k-640x640': ('upernet_internimage_xl_640_160k_ade20k', ADE_L),
    'ade20k/internimage-h_upernet_16xb1-160k_ade20k-896x896': ('upernet_internimage_h_896_160k_ade20k', ADE_H),
    'ade20k/internimage-g_upernet_16xb1-160k_ade20k-896x896': ('upernet_internimage_g_896_160k_ade20k', ADE_H),
    'ade20k/internimage-h_mask2former_16xb1-80k_coco-stuff164k-ade20k-896x896': (
        'mask2former_internimage_h_896_80k_cocostuff2ade20k_ss',
        ADE_SS,
    ),
    'ade20k/internimage-h_mask2former_16xb1-80k_coco-stuff164k-ade20k-896x896-ms': (
        'mask2former_internimage_h_896_80k_cocostuff2ade20k_ms',
        ADE_MS,
    ),
    'cityscapes/internimage-t_upernet_8xb2-160k_cityscapes-512x1024': (
        'upernet_internimage_t_512x1024_160k_cityscapes',
        CITY_T,
    ),
    'cityscapes/internimage-s_upernet_8xb2-160k_cityscapes-512x1024': (
        'upernet_internimage_s_512x1024_160k_cityscapes',
        CITY_T,
    ),
    'cityscapes/internimage-b_upernet_8xb2-160k_cityscapes-512x1024': (
        'upernet_internimage_b_512x1024_160k_cityscapes',
        CITY_T,
    ),
    'cityscapes/internimage-l_upernet_8xb2-160k_cityscapes-512x1024': (
        'upernet_internimage_l_512x1024_160k_cityscapes',
        CITY_L,
    ),
    'cityscapes/internimage-xl_upernet_8xb2-160k_cityscapes-512x1024': (
        'upernet_internimage_xl_512x1024_160k_cityscapes',
        CITY_L,
    ),
    'cityscapes/internimage-l_upernet_8xb2-160k_mapillary-cityscapes-512x1024': (
        'upernet_internimage_l_512x1024_160k_mapillary2cityscapes',
        CITY_2,
    ),
    'mapillary/internimage-l_upernet_8xb2-80k_mapillary-512x1024': (
        'upernet_internimage_l_512x1024_80k_mapillary',
        MAPILLARY_L,
    ),
    'cityscapes/internimage-xl_upernet_8xb2-160k_mapillary-cityscapes-512x1024': (
        'upernet_internimage_xl_512x1024_160k_mapillary2cityscapes',
        CITY_2,
    ),
    'mapillary/internimage-xl_upernet_8xb2-80k_mapillary-512x1024': (
        'upernet_internimage_xl_512x1024_80k_mapillary',
        MAPILLARY_L,
    ),
    'cityscapes/internimage-l_segformer_8xb2-160k_mapillary-cityscapes-512x1024': (
        'segformer_internimage_l_512x1024_160k_mapillary2cityscapes',
        CITY_2,
    ),
    'mapillary/internimage-l_segformer_8xb2-80k_mapillary-512x1024': (
        'segformer_internimage_l_512x1024_80k_mapillary',
        MAPILLARY_L,
    ),
    'cityscapes/internimage-xl_segformer_8xb2-160k_mapillary-cityscapes-512x1024': (
        'segformer_internimage_xl_512x1024_160k_mapillary2cityscapes',
        CITY_2,
    ),
    'mapillary/internimage-xl_segformer_8xb2-80k_mapillary-512x1024': (
        'segformer_internimage_xl_512x1024_80k_mapillary',
        MAPILLARY_L,
    ),
    'cityscapes/internimage-h_mask2former_8xb2-80k_mapillary-cityscapes-1024x1024': (
        'mask2former_internimage_h_1024x1024_80k_mapillary2cityscapes',
        CITY_H,
    ),
    'mapillary/internimage-h_mask2former_16xb2-80k_mapillary-896x896': (
        'mask2former_internimage_h_896x896_80k_mapillary',
        MAPILLARY_H,
    ),
    'coco_stuff10k/internimage-h_mask2former_16xb1-40k_coco-stuff164k-coco-stuff10k-512x512': (
        'mask2former_internimage_h_512_40k_cocostuff164k_to_10k',
        COCO_10K,
    ),
    'coco_stuff164k/internimage-h_mask2former_16xb1-80k_coco-stuff164k-896x896': (
        'mask2former_internimage_h_896_80k_cocostuff164k',
        COCO_164K,
    ),
    'nyu_depth_v2/internimage-h_mask2former_16xb1-40k_nyu-depth-v2-480x480': (
        'mask2former_internimage_h_480_40k_nyu',
        NYU,
    ),
    'pascal_context/internimage-h_mask2former_16xb1-40k_pascal-context-59-480x480': (
        'mask2former_internimage_h_480_40k_pascal_context_59',
        PASCAL,
    ),
}
NAME = re.compile(
    r'internimage-(?P<size>\w+)_(?P<method>\w+)_(?P<gpus>\d+)xb(?P<images>\d+)-(?P<k>\d+)k_.*-(?P<h>\d+)x(?P<w>\d+)'
)


@cache
def facts_of(config: str) -> tuple[Config, Backbone, Recipe, dict[str, Any]]:
    """The config, its expected backbone and recipe, and the fields of its name."""
    name = NAME.search(config)
    assert name
    _, recipe = OFFICIAL[config]
    if recipe.start:
        recipe = recipe._replace(start=recipe.start.format(name['size']))
    return Config.fromfile(SEGMENTATION / f'{config}.py'), BACKBONES[name['size']], recipe, name.groupdict()


def test_every_official_config_has_its_successor() -> None:
    ours = {path.relative_to(SEGMENTATION).with_suffix('').as_posix() for path in SEGMENTATION.glob('[!_]*/*.py')}
    assert ours == set(OFFICIAL)


@pytest.mark.parametrize('config', OFFICIAL)
def test_official_hyper_parameters(config: str) -> None:
    cfg, backbone, recipe, name = facts_of(config)
    header = (SEGMENTATION / f'{config}.py').read_text().partition('_base_')[0]
    assert header.startswith('# ') and f' {OFFICIAL[config][0]}.py' in header

    model, crop = cfg.model, (int(name['h']), int(name['w']))
    pretrained = (
        None if recipe.start else dict(type='Pretrained', checkpoint=OFFICIAL_CHECKPOINTS + backbone.pretrained)
    )
    assert cfg.load_from == (OFFICIAL_CHECKPOINTS + recipe.start if recipe.start else None)
    assert model.backbone.init_cfg == pretrained
    assert (model.backbone.arch, model.backbone.drop_path_rate) == (backbone.arch, backbone.drop_path_rate)
    assert model.backbone.get('with_cp', False) is backbone.with_cp
    heads = dict(upernet='UPerHead', segformer='SegformerHead', mask2former='PublishedMask2FormerHead')
    assert (model.decode_head.type, model.decode_head.in_channels) == (heads[name['method']], backbone.in_channels)
    assert model.decode_head.num_classes == recipe.classes
    if recipe.slides:
        assert model.test_cfg == dict(mode='slide', crop_size=crop, stride=(512, 512))
    else:
        assert model.test_cfg == dict(mode='whole')

    optimizer = dict(type='AdamW', lr=recipe.lr, betas=(0.9, 0.999), weight_decay=0.05)
    assert cfg.optim_wrapper.optimizer == optimizer and cfg.optim_wrapper.type == 'OptimWrapper'
    assert cfg.optim_wrapper.constructor == 'CustomLayerDecayOptimizerConstructor'
    assert cfg.optim_wrapper.paramwise_cfg == dict(layer_decay_rate=backbone.layer_decay_rate)
    clip = cfg.optim_wrapper.get('clip_grad')
    assert clip == (recipe.clip and dict(max_norm=recipe.clip, norm_type=2))
    iterations = 1000 * int(name['k'])
    assert cfg.train_cfg == dict(type='IterBasedTrainLoop', max_iters=iterations, val_interval=recipe.val_interval)
    warm_up, poly = cfg.param_scheduler
    assert warm_up == dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500)
    assert poly == dict(type='PolyLR', power=1.0, eta_min=0.0, by_epoch=False, begin=0, end=iterations)
    assert cfg.train_dataloader.batch_size == int(name['images'])
    assert cfg.auto_scale_lr == dict(enable=False, base_batch_size=int(name['gpus']) * int(name['images']))
    checkpoints = cfg.default_hooks.checkpoint
    assert (checkpoints.interval, checkpoints.max_keep_ckpts, checkpoints.save_best) == (1000, 1, 'mIoU')


@pytest.mark.parametrize('config', OFFICIAL)
def test_official_data(config: str) -> None:
    cfg, _, recipe, name = facts_of(config)
    crop = (int(name['h']), int(name['w']))
    assert cfg.model.data_preprocessor.size == crop
    dataset = cfg.train_dataloader.dataset
    for part in dataset.get('datasets', [dataset]):
        assert part.type == recipe.data
        load, labels, resize, cut, flip, distort, pack = part.pipeline
        types = [step.type for step in (load, labels, distort, pack)]
        assert types == ['LoadImageFromFile', 'LoadAnnotations', 'PhotoMetricDistortion', 'PackSegInputs']
        assert resize == dict(type='RandomResize', scale=recipe.scale, ratio_range=recipe.ratio_range, keep_ratio=True)
        assert cut == dict(type='RandomCrop', crop_size=crop, cat_max_ratio=0.75)
        assert flip == dict(type='RandomFlip', prob=0.5)
    assert len(dataset.get('datasets', [dataset])) == (2 if 'mapillary' in config else 1)

    scale = recipe.test_scale or recipe.scale
    assert cfg.val_dataloader == cfg.test_dataloader
    load, resize, *stretch, labels, pack = cfg.val_dataloader.dataset.pipeline
    assert [load.type, labels.type, pack.type] == ['LoadImageFromFile', 'LoadAnnotations', 'PackSegInputs']
    assert resize == dict(type='Resize', scale=scale, keep_ratio=True)
    street = cfg.val_dataloader.dataset.type == 'CityscapesDataset'  # its images of 2048x1024 need no stretching
    assert stretch == ([] if street else [dict(type='ResizeToMultiple', size_divisor=32)])

    init_default_scope('mmseg')
    load, views = cfg.tta_pipeline
    assert (cfg.tta_model.type, load.type) == ('SegTTAModel', 'LoadImageFromFile')
    views = [view.transforms for view in TRANSFORMS.build(views).subroutines]
    official = [(int(scale[0] * ratio), int(scale[1] * ratio)) for ratio in recipe.ratios]
    assert [(resize.scale, flip.prob) for resize, _, flip, *_ in views] == [
        (s, p) for s in official for p in (0.0, 1.0)
    ]
    assert {stretch.size_divisor for _, stretch, *_ in views} == {32}


@pytest.mark.parametrize('config', [config for config in OFFICIAL if 'mask2former' in config])
def test_official_mask2former(config: str) -> None:
    cfg, _, recipe, _ = facts_of(config)
    head, width = cfg.model.decode_head, 1024 if recipe.wide else 256
    pixels, queries = head.pixel_decoder, head.transformer_decoder
    assert (head.feat_channels, head.out_channels, head.num_queries) == (width, width, 200 if recipe.wide else 100)
    assert (pixels.encoder.num_layers, queries.num_layers) == (6, 9)
    attention = [
        pixels.encoder.layer_cfg.self_attn_cfg,
        queries.layer_cfg.self_attn_cfg,
        queries.layer_cfg.cross_attn_cfg,
    ]
    assert {(a.embed_dims, a.num_heads) for a in attention} == {(width, width // 32)}
    ffns = [layers.layer_cfg.ffn_cfg for layers in (pixels.encoder, queries)]
    assert [ffn.feedforward_channels for ffn in ffns] == ([4096, 4096] if recipe.wide else [1024, 2048])
    assert head.positional_encoding == pixels.positional_encoding == dict(num_feats=width // 2, normalize=True)
    assert head.loss_cls.class_weight == [1.0] * recipe.classes + [0.1]
    assert [head[f'loss_{part}'].loss_weight for part in ('cls', 'mask', 'dice')] == [2.0, 5.0, 5.0]
    assert [cost.weight for cost in head.train_cfg.assigner.match_costs] == [2.0, 5.0, 5.0]
    assert (head.train_cfg.num_points, head.train_cfg.importance_sample_ratio) == (12544, 0.75)


# In millions, from the published tables, for models whose official parameters are not in tests/data/full_models.
PARAMETERS = {
    'ade20k/internimage-s_upernet_8xb2-160k_ade20k-512x512': 80,
    'ade20k/internimage-b_upernet_8xb2-160k_ade20k-512x512': 128,
    'ade20k/internimage-l_upernet_8xb2-160k_ade20k-640x640': 256,
    'ade20k/internimage-xl_upernet_8xb2-160k_ade20k-640x640': 368,
    'cityscapes/internimage-xl_segformer_8xb2-160k_mapillary-cityscapes-512x1024': 330,
    'cityscapes/internimage-h_mask2former_8xb2-80k_mapillary-cityscapes-1024x1024': 1094,
}


@pytest.mark.parametrize('config', PARAMETERS)
def test_published_number_of_parameters(config: str) -> None:
    model = build(facts_of(config)[0])
    assert round(sum(parameter.numel() for parameter in model.parameters()) / 1e6) == PARAMETERS[config]
