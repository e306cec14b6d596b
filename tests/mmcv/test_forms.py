"""No tensor is lost when prefixes of wrappers go. Datasets are described so that mmdet and mmseg can use it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mmcv_custom.checkpoint import CheckpointError, backbone_state_dict, load_converted, mmengine_form

WEIGHT = 'patch_embed.conv1.weight'
STATE = {f'backbone.{WEIGHT}': torch.zeros(2)}


@pytest.mark.parametrize('prefix', ['module.', '_orig_mod.'])
@pytest.mark.parametrize('wrapped', [False, True])
def test_no_tensor_hides_another(prefix: str, wrapped: bool, tmp_path: Path) -> None:
    """One of two tensors would be lost without a word."""
    one, two = STATE, {prefix + name: torch.ones(2) for name in STATE}
    message = rf'several tensors would be called backbone.{WEIGHT} \(.*{prefix}.*\): expected one of each'
    content = {'state_dict': one | two} if wrapped else one | two
    torch.save(content, tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match=rf'cannot load .*a.pth: {message}'):
        load_converted(tmp_path / 'a.pth')
    with pytest.raises(ValueError, match='several tensors would be called'):
        backbone_state_dict(content)
    for state in (one, two):
        assert list(mmengine_form({'state_dict': state})['state_dict']) == list(STATE)
        assert list(backbone_state_dict(state)) == [WEIGHT]


def test_names_of_hugging_face_hide_none() -> None:
    block = 'levels.0.blocks.0.'
    state = {block + 'layer_scale1': torch.ones(1), block + 'dcn.offset.weight': torch.ones(1)}
    assert block + 'gamma1' in backbone_state_dict(state)
    with pytest.raises(ValueError, match=rf'several tensors would be called {block}gamma1'):
        backbone_state_dict(state | {block + 'gamma1': torch.zeros(1)})


CLASSES = {'classes': ('cat', 'dog'), 'palette': [(1, 2, 3), (4, 5, 6)]}


@pytest.mark.parametrize(
    ('meta', 'kept'),
    [
        ({'dataset_meta': CLASSES}, {'dataset_meta': CLASSES}),
        ({'dataset_meta': {}}, {'dataset_meta': {}}),
        (
            {'dataset_meta': {'classes': None, 'label_map': {1: 0}}},
            {'dataset_meta': {'classes': None, 'label_map': {1: 0}}},
        ),
        ({'dataset_meta': 5, 'epoch': 1}, {'epoch': 1}),
        ({'dataset_meta': [1, 2]}, {}),
        ({'dataset_meta': {1: 2}}, {}),
        ({'dataset_meta': {'classes': 5}}, {}),
        ({'dataset_meta': {'classes': 'abc'}}, {}),
        ({'dataset_meta': {'classes': [1, 2]}}, {}),
        ({'CLASSES': ['cat'], 'PALETTE': [(1, 2, 3)]}, {'CLASSES': ['cat'], 'PALETTE': [(1, 2, 3)]}),
        ({'CLASSES': ['cat']}, {'CLASSES': ['cat'], 'PALETTE': None}),
        ({'CLASSES': None}, {'CLASSES': None, 'PALETTE': None}),
        ({'CLASSES': 'abc'}, {}),
        ({'CLASSES': torch.ones(2)}, {}),
    ],
    ids=str,
)
def test_a_dataset_is_described_properly_or_not_at_all(
    meta: dict[str, Any], kept: dict[str, Any], log: list[str]
) -> None:
    """The inferencers of mmdet and mmseg take these as they are."""
    state: dict[str, Tensor] = STATE
    assert mmengine_form({'meta': meta, 'state_dict': state})['meta'] == kept
    lost = [key for key in meta if key not in kept]
    assert log == [f'dropped meta.{key} of the checkpoint, which names no classes' for key in lost]
