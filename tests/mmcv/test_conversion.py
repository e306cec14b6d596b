"""Official names against those of our models, for whole models; and dicts that no conversion should touch or take."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmcv.cnn.bricks.transformer import FFN
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor, nn

from mmcv_custom import convert_state_dict
from mmcv_custom.checkpoint.conversion import FAMILIES, convert, convert_checkpoint
from tests.support import CONFIGS, DATA

State = dict[str, Tensor]

# The official configs of which every name and shape was recorded: family, our config, numbers of parameters and of
# names that change.
MODELS_OF = {
    'mask_rcnn_internimage_t_fpn_1x_coco': (
        'Mask R-CNN', 'detection/coco/mask-rcnn_internimage-t_fpn_1x_coco', 48_920_544, 0,
    ),
    'mask_rcnn_internimage_b_fpn_1x_coco': (
        'Mask R-CNN', 'detection/coco/mask-rcnn_internimage-b_fpn_1x_coco', 115_245_264, 0,
    ),
    'cascade_internimage_l_fpn_1x_coco': (
        'Cascade Mask R-CNN', 'detection/coco/cascade-mask-rcnn_internimage-l_fpn_1x_coco', 277_307_236, 0,
    ),
    'dino_4scale_internimage_t_1x_coco_layer_wise_lr': (
        'DINO', 'detection/coco/dino-4scale_internimage-t_8xb2-12e-layer-wise-lr_coco', 48_736_828, 241,
    ),
    'dino_4scale_internimage_l_1x_coco_0.1x_backbone_lr': (
        'DINO', 'detection/coco/dino-4scale_internimage-l_8xb2-12e-0.1x-backbone-lr_coco', 241_033_214, 241,
    ),
    'dino_4scale_internimage_h_objects365_coco_ss': (
        'DINO', 'detection/coco/dino-4scale_internimage-h_b1-20k_objects365-coco', 1_098_725_884, 241,
    ),
    'dino_4scale_cbinternimage_h_objects365_coco_ss': (
        'DINO', 'detection/coco/dino-4scale_cb-internimage-h_b1-20k_objects365-coco', 2_178_558_124, 241,
    ),
    'upernet_internimage_t_512_160k_ade20k': (
        'UperNet', 'segmentation/ade20k/internimage-t_upernet_8xb2-160k_ade20k-512x512', 59_077_148, 0,
    ),
    'upernet_internimage_h_896_160k_ade20k': (
        'UperNet', 'segmentation/ade20k/internimage-h_upernet_16xb1-160k_ade20k-896x896', 1_120_338_396, 0,
    ),
    'mask2former_internimage_h_896_80k_cocostuff2ade20k_ss': (
        'Mask2Former',
        'segmentation/ade20k/internimage-h_mask2former_16xb1-80k_coco-stuff164k-ade20k-896x896',
        1_313_496_135,
        180,
    ),
    'segformer_internimage_l_512x1024_160k_mapillary2cityscapes': (
        'SegFormer',
        'segmentation/cityscapes/internimage-l_segformer_8xb2-160k_mapillary-cityscapes-512x1024',
        219_870_024,
        0,
    ),
}  # fmt: skip
DINO = 'dino_4scale_internimage_t_1x_coco_layer_wise_lr'
MASK2FORMER = 'mask2former_internimage_h_896_80k_cocostuff2ade20k_ss'
UPERNET = 'upernet_internimage_t_512_160k_ade20k'
MASK_RCNN = 'mask_rcnn_internimage_t_fpn_1x_coco'
ONE_OF_EACH = {family: official for official, (family, *_) in reversed(MODELS_OF.items())}


def read(path: Path) -> Any:
    return json.loads(gzip.decompress(path.read_bytes()))


def official_state(official: str) -> State:
    """The state dict of an official model, without values."""
    names = read(DATA / f'full_models/{official}.json.gz')
    return {name: torch.empty(shape, device='meta') for name, shape in names}


def our_model(config: str) -> nn.Module:
    cfg = Config.fromfile(CONFIGS / f'{config}.py')
    init_default_scope(cfg.default_scope)
    with torch.device('meta'):
        return MODELS.build(cfg.model)


def assert_fills(state: State, model: nn.Module) -> None:
    shapes = {name: tensor.shape for name, tensor in state.items()}
    assert shapes == {name: tensor.shape for name, tensor in model.state_dict().items()}


# --- every name finds its place ---------------------------------------------------------------------------------------


def test_all_recorded_models_are_tested() -> None:
    assert {path.name.removesuffix('.json.gz') for path in (DATA / 'full_models').iterdir()} == set(MODELS_OF)
    assert set(ONE_OF_EACH) == {family.name for family in FAMILIES} - {'Cascade R-CNN'}  # it is Cascade without masks


@pytest.mark.parametrize('official', MODELS_OF)
def test_every_official_tensor_finds_its_place_in_our_model(official: str) -> None:
    family, config, parameters, renamed = MODELS_OF[official]
    state, model = official_state(official), our_model(config)
    conversion = convert(state)
    assert (conversion.family, len(conversion.renamed)) == (family, renamed)
    assert not (conversion.prefix or conversion.merged or conversion.dropped or conversion.unknown)
    assert_fills(conversion.state_dict, model)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    for old, new in zip(state, conversion.state_dict, strict=True):
        assert conversion.state_dict[new] is state[old] and new == conversion.renamed.get(old, old)


def test_giant_dino() -> None:
    """No list of the whole model was recorded: it is that of huge with giant's backbone and a feed-forward network of
    four slices, as the official code builds it."""
    backbone = read(DATA / 'state_dict_keys.json.gz')['giant']
    state = {f'backbone.{name}': torch.empty(shape, device='meta') for name, shape in backbone}
    for name, tensor in official_state('dino_4scale_internimage_h_objects365_coco_ss').items():
        if name.startswith('neck.') and tensor.ndim == 4:  # huge's stages are 640 to 2560 wide
            state[name] = tensor.new_empty(len(tensor), tensor.shape[1] * 8 // 5, *tensor.shape[2:])
        elif not name.startswith('backbone.') and '.ffns.' not in name:
            state[name] = tensor
    for layer in range(12):
        transformer = f'bbox_head.transformer.{"encoder" if layer < 6 else "decoder"}.layers.{layer % 6}.'
        with torch.device('meta'):
            slices = SlicedFFN(256, 2048).state_dict()
        state |= {f'{transformer}ffns.0.{name}': tensor for name, tensor in slices.items()}
    conversion = convert(state)
    assert len(conversion.merged) == 3 * 12 and not conversion.unknown and not conversion.dropped
    assert {name for slices in conversion.merged.values() for name in slices} | set(conversion.renamed) == {
        name for name in state if re.match(r'bbox_head\.(transformer|label_embedding)\.', name)
    }
    assert_fills(conversion.state_dict, our_model('detection/coco/dino-4scale_internimage-g_b1-20k_objects365-coco'))


EXAMPLES = {
    DINO: {
        'bbox_head.transformer.level_embeds': 'level_embed',
        'bbox_head.transformer.query_embed.weight': 'query_embedding.weight',
        'bbox_head.transformer.enc_output.bias': 'memory_trans_fc.bias',
        'bbox_head.transformer.enc_output_norm.bias': 'memory_trans_norm.bias',
        'bbox_head.transformer.encoder.layers.3.attentions.0.value_proj.weight': (
            'encoder.layers.3.self_attn.value_proj.weight'
        ),
        'bbox_head.transformer.encoder.layers.5.ffns.0.layers.0.0.weight': 'encoder.layers.5.ffn.layers.0.0.weight',
        'bbox_head.transformer.encoder.layers.0.norms.1.weight': 'encoder.layers.0.norms.1.weight',
        'bbox_head.transformer.decoder.layers.2.attentions.0.attn.in_proj_weight': (
            'decoder.layers.2.self_attn.attn.in_proj_weight'
        ),
        'bbox_head.transformer.decoder.layers.2.attentions.1.sampling_offsets.bias': (
            'decoder.layers.2.cross_attn.sampling_offsets.bias'
        ),
        'bbox_head.transformer.decoder.layers.1.ffns.0.layers.1.bias': 'decoder.layers.1.ffn.layers.1.bias',
        'bbox_head.transformer.decoder.layers.4.norms.2.bias': 'decoder.layers.4.norms.2.bias',
        'bbox_head.transformer.decoder.norm.weight': 'decoder.norm.weight',
        'bbox_head.transformer.decoder.ref_point_head.0.weight': 'decoder.ref_point_head.layers.0.weight',
        'bbox_head.transformer.decoder.ref_point_head.2.bias': 'decoder.ref_point_head.layers.1.bias',
        'bbox_head.label_embedding.weight': 'dn_query_generator.label_embedding.weight',
        'bbox_head.cls_branches.6.bias': 'bbox_head.cls_branches.6.bias',
        'bbox_head.reg_branches.0.4.weight': 'bbox_head.reg_branches.0.4.weight',
    },
    MASK2FORMER: {
        'decode_head.pixel_decoder.encoder.layers.1.attentions.0.output_proj.bias': (
            'decode_head.pixel_decoder.encoder.layers.1.self_attn.output_proj.bias'
        ),
        'decode_head.pixel_decoder.encoder.layers.1.ffns.0.layers.1.bias': (
            'decode_head.pixel_decoder.encoder.layers.1.ffn.layers.1.bias'
        ),
        'decode_head.transformer_decoder.layers.8.attentions.0.attn.in_proj_bias': (  # other than in DINO
            'decode_head.transformer_decoder.layers.8.cross_attn.attn.in_proj_bias'
        ),
        'decode_head.transformer_decoder.layers.8.attentions.1.attn.in_proj_bias': (
            'decode_head.transformer_decoder.layers.8.self_attn.attn.in_proj_bias'
        ),
        'decode_head.transformer_decoder.layers.0.ffns.0.layers.0.0.weight': (
            'decode_head.transformer_decoder.layers.0.ffn.layers.0.0.weight'
        ),
        'decode_head.transformer_decoder.post_norm.weight': 'decode_head.transformer_decoder.post_norm.weight',
    },
}


@pytest.mark.parametrize('official', EXAMPLES)
def test_names(official: str) -> None:
    """Two attentions of a layer have the same shapes: the model alone would not notice a mistake."""
    state = official_state(official)
    converted = convert_state_dict(state)
    for old, new in EXAMPLES[official].items():
        assert converted[new] is state[old], old


class SlicedFFN(nn.Module):
    """The feed-forward network of the official InternImage-G, which sums over slices of the hidden units."""

    def __init__(self, width: int, hidden: int, slices: int = 4) -> None:
        super().__init__()
        for index in range(slices):
            self.add_module(f'fc1_{index}', nn.Linear(width, hidden // slices))
            self.add_module(f'fc2_{index}', nn.Linear(hidden // slices, width, bias=False))
        self.fc2_bias = nn.Parameter(torch.rand(width))
        self.slices = slices

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.get_submodule(f'fc2_{i}')(self.get_submodule(f'fc1_{i}')(x).relu()) for i in range(self.slices)]
        return x + sum(parts) + self.fc2_bias


def sliced(state: State, slices: State) -> State:
    """DINO with a sliced network in one layer; it would sort as 0, 1, 10, 11, 2, ... as text."""
    layer = 'bbox_head.transformer.decoder.layers.0.ffns.0.'
    rest = {name: tensor for name, tensor in state.items() if not name.startswith(layer)}
    return rest | {layer + name: tensor for name, tensor in slices.items()}


@pytest.mark.parametrize('slices', [1, 4, 12])
def test_merged_slices_compute_the_same(slices: int) -> None:
    official = SlicedFFN(6, 24, slices)
    state = dict(reversed(official.state_dict().items()))  # their order in the file means nothing
    conversion = convert(sliced(official_state(DINO), state))
    prefix = 'decoder.layers.0.ffn.'
    assert conversion.merged[prefix + 'layers.1.weight'] == [
        f'bbox_head.transformer.decoder.layers.0.ffns.0.fc2_{index}.weight' for index in range(slices)
    ]
    merged = FFN(embed_dims=6, feedforward_channels=24)
    found = {name: tensor for name, tensor in conversion.state_dict.items() if name.startswith(prefix)}
    merged.load_state_dict({name.removeprefix(prefix): tensor for name, tensor in found.items()})
    x = torch.randn(5, 6)
    torch.testing.assert_close(merged(x), official(x))


# --- what else files hold ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize('official', ONE_OF_EACH.values(), ids=ONE_OF_EACH)
def test_the_new_form_comes_back_unchanged(official: str) -> None:
    state = convert_state_dict(official_state(official))
    again = convert(state)
    assert list(again.state_dict) == list(state) and again.family == MODELS_OF[official][0]
    assert all(again.state_dict[name] is tensor for name, tensor in state.items())
    assert not (again.renamed or again.merged or again.dropped or again.unknown)


def test_cascade_without_masks() -> None:
    """The detector of CrowdHuman."""
    state = official_state('cascade_internimage_l_fpn_1x_coco')
    boxes = {name: tensor for name, tensor in state.items() if '.mask_head.' not in name}
    assert convert(boxes).family == 'Cascade R-CNN' and convert_state_dict(boxes) == boxes


@pytest.mark.parametrize('official', [DINO, MASK2FORMER, UPERNET])
def test_prefix_of_several_gpus(official: str) -> None:
    state = official_state(official)
    conversion = convert({f'module.{name}': tensor for name, tensor in state.items()})
    assert conversion.state_dict == convert_state_dict(state)
    assert conversion.prefix == 'module.' and "prefix 'module.' removed" in conversion.summary()
    assert len(conversion.renamed) == MODELS_OF[official][3]


@pytest.mark.parametrize('official', [DINO, MASK_RCNN])
@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_copies_of_the_ema_hook_are_dropped(official: str, prefix: str) -> None:
    """mmdet 2's hook registers a buffer per tensor, and swaps the two before a checkpoint is saved."""
    state = official_state(official)
    copies = {'ema_' + name.replace('.', '_'): torch.ones(1) for name in state}
    conversion = convert({prefix + name: tensor for name, tensor in (state | copies).items()})
    assert conversion.state_dict == convert_state_dict(state)
    assert set(conversion.dropped) == set(copies)
    assert f'{len(copies)} dropped (copies of the EMA hook' in conversion.summary()


def test_unused_classifier_of_old_mask2former_is_dropped() -> None:
    state = official_state(MASK2FORMER)
    unused = {'decode_head.conv_seg.weight': torch.ones(1), 'decode_head.conv_seg.bias': torch.ones(1)}
    conversion = convert(state | unused)
    assert conversion.state_dict == convert_state_dict(state)
    assert conversion.dropped == dict.fromkeys(unused, 'unused by the model')
    assert 'decode_head.conv_seg.weight' in convert_state_dict(official_state(UPERNET))  # there it is used


@pytest.mark.parametrize('extra', ['bbox_head.transformer.decoder.layers.0.attentions.2.weight', 'mine.weight'])
def test_names_without_a_rule_are_kept_and_reported(extra: str) -> None:
    state = official_state(DINO)
    conversion = convert(state | {extra: torch.ones(1)})
    assert conversion.unknown == [extra]
    assert conversion.state_dict == convert_state_dict(state) | {extra: conversion.state_dict[extra]}
    assert f'1 of unknown names ({extra})' in conversion.summary()


# --- what is no official model ----------------------------------------------------------------------------------------


def renamed(state: State, pattern: str, new: str) -> State:
    return {re.sub(pattern, new, name): tensor for name, tensor in state.items()}


def half(state: State) -> State:
    return {(new if index % 2 else old): state[old] for index, (old, new) in enumerate(convert(state).renamed.items())}


BACKBONE = {'patch_embed.conv1.weight': torch.ones(1), 'levels.0.blocks.0.dcn.offset.weight': torch.ones(1)}
MISTAKES: dict[str, tuple[Callable[[State], Any], str]] = {
    'list': (lambda state: list(state), 'expected a mapping of names to tensors, got list'),
    'wrapped': (lambda state: {'meta': {}, 'state_dict': state}, 'no tensors are meta, state_dict'),
    'empty': (lambda state: {}, r'no known family: its names begin with nothing; expected an InternImage .*DINO, '),
    'other head': (lambda state: renamed(state, 'bbox_head', 'my_head'), 'no known family: .* my_head.cls_branches'),
    'other backbone': (lambda state: renamed(state, 'levels|patch_embed', 'layers'), 'backbone.layers, .*an Intern'),
    'classification': (lambda state: BACKBONE | {'head.weight': torch.ones(1)}, 'a backbone only .*init_cfg=dict'),
    'backbone': (lambda state: {f'backbone.{name}': value for name, value in BACKBONE.items()}, 'a backbone only'),
    'DCNv4': (lambda state: renamed(state, r'dcn\.offset\.', 'dcn.offset_mask.'), 'DCNv4 .*FlashInternImage'),
    'module': (lambda state: renamed(state, r'^neck', 'module.neck'), "mixed prefixes: 12 of 994 names .* 'module.'"),
    'model': (lambda state: state | renamed(state, r'^', 'model.'), r'mixed prefixes: 994 .* DINO, 994 .*\(model.b'),
    'half': (lambda state: state | half(state), 'half converted: 241 names .* official DINO .*, 120 of the new'),
    'gap': (
        lambda state: sliced(state, renamed(SlicedFFN(4, 8).state_dict(), 'fc1_2', 'fc1_7')),
        r'slices of .*ffns.0.layers.0.0.weight do not make a layer: expected 0, 1, ..., got \[0, 1, 3, 7\]',
    ),
    'slices of several shapes': (
        lambda state: sliced(state, SlicedFFN(4, 8).state_dict() | {'fc1_1.weight': torch.ones(2, 5)}),
        r'the slices of .*layers.0.0.weight do not fit together along dimension 0: \(2, 4\) of torch.float32, \(2, 5\)',
    ),
    'slices without dimensions': (
        lambda state: sliced(state, dict.fromkeys(SlicedFFN(4, 8).state_dict(), torch.tensor(1.0))),
        r'the slices of .* do not fit together',
    ),
    'slices of several dtypes': (
        lambda state: sliced(
            state, SlicedFFN(4, 8).state_dict() | {'fc1_1.weight': torch.ones(2, 4).to(torch.float8_e5m2)}
        ),
        r'the slices of .*do not fit together .*\(2, 4\) of torch.float8_e5m2',
    ),
    'slices and whole': (
        lambda state: state | sliced(state, SlicedFFN(4, 8).state_dict()),
        'slices of .*ffns.0.layers.0.0.weight do not make a layer',
    ),
    'two names': (
        lambda state: state | {'bbox_head.transformer.encoder.layers.0.ffns.0.fc2_bias': torch.ones(1)},
        r'several tensors would be called encoder.layers.0.ffn.layers.1.bias',
    ),
}  # fmt: skip


@pytest.mark.parametrize('mistake', MISTAKES)
def test_mistakes(mistake: str) -> None:
    make, message = MISTAKES[mistake]
    with pytest.raises(ValueError, match=message):
        convert_state_dict(make(official_state(DINO)))


def test_half_converted_mask2former() -> None:
    state = official_state(MASK2FORMER)
    with pytest.raises(ValueError, match='half converted: .* Mask2Former'):
        convert_state_dict(state | half(state))


# --- contents of files ------------------------------------------------------------------------------------------------

META = {'mmcv_version': '1.7.2', 'CLASSES': ('cat', 'dog'), 'PALETTE': [(1, 2, 3), (4, 5, 6)], 'epoch': 12}


@pytest.mark.parametrize('official', [DINO, UPERNET])
def test_official_file(official: str) -> None:
    state = official_state(official)
    checkpoint, conversion = convert_checkpoint({'meta': META, 'state_dict': state, 'optimizer': {'state': {}}})
    assert conversion is not None and conversion.family == MODELS_OF[official][0]
    assert set(checkpoint) == {'meta', 'state_dict'} and checkpoint['state_dict'] == convert_state_dict(state)
    assert checkpoint['meta']['dataset_meta'] == {'classes': ('cat', 'dog'), 'palette': [(1, 2, 3), (4, 5, 6)]}


def test_official_file_without_meta_or_colours() -> None:
    state = official_state(DINO)
    assert convert_checkpoint(state)[0] == {'meta': {}, 'state_dict': convert_state_dict(state)}
    checkpoint, _ = convert_checkpoint({'meta': META | {'PALETTE': None}, 'state_dict': state})
    assert checkpoint['meta']['dataset_meta'] == {'classes': ('cat', 'dog')}


@pytest.mark.parametrize(
    'content',
    [
        {'meta': {'mmengine_version': '0.10.7'}, 'state_dict': official_state(UPERNET)},
        {'meta': {'mmengine_version': '0.10.7'}, 'state_dict': convert_state_dict(official_state(DINO))},
        convert_state_dict(official_state(DINO)),
        official_state(UPERNET),
        {'state_dict': renamed(official_state(DINO), r'levels|patch_embed', 'layers')},
        {'state_dict': renamed(official_state(DINO), 'ref_point_head', 'my_head'), 'meta': META},
        {'model': BACKBONE},
        {'state_dict': {}},
        {'a': 1, 'meta': None},
        [1, 2],
    ],
    ids=lambda content: type(content).__name__,
)
def test_other_contents_are_left_alone(content: Any) -> None:
    """MMEngine reads all its files through this function, those of any model."""
    assert convert_checkpoint(content) == (content, None)
    assert convert_checkpoint(content)[0] is content
