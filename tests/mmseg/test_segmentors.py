"""UperNet and Mask2Former, built from configs with converted official weights, compute what the official code did."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import MODELS, init_default_scope
from mmseg.models import SegTTAModel
from torch import Tensor

from mmcv_custom import convert_state_dict
from tests.support import CONFIGS, golden_weights, load_tensors

CLASSES = 5


def build(config: str, golden: dict[str, Tensor], head: dict[str, Any], **changes: Any) -> Any:
    """The model of a config with the sizes and the weights of golden data; ``changes`` go into the model's config."""
    cfg = Config.fromfile(CONFIGS / 'segmentation' / config)
    init_default_scope(cfg.default_scope)
    backbone = dict(arch='tiny', channels=16, depths=[1] * 4, groups=[1, 2, 4, 8], init_cfg=None)
    head = dict(in_channels=[16, 32, 64, 128], num_classes=CLASSES, **head)
    cfg.merge_from_dict(dict(model=dict(backbone=backbone, decode_head=head, **changes)))
    model = MODELS.build(cfg.model)
    model.load_state_dict(convert_state_dict(golden_weights(golden)))
    return model.eval()


def build_mask2former(golden: dict[str, Tensor], head: str = 'PublishedMask2FormerHead', **changes: Any) -> Any:
    attention, ffn = dict(embed_dims=64, num_heads=8), dict(embed_dims=64, feedforward_channels=128)
    layer, position = dict(self_attn_cfg=attention, ffn_cfg=ffn), dict(num_feats=32)
    small = dict(
        type=head,
        feat_channels=64,
        out_channels=64,
        num_queries=10,
        loss_cls=dict(class_weight=[1.0] * CLASSES + [0.1]),
        pixel_decoder=dict(encoder=dict(num_layers=2, layer_cfg=layer), positional_encoding=position),
        positional_encoding=position,
        transformer_decoder=dict(num_layers=3, layer_cfg=dict(cross_attn_cfg=attention, **layer)),
    )
    config = 'ade20k/internimage-h_mask2former_16xb1-80k_coco-stuff164k-ade20k-896x896.py'
    return build(config, golden, small, **changes)


def meta_of(shape: tuple[int, int], **more: Any) -> list[dict]:
    return [dict(img_shape=shape, ori_shape=shape, **more)]


def assert_equal(actual: dict[str, Tensor], golden: dict[str, Tensor]) -> None:
    for name, tensor in actual.items():
        message = f'{name}: {{}}'.format
        torch.testing.assert_close(tensor, golden[name], atol=1e-4, rtol=1e-4, msg=message)


@torch.no_grad()
def test_upernet_equals_the_official_one() -> None:
    golden = load_tensors('upernet_tiny')
    auxiliary = dict(in_channels=64, channels=32, num_classes=CLASSES)
    config = 'ade20k/internimage-t_upernet_8xb2-160k_ade20k-512x512.py'
    model = build(config, golden, dict(channels=32), auxiliary_head=auxiliary)
    features = model.extract_feat(golden['img'])
    actual = {f'backbone/{level}': feature for level, feature in enumerate(features)}
    actual['logits'] = model.decode_head(features)
    actual['aux_logits'] = model.auxiliary_head(features)
    actual['logits_resized'] = model.encode_decode(golden['img'], meta_of((128, 160)))
    assert_equal(actual, golden)


@pytest.fixture(scope='module')
def golden() -> dict[str, Tensor]:
    return load_tensors('mask2former_tiny')


@pytest.fixture(scope='module')
def mask2former(golden: dict[str, Tensor]) -> Any:
    return build_mask2former(golden)


@torch.no_grad()
def test_mask2former_equals_the_official_one(golden: dict[str, Tensor], mask2former: Any) -> None:
    features = mask2former.extract_feat(golden['img'])
    actual = {f'backbone/{level}': feature for level, feature in enumerate(features)}
    actual['mask_features'], memories = mask2former.decode_head.pixel_decoder(features)
    actual |= {f'multi_scale_memory/{level}': memory for level, memory in enumerate(memories)}
    actual['cls_scores'], actual['mask_preds'] = map(torch.stack, mask2former.decode_head(features, []))
    actual['logits'] = mask2former.decode_head.predict(features, meta_of((32, 40)), None)  # where the masks are
    actual['logits_resized'] = mask2former.encode_decode(golden['img'], meta_of((128, 160)))
    assert_equal(actual, golden)


@torch.no_grad()
def test_only_the_prediction_of_mmsegs_head_differs(golden: dict[str, Tensor]) -> None:
    stock = build_mask2former(golden, 'Mask2FormerHead')
    scores, masks = stock.decode_head(stock.extract_feat(golden['img']), [])
    assert_equal(dict(cls_scores=torch.stack(scores), mask_preds=torch.stack(masks)), golden)
    prediction = stock.encode_decode(golden['img'], meta_of((128, 160)))
    agreement = (prediction.argmax(1) == golden['logits_resized'].argmax(1)).float().mean()
    assert 0.5 < agreement < 0.8  # of random weights; the reference data's notes say 0.68


SLIDE = dict(mode='slide', crop_size=(64, 96), stride=(32, 64))


@torch.no_grad()
def test_mask2former_in_windows(golden: dict[str, Tensor], mask2former: Any) -> None:
    """Each window like an image of its own, and their mean; also if the pipeline noted the shape of the whole image."""
    model, image = build_mask2former(golden, test_cfg=SLIDE), golden['img']
    total, count = torch.zeros(1, CLASSES, 128, 160), torch.zeros(128, 160)
    for top in (0, 32, 64):
        for left in (0, 64):
            window = (..., slice(top, top + 64), slice(left, left + 96))
            total[window] += mask2former.encode_decode(image[window], meta_of((64, 96)))
            count[window] += 1
    for metas in (meta_of((128, 160)), meta_of((128, 160), pad_shape=(128, 160))):
        torch.testing.assert_close(model.inference(image, metas), total / count)
    stock = build_mask2former(golden, 'Mask2FormerHead', test_cfg=SLIDE)
    with pytest.raises(RuntimeError):  # it makes every window as large as the image
        stock.inference(image, meta_of((128, 160), pad_shape=(128, 160)))


@torch.no_grad()
def test_mask2former_in_several_views(golden: dict[str, Tensor], mask2former: Any, tmp_path: Path) -> None:
    """Labels of the mean, over sizes and mirror images, of the softmax of the map in the size of the original image."""
    init_default_scope('mmseg')
    size = (128, 160)
    picture = golden['img'][0, [2, 1, 0]].permute(1, 2, 0) * 57 + 114  # blue, green and red from 0 to 255
    data = dict(img_path=str(tmp_path / 'image.png'), seg_map_path=str(tmp_path / 'labels.png'), seg_fields=[])
    mmcv.imwrite(picture.clamp(0, 255).byte().numpy(), data['img_path'])
    mmcv.imwrite(np.zeros(size, dtype=np.uint8), data['seg_map_path'])
    views = dict(type='MultiScaleFlip', scale=(160, 128), ratios=(0.7, 1.0))
    load = Compose([dict(type='LoadImageFromFile'), views])
    batch = pseudo_collate([load(data | dict(reduce_zero_label=False))])
    assert [tuple(view[0].shape[1:]) for view in batch['inputs']] == [(96, 128), (96, 128), (128, 160), (128, 160)]

    maps = []
    for (image,), mirrored in zip(batch['inputs'], (False, True, False, True), strict=True):
        image = mask2former.data_preprocessor(dict(inputs=[image]))['inputs']
        class_map = mask2former.encode_decode(image, meta_of(tuple(image.shape[2:])))
        class_map = F.interpolate(class_map, size, mode='bilinear')
        maps.append(class_map.flip(3) if mirrored else class_map)
    (merged,) = SegTTAModel(module=mask2former).test_step(batch)

    def agreement(class_map: Tensor) -> float:
        return (merged.pred_sem_seg.data == class_map.argmax(1)).float().mean().item()

    assert agreement(torch.cat(maps).softmax(1).mean(0, keepdim=True)) > 0.999
    assert agreement(torch.cat(maps).mean(0, keepdim=True)) < 0.97
    assert agreement(maps[2]) < 0.97
