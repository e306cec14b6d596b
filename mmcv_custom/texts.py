"""Parts of messages."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from textwrap import shorten
from typing import Any


def some(items: Iterable[Any], count: int = 5, show: Callable[[Any], str] = repr) -> str:
    """The first of some names or values, and how many more there are: ``"'cat', 'dog' and 3 more"``."""
    items = list(items)
    text = ', '.join(map(show, items[:count]))
    return f'{text} and {len(items) - count} more' if len(items) > count else text


def in_words(problem: BaseException) -> str:
    """Type and text of an exception in at most 300 characters: MMEngine's texts can hold whole configs."""
    text = problem.args[0] if isinstance(problem, KeyError) and problem.args else problem  # str() would quote it
    return shorten(f'{type(problem).__name__}: {text}', 300, placeholder=' ...').removesuffix(':')
