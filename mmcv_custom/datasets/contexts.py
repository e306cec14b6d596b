"""Conditions under which other libraries' code runs here."""

from __future__ import annotations

import gc
import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout


@contextmanager
def silence() -> Iterator[None]:
    """Keeps what datasets and metrics log and print off the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """For reading JSON, which holds no cycles: looking for some in millions of objects takes much of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
