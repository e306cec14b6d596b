"""Small DINO detectors, built as configs build them, and their inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.structures import InstanceData

WIDTH = 64  # of neck and transformer
CLASSES = 5
QUERIES = 30
BACKBONE = dict(type='InternImage', channels=16, depths=[1, 1, 1, 1], groups=[1, 2, 4, 8], out_indices=(1, 2, 3))


def build_dino(
    detector: str = 'PublishedDINO', head: str = 'PublishedDINOHead', width: int = WIDTH, **changes: Any
) -> Any:
    """A detector of two encoder and two decoder layers; ``changes`` go into the model's config."""
    attention = dict(embed_dims=width)
    ffn = dict(embed_dims=width, feedforward_channels=width)
    model = dict(
        type=detector,
        num_queries=QUERIES,
        backbone=dict(_delete_=True, **BACKBONE),
        neck=dict(in_channels=[32, 64, 128], out_channels=width),
        positional_encoding=dict(num_feats=width // 2),
        encoder=dict(num_layers=2, layer_cfg=dict(self_attn_cfg=attention, ffn_cfg=ffn)),
        decoder=dict(num_layers=2, layer_cfg=dict(self_attn_cfg=attention, cross_attn_cfg=attention, ffn_cfg=ffn)),
        bbox_head=dict(type=head, embed_dims=width, num_classes=CLASSES),
        test_cfg=dict(max_per_img=50),
    )
    cfg = Config.fromstring("_base_ = 'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py'", '.py')
    cfg.merge_from_dict(dict(model=model))
    cfg.merge_from_dict({f'model.{key}': value for key, value in changes.items()})
    built = MODELS.build(cfg.model)
    if not any(parameter.is_meta for parameter in built.parameters()):
        built.init_weights()  # without it level_embed is uninitialised memory
    return built


def make_samples(
    shapes: Sequence[Sequence[int]], objects: Sequence[int] | None = None, padded_to: tuple[int, int] = (128, 160)
) -> list[DetDataSample]:
    """Samples of images of the given (height, width), padded to one size, with ``objects`` random boxes each."""
    samples = []
    for index, shape in enumerate(shapes):
        height, width = map(int, shape)
        metainfo = dict(img_shape=(height, width), batch_input_shape=padded_to, scale_factor=(1.0, 1.0))
        sample = DetDataSample(metainfo=metainfo)
        if objects is not None:
            corners = torch.rand(objects[index], 2, 2).sort(dim=1).values * torch.tensor([width, height])
            labels = torch.randint(CLASSES, (objects[index],))
            sample.gt_instances = InstanceData(bboxes=corners.flatten(1), labels=labels)
        samples.append(sample)
    return samples


def without_gradient(model: torch.nn.Module) -> list[str]:
    """Parameters that the last backward did not reach; with them, training in several processes fails."""
    return [name for name, parameter in model.named_parameters() if parameter.grad is None]
