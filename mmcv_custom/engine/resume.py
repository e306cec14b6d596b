"""What a checkpoint must hold so that a training can go on from it, and where the newest one is."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch.optim import SGD, Optimizer

from ..checkpoint import CheckpointError, load_safely, named_tensors
from ..checkpoint.conversion import first_few

LAST = 'last_checkpoint'  # the file in which MMEngine notes the path of the newest checkpoint
_SAVED = re.compile(r'(epoch|iter)_(\d+)\.pth')
_MESSAGES = ('log_scalars', 'runtime_info', 'resumed_keys')
# The entries of an optimizer's state that have the shape of their parameter.
_PARAMETER_SHAPED = ('exp_avg', 'exp_avg_sq', 'max_exp_avg_sq', 'momentum_buffer', 'square_avg')


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


def _candidates(work_dir: Path, skipped: list[str]) -> Iterator[Path]:
    """Checkpoints, the newest first. Appends to ``skipped`` if ``last_checkpoint`` names none."""
    note = work_dir / LAST
    numbers = {file: int(match[2]) for file in work_dir.glob('*.pth') if (match := _SAVED.fullmatch(file.name))}
    newest = float('inf')
    if note.exists():
        try:
            noted = note.read_text().strip()
        except (OSError, UnicodeDecodeError) as problem:
            raise CheckpointError(f'cannot read {note}, which names the newest checkpoint: {problem}') from problem
        last = work_dir / Path(noted).name
        if noted and not last.exists():
            last = Path(noted)  # of a hook with an out_dir
        if noted and last.exists():
            yield last
            newest = numbers.pop(last, newest)
        else:
            skipped.append(f'{note} ' + (f'names {noted}, which does not exist' if noted else 'is empty'))
    yield from sorted(numbers, key=lambda file: (numbers[file] < newest, numbers[file]), reverse=True)


def require_training(checkpoint: Mapping[str, Any], runner: Runner, source: str) -> None:
    """Raises :class:`CheckpointError` unless a runner's training can go on from a checkpoint.

    Needed are a plausible iteration and epoch, the message hub, the state of every optimizer with the config's
    parameter groups, and that of every scheduler. :func:`mmcv_custom.checkpoint.fill` judges the weights.
    """
    if 'message_hub' not in checkpoint:
        problems = ['it holds weights, but no training by MMEngine that could go on']
    else:
        problems = [
            *_progress_problems(checkpoint['meta'], runner),
            *_message_problems(checkpoint['message_hub']),
            *_optimizer_problems(checkpoint.get('optimizer'), runner),
            *_scheduler_problems(checkpoint.get('param_schedulers'), runner.param_schedulers),
        ]
    if problems:
        raise CheckpointError(
            f'cannot resume from {source}: {"; ".join(problems)}. '
            'To start a training from these weights name it as load_from, without resume'
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


def _message_problems(hub: Any) -> Iterator[str]:
    if not isinstance(hub, dict) or not all(isinstance(hub.get(key), dict) for key in _MESSAGES):
        yield f'its message_hub does not hold {", ".join(_MESSAGES)}'


def _optimizer_problems(saved: Any, runner: Runner) -> Iterator[str]:
    wrapper = runner.optim_wrapper
    names = {id(parameter): name for name, parameter in runner.model.named_parameters()}
    if not isinstance(saved, Mapping):
        yield 'it holds no optimizer (the best_*.pth and what save_optimizer=False saves are for tests)'
    elif isinstance(wrapper, OptimWrapper) and hasattr(wrapper, 'optimizer'):
        yield from _state_problems(saved, wrapper.optimizer, names, 'its optimizer')
    else:  # an OptimWrapperDict
        for key, part in wrapper.items():
            yield from _state_problems(saved.get(key), part.optimizer, names, f'its optimizer {key}')


def _state_problems(saved: Any, optimizer: Optimizer, names: Mapping[int, str], what: str) -> Iterator[str]:
    """What keeps an optimizer from going on from a saved state. ``names`` are those of the parameters, by id."""
    try:
        groups = [
            (list(group['params']), float(group['lr']), group.get('param_names')) for group in saved['param_groups']
        ]
        states = {index: named_tensors(state) for index, state in saved['state'].items()}
    except (KeyError, TypeError, AttributeError, ValueError) as problem:
        yield f'{what} is damaged ({type(problem).__name__}: {problem})'
        return
    sizes = [len(indices) for indices, *_ in groups]
    own = [len(group['params']) for group in optimizer.param_groups]
    if sizes != own:
        yield (
            f'{what} has {len(sizes)} parameter groups with {sum(sizes)} tensors, not the sizes of the '
            f"config's {len(own)} with {sum(own)}"
        )
        return
    for (_, _, listed), group in zip(groups, optimizer.param_groups, strict=True):
        if listed is not None and listed != group.get('param_names', listed):
            yield f"{what} has other tensors in a parameter group than the config's"
            return
    indices = [index for group, *_ in groups for index in group]
    parameters = [parameter for group in optimizer.param_groups for parameter in group['params']]
    trained, absent, misshaped = 0, [], []
    for index, parameter in zip(indices, parameters, strict=True):
        state = states.get(index, {})
        name = names.get(id(parameter), f'parameter {index}')
        if any(key in state and state[key].shape != parameter.shape for key in _PARAMETER_SHAPED):
            misshaped.append(name)
        if parameter.requires_grad:
            trained += 1
            absent += [] if state else [name]
    if misshaped:
        yield f'{what} has states of another shape for {len(misshaped)} tensors ({first_few(misshaped)})'
    stateless = isinstance(optimizer, SGD) and not any(group['momentum'] for group in optimizer.param_groups)
    if absent and not stateless:
        lacking = f'{what} has no state for {len(absent)} of {trained} trained tensors ({first_few(absent)})'
        if len(absent) > trained / 2:
            yield lacking
        else:  # these had no gradients yet, perhaps
            print_log(f'{lacking}; they start anew', 'current', logging.WARNING)


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
