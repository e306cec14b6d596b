"""Python values as the source of a config, formatted as ruff formats it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

WIDTH = 120  # columns


class Code(str):
    """An expression that is written as it stands, such as ``_base_.train_pipeline``."""


def extended(name: str, **changes: Any) -> dict[str, Any]:
    """The call ``dict(name, key=value, ...)``: a copy of the dict ``name`` with changes."""
    return {Code(name): None, **changes}


def assignment(target: str, value: Any) -> str:
    """``target = value`` in one line or, if that is too long, in several."""
    return '\n'.join(_lines(f'{target} = ', value, indent=0, end=''))


def expression(value: Any) -> str:
    """The source of a value in one line. Mappings become calls of dict(), as in all configs.

    Args:
        value: Constants, :class:`Code`, and lists, tuples and mappings of them. The keys of mappings are names.
    """
    if isinstance(value, Mapping | list | tuple) and not isinstance(value, Code):
        opening, items, closing = _parts(value)
        comma = ',' if isinstance(value, tuple) and len(value) == 1 else ''
        return opening + ', '.join(prefix + expression(item) for prefix, item in items) + comma + closing
    if isinstance(value, float):
        return re.sub(r'e([-+])0?', r'e\1', repr(value)).replace('e+', 'e')
    return str(value) if isinstance(value, Code) else repr(value)


def _parts(value: Mapping | list | tuple) -> tuple[str, list[tuple[str, Any]], str]:
    """What a container opens with, its items with what precedes each, and what it closes with."""
    if isinstance(value, Mapping):
        items = [('', key) if isinstance(key, Code) else (f'{key}=', item) for key, item in value.items()]
        return 'dict(', items, ')'
    opening, closing = '()' if isinstance(value, tuple) else '[]'
    return opening, [('', item) for item in value], closing


def _lines(prefix: str, value: Any, indent: int, end: str) -> Iterable[str]:
    margin = ' ' * indent
    line = margin + prefix + expression(value) + end
    if len(line) <= WIDTH or not isinstance(value, Mapping | list | tuple) or not value:
        return [line]
    opening, items, closing = _parts(value)
    inner = margin + '    ' + expression(value)[len(opening) : -len(closing)]
    if isinstance(value, Mapping) and len(inner) <= WIDTH:  # all arguments in one line of their own
        body: Iterable[str] = [inner]
    else:
        body = [row for before, item in items for row in _lines(before, item, indent + 4, ',')]
    return [margin + prefix + opening, *body, margin + closing + end]
