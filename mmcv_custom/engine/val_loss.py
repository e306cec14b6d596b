"""The loss on the validation set."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from itertools import chain
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner, set_random_seed
from torch import nn

from ..checkpoint import unwrapped
from ..errors import UserError

SAMPLER = dict(type='DefaultSampler', shuffle=False)
PREFIX = 'val/'


@HOOKS.register_module()
class ValLossHook(Hook):
    """Computes the loss on the validation set after an evaluation, to be drawn beside the training loss.

    Logger and visualizer get the mean over the images: ``val/loss``, the sum, and each term of it, such as
    ``val/loss_cls``. Hooks that watch the metrics can watch them too: ``EarlyStoppingHook(monitor='val/loss')``,
    ``CheckpointHook(save_best='val/loss')``.

    The model computes what it does in training, with the terms that only exist there: those of DINO's denoising queries
    are called ``val/dn_loss_cls`` and so on, and are part of ``val/loss`` as they are of ``loss``. Batch norm uses its
    running statistics, and dropout and stochastic depth are off. Random choices, as of the RoIs that have a loss, are
    the same every time. The training goes on as if nothing had happened: buffers, random states and the mode of every
    module are restored. With ``EMAHook`` the loss is that of the averaged weights, like the metrics.

    Args:
        interval: Number of evaluations from one loss to the next.
        dataloader: Like ``val_dataloader``, with a pipeline that loads the annotations first and changes them with the
            image. Its sampler is ``DefaultSampler`` without shuffling. By default ``val_dataloader`` with the pipeline
            that :func:`with_annotations` makes.

    Raises:
        UserError: Before the first step, if ``interval`` or ``dataloader`` is none of these, or no default can be made.
    """

    priority = 'HIGHEST'  # before EMAHook takes the averaged weights away, and before any hook reads the metrics

    def __init__(self, interval: int = 1, dataloader: Mapping[str, Any] | None = None) -> None:
        if not isinstance(interval, int) or interval < 1:
            raise UserError(f'interval of ValLossHook must be a positive whole number of evaluations, got {interval!r}')
        self.interval = interval
        self.dataloader = dataloader
        self.loader: Any = None
        self.evaluations = 0

    def before_train(self, runner: Runner) -> None:
        """Builds the loader."""
        if runner.val_loop is None:
            raise UserError('ValLossHook needs an evaluation: set val_dataloader, val_cfg and val_evaluator')
        loader = default_loader(runner.cfg) if self.dataloader is None else deepcopy(dict(self.dataloader))
        sampler = {'shuffle': True, **loader.get('sampler', SAMPLER)}
        sampler.pop('_scope_', None)  # MMEngine's mark on what a config inherits from a package
        if sampler != SAMPLER or loader.get('batch_sampler') or loader.get('drop_last'):
            raise UserError(
                f'dataloader of ValLossHook must read every image once, with sampler={SAMPLER}, without batch_sampler '
                f'and drop_last; got sampler={loader.get("sampler")}, batch_sampler={loader.get("batch_sampler")}, '
                f'drop_last={loader.get("drop_last")}'
            )
        loader.update(sampler=SAMPLER, persistent_workers=False)  # workers would idle during the training
        self.loader = runner.build_dataloader(loader, seed=runner.seed)

    def before_val_epoch(self, runner: Runner) -> None:
        """Forgets the last loss: MMEngine would print it again, and average the new one with it."""
        for name in [name for name in runner.message_hub.log_scalars if name.startswith('val/' + PREFIX)]:
            del runner.message_hub.log_scalars[name]

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Adds the loss to the metrics."""
        self.evaluations += 1
        if self.loader is None or self.evaluations % self.interval:
            return
        model: Any = unwrapped(runner.model)
        losses: list[dict[str, float]] = []  # of each image, in the order of the sampler
        with torch.no_grad(), _unchanged(model), runner.optim_wrapper.optim_context(model):
            for batch, indices in zip(self.loader, self.loader.batch_sampler, strict=True):
                set_random_seed(0)  # whichever process computes it, and after which image
                data = model.data_preprocessor(batch, training=True)
                terms = model.parse_losses(model._run_forward(data, mode='loss'))[1]
                values = {PREFIX + name: float(value) for name, value in terms.items() if 'loss' in name}
                losses += [values] * len(indices)
        in_order = chain.from_iterable(zip(*all_gather_object(losses), strict=True))
        images = list(in_order)[: len(self.loader.dataset)]  # the sampler repeats some, so that all processes have work
        means = {name: float(np.mean([image[name] for image in images])) for name in images[0]}
        if metrics:
            metrics.update(means)
        else:  # nothing was detected: save_best='auto' must not take the loss for the first metric
            for name, value in means.items():
                runner.message_hub.update_scalar('val/' + name, value)


def with_annotations(val_pipeline: Sequence[Mapping], train_pipeline: Sequence[Mapping]) -> list[Mapping]:
    """The pipeline of the validation loss.

    Loads as in training, then changes the image as in validation (such as ``Resize``) with its annotations, and packs
    as in training. In a pipeline for metrics, annotations are loaded last and stay those of the original image.

    Args:
        val_pipeline: Transforms of validation.
        train_pipeline: Transforms of training.

    Raises:
        UserError: ``train_pipeline`` has no transform of which the name begins with ``Load``, or none with ``Pack``.
    """
    loads, packs = (
        [transform for transform in train_pipeline if _name(transform).startswith(what)] for what in ('Load', 'Pack')
    )
    if not any('Annotations' in _name(transform) for transform in loads) or not packs:
        raise UserError(
            'ValLossHook finds no transforms Load...Annotations and Pack... in the pipeline of train_dataloader '
            f'({", ".join(map(_name, train_pipeline)) or "empty"}): set its dataloader'
        )
    changes = [transform for transform in val_pipeline if not _name(transform).startswith(('Load', 'Pack'))]
    return [*loads, *changes, *packs]


def default_loader(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """``val_dataloader`` with the pipeline of :func:`with_annotations`."""
    train, val = (cfg.get(f'{split}_dataloader') for split in ('train', 'val'))
    if not train or not val:
        raise UserError('ValLossHook needs its dataloader: the runner has no config to derive it from')
    loader = {key: deepcopy(val[key]) for key in val}
    train_pipeline = _pipeline(train['dataset'])
    found = _set_pipelines(loader['dataset'], train_pipeline)
    if not found:
        raise UserError('ValLossHook finds no pipeline in val_dataloader.dataset: set its dataloader')
    return loader


def _pipeline(dataset: Mapping[str, Any]) -> list[Mapping]:
    """All transforms of a dataset config, first those of the dataset that it wraps, or of the first of several."""
    inner = [dataset['dataset']] if 'dataset' in dataset else list(dataset.get('datasets') or ())
    return [*(_pipeline(inner[0]) if inner else ()), *(dataset.get('pipeline') or ())]


def _set_pipelines(dataset: dict[str, Any], train_pipeline: Sequence[Mapping]) -> int:
    """Exchanges every pipeline in a dataset config, and returns their number."""
    inner = [dataset['dataset']] if 'dataset' in dataset else list(dataset.get('datasets') or ())
    found = sum(_set_pipelines(part, train_pipeline) for part in inner)
    if dataset.get('pipeline'):
        dataset['pipeline'] = with_annotations(dataset['pipeline'], train_pipeline)
        found += 1
    return found


def _name(transform: Mapping[str, Any]) -> str:
    """The class of a transform, without the scope."""
    kind = transform['type']
    return kind.rpartition('.')[2] if isinstance(kind, str) else kind.__name__


@contextmanager
def _unchanged(model: Any) -> Iterator[None]:
    """Inside this context a model computes losses; afterwards it and all random states are as before.

    Modules that hold others are in training mode, because heads look at it to see what to compute. Those that hold
    none, such as normalization and dropout, and attention, which has a dropout of its own, are in evaluation mode.
    """
    modes = [(module, module.training) for module in model.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]  # some losses count what they see
    preprocessor = model.data_preprocessor
    augments = getattr(preprocessor, 'batch_augments', None)
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices):
            model.train()
            for module in model.modules():
                if isinstance(module, nn.MultiheadAttention) or next(module.children(), None) is None:
                    module.training = False
            if augments is not None:
                preprocessor.batch_augments = None
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        for buffer, before in buffers:
            buffer.copy_(before)
        if augments is not None:
            preprocessor.batch_augments = augments
        random.setstate(states[0])
        np.random.set_state(states[1])
