"""The classes of the datasets against those of the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import BaseLoop, Runner
from torch import nn

from ..checkpoint import unwrapped
from ..checkpoint.conversion import first_few
from ..errors import UserError

# Modules whose num_classes is not that of the dataset: a backbone's unused classifier, the RPN (object or not), and
# the semantic branch of HTC, which has pixel classes of its own.
OTHER_CLASSES = ('backbone', 'rpn_head', 'semantic_head')


@HOOKS.register_module()
class ClassCheckHook(Hook):
    """Refuses a model whose heads or losses have other numbers of classes than the datasets, before the first step.

    It compares ``num_classes`` (or ``num_things_classes`` and ``num_stuff_classes``) of every module that the config
    describes, and the number of class weights in their losses.

    A config with ``unused_classes = 131`` may have exactly so many classes more: the published segmentors of
    Cityscapes have 150 outputs, of which 19 are used.
    """

    def before_run(self, runner: Runner) -> None:
        """Compares the model with the datasets of all loops that will run.

        Raises:
            UserError: They do not agree. The text names all keys to set, and their values.
        """
        config = runner.cfg.get('model')
        if not isinstance(config, Mapping):
            return  # the model was not built from a config
        model, config = unwrapped(runner.model), config.get('module', config)  # without test-time augmentation
        loops = dict(train=runner._train_loop, val=runner._val_loop, test=runner._test_loop)
        for split, loop in loops.items():
            if not isinstance(loop, BaseLoop):  # a config: this loop will not run
                continue
            key = f'metainfo.classes of {split}_dataloader.dataset'
            metainfo = getattr(loop.dataloader.dataset, 'metainfo', {})
            classes = metainfo.get('classes') or ()
            if isinstance(classes, str):
                raise UserError(
                    f'{key} must be a tuple of names, got the text {classes!r}; a single class needs a comma: '
                    f'({classes!r},)'
                )
            changes = needed_changes(model, config, metainfo, runner.cfg.get('unused_classes', 0)) if classes else []
            if changes:
                raise UserError(
                    f'the {split} dataset has {len(classes)} class{"es" * (len(classes) > 1)} '
                    f'({first_few(classes, 5)}): set {", ".join(changes)}. If these are not the classes, set {key}'
                )


def needed_changes(model: nn.Module, config: Mapping, metainfo: Mapping, unused: int = 0) -> list[str]:
    """What to set in a model's config so that it fits a dataset.

    Args:
        model: The model that was built from ``config``.
        config: The entry ``model`` of a config.
        metainfo: That of the dataset: ``classes`` and, for panoptic segmentation, ``thing_classes`` and
            ``stuff_classes``.
        unused: The model may have exactly so many classes more.

    Returns:
        Texts such as ``'model.bbox_head.num_classes=3 (is 80)'``. Empty if the model fits.
    """
    changes: dict[str, str] = {}  # by key: several modules can share an entry of the config
    matters = False
    for name, module in model.named_modules():
        key, entry = _entry_of(name, config)
        if not name or entry is None or not {*name.split('.')}.isdisjoint(OTHER_CLASSES):
            continue
        wrong = {f'{key}.{option}': f'{key}.{text}' for option, text in _wrong_counts(module, entry, metainfo, unused)}
        changes |= wrong
        # A class-agnostic mask head does not use its num_classes.
        matters |= bool(wrong) and not getattr(module, 'class_agnostic', False)
    return [*changes.values()] if matters else []


def _wrong_counts(module: nn.Module, entry: Mapping, metainfo: Mapping, unused: int) -> Iterator[tuple[str, str]]:
    """The keys below a module's entry that do not fit the dataset, each with the text of the change."""
    for name, wanted in _counts(module, entry, metainfo).items():
        count = getattr(module, name)
        fits = count in (wanted, wanted + unused)
        if not fits:
            yield name, f'{name}={wanted} (is {count})'
        outputs = getattr(module, 'out_channels', None)  # of mmseg's heads: 1 or 2 for two classes
        if not fits and entry.get('out_channels') == outputs is not None and (wanted, outputs) != (2, 1):
            yield 'out_channels', f'out_channels={wanted} (is {outputs})'
        if name == 'num_classes' and outputs != 1:
            yield from _wrong_weights(module, entry, count if fits else wanted)


def _counts(module: nn.Module, entry: Mapping, metainfo: Mapping) -> dict[str, int]:
    """The attributes of a module that count classes, and the numbers that the dataset asks for."""
    total, things, stuff = (len(metainfo.get(key) or ()) for key in ('classes', 'thing_classes', 'stuff_classes'))
    panoptic = bool(things and stuff) and things + stuff == total
    if 'num_classes' not in entry and hasattr(module, 'num_things_classes'):
        counts = dict(num_things_classes=things, num_stuff_classes=stuff)
        return counts if panoptic else dict(num_things_classes=total, num_stuff_classes=0)
    count = getattr(module, 'num_classes', None)
    parts = [part for part in entry.values() if isinstance(part, Mapping)]
    copied = 'num_classes' not in entry and any('num_classes' in part for part in parts)  # from one of its parts
    if not isinstance(count, int) or count < 0 or copied:  # mmdet's -1 stands for none
        return {}
    return dict(num_classes=things if panoptic else total)


def _wrong_weights(head: nn.Module, entry: Mapping, classes: int) -> Iterator[tuple[str, str]]:
    """The class weights of a head's losses that are too few or too many. Softmax over objects also has no-object."""
    for name in ('loss_cls', 'loss_decode'):
        losses, entries = getattr(head, name, None), entry.get(name)
        several = isinstance(losses, nn.ModuleList)
        for index, loss in enumerate(losses if isinstance(losses, nn.ModuleList) else [losses]):
            loss_entry = entries[index] if several and isinstance(entries, Sequence) else entries
            weights: Any = getattr(loss, 'class_weight', None)
            if not isinstance(loss_entry, Mapping) or not isinstance(weights, Sequence):
                continue
            no_object = name == 'loss_cls' and not getattr(loss, 'use_sigmoid', False)
            if len(weights) != classes + no_object:
                key = f'{name}.{index}.class_weight' if several else f'{name}.class_weight'
                wanted = f'{classes + 1} numbers, the last for no object' if no_object else f'{classes} numbers or None'
                yield key, f'{key} to {wanted} (has {len(weights)})'


def _entry_of(name: str, config: Any) -> tuple[str, Mapping | None]:
    """Path and entry of the config that describes a module; the entry is ``None`` if there is none.

    Args:
        name: Of the module in the model: ``'roi_head.bbox_head.0'``.
        config: The entry ``model``.
    """
    path, entry = 'model', config
    for part in name.split('.') if name else ():
        if isinstance(entry, Mapping) and part in entry:
            entry = entry[part]
        elif isinstance(entry, list | tuple) and part.isdigit() and int(part) < len(entry):
            entry = entry[int(part)]
        elif isinstance(entry, Mapping) and part.isdigit():
            continue  # one entry describes several modules
        else:
            return path, None
        path += f'.{part}'
    return path, entry if isinstance(entry, Mapping) else None
