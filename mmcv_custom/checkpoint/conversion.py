"""Converts official detectors and segmentors (mmdet 2, mmseg 0) to the tensor names of mmdet 3 and mmseg 1.

The backbone, the necks, Mask R-CNN, Cascade R-CNN, UperNet and SegFormer have the same names in both. DINO and
Mask2Former were rewritten in between: their transformers hold the same tensors under other names.
"""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from mmengine.logging import print_log
from torch import Tensor

from .errors import first_few, redacted
from .forms import BACKBONE_KEY, mmengine_form, renamed, unwrap
from .safe_loading import CheckpointError, load_safely

_PARTS = {'backbone', 'neck', 'rpn_head', 'roi_head', 'bbox_head', 'decode_head', 'auxiliary_head'}
_NEVER = r'(?!)'


class Family(NamedTuple):
    """Models whose tensor names follow the same rules. All fields but ``name`` are regular expressions."""

    name: str
    signature: str  # found in the names of this family alone, whichever code saved them
    official: str = _NEVER  # found in names that only the official code has
    current: str = _NEVER  # found in names that only mmdet 3 or mmseg 1 has
    renames: Mapping[str, str] = {}  # official beginning of a name: its beginning in mmdet 3 or mmseg 1
    unused: str = _NEVER  # found in names of tensors that no forward pass reads


_TRANSFORMER = r'bbox_head\.transformer\.'
_DINO_LAYER = _TRANSFORMER + r'((?:encoder|decoder)\.layers\.\d+)\.'
_PIXEL_LAYER = r'(decode_head\.pixel_decoder\.encoder\.layers\.\d+)\.'
_QUERY_LAYER = r'(decode_head\.transformer_decoder\.layers\.\d+)\.'

FAMILIES = (
    Family(
        'DINO',
        signature=r'^(?:bbox_head\.transformer\.)?decoder\.ref_point_head\.',
        official=r'^bbox_head\.(?:transformer|label_embedding)\.',
        current=r'^(?:encoder\.|decoder\.|memory_trans_|query_embedding\.|dn_query_generator\.|level_embed$)',
        renames={
            _TRANSFORMER + r'level_embeds$': 'level_embed',
            _TRANSFORMER + r'query_embed\.': 'query_embedding.',
            _TRANSFORMER + r'enc_output\.': 'memory_trans_fc.',
            _TRANSFORMER + r'enc_output_norm\.': 'memory_trans_norm.',
            _TRANSFORMER + r'decoder\.ref_point_head\.0\.': 'decoder.ref_point_head.layers.0.',
            _TRANSFORMER + r'decoder\.ref_point_head\.2\.': 'decoder.ref_point_head.layers.1.',
            _TRANSFORMER + r'decoder\.norm\.': 'decoder.norm.',
            _DINO_LAYER + r'attentions\.0\.': r'\1.self_attn.',
            _DINO_LAYER + r'attentions\.1\.': r'\1.cross_attn.',
            _DINO_LAYER + r'ffns\.0\.fc2_bias$': r'\1.ffn.layers.1.bias',
            _DINO_LAYER + r'ffns\.0\.layers\.': r'\1.ffn.layers.',
            _DINO_LAYER + r'norms\.': r'\1.norms.',
            r'bbox_head\.label_embedding\.': 'dn_query_generator.label_embedding.',
        },
    ),
    Family(
        'Mask2Former',
        signature=r'^decode_head\.query_feat\.',
        official=r'^decode_head\..*\.(?:attentions|ffns)\.',
        current=r'^decode_head\..*\.(?:self_attn|cross_attn|ffn)\.',
        renames={
            _PIXEL_LAYER + r'attentions\.0\.': r'\1.self_attn.',
            _PIXEL_LAYER + r'ffns\.0\.': r'\1.ffn.',
            _QUERY_LAYER + r'attentions\.0\.': r'\1.cross_attn.',  # this decoder begins with the cross-attention
            _QUERY_LAYER + r'attentions\.1\.': r'\1.self_attn.',
            _QUERY_LAYER + r'ffns\.0\.': r'\1.ffn.',
        },
        unused=r'^decode_head\.conv_seg\.',
    ),
    Family('Cascade Mask R-CNN', signature=r'^roi_head\.mask_head\.\d+\.'),
    Family('Mask R-CNN', signature=r'^roi_head\.mask_head\.'),
    Family('Cascade R-CNN', signature=r'^roi_head\.bbox_head\.\d+\.'),
    Family('UperNet', signature=r'^decode_head\.fpn_bottleneck\.'),
    Family('SegFormer', signature=r'^decode_head\.fusion_conv\.'),
)

# The feed-forward network that InternImage-G's DINO computes in slices: the name of a slice, the name of the whole
# layer, and the dimension along which its slices lie.
_SLICES = (
    (re.compile(r'(.*\.ffns\.0\.)fc1_(\d+)\.(weight|bias)'), r'\1layers.0.0.\3', 0),
    (re.compile(r'(.*\.ffns\.0\.)fc2_(\d+)\.(weight)'), r'\1layers.1.\3', 1),
)


class Conversion(NamedTuple):
    """A converted state dict, and what became of each tensor. Names that no field mentions are unchanged.

    ``renamed`` maps old names to new ones, ``merged`` new names to the old names of their slices, ``dropped`` old names
    to the reason. ``prefix`` stood before every name and is left out of all three. ``unknown`` are names that no rule
    covers; their tensors keep them.
    """

    state_dict: dict[str, Tensor]
    family: str
    prefix: str
    renamed: dict[str, str]
    merged: dict[str, list[str]]
    dropped: dict[str, str]
    unknown: list[str]

    def summary(self) -> str:
        """One line, with a count of everything."""
        reasons = Counter(self.dropped.values())
        counts = [
            f'{len(self.state_dict)} tensors',
            f'{len(self.renamed)} renamed',
            *([f'{sum(map(len, self.merged.values()))} merged into {len(self.merged)}'] if self.merged else []),
            *(f'{count} dropped ({reason})' for reason, count in reasons.items()),
            *([f'{len(self.unknown)} of unknown names ({first_few(self.unknown)})'] if self.unknown else []),
            *([f"prefix '{self.prefix}' removed"] if self.prefix else []),
        ]
        return f'{self.family}: {", ".join(counts)}'


def convert_state_dict(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of an official detector or segmentor under the names of mmdet 3 or mmseg 1.

    :func:`convert` also reports what was renamed, merged and dropped.

    Args:
        state: State dict of a whole model. If it has the new names already, it is returned unchanged.

    Raises:
        ValueError: It is not of a published kind of model, its names are of several forms, two tensors would get one
            name, or slices are missing or do not fit together.
    """
    return convert(state).state_dict


def convert(state: Mapping[str, Tensor]) -> Conversion:
    """:func:`convert_state_dict` with a report. Copies no tensors except those that it merges."""
    _require_tensors(state)
    prefix = _wrapper_prefix(state)
    state = renamed(state, lambda name: name.removeprefix(prefix))
    dropped = dict.fromkeys(_ema_copies(state), 'copies of the EMA hook; the evaluated weights have the plain names')
    family = _require_family([name for name in state if name not in dropped])
    if _search(family.official, state):
        dropped |= dict.fromkeys(_search(family.unused, state), 'unused by the model')
    whole, sources = _merge_slices({name: tensor for name, tensor in state.items() if name not in dropped})
    names = {name: _new_name(name, family.renames) for name in whole}
    return Conversion(
        state_dict=renamed(whole, names.__getitem__),
        family=family.name,
        prefix=prefix,
        renamed={old: new for old, new in names.items() if old != new and old not in sources},
        merged={names[name]: slices for name, slices in sources.items()},
        dropped=dropped,
        unknown=_search(family.official, names.values()) + _unknown_parts(names.values(), family),
    )


def convert_checkpoint(checkpoint: Any) -> tuple[Any, Conversion | None]:
    """Converts the content of an official file to MMEngine's form; returns any other content unchanged, and ``None``.

    A whole model of a known family is official if MMCV 1 saved it or its names say so. Besides the weights only
    ``meta`` is kept, with classes and colours as ``dataset_meta``; the training state is dropped.

    Args:
        checkpoint: Content of the file: a dict with ``state_dict`` and perhaps ``meta``, or a bare state dict.

    Raises:
        ValueError: As :func:`convert_state_dict` does.
    """
    state = unwrap(checkpoint)
    if not isinstance(state, Mapping):
        return checkpoint, None
    meta = {} if state is checkpoint else checkpoint.get('meta') or {}
    names = [str(name).removeprefix('module.') for name in state]
    family = find_family(names)
    if family is None or 'mmengine_version' in meta:
        return checkpoint, None
    if 'mmcv_version' not in meta and not _ema_copies(names) and not _search(family.official, names):
        return checkpoint, None
    conversion = convert(state)
    described = {'classes': meta.get('CLASSES'), 'palette': meta.get('PALETTE')}
    dataset_meta = {key: value for key, value in described.items() if value is not None}
    meta = {**meta, 'dataset_meta': dataset_meta} if 'classes' in dataset_meta else dict(meta)
    return {'meta': meta, 'state_dict': conversion.state_dict}, conversion


def load_converted(path: str | os.PathLike[str], map_location: str | torch.device | None = 'cpu') -> dict[str, Any]:
    """Reads any checkpoint into MMEngine's form, for ``load_from``, testing, resuming and inference alike.

    Official detectors and segmentors are converted, and the log says so.

    Returns:
        A dict as :func:`mmengine_form` gives it.

    Raises:
        CheckpointError: There is no such file, :func:`load_safely` cannot read it, it holds no weights, or
            :func:`convert_state_dict` cannot convert them.
    """
    source = redacted(path)
    try:
        content = mmengine_form(load_safely(path, map_location))
    except FileNotFoundError as error:
        raise CheckpointError(str(error)) from error
    except ValueError as error:
        raise CheckpointError(f'cannot load {source}: {error}') from error
    try:
        checkpoint, conversion = convert_checkpoint(content)
    except ValueError as error:
        raise CheckpointError(f'cannot convert {source}: {error}') from error
    if conversion:
        level = logging.WARNING if conversion.unknown else logging.INFO
        print_log(f'converted {source}: {conversion.summary()}', 'current', level)
    return checkpoint


def find_family(names: list[str]) -> Family | None:
    """The family of a whole InternImage model, by the names of its tensors; ``None`` if it is of no known one."""
    if not any(name.startswith('backbone.') and BACKBONE_KEY.match(name) for name in names):
        return None
    return next((family for family in FAMILIES if _search(family.signature, names)), None)


def uses_dcnv4(names: list[str]) -> bool:
    """Whether tensors of these names belong to a backbone of DCNv4 (FlashInternImage), another operator."""
    return any('.dcn.offset_mask.' in name for name in names)


def _require_tensors(state: Mapping[str, Tensor]) -> None:
    if not isinstance(state, Mapping):
        raise ValueError(f'expected a mapping of names to tensors, got {type(state).__name__}')
    others = [str(name) for name, value in state.items() if not isinstance(value, Tensor)]
    if others:
        raise ValueError(f'expected a state dict, of names and tensors; no tensors are {first_few(others)}')


def _wrapper_prefix(state: Mapping[str, Tensor]) -> str:
    prefix = 'module.'  # of PyTorch's wrappers for several GPUs
    wrapped = [name for name in state if name.startswith(prefix)]
    plain = [name for name in state if not name.startswith(prefix)]
    if wrapped and plain:
        raise ValueError(
            f'mixed prefixes: {len(wrapped)} of {len(state)} names begin with {prefix!r} ({first_few(wrapped, 2)}), '
            f'the others do not ({first_few(plain, 2)}); expected all or none'
        )
    return prefix if wrapped else ''


def _search(pattern: str, names: Iterable[str]) -> list[str]:
    return list(filter(re.compile(pattern).search, names))


def _ema_copies(names: Collection[str]) -> list[str]:
    """The buffers of mmdet 2's EMA hooks, which are called as the tensor they follow, with underscores for dots.

    mmdet 2 evaluates what has the plain name: after an epoch, when the two have changed places, the average. (In a
    training that counts iterations they never do.)
    """
    copies = {'ema_' + name.replace('.', '_') for name in names}
    return [name for name in names if name in copies]


def _require_family(names: list[str]) -> Family:
    expected = f'expected an InternImage detector or segmentor ({", ".join(family.name for family in FAMILIES)})'
    if uses_dcnv4(names):
        raise ValueError(f'it is of DCNv4 (FlashInternImage), another operator; {expected}')
    family = find_family(names)
    if family is None:
        backbones = [name for name in names if BACKBONE_KEY.match(name)]
        if backbones and not any(name.split('.')[0] in _PARTS - {'backbone'} for name in names):
            raise ValueError(
                f'it holds a backbone only ({first_few(backbones, 2)}); {expected}. Load a backbone by '
                "backbone.init_cfg=dict(type='Pretrained', checkpoint=...), which understands its names"
            )
        parts = list(dict.fromkeys('.'.join(name.split('.')[:2]) for name in names))
        raise ValueError(f'it is of no known family: its names begin with {first_few(parts, 12)}; {expected}')
    new = _search(family.current, names)
    old = _search(family.official, names)
    if old and new:
        raise ValueError(
            f'half converted: {len(old)} names are of the official {family.name} ({first_few(old, 2)}), {len(new)} '
            f'of the new one ({first_few(new, 2)}); expected all of one kind'
        )
    elsewhere = _search(rf'\.(?:{"|".join(_PARTS)})\.', _unknown_parts(names, family))
    if elsewhere:
        raise ValueError(
            f'mixed prefixes: {len(names) - len(elsewhere)} names are those of a {family.name}, {len(elsewhere)} have '
            f'something before them ({first_few(elsewhere, 2)}); expected one model, and nothing before its names'
        )
    return family


def _unknown_parts(names: Iterable[str], family: Family) -> list[str]:
    """Names that begin with no part of a detector or segmentor."""
    return [name for name in names if name.split('.')[0] not in _PARTS and not re.search(family.current, name)]


def _merge_slices(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, list[str]]]:
    """Concatenates sliced layers; returns the tensors, and the names of the slices by that of their layer."""
    whole: dict[str, Tensor] = {}
    layers: dict[str, tuple[int, dict[int, str]]] = {}
    for name, tensor in state.items():
        matches = ((pattern.fullmatch(name), layer, dim) for pattern, layer, dim in _SLICES)
        match, layer, dim = next((found for found in matches if found[0]), (None, '', 0))
        if match:
            layers.setdefault(match.expand(layer), (dim, {}))[1][int(match[2])] = name
        else:
            whole[name] = tensor
    sources = {}
    for layer, (dim, slices) in layers.items():
        if sorted(slices) != list(range(len(slices))) or layer in whole:
            raise ValueError(f'the slices of {layer} do not make a layer: expected 0, 1, ..., got {sorted(slices)}')
        sources[layer] = [slices[index] for index in range(len(slices))]
        whole[layer] = _concatenated([state[name] for name in sources[layer]], dim, layer)
    return whole, sources


def _concatenated(slices: list[Tensor], dim: int, layer: str) -> Tensor:
    kinds = {(tensor.dtype, tensor.ndim, tensor.shape[:dim], tensor.shape[dim + 1 :]) for tensor in slices}
    if len(kinds) > 1 or slices[0].ndim <= dim:
        shapes = [f'{tuple(tensor.shape)} of {tensor.dtype}' for tensor in slices]
        raise ValueError(f'the slices of {layer} do not fit together along dimension {dim}: {first_few(shapes)}')
    return torch.cat(slices, dim)


def _new_name(name: str, renames: Mapping[str, str]) -> str:
    matches = ((re.match(pattern, name), new) for pattern, new in renames.items())
    return next((match.expand(new) + name[match.end() :] for match, new in matches if match), name)
