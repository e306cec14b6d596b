"""The config for a model and a dataset, as text."""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config

from .. import zoo
from ..errors import UserError
from .bases import Base, class_edits
from .data import Data
from .pipelines import NAMES, Variables, detection, fitting_crop, segmentation
from .source import Code, assignment, expression, extended

# The order of a config's settings; what is not named here comes last.
ORDER = (
    *('load_from', 'model', 'train_dataloader', 'val_dataloader', 'test_dataloader', 'val_evaluator', 'test_evaluator'),
    *('optim_wrapper', 'param_scheduler', 'train_cfg', 'auto_scale_lr'),
)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a user can choose for a new config besides model and data.

    Attributes:
        batch_size: Images per GPU and step; default that of the model's config.
        gpus: Number of GPUs.
        size: Height and width, in pixels: of crops for segmentors, the most for detectors; default chosen by the data.
        resizes: By ``'train'`` and ``'test'``, the step of the pipelines that resizes images; without ``size``.
        lr: Learning rate; default that of the model's config in proportion to the images per step.
        from_official: Start from the official detector or segmentor instead of the backbone.
        settings: Further settings, nested like the config. They win.
    """

    batch_size: int | None = None
    gpus: int = 1
    size: tuple[int, int] | None = None
    resizes: Mapping[str, Any] = field(default_factory=dict)
    lr: float | None = None
    from_official: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Draft:
    """A config that is not written yet: its text, with a placeholder for the base, and what to tell the user."""

    base: Base
    body: str
    notes: list[str]

    def text(self, out: Path, base: str | None = None) -> str:
        """The config as it is written to ``out``; ``base`` replaces the path of its base."""
        return self.body.replace(BASE, repr(base or self.base.written_as(out)))


BASE = '@BASE@'
SPLITS = dict(train='training', val='validation')


def assemble(base: Base, data: Data | None, options: Options) -> Draft:
    """The config that trains a model on a dataset; without one, on that of the model's config.

    Raises:
        UserError: Model and dataset do not fit, or there is no official checkpoint to start from.
    """
    variables: Variables = []
    settings: dict[str, Any] = {}
    title, notes = base.title, []
    if data:
        if base.needs_masks and not data.has_masks:
            raise UserError(
                f'{data.splits["train"].annotations}: no object has a mask (segmentation), which {base.title} needs; '
                'dino and cascade-rcnn need boxes only'
            )
        notes += data.notes
        variables, settings = (_detection if base.detects else _segmentation)(base, data, options, notes)
        merge(settings, {'model': class_edits(base.cfg.model, len(data.classes), variables)})
        images = [f'{data.splits[split].count} {name}' for split, name in SPLITS.items()]
        number = '1 class' if len(data.classes) == 1 else f'{len(data.classes)} classes'
        title += f' for {data.name}: {number}, {" and ".join(images)} images'
    merge(settings, _weights(base, options, notes))
    merge(settings, _batch(base, options, notes))
    merge(settings, options.settings)
    paragraphs = [
        [f'# {title}.', f'_base_ = {BASE}'],
        [assignment(*variable) for variable in variables],
        [assignment(key, settings[key]) for key in ORDER if key in settings],
        [assignment(key, value) for key, value in settings.items() if key not in ORDER],
    ]
    return Draft(base, '\n\n'.join('\n'.join(lines) for lines in paragraphs if lines) + '\n', notes)


def merge(settings: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """Writes nested changes into nested settings, in place."""
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(settings.get(key), dict):
            merge(settings[key], value)
        else:
            settings[key] = dict(value) if isinstance(value, Mapping) else value


def _detection(base: Base, data: Data, options: Options, notes: list[str]) -> tuple[Variables, dict[str, Any]]:
    """The variables and settings that give a detector its data."""
    loaders = {split: base.cfg[f'{split}_dataloader'].dataset for split in data.splits}
    replaced = any(dataset.type != 'CocoDataset' for dataset in loaders.values())  # by one in the COCO format
    dataset: dict[str, Any] = dict(data_root=Code('data_root'), metainfo=dict(classes=Code('classes')))
    if replaced:
        dataset = dict(type='CocoDataset', **dataset)
    variables = [('data_root', data.root), ('classes', data.classes), ('dataset', dataset)]
    variables += detection(base, options.size, options.resizes, replaced, notes)
    settings: dict[str, Any] = {}
    for split, files in data.splits.items():
        files_of_split: dict[str, Any] = dict(
            ann_file=within(data.root, files.annotations), data_prefix=dict(img=within(data.root, files.images))
        )
        if replaced or options.size or options.resizes:
            files_of_split['pipeline'] = Code(NAMES[split])
        variables.append((split, extended('dataset', **files_of_split)))
        changes: dict[str, Any] = dict(_delete_=True) if replaced else {}
        if split == 'train' and (replaced or (data.smallest or 32) < 32):  # mmdet's configs leave out small images
            changes['filter_cfg'] = dict(filter_empty_gt=True, min_size=0)
        elif replaced:
            changes['test_mode'] = True
        settings[f'{split}_dataloader'] = dict(dataset=extended(split, **changes) if changes else Code(split))
        if split != 'train':
            metric = dict(_delete_=True, type='CocoMetric', metric='bbox') if replaced else {}
            path = Code(f'data_root + {within(data.root, files.annotations)!r}') if data.root else files.annotations
            settings[f'{split}_evaluator'] = dict(**metric, ann_file=path)
    return variables, with_test(settings, data)


def _segmentation(base: Base, data: Data, options: Options, notes: list[str]) -> tuple[Variables, dict[str, Any]]:
    """The variables and settings that give a segmentor its data."""
    crop = options.size or fitting_crop(base, data)
    changed, model = segmentation(base, crop, options.resizes, notes)
    dataset: dict[str, Any] = dict(type='BaseSegDataset', data_root=Code('data_root'))
    shared = data.splits['train'].suffixes
    dataset.update(metainfo=dict(classes=Code('classes')), img_suffix=shared[0])
    if shared[1] != '.png':  # the default
        dataset['seg_map_suffix'] = shared[1]
    variables = [('data_root', data.root), ('classes', data.classes), *changed, ('dataset', dataset)]
    settings: dict[str, Any] = dict(model=model)
    for split, files in data.splits.items():
        folders = dict(img_path=within(data.root, files.images), seg_map_path=within(data.root, files.annotations))
        suffixes = zip(('img_suffix', 'seg_map_suffix'), files.suffixes, shared, strict=True)
        other = {key: suffix for key, suffix, of_train in suffixes if suffix != of_train}
        variables.append((split, extended('dataset', **other, data_prefix=folders, pipeline=Code(NAMES[split]))))
        settings[f'{split}_dataloader'] = dict(dataset=extended(split, _delete_=True))
    return variables, with_test(settings, data)


def with_test(settings: dict[str, Any], data: Data) -> dict[str, Any]:
    """The settings with test loader and evaluator: those of validation, unless there are test files."""
    if 'test' not in data.splits:
        shared = {f'test_{kind}': f'val_{kind}' for kind in ('dataloader', 'evaluator') if f'val_{kind}' in settings}
        settings.update({test: Code(val) for test, val in shared.items()})
    return settings


def within(root: str, path: str) -> str:
    """A path relative to a folder, which ends in a slash or is empty."""
    return path.removeprefix(root) if path + '/' != root else ''


def _weights(base: Base, options: Options, notes: list[str]) -> dict[str, Any]:
    """Where training starts."""
    if options.from_official:
        if base.checkpoint is None:
            raise UserError(f'--from-official: there is no official checkpoint of {base.path.stem}')
        notes.append(
            f'starts from the official {base.checkpoint.rpartition("/")[2]}, without the layers of its classes'
        )
        name = base.checkpoint.removeprefix(base.cfg.checkpoints)
        return dict(load_from=Code(f'_base_.checkpoints + {name!r}'), model=dict(backbone=dict(init_cfg=None)))
    checkpoint = base.cfg.get('load_from')
    initial = (base.cfg.model.backbone.get('init_cfg') or {}).get('checkpoint')
    if checkpoint or (initial and '://' in initial) or (initial and os.path.isfile(initial)):
        notes.append(f'starts from {checkpoint or initial}')
        return {}
    notes.append('starts from random weights' + (f': there is no {initial}' if initial else ''))
    return dict(model=dict(backbone=dict(init_cfg=None))) if initial else {}


def _batch(base: Base, options: Options, notes: list[str]) -> dict[str, Any]:
    """Batch size, and the learning rate in proportion to it."""
    default = base.cfg.train_dataloader.batch_size
    batch_size = options.batch_size or default
    if not options.batch_size and options.gpus == 1 and base.cfg.model.get('decode_head', {}).get('type') == 'UPerHead':
        batch_size = max(batch_size, 2)  # its pooling to one pixel needs two images for the statistics of BatchNorm
    settings: dict[str, Any] = {}
    if batch_size != default:
        settings['train_dataloader'] = dict(batch_size=batch_size)
    step, lr = batch_size * options.gpus, base.cfg.optim_wrapper.optimizer.lr
    if options.lr is not None:
        notes.append(f'learning rate {expression(options.lr)} as before, for the images per step of before')
        return settings if options.lr == lr else {**settings, 'optim_wrapper': dict(optimizer=dict(lr=options.lr))}
    scaled = float(f'{lr * step / base.batch_size:.6g}')
    notes.append(f'learning rate {expression(scaled)} for {step} image{"s" if step > 1 else ""} per step')
    if step != base.batch_size:
        notes[-1] += f': {expression(lr)} for {base.batch_size} in proportion'
        settings['optim_wrapper'] = dict(optimizer=dict(lr=scaled))
        if 'auto_scale_lr' in base.cfg:
            settings['auto_scale_lr'] = dict(base_batch_size=step)
    return settings


def length_of(cfg: Config, images: int, gpus: int) -> str:
    """How long a training is, in words. Says if the learning rate is still warming up when it ends."""
    step = cfg.train_dataloader.batch_size * gpus
    if 'max_iters' in cfg.train_cfg:
        steps = cfg.train_cfg.max_iters
        text = f'{steps} steps, each image {steps * step / images:.0f} times'
    else:
        steps = cfg.train_cfg.max_epochs * math.ceil(images / step)
        text = f'{cfg.train_cfg.max_epochs} epochs, {steps} steps'
    schedulers = [entry for entry in cfg.get('param_scheduler', []) if not entry.get('by_epoch', True)]
    warm_up = max((entry.end for entry in schedulers if entry.type in ('LinearLR', 'ConstantLR')), default=0)
    if steps < 2 * warm_up:
        text += f', of which the learning rate takes {warm_up} to warm up: train longer, or shorten param_scheduler'
    return text


def commands(cfg: Config, out: Path, gpus: int, amp: bool) -> list[str]:
    """The commands that train, in mixed precision if ``amp``, and evaluate; for a shell in the working folder."""
    length = cfg.train_cfg
    name = f'iter_{length.max_iters}.pth' if 'max_iters' in length else f'epoch_{length.max_epochs}.pth'
    checkpoint = f'{cfg.get("work_dir") or f"work_dirs/{out.stem}"}/{name}'
    tools = zoo.MIM / 'tools'
    if tools.is_symlink():  # a checkout
        folder = os.path.relpath(tools.resolve())
        program = f'python {folder}/{{}}.py' if gpus == 1 else f'{folder}/dist_{{}}.sh'
        processes = [] if gpus == 1 else [str(gpus)]
    else:
        program = 'mm-internimage {}' if gpus == 1 else f'torchrun --nproc-per-node {gpus} -m mmcv_custom {{}}'
        processes = [] if gpus == 1 else ['--launcher pytorch']
    return [
        ' '.join([program.format('train'), shlex.quote(str(out)), *processes, *(['--amp'] if amp else [])]),
        ' '.join(
            [program.format('test'), shlex.quote(str(out)), shlex.quote(checkpoint), *processes, '--show-dir pictures']
        ),
    ]
