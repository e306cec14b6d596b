"""The states that a pickle may give to objects."""

from __future__ import annotations

from argparse import Namespace
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
from mmengine.logging import HistoryBuffer

from .arrays import build_array, build_dtype
from .calls import SAVED_METHODS
from .refusals import is_count, kind_of, require


def build(thing: Any, state: Any) -> None:
    """Gives an object its state, in place.

    Raises:
        pickle.UnpicklingError: The object cannot have this state.
    """
    if isinstance(thing, np.dtype):  # each dtype is a class of its own
        return build_dtype(thing, state)
    require(type(thing) in _BUILDERS, f'{kind_of(thing)} has a state, which it cannot have')
    _BUILDERS[type(thing)](thing, state)


def _build_history(history: HistoryBuffer, state: Any) -> None:
    names = {'max_length', '_log_history', '_count_history', 'statistics_methods'}
    require(not vars(history) and type(state) is dict and state.keys() <= names, 'a HistoryBuffer has a forged state')
    log, count, length = (state.get(name) for name in ('_log_history', '_count_history', 'max_length'))
    methods = state.get('statistics_methods', {})
    require(type(methods) is dict, 'a HistoryBuffer has forged methods')
    for name, method in methods.items():
        known = name in SAVED_METHODS[HistoryBuffer] and method is getattr(HistoryBuffer, name)
        require(known, 'a HistoryBuffer has forged methods')
    require(
        all(type(array) is np.ndarray and array.ndim == 1 for array in (log, count)), 'a HistoryBuffer has no history'
    )
    require(len(log) == len(count), 'a HistoryBuffer does not have one count for each value')
    require(is_count(length) and len(log) <= length, 'a HistoryBuffer is longer than it may be')
    history.__init__(log, count, length)


def _build_ordered_dict(ordered: OrderedDict, state: Any) -> None:
    """Keeps the versions of modules, which ``state_dict()`` attaches, and nothing else."""
    require(type(state) is dict, 'an OrderedDict has a forged state')
    if state.get('_metadata') is not None:
        ordered._metadata = state['_metadata']  # type: ignore[attr-defined]


def _build_namespace(namespace: Namespace, state: Any) -> None:
    require(type(state) is dict and all(type(name) is str for name in state), 'a Namespace has a forged state')
    vars(namespace).update(state)


_BUILDERS: dict[type, Callable[[Any, Any], None]] = {
    np.ndarray: build_array,
    HistoryBuffer: _build_history,
    Namespace: _build_namespace,
    OrderedDict: _build_ordered_dict,
}
