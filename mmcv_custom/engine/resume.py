"""What a checkpoint must hold so that a training can go on from it, and where the newest one is."""

from __future__ import annotations

import inspect
import logging
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.hooks import EMAHook
from mmengine.logging import print_log
from mmengine.model import BaseAveragedModel
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import Tensor

from ..checkpoint import CheckpointError, compare, differences, load_safely, named_tensors, not_finite
from ..checkpoint.errors import first_few, one_line
from .optimizer_state import changed_options, is_number, optimizer_problems

LAST = 'last_checkpoint'  # the file in which MMEngine notes the path of the newest checkpoint
_SAVED = re.compile(r'(epoch|iter)_(\d+)\.pth')
_MESSAGES = ('log_scalars', 'runtime_info', 'resumed_keys')


def newest_checkpoint(work_dir: str) -> str | None:
    """The newest checkpoint in a work folder that can be read, even if the folder has been moved since.

    ``last_checkpoint`` names it. If that one is lost or damaged, those with lower numbers follow, newest first, then
    all others; the log says what was skipped, and why.

    Returns:
        The file; ``None`` if no checkpoint was ever saved there.

    Raises:
        CheckpointError: There are checkpoints, or there is a ``last_checkpoint``, but nothing can be read.
    """
    skipped: list[str] = []
    for file in _candidates(Path(work_dir), skipped):
        try:
            load_safely(file)
        except (CheckpointError, FileNotFoundError) as problem:
            skipped.append(' '.join(str(problem).split()))
            continue
        for reason in skipped:
            print_log(f'skipped in {work_dir}: {reason}', 'current', logging.WARNING)
        return str(file)
    if skipped:
        raise CheckpointError(f'nothing to resume in {work_dir}: {"; ".join(skipped)}')
    return None


def noted_checkpoint(work_dir: str | Path) -> str | None:
    """What ``last_checkpoint`` in a work folder holds, no more than a path can be long; ``None`` if there is none.

    Raises:
        CheckpointError: It cannot be read.
    """
    note = Path(work_dir, LAST)
    if not note.exists():
        return None
    try:
        if not note.is_file():
            raise OSError('it is no file; move it away')
        with note.open('rb') as opened:
            return os.fsdecode(opened.read(4096)).strip()
    except OSError as problem:
        raise CheckpointError(f'cannot read {note}, which names the newest checkpoint: {problem}') from problem


def _candidates(work_dir: Path, skipped: list[str]) -> Iterator[Path]:
    """Checkpoints, the newest first. Appends to ``skipped`` if ``last_checkpoint`` names none."""
    numbers = {file: int(match[2]) for file in work_dir.glob('*.pth') if (match := _SAVED.fullmatch(file.name))}
    newest = float('inf')
    noted = noted_checkpoint(work_dir)
    if noted is not None:
        last = work_dir / Path(noted).name
        if noted and not os.path.exists(last):  # unlike Path.exists() it takes any text for a name
            last = Path(noted)  # of a hook with an out_dir
        if noted and os.path.exists(last):
            yield last
            newest = numbers.pop(last, newest)
        else:
            problem = f'names {one_line(noted)}, which does not exist' if noted else 'is empty'
            skipped.append(f'{work_dir / LAST} {problem}')
    yield from sorted(numbers, key=lambda file: (numbers[file] < newest, numbers[file]), reverse=True)


def scheduled_options(schedulers: Any) -> set[str]:
    """The options of optimizers that schedulers change, such as ``'lr'``."""
    parts = schedulers.values() if isinstance(schedulers, Mapping) else [schedulers or []]
    return {scheduler.param_name for part in parts for scheduler in part}


def require_training(checkpoint: Mapping[str, Any], runner: Runner, source: str) -> None:
    """Raises :class:`CheckpointError` unless a runner's training can go on from a checkpoint.

    Needed are a plausible iteration and epoch, the message hub, the state of every optimizer with the config's
    parameter groups (:mod:`.optimizer_state`), and that of every scheduler. Averaged weights may be absent, if a
    config adds an ``EMAHook``, but not damaged. The weights are judged by :func:`mmcv_custom.checkpoint.fill`.
    """
    if 'message_hub' not in checkpoint:
        problems = ['it holds weights, but no training by MMEngine that could go on']
    else:
        meta, done = checkpoint['meta'], checkpoint['meta'].get('iter')
        problems = [
            *_progress_problems(meta, runner),
            *_message_problems(checkpoint['message_hub']),
            *optimizer_problems(
                checkpoint.get('optimizer'), runner.optim_wrapper, runner.model, done if type(done) is int else 0
            ),
            *_scheduler_problems(checkpoint.get('param_schedulers'), runner.param_schedulers),
        ]
        if 'ema_state_dict' in checkpoint:
            averages = [hook.ema_model for hook in runner.hooks if isinstance(hook, EMAHook)]
            problems += [text for model in averages for text in _ema_problems(checkpoint, model)]
    if problems:
        raise CheckpointError(
            f'cannot resume from {source}: {"; ".join(problems)}. '
            'To start a training from these weights name it as load_from, without resume'
        )
    changed = [
        *changed_options(checkpoint['optimizer'], runner.optim_wrapper),
        *_changed_schedules(checkpoint.get('param_schedulers'), runner.param_schedulers),
    ]
    if changed:
        print_log(
            f'{source} was trained with {first_few(changed, 5)}. Its values count. To train with those of the config, '
            'name it as load_from, without resume',
            'current',
            logging.WARNING,
        )


def _progress_problems(meta: Mapping[str, Any], runner: Runner) -> Iterator[str]:
    by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
    limits = {'epoch': runner.max_epochs if by_epoch else None, 'iter': None if by_epoch else runner.max_iters}
    for key, limit in limits.items():
        value = meta.get(key)
        if type(value) is not int or value < 0:
            yield f'its meta should count {key} from 0, but holds {value!r}'
        elif limit is not None and value > limit:
            yield f'it is at {key} {value}, but the config trains up to {limit}'
    seed = meta.get('seed')
    if seed is not None and not (type(seed) is int and 0 <= seed < 2**32):
        yield f'its meta holds the seed {one_line(repr(seed), 50)}, expected a whole number from 0 to 2^32 - 1'


def _message_problems(hub: Any) -> Iterator[str]:
    if not isinstance(hub, dict) or not all(isinstance(hub.get(key), dict) for key in _MESSAGES):
        yield f'its message_hub does not hold {", ".join(_MESSAGES)}'
        return
    for key in _MESSAGES:
        if odd := [name for name in hub[key] if not isinstance(name, str)]:
            yield f'its message_hub has {one_line(repr(odd[0]), 50)} among the names in {key}, expected texts'
    for name, value in hub['runtime_info'].items():
        if str(name).startswith('best_score') and not is_number(value):
            yield f'its message_hub holds {name} {one_line(repr(value), 50)}, expected a number'


def _ema_problems(checkpoint: Mapping[str, Any], averaged: BaseAveragedModel) -> Iterator[str]:
    """What keeps an ``EMAHook`` from going on. It swaps the two state dicts, of which each must have all tensors."""
    yield from _average_problems(checkpoint['ema_state_dict'], averaged, 'ema_state_dict')
    average = {f'module.{name}': value for name, value in checkpoint['state_dict'].items()}
    yield from _average_problems({'steps': averaged.steps, **average}, averaged, 'averaged state_dict')


def _average_problems(saved: Any, averaged: BaseAveragedModel, what: str) -> Iterator[str]:
    entries = averaged.state_dict()
    own = {name: value for name, value in entries.items() if isinstance(value, Tensor)}  # without extra states
    try:
        state = {name: value for name, value in named_tensors(saved).items() if name not in entries or name in own}
    except ValueError as problem:
        yield f'its {what} is damaged: {one_line(problem)}'
        return
    if found := differences(state, own, compare(own, state)):
        yield f'in its {what} {found}'
        return
    if others := (saved.keys() - entries.keys()) | (own.keys() - saved.keys()):
        yield f'its {what} holds other entries: {first_few(sorted(others))}'
        return
    if spoilt := not_finite(dict(averaged.module.named_parameters()), state):
        yield f'its {what} holds NaN or infinite numbers in {len(spoilt)} tensors ({first_few(spoilt)})'
    for name, tensor in state.items():
        if tensor.dtype != own[name].dtype and not (tensor.is_floating_point() and own[name].is_floating_point()):
            yield f'its {what} holds {tensor.dtype} for {name}, expected {own[name].dtype}'
            return
    if state['steps'] < 0:
        yield f'its {what} counts {int(state["steps"])} steps'


def _scheduler_problems(saved: Any, schedulers: Any) -> Iterator[str]:
    if isinstance(schedulers, Mapping):
        for key, part in schedulers.items():
            yield from _scheduler_problems(saved.get(key) if isinstance(saved, Mapping) else None, part)
        return
    own = [scheduler.state_dict() for scheduler in schedulers or []]
    if not isinstance(saved, Sequence | None) or len(saved or []) != len(own):
        count = len(saved) if isinstance(saved, Sequence) else 'no'
        yield f'it holds {count} param_schedulers, the config has {len(own)}'
        return
    for index, (state, expected) in enumerate(zip(saved or [], own, strict=True)):
        if not isinstance(state, Mapping) or state.keys() != expected.keys():
            yield f"its param_schedulers[{index}] is of another kind than the config's"
            continue
        for key, value in state.items():
            if not _is_like(value, expected[key]):
                values = f'{one_line(repr(value), 50)}, expected a value like {one_line(repr(expected[key]), 50)}'
                yield f'its param_schedulers[{index}] has the {key} {values}'


def _changed_schedules(saved: Any, schedulers: Any) -> Iterator[str]:
    """Which arguments of schedulers a config has changed since their states were saved."""
    if isinstance(schedulers, Mapping):
        for key, part in schedulers.items():
            yield from _changed_schedules(saved[key], part)
        return
    for state, scheduler in zip(saved or [], schedulers or [], strict=True):
        own = scheduler.state_dict()
        for key in _arguments(type(scheduler)) & own.keys() - {'last_step', 'verbose'}:
            if state[key] != own[key]:
                then, now = (one_line(value, 50) for value in (state[key], own[key]))
                yield f'{key} {then} in {type(scheduler).__name__}, in the config {now}'


def _arguments(kind: type) -> set[str]:
    """The names of the arguments that a class takes, with those that it hands on to its bases."""
    return {name for base in kind.__mro__ for name in inspect.signature(base.__init__).parameters}  # type: ignore[misc]


def _is_like(value: Any, own: Any) -> bool:
    """Whether a scheduler that has the value ``own`` can work with another one. Texts are options of the config."""
    if isinstance(own, str):
        return bool(value == own)
    if is_number(own):
        return is_number(value)
    if isinstance(own, list | tuple):
        return type(value) is type(own) and len(value) == len(own) and all(map(_is_like, value, own))
    if isinstance(own, Counter):  # milestones
        return type(value) is Counter and all(map(is_number, [*value, *value.values()]))
    return type(value) is type(own)
