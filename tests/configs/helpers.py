"""What the tests of the configs share."""

from __future__ import annotations

import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from tests.support import CONFIGS

LEAVES = sorted(path for path in CONFIGS.rglob('*.py') if '_base_' not in path.parts)
PUBLISHED = [path for path in LEAVES if 'demo' not in path.parts]


def build(cfg: Config) -> nn.Module:
    """The model of a config, of tensors that have shapes but no values: building takes no time and no memory."""
    init_default_scope(cfg.default_scope)
    with torch.device('meta'):
        return MODELS.build(cfg.model)


def unwrap(dataset: ConfigDict) -> list[ConfigDict]:
    """The datasets within a wrapper such as ConcatDataset; the dataset itself if it is none."""
    wrapped = [dataset.dataset] if 'dataset' in dataset else dataset.get('datasets', [])
    return [inner for part in wrapped for inner in unwrap(part)] or [dataset]
