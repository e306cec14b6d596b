"""A clean end for processes that communicate over gloo."""

from __future__ import annotations

import atexit
import time

from torch import distributed as dist


def let_gloo_finish_at_exit() -> None:
    """Makes this process wait, when it ends, until gloo's threads have released the tensors of the last collective.

    They need Python's lock (GIL) for it. Before Python 3.14 a thread that asks for it while the interpreter shuts down
    is ended by ``pthread_exit``, which torch's C++ code does not survive: the process aborts. ``destroy_process_group``
    joins the threads only if nothing refers to the group, but DistributedDataParallel does.
    """
    atexit.unregister(_wait)  # once, however many runners there are
    atexit.register(_wait)


def _wait() -> None:
    if dist.is_initialized():
        time.sleep(0.5)
