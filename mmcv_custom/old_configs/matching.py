"""Which model of the zoo an old config describes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from .. import zoo
from ..errors import UserError
from ..models.arch import PRESETS, Arch
from .reading import OldConfig

# By the type of the model or of its head, and by the beginning of a base's name; longer beginnings first.
METHODS = {
    'MaskRCNN': 'Mask R-CNN',
    'CBDINO': 'DINO',
    'DINO': 'DINO',
    'UPerHead': 'UperNet',
    'SegformerHead': 'SegFormer',
    'Mask2FormerHead': 'Mask2Former',
}
BASES = {
    'cascade_mask_rcnn': 'Cascade Mask R-CNN',
    'cascade_rcnn': 'Cascade R-CNN',
    'mask_rcnn': 'Mask R-CNN',
    'upernet': 'UperNet',
    'segformer': 'SegFormer',
    'mask2former': 'Mask2Former',
    'dino': 'DINO',
}
LETTERS = dict(tiny='T', small='S', base='B', large='L', xlarge='XL', huge='H', giant='G')
# Words for datasets in the types and paths of old configs, and the names in the zoo.
DATASETS = {
    'coco10k': 'COCO-Stuff 10k',
    'cocostuff10k': 'COCO-Stuff 10k',
    'cocostuff': 'COCO-Stuff 164k',
    'ade20k': 'ADE20K',
    'cityscapes': 'Cityscapes',
    'mapillary': 'Mapillary Vistas',
    'crowdhuman': 'CrowdHuman',
    'lvis': 'LVIS v1',
    'openimages': 'OpenImages',
    'voc': 'PASCAL VOC',
    'nyu': 'NYU Depth V2',
    'pascalcontext': 'Pascal Context 59',
    'coco': 'COCO',
}


def model_of(old: OldConfig) -> str:
    """The name of the model of the zoo that an old config describes.

    The official name of the file or of a missing base decides, unless the backbone is another one. Else method and
    backbone do, and among several models the one with the same dataset, length and rule for learning rates.

    Raises:
        UserError: There is none.
    """
    official = {Path(str(model.published.get('Config'))).stem: name for name, model in zoo.models().items()}
    stems = [Path(path).stem for path in (old.path, *old.missing)]
    named = next((official[stem] for stem in stems if stem in official), None)
    has_backbone = 'channels' in old.content.get('model', {}).get('backbone', {})
    if named and not has_backbone:
        return named
    backbone = _backbone(old)
    if named and backbone in zoo.models()[named].metadata['Architecture']:
        return named
    method = _method(old)
    models = {name: model for name, model in zoo.models().items() if backbone in model.metadata['Architecture']}
    fitting = {name: model for name, model in models.items() if model.metadata['Architecture'][0] == method}
    if not fitting:
        others = sorted({model.metadata['Architecture'][0] for model in models.values()})
        raise UserError(
            f'--from {old.path}: there is no {method} on {backbone} here, but {", ".join(others)}; name a model before '
            '--from'
        )
    return max(fitting, key=lambda name: _agreement(old, name, fitting[name]))


def _method(old: OldConfig) -> str:
    model = old.content.get('model', {})
    kinds = (model.get('type'), model.get('decode_head', {}).get('type'))
    if model.get('type') == 'CascadeRCNN':
        return 'Cascade Mask R-CNN' if 'mask_head' in model.get('roi_head', {}) else 'Cascade R-CNN'
    by_base = [
        method
        for base in old.missing
        for start, method in BASES.items()
        if Path(base).stem.replace('-', '_').startswith(start)
    ]
    by_type = [METHODS[kind] for kind in kinds if kind in METHODS]
    if not by_type and not by_base:
        known = ', '.join(sorted(set(BASES.values())))
        raise UserError(
            f'--from {old.path}: neither the type of its model nor its bases tell which of {known} it is; name a model '
            'before --from'
        )
    return (by_type or by_base)[0]


def _backbone(old: OldConfig) -> str:
    """Such as ``'InternImage-T'``."""
    backbone: dict[str, Any] = old.content.get('model', {}).get('backbone', {})
    kind = backbone.get('type', 'InternImage')
    if kind not in ('InternImage', 'CBInternImage'):
        raise UserError(f'--from {old.path}: the backbone must be an InternImage, got {kind}')
    if 'channels' not in backbone:
        raise UserError(f'--from {old.path}: model.backbone.channels is missing; name a model before --from')
    name = Arch.preset_of_width(backbone['channels'])
    for key in ('depths', 'groups'):
        if name and list(backbone.get(key, ())) not in ([], list(getattr(PRESETS[name], key))):
            raise UserError(
                f'--from {old.path}: model.backbone.{key}={backbone[key]} is that of no published model of '
                f'{backbone["channels"]} channels: InternImage-{LETTERS[name]} has {list(getattr(PRESETS[name], key))}'
            )
    if not name:
        widths = ', '.join(str(arch.channels) for arch in PRESETS.values())
        raise UserError(
            f'--from {old.path}: no published model has model.backbone.channels={backbone["channels"]}, but {widths}'
        )
    return f'{"CB-" if kind == "CBInternImage" else ""}InternImage-{LETTERS[name]}'


def _agreement(old: OldConfig, name: str, model: zoo.Model) -> tuple[bool, bool, bool]:
    """Whether dataset, length of training, and learning rates per layer are the same, in the order of importance."""
    content = old.content
    text = re.sub(r'[\s_\-]', '', f'{content.get("data", "")} {content.get("dataset_type", "")} {old.missing}'.lower())
    dataset = next((known for word, known in DATASETS.items() if word in text), None)
    runner = content.get('runner', {})
    length = runner.get('max_epochs') or runner.get('max_iters') or content.get('total_epochs')
    layer_wise = content.get('optimizer', {}).get('constructor') == 'CustomLayerDecayOptimizerConstructor'
    return (
        dataset == model.dataset,
        length in (model.metadata.get('Epochs'), model.metadata.get('Iterations')),
        layer_wise == ('0.1x-backbone-lr' not in name),
    )
