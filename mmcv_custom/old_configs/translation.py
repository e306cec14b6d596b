"""What to carry over from an old config to one for a model here."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ..datasets import sources
from ..errors import UserError
from .comparison import brief, same, values_of
from .model import model_settings
from .reading import OldConfig
from .schedule import settings_of

# What needs no translation: used above where it stands, part of every run here, or without effect on results.
KNOWN = {
    *('model', 'data', 'optimizer', 'optimizer_config', 'lr_config', 'runner', 'total_epochs', 'total_iters', 'fp16'),
    *('checkpoint_config', 'log_config', 'evaluation', 'workflow', 'dist_params', 'log_level', 'cudnn_benchmark'),
    *('find_unused_parameters', 'opencv_num_threads', 'mp_start_method', 'auto_resume', 'gpu_ids', 'device', 'seed'),
    *(
        'dataset_type',
        'data_root',
        'classes',
        'CLASSES',
        'img_norm_cfg',
        'train_pipeline',
        'test_pipeline',
        'crop_size',
    ),
    *('load_from', 'resume_from', 'work_dir', 'custom_hooks', 'pretrained', 'norm_cfg', 'depths', 'auto_scale_lr'),
    *('file_client_args', 'num_classes', 'custom_imports', 'img_scale', 'val_pipeline', 'backbone_norm_cfg'),
}
# Steps of pipelines that mmdet 3 and mmseg 1 leave to the model, or have under other names.
STEPS = {'Normalize', 'Pad', 'DefaultFormatBundle', 'Collect', 'ImageToTensor', 'Resize', 'AutoAugment'}


@dataclass
class Translation:
    """What an old config asks for.

    Attributes:
        paths: Folder of images, and file or folder of annotations, of each split; empty if it does not say.
        classes: Names of the classes; ``None`` if it does not say.
        dataset_type: Type of the training dataset.
        batch_size: Images per GPU.
        lr: Learning rate.
        size: Height and width of crops, for segmentors.
        resizes: The step that resizes images, by ``'train'`` and ``'test'``.
        settings: Other settings that differ from those of the model's config here.
        amp: Whether it trains in mixed precision.
        other_classes: Numbers of classes in its model that the model here does not have.
        notes: What is not carried over.
    """

    paths: dict[str, tuple[str, str]] = field(default_factory=dict)
    classes: list[str] | None = None
    dataset_type: str = ''
    batch_size: int | None = None
    lr: float | None = None
    size: tuple[int, int] | None = None
    resizes: dict[str, dict[str, Any]] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    amp: bool = False
    other_classes: set[int] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)


def translate(old: OldConfig, cfg: Config) -> Translation:
    """What an old config asks for that the config of its model here does not have.

    Args:
        old: The old config.
        cfg: The config of the model.

    Raises:
        UserError: Its data cannot be carried over.
    """
    content, found = old.content, Translation()
    _data(old, found)
    if cfg.default_scope == 'mmseg' and found.classes is None and found.dataset_type not in ('', 'CustomDataset'):
        _known_dataset(old, cfg, found)
    _pipelines(old, cfg, found)
    found.lr = (content.get('optimizer') or {}).get('lr')
    found.amp = bool(content.get('fp16'))
    found.other_classes = set(values_of(content.get('model'), 'num_classes')) - set(values_of(cfg.model, 'num_classes'))
    for key, value in settings_of(content, cfg, found.notes).items():
        found.settings.setdefault(key, value)
    model = model_settings(content.get('model') or {}, cfg, found.notes)
    if model:
        found.settings['model'] = model
    norm = {**(content.get('img_norm_cfg') or {})}
    found.notes += [
        brief(f'img_norm_cfg.{key}', norm.pop(key)) for key in sorted(norm.keys() - {'mean', 'std', 'to_rgb'})
    ]
    norm['bgr_to_rgb'] = norm.pop('to_rgb', cfg.model.data_preprocessor.bgr_to_rgb)
    if changed := {key: value for key, value in norm.items() if not same(value, cfg.model.data_preprocessor.get(key))}:
        found.settings.setdefault('model', {})['data_preprocessor'] = changed
    _loaders(old, cfg, found)
    if content.get('workflow', [('train', 1)]) not in ([('train', 1)], [['train', 1]]):
        found.notes.append(brief('workflow', content['workflow']))
    found.notes += [
        key for key in content if key not in KNOWN and key[0] != '_' and isinstance(content[key], dict | bool)
    ]
    return found


def _data(old: OldConfig, found: Translation) -> None:
    data = old.content.get('data') or {}
    for split in ('train', 'val', 'test'):
        if dataset := data.get(split):
            dataset = _unwrap(old, split, dataset, found)
            paths = _paths(dataset)
            if paths and not (split == 'test' and paths == found.paths.get('val')):
                found.paths[split] = paths
            if split == 'train':
                found.dataset_type = dataset.get('type', '')
                names = dataset.get('classes')
                if isinstance(names, str):  # a file with a name per line
                    names = Path(names).read_text().split('\n') if os.path.isfile(names) else [names]
                found.classes = [name.strip() for name in names if name.strip()] if names else None
            known = {
                'type',
                'data_root',
                'ann_file',
                'img_prefix',
                'img_dir',
                'ann_dir',
                'pipeline',
                'classes',
                'test_mode',
            }
            known |= {'img_suffix', 'seg_map_suffix', 'palette', 'metainfo'}
            found.notes += [f'data.{split}.{key}' for key in dataset if key not in known]


def _loaders(old: OldConfig, cfg: Config, found: Translation) -> None:
    """Batch size and processes. mmdet 2 has them in ``data``, for all splits, or in ``data.train_dataloader``."""
    data = {key: value for key, value in (old.content.get('data') or {}).items() if key not in ('train', 'val', 'test')}
    loaders = {split: data.pop(f'{split}_dataloader', None) or {} for split in ('train', 'val', 'test')}
    for split, loader in loaders.items():
        if not isinstance(loader, Mapping):
            raise UserError(f'--from {old.path}: data.{split}_dataloader must be a dict, got {loader!r}')
    common = {key: data.pop(key) for key in ('samples_per_gpu', 'workers_per_gpu', 'persistent_workers') if key in data}
    train = {**common, **loaders['train']}
    found.batch_size = train.pop('samples_per_gpu', None)
    workers = train.pop('workers_per_gpu', cfg.train_dataloader.num_workers)
    persistent = train.pop('persistent_workers', True)
    wanted = dict(num_workers=workers, persistent_workers=bool(workers and persistent))
    if changed := {key: value for key, value in wanted.items() if value != cfg.train_dataloader.get(key)}:
        found.settings.setdefault('train_dataloader', {}).update(changed)
    found.notes += [brief(f'data.{key}', value) for key, value in data.items()]
    for split, rest in {**loaders, 'train': train}.items():
        here = cfg[f'{split}_dataloader']
        present = dict(samples_per_gpu=here.batch_size, workers_per_gpu=here.num_workers, shuffle=split == 'train')
        found.notes += [
            brief(f'data.{split}_dataloader.{key}', value)
            for key, value in rest.items()
            if not same(value, present.get(key))
        ]


def _known_dataset(old: OldConfig, cfg: Config, found: Translation) -> None:
    """A dataset whose classes mmseg knows, such as ADE20KDataset: that of the model's config, in other folders."""
    for split, (images, masks) in found.paths.items():
        dataset = cfg[f'{split}_dataloader'].dataset
        if dataset.type != found.dataset_type:
            raise UserError(
                f'--from {old.path}: data.{split} is a {found.dataset_type}, and that of the model here a '
                f'{dataset.type}; name another model before --from, or set type=CustomDataset and classes'
            )
        old_paths = [os.path.join(dataset.data_root, dataset.data_prefix[key]) for key in ('img_path', 'seg_map_path')]
        if list(map(os.path.normpath, old_paths)) != list(map(os.path.normpath, (images, masks))):
            place = dict(data_root='', data_prefix=dict(img_path=images, seg_map_path=masks))
            found.settings[f'{split}_dataloader'] = dict(dataset=place)
            if split == 'val':
                found.settings['test_dataloader'] = dict(dataset=place)
    found.paths = {}


def _unwrap(old: OldConfig, split: str, dataset: Any, found: Translation) -> Mapping[str, Any]:
    """The dataset within RepeatDataset and the like."""
    if isinstance(dataset, list | tuple) or 'datasets' in dataset or isinstance(dataset.get('ann_file'), list | tuple):
        raise UserError(
            f'--from {old.path}: data.{split} joins several datasets, which is not carried over; name one with '
            f'--{split}'
        )
    if dataset.get('split'):
        raise UserError(
            f'--from {old.path}: data.{split}.split lists images, which is not carried over; give each split a folder '
            f'of its own and name it with --{split}'
        )
    if isinstance(dataset.get('dataset'), Mapping):
        times = f' times={dataset["times"]}' if 'times' in dataset else ''
        found.notes.append(f'data.{split}.type={dataset.get("type")}{times}')
        return _unwrap(old, split, dataset['dataset'], found)
    return dataset


def _paths(dataset: Mapping[str, Any]) -> tuple[str, str] | None:
    """Images and annotations, under the names of mmdet 2 or mmseg 0."""
    images = dataset.get('img_prefix', dataset.get('img_dir'))
    annotations = dataset.get('ann_file', dataset.get('ann_dir'))
    if not isinstance(images, str) or not isinstance(annotations, str):
        return None
    root = dataset.get('data_root') or ''
    return os.path.join(root, images), os.path.join(root, annotations)


def _pipelines(old: OldConfig, cfg: Config, found: Translation) -> None:
    content = old.content
    data = content.get('data') or {}
    train = _steps(content.get('train_pipeline') or (data.get('train') or {}).get('pipeline') or [])
    test = _steps(content.get('test_pipeline') or (data.get('test') or {}).get('pipeline') or [])
    for split, steps in (('train', train), ('test', test)):
        ours = _steps(sources(cfg, split)[0].cfg['pipeline'])
        for step in steps:
            if step['type'] == 'RandomCrop' and cfg.default_scope == 'mmseg' and split == 'train':
                crop = step['crop_size']
                found.size = (crop, crop) if isinstance(crop, int) else (crop[0], crop[1])
            if step['type'] in ('Resize', 'MultiScaleFlipAug') and step.get('img_scale'):
                resize = _resize(step, step['img_scale'])
                if not any(same(resize, here) for here in ours):
                    found.resizes[split] = resize
            if step['type'] == 'LoadAnnotations' and step.get('reduce_zero_label') and found.classes:
                raise UserError(
                    f'--from {old.path}: reduce_zero_label=True is not carried over for own classes; write masks in '
                    'which 255 is ignored and classes begin at 0'
                )
    if train:
        types = {step['type'] for step in _steps(sources(cfg, 'train')[0].cfg['pipeline'])}
        found.notes += [f'train_pipeline: {step["type"]}' for step in train if step['type'] not in types | STEPS]
        for step in train:
            sizes = {tuple(size) for size in _sizes(step.get('policies'))}
            if step['type'] == 'AutoAugment' and not sizes <= {tuple(size) for size in _sizes(cfg.train_dataloader)}:
                found.notes.append('train_pipeline: the sizes of AutoAugment')
            if step['type'] == 'RandomFlip' and step.get('flip_ratio', step.get('prob', 0.5)) != 0.5:
                found.notes.append(f'train_pipeline: {dict(step)}')


def _resize(step: Mapping[str, Any], scale: Any) -> dict[str, Any]:
    """A Resize of mmdet 2 or mmseg 0 as a transform of today."""
    keep_ratio = step.get('keep_ratio', True)
    if isinstance(scale, list) and len(scale) == 1:
        scale = tuple(scale[0])
    if isinstance(scale, list) and isinstance(scale[0], list | tuple):
        if step.get('multiscale_mode', 'range') == 'value':
            return dict(type='RandomChoiceResize', scales=[tuple(one) for one in scale], keep_ratio=keep_ratio)
        return dict(type='RandomResize', scale=[tuple(one) for one in scale], keep_ratio=keep_ratio)
    if step.get('ratio_range'):
        ratios = tuple(step['ratio_range'])
        return dict(type='RandomResize', scale=tuple(scale), ratio_range=ratios, keep_ratio=keep_ratio)
    return dict(type='Resize', scale=tuple(scale), keep_ratio=keep_ratio)


def _sizes(node: Any) -> Iterator[Sequence[int]]:
    """All pairs of numbers in a part of a config."""
    if isinstance(node, list | tuple) and len(node) == 2 and all(isinstance(value, int | float) for value in node):
        yield node
    for item in node.values() if isinstance(node, Mapping) else node if isinstance(node, list | tuple) else ():
        yield from _sizes(item)


def _steps(pipeline: Any) -> list[Mapping[str, Any]]:
    return [step for step in pipeline if isinstance(step, Mapping) and 'type' in step]
