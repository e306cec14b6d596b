"""Whether the optimizer of a config can go on from a saved state, and what of that state counts."""

from __future__ import annotations

import copy
import logging
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import compress
from numbers import Real
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer, SparseAdam

from ..checkpoint import named_tensors
from ..checkpoint.errors import first_few, one_line

# What of a parameter group is taken from the checkpoint, besides what the config's schedulers change.
_KEPT = ('lr', 'weight_decay')


def is_number(value: Any) -> bool:
    """Whether a value from a file is a real number (infinity is one, NaN and truth values are not)."""
    if isinstance(value, Tensor):
        return value.numel() == 1 and value.is_floating_point() and not bool(value.isnan())
    return isinstance(value, Real) and not isinstance(value, bool) and not math.isnan(value)


def optimizer_problems(
    saved: Any, wrapper: OptimWrapper | OptimWrapperDict, model: nn.Module, iterations: int
) -> Iterator[str]:
    """What keeps the optimizers of a config from going on from a saved state, each in one line.

    Args:
        saved: State of the optimizers.
        wrapper: The optimizers of the config.
        model: Its parameters' names are for the messages.
        iterations: How many iterations were done before saving. With gradient accumulation there may be no step yet.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    if not isinstance(saved, Mapping):
        yield 'it holds no optimizer (the best_*.pth and what save_optimizer=False saves are for tests)'
        return
    for key, part in _parts(wrapper):
        state = saved if key is None else saved.get(key)
        what = 'its optimizer' if key is None else f'its optimizer {key}'
        stepped = iterations >= part._accumulative_counts
        yield from _state_problems(state, part.optimizer, names, what, stepped)
        scaler = part.loss_scaler.state_dict() if hasattr(part, 'loss_scaler') else {}
        if scaler and isinstance(state, Mapping) and 'loss_scaler' in state:
            own, factors = scaler.keys(), state['loss_scaler']
            if not isinstance(factors, Mapping) or own != factors.keys() or not all(map(is_number, factors.values())):
                yield f'{what} has a damaged loss_scaler, expected numbers for {", ".join(own)}'


def use_options_of_config(saved: Any, wrapper: OptimWrapper | OptimWrapperDict, scheduled: Iterable[str]) -> None:
    """Replaces the options of a saved optimizer by those of the config, except for what schedules change.

    The file keeps learning rate and weight decay, as in MMEngine. Flags such as ``maximize``, which another optimizer
    or a forged file may have, are those of the config. Other numbers that the groups of the file have, and those of the
    config do not, are state of the optimizer, such as the ``step`` that LAMB counts there: the file keeps them. Options
    and state of optimizers from outside torch.optim cannot be told apart (Prodigy's ``d``): the file keeps all numbers.

    Args:
        saved: State of the optimizers; changed in place.
        wrapper: The optimizers of the config.
        scheduled: Options that the config's schedulers change.
    """
    kept = {prefix + name for name in (*_KEPT, *scheduled) for prefix in ('', 'initial_')}

    def merged(group: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
        return {**own, **{name: group[name] for name in kept & group.keys() & own.keys()}}

    for key, part in _parts(wrapper):
        state = saved if key is None else saved[key]
        groups = zip(state['param_groups'], part.optimizer.param_groups, strict=True)
        state['param_groups'] = [
            {**merged(group, own), **_group_state(group, own, part.optimizer), 'params': group['params']}
            for group, own in groups
        ]
        base = state.pop('base_param_settings', None)  # of optimizers whose groups have learning rates of their own
        if isinstance(base, Mapping) and part.base_param_settings is not None:
            state['base_param_settings'] = merged(base, part.base_param_settings)


def changed_options(saved: Any, wrapper: OptimWrapper | OptimWrapperDict) -> Iterator[str]:
    """Which learning rates and weight decays, before any schedule, a config has changed since a state was saved."""
    for key, part in _parts(wrapper):
        state = saved if key is None else saved[key]
        for name in _KEPT:
            for group, own in zip(state['param_groups'], part.optimizer.param_groups, strict=True):
                then, now = (values.get(f'initial_{name}', values.get(name)) for values in (group, own))
                if is_number(then) and is_number(now) and float(then) != float(now):
                    yield f'{name} {float(then):g}, in the config {float(now):g}'
                    break  # one example is enough


def _group_state(group: Mapping[str, Any], own: Mapping[str, Any], optimizer: Optimizer) -> dict[str, Any]:
    """The numbers in a parameter group that the optimizer may have put there in its steps."""
    options = own if _is_of_torch(optimizer) else {}
    return {name: value for name, value in group.items() if is_number(value) and name not in options}


def _parts(wrapper: OptimWrapper | OptimWrapperDict) -> list[tuple[str | None, Any]]:
    return list(wrapper.items()) if isinstance(wrapper, OptimWrapperDict) else [(None, wrapper)]


def _state_problems(
    saved: Any, optimizer: Optimizer, names: Mapping[int, str], what: str, stepped: bool
) -> Iterator[str]:
    try:
        groups = [list(group['params']) for group in saved['param_groups']]
        listed = [group.get('param_names') for group in saved['param_groups']]
        listed = [tensors if tensors is None else list(map(str, tensors)) for tensors in listed]
        states = {index: _without_none(state) for index, state in saved['state'].items()}
    except (KeyError, TypeError, AttributeError, ValueError) as problem:
        yield f'{what} is damaged ({type(problem).__name__}: {one_line(problem)})'
        return
    sizes = list(map(len, groups))
    own = [len(group['params']) for group in optimizer.param_groups]
    if sizes != own:
        yield (
            f'{what} has {len(sizes)} parameter groups with {sum(sizes)} tensors, not the sizes of the '
            f"config's {len(own)} with {sum(own)}"
        )
        return
    indices = [index for group in groups for index in group]
    if not all(type(index) is int for index in indices) or len({*indices}) != len(indices):
        yield f'{what} is damaged (its parameters are not numbered)'
        return
    for number, (group, mine) in enumerate(zip(saved['param_groups'], optimizer.param_groups, strict=True)):
        if listed[number] not in (None, mine.get('param_names', listed[number])):
            yield f"{what} has other tensors in a parameter group than the config's"
            return
        for name in _KEPT:
            if name in mine and not (is_number(group.get(name)) and 0 <= group[name] < math.inf):
                yield f'{what} has {name} {one_line(repr(group.get(name)), 50)} in parameter group {number}'
                return
    if stepped or any(states.values()):
        yield from _parameter_problems(states, indices, optimizer, names, what)


def _parameter_problems(
    states: Mapping[int, Mapping[str, Any]],
    indices: list[int],
    optimizer: Optimizer,
    names: Mapping[int, str],
    what: str,
) -> Iterator[str]:
    expected = _states_after_a_step(optimizer)
    trained, absent, misfits = 0, [], []
    parameters = [(parameter, group) for group, own in enumerate(optimizer.param_groups) for parameter in own['params']]
    for index, (parameter, group) in zip(indices, parameters, strict=True):
        state = states.get(index, {})
        name = names.get(id(parameter), f'parameter {index}')
        if parameter.requires_grad:
            trained += 1
            absent += [] if state else [name]
        if state and expected is not None:
            if state.keys() != expected[group].keys():
                kept, mine = (', '.join(sorted(map(str, keys))) or 'nothing' for keys in (state, expected[group]))
                kind = type(optimizer).__name__
                yield f"{what} keeps {one_line(kept)} for {name}, the config's {kind} {mine}: it is another, or damaged"
                return
            misfits += [
                f'{name}: {key}' for key, like in expected[group].items() if not _fits(state[key], like, parameter)
            ]
    if misfits:
        yield f'{what} has {len(misfits)} states that are of another shape or not finite ({first_few(misfits)})'
    if absent and (expected is None or any(expected)):
        lacking = f'{what} has no state for {len(absent)} of {trained} trained tensors ({first_few(absent)})'
        if len(absent) > trained / 2 and expected is not None:
            yield lacking
        else:  # these had no gradients yet, perhaps, or such an optimizer keeps no state for them
            print_log(f'{lacking}; they start anew', 'current', logging.WARNING)


def _without_none(state: Mapping[str, Any]) -> dict[str, Any]:
    named_tensors(state)  # raises ValueError for tensors without values
    return {key: value for key, value in state.items() if value is not None}


def _states_after_a_step(optimizer: Optimizer) -> list[dict[str, str]] | None:
    """What the optimizer keeps for the tensors of each parameter group: ``'number'``, ``'parameter'`` or ``'tensor'``.

    A copy of the optimizer makes a step with a tiny parameter in each group. ``None`` for optimizers that may do more
    in a step than compute, those from outside torch.optim.
    """
    if not _is_of_torch(optimizer) or isinstance(optimizer, LBFGS | SparseAdam):
        return None
    probe = copy.copy(optimizer)
    probe.state = defaultdict(dict)
    probe.param_groups = []
    filled = [bool(group['params']) for group in optimizer.param_groups]
    for group in compress(optimizer.param_groups, filled):
        like = group['params'][0]
        parameter = nn.Parameter(torch.zeros(tuple(range(2, 2 + like.ndim)), dtype=like.dtype, device=like.device))
        parameter.grad = torch.ones_like(parameter)
        probe.param_groups.append({**group, 'params': [parameter]})
    probe.step()

    def kind(value: Any, parameter: Tensor) -> str:
        if not isinstance(value, Tensor):
            return 'number'
        return 'parameter' if value.shape == parameter.shape else 'tensor' if value.ndim else 'number'

    made = [(probe.state.get(group['params'][0], {}), group['params'][0]) for group in probe.param_groups]
    kinds = iter([{key: kind(value, p) for key, value in state.items() if value is not None} for state, p in made])
    return [next(kinds) if some else {} for some in filled]


def _is_of_torch(optimizer: Optimizer) -> bool:
    return type(optimizer).__module__.startswith('torch.optim.')


def _fits(value: Any, like: str, parameter: Tensor) -> bool:
    if like == 'number':
        return is_number(value) and 0 <= value < math.inf
    proper = isinstance(value, Tensor) and value.is_floating_point() and bool(value.isfinite().all())
    return proper and (like == 'tensor' or value.shape == parameter.shape)
