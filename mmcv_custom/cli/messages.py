"""One line for a user's mistake, and other texts of the tools."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any, NoReturn

from ..engine.runner import LAUNCHERS
from ..errors import UserError

HEAD_START = 10  # seconds; the exit of the first takes some of them


def fail(message: str) -> NoReturn:
    """Ends the program with one line on stderr and exit code 1.

    All processes of a launcher usually find the same mistake. The first prints it at once, the others wait: a launcher
    that sees the first end stops them, and the line is printed once. A mistake that only they find is printed too.
    """
    if any(os.environ.get(rank, '0') != '0' for rank, *_ in LAUNCHERS.values()):
        time.sleep(HEAD_START)
    raise SystemExit(f'error: {" ".join(message.split())}')


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of an error text that proposes similar names, if there are any."""
    close = get_close_matches(name, known)
    return f'; did you mean {" or ".join(close)}?' if close else ''


@contextmanager
def user_errors_in_one_line() -> Iterator[None]:
    """Inside this context a :class:`mmcv_custom.errors.UserError` ends the program, like :func:`fail`."""
    try:
        yield
    except UserError as problem:
        fail(str(problem))


def table(rows: Iterable[Sequence[Any]]) -> str:
    """Rows of cells as lines of text with aligned columns."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ('  '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)
    return '\n'.join(line.rstrip() for line in lines)
