"""The screen with which a training or a test starts."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any

import torch
from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from ..checkpoint import unwrapped
from ..checkpoint.errors import redacted
from ..engine.pipeline import datasets_in
from ..engine.progress import MetricNotesHook, ProgressHook
from .configs import entries_of
from .messages import table

MOST = 20  # classes of which the screen shows every count
SAMPLE = 20_000  # images of which the objects are counted
FEW = 5  # of more classes it shows so many of the most and least frequent, and of those without objects
WIDTH = 100  # characters of a line
LOADED = 'loaded '  # how log_report begins


def add_terminal_hooks(runner: Runner) -> None:
    """Lets a runner print the start screen, early lines of progress, and notes below the metrics."""
    for hook in (StartScreenHook(runner), ProgressHook(), MetricNotesHook()):
        runner.register_hook(hook)


class StartScreenHook(Hook):
    """Logs what is about to run: model, data, device, batch, learning rate, schedule, weights and work folder.

    Args:
        runner: The runner. Its log tells which weights are loaded.
    """

    priority = 'LOWEST'  # the last words before the first step

    def __init__(self, runner: Runner) -> None:
        self.loaded = _Loaded()
        runner.logger.handlers.append(self.loaded)

    def before_train(self, runner: Runner) -> None:
        """Shows the screen of a training."""
        loaders = {'train': runner.train_dataloader}
        if runner.val_loop is not None:
            loaders['val'] = runner.val_dataloader
        self._show(runner, 'Training', loaders, [*_optimization(runner), ('schedule', _schedule(runner))])

    def before_test(self, runner: Runner) -> None:
        """Shows the screen of a test."""
        self._show(runner, 'Test', {'test': runner.test_dataloader}, [])

    def _show(self, runner: Runner, what: str, loaders: Mapping[str, Any], more: Sequence[tuple[str, str]]) -> None:
        runner.logger.handlers.remove(self.loaded)
        if not is_main_process():
            return
        rows = [
            ('model', describe_model(unwrapped(runner.model))),
            *((split, describe_data(loader.dataset)) for split, loader in loaders.items()),
            ('device', _device(runner, 'train' in loaders)),
            *more,
            ('weights', self._weights(runner)),
            ('results', runner.work_dir),
            ('log', f'{_log_file(runner)} in that folder, with the config and the environment'),
        ]
        lines = [line for name, text in rows for line in _wrapped(name, text)]
        runner.logger.info(f'{what} of {runner.cfg.filename or "a model"}\n{table(lines)}')

    def _weights(self, runner: Runner) -> str:
        """Where the weights come from, with the share of the model that each file fills."""
        begin = f'resumed after {runner.iter} steps: ' if runner._resume else ''
        if self.loaded.texts:
            return begin + '; '.join(self.loaded.texts)
        named = [
            redacted(str(node['checkpoint']))
            for _, node in entries_of(runner.cfg.get('model'))
            if isinstance(node, Mapping) and node.get('type') == 'Pretrained'
        ]
        return begin + ('; '.join(named) or 'random')


class _Loaded(logging.Handler):
    """Collects what the log says about the weights that were loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Takes ``loaded 99.1% of Model from FILE: ...``. Called by the logger."""
        text = record.getMessage()
        if text.startswith(LOADED):
            self.texts.append(text.removeprefix(LOADED).partition(': ')[0])


def describe_model(model: nn.Module) -> str:
    """Names and number of parameters of a model."""
    parameters = list(model.parameters())
    count, trained = (sum(part.numel() for part in parts) for parts in (parameters, _trained(parameters)))
    backbone = getattr(model, 'backbone', None)
    names = type(model).__name__ + (f' with {type(backbone).__name__}' if backbone is not None else '')
    return f'{names}, {_in_millions(count)} parameters' + (
        f', {_in_millions(trained)} of them trained' if trained < count else ''
    )


def describe_data(dataset: Any) -> str:
    """Numbers of images and objects of a dataset, which may wrap others, and of objects per class.

    Classes and objects are those of mmdet's datasets: ``metainfo['classes']``, and ``instances`` in the information on
    an image. Of other datasets, as for segmentation, the images are counted. Of more than ``SAMPLE`` images so many are
    looked at, evenly spread: that takes about a second, and all of COCO would take six.
    """
    datasets = [inner for inner in datasets_in(dataset) if [*datasets_in(inner)] == [inner]]  # that wrap no others
    images = sum(map(len, datasets))
    text = f'{images:,} images' + (f' ({len(dataset):,} per epoch)' if len(dataset) != images else '')
    classes = (getattr(datasets[0], 'metainfo', None) or {}).get('classes') or ()
    step = -(-images // SAMPLE) or 1
    counts = count_objects(datasets, step)
    if counts is None:
        return f'{text}, {len(classes)} classes' if classes else text
    ignored = counts.pop(None, 0)
    objects = [(str(name), counts[label]) for label, name in enumerate(classes)]
    if step > 1:
        text += f', about {_rounded(step * counts.total()):,} objects, in every {step}th image'
    else:
        text += f', {counts.total():,} objects' + (f' and {ignored:,} ignored' if ignored else '')
    return f'{text} ({_frequencies(objects)})'


def count_objects(datasets: Sequence[Any], step: int = 1) -> Counter[int | None] | None:
    """Objects per label in every ``step``-th image, ignored ones under ``None``.

    ``None`` if a dataset does not list its objects.
    """
    counts: Counter[int | None] = Counter()
    for dataset in datasets:
        if not len(dataset) or not hasattr(dataset, 'get_data_info'):
            return None
        if 'instances' not in dataset.get_data_info(0):
            return None
        for index in range(0, len(dataset), step):
            for item in dataset.get_data_info(index)['instances']:
                counts[None if item.get('ignore_flag') else item['bbox_label']] += 1
    return counts


def _frequencies(counts: Sequence[tuple[str, int]]) -> str:
    """Pairs of a class and its number of objects, in words. Of many classes some."""
    if len(counts) <= MOST:
        return ', '.join(f'{name}: {count:,}' for name, count in counts)
    ordered = sorted(counts, key=lambda pair: -pair[1])
    found = [f'{name}: {count:,}' for name, count in ordered if count]
    absent = [name for name, count in ordered if not count]
    parts = [f'{len(counts)} classes']
    if found:
        parts.append(f'most {", ".join(found[:FEW])}')
    if found[FEW:]:
        parts.append(f'fewest {", ".join(found[FEW:][-FEW:])}')
    if absent:
        parts.append(f'{len(absent)} without an object ({", ".join(absent[:FEW])}{" ..." if absent[FEW:] else ""})')
    return '; '.join(parts)


def _rounded(count: int) -> int:
    """A number to three digits."""
    return int(float(f'{count:.3g}'))


def _device(runner: Runner, training: bool) -> str:
    processes = get_world_size()
    device = next(unwrapped(runner.model).parameters()).device
    name = torch.cuda.get_device_name(device) if device.type == 'cuda' else device.type.upper()
    if training:
        with runner.optim_wrapper.optim_context(runner.model):
            mixed = torch.is_autocast_enabled(device.type)
            precision = str(torch.get_autocast_dtype(device.type)) if mixed else 'float32'
    else:
        precision = 'float16' if runner.test_loop.fp16 else 'float32'
    return f'{name}, {_plural(processes, "process")}, {precision.removeprefix("torch.")}'


def _optimization(runner: Runner) -> list[tuple[str, str]]:
    """Batch and learning rate."""
    loader = runner.train_dataloader
    images = loader.batch_size or getattr(loader.batch_sampler, 'batch_size', 1)
    processes, steps = get_world_size(), runner.cfg.optim_wrapper.get('accumulative_counts', 1)
    batch = f'{images * processes * steps} images ({images} per process x {_plural(processes, "process")}'
    batch += f' x {_plural(steps, "accumulated step")})'
    optimizer = runner.optim_wrapper.optimizer
    rates = sorted({group.get('initial_lr', group['lr']) for group in optimizer.param_groups})  # without warm-up
    spread = (
        f'{rates[0]:.4g} to {rates[-1]:.4g}, by layer and kind of parameter' if len(rates) > 1 else f'{rates[0]:.4g}'
    )
    return [('batch', batch), ('learning rate', f'{spread} ({type(optimizer).__name__})')]


def _schedule(runner: Runner) -> str:
    loop = runner.train_loop
    by_epoch = loop.max_epochs > 1 or 'max_epochs' in runner.cfg.get('train_cfg', {})
    unit, length = ('epochs', loop.max_epochs) if by_epoch else ('steps', loop.max_iters)
    steps = f' of {len(loop.dataloader):,} steps' if by_epoch else ''
    evaluation = f', evaluation every {loop.val_interval:,}' if runner.val_loop is not None else ''
    return f'{length:,} {unit}{steps}{evaluation}'


def _log_file(runner: Runner) -> str:
    files = [handler for handler in runner.logger.handlers if isinstance(handler, logging.FileHandler)]
    return os.path.relpath(files[0].baseFilename, runner.work_dir) if files else 'no log file'


def _trained(parameters: Sequence[nn.Parameter]) -> list[nn.Parameter]:
    return [parameter for parameter in parameters if parameter.requires_grad]


def _wrapped(name: str, text: str) -> list[tuple[str, str]]:
    """The lines of one entry of the screen; only the first has its name. Paths stay whole."""
    lines = wrap(text, WIDTH, break_long_words=False, break_on_hyphens=False)
    return [(name if not number else '', line) for number, line in enumerate(lines)]


def _plural(count: int, noun: str) -> str:
    return f'{count} {noun}' + ('' if count == 1 else 'es' if noun.endswith('s') else 's')


def _in_millions(count: int) -> str:
    return f'{count / 1e6:,.1f} M' if count >= 1e5 else f'{count:,}'
