"""Values in configs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def values_of(node: Any, key: str) -> Iterator[Any]:
    """The values under a key, wherever in a part of a config."""
    if isinstance(node, Mapping):
        yield from (value for name, value in node.items() if name == key)
    for item in node.values() if isinstance(node, Mapping) else node if isinstance(node, list) else ():
        yield from values_of(item, key)


def as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal, with lists and tuples taken as one."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        keys = [{key for key in node if key != '_scope_'} for node in (one, other)]  # MMEngine adds these
        return keys[0] == keys[1] and all(same(one[key], other[key]) for key in keys[0])
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def brief(path: str, value: Any) -> str:
    """A setting as ``path=value``; only its path where the value is long or a mapping."""
    text = f'{path}={value!r}'
    return path if len(text) > 80 or isinstance(value, Mapping) else text
