"""Building and running a config, with one line for what MMEngine cannot build from it."""

from __future__ import annotations

import atexit
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from traceback import walk_tb
from types import FrameType
from typing import Any

from mmengine.config import Config
from mmengine.registry import RUNNERS, Registry
from mmengine.runner import Runner
from torch import distributed as dist

from ..engine.runner import PortableRunner
from ..errors import UserError
from .configs import entries_of, parameters_of
from .messages import did_you_mean, fail, in_words

# How gloo says that another process has ended.
LOST = re.compile('Connection (closed|reset) by peer|Broken pipe')


def build_runner(cfg: Config) -> Runner:
    """The runner of a config: its ``runner_type``, by default :class:`mmcv_custom.engine.PortableRunner`."""
    atexit.register(_let_gloo_finish)
    return RUNNERS.build(cfg) if 'runner_type' in cfg else PortableRunner.from_cfg(cfg)


def _let_gloo_finish() -> None:
    """Waits until gloo's threads have released the tensors of the last collective. Called when the program ends.

    They need Python's lock (GIL) for it. Before Python 3.14 a thread that asks for it while the interpreter shuts down
    is ended by ``pthread_exit``, which torch's C++ code does not survive: the process aborts. ``destroy_process_group``
    joins the threads only if nothing refers to the group, but DistributedDataParallel does.
    """
    if dist.is_initialized():
        time.sleep(0.5)


@contextmanager
def mistakes_in_one_line(cfg: Config, debug: bool = False) -> Iterator[None]:
    """Inside this context a mistake of the user ends the program like :func:`fail`; ``debug`` prints the traceback too.

    A mistake is a :class:`mmcv_custom.errors.UserError`, processes that do not meet or lose each other, or what
    MMEngine cannot build from the config. Any other error is ours and passes.
    """
    try:
        yield
    except Exception as problem:
        text = _mistake(problem, cfg)
        if debug or text is None:
            raise
        fail(text)


def _mistake(problem: Exception, cfg: Config) -> str | None:
    """The user's mistake that led to an exception, in words; ``None`` if it is not known to be one."""
    if isinstance(problem, UserError):
        return str(problem)
    frames = [frame for frame, _ in walk_tb(problem.__traceback__)]
    places = [(str(frame.f_globals.get('__name__')), frame.f_code.co_name) for frame in frames]
    if dist.is_initialized() and isinstance(problem, RuntimeError) and LOST.search(str(problem)):
        return (
            f'process {dist.get_rank()} stops, because another one has ended; its message says why: {in_words(problem)}'
        )
    if isinstance(problem, dist.DistError) or ('torch.distributed.distributed_c10d', 'init_process_group') in places:
        address = f'{os.environ.get("MASTER_ADDR")}:{os.environ.get("MASTER_PORT")}'
        return (
            f'the {os.environ.get("WORLD_SIZE")} processes could not meet at {address} '
            f'(MASTER_ADDR:MASTER_PORT): {in_words(problem)}'
        )
    if (place := ('mmengine.runner.checkpoint', 'load_checkpoint')) in places:
        return f'cannot load {frames[places.index(place)].f_locals["filename"]}: {in_words(problem)}'
    building = [index for index, place in enumerate(places) if _builds(*place)]
    if not building:
        return None
    frames = frames[building[0] :]
    part = _part(frames, cfg)
    return (
        f'cannot build {part + " of " if part else "the runner of "}{cfg.filename}: '
        f'{_hint(problem, frames) or in_words(problem)}; --debug prints the traceback'
    )


def _builds(module: str, function: str) -> bool:
    """Whether a function is one in which MMEngine makes something of the config."""
    if not module.startswith('mmengine.'):
        return False
    of_runner = ('__init__', 'scale_lr', '_init_model_weights')
    return function.startswith('build_') or (module == 'mmengine.runner.runner' and function in of_runner)


def _part(frames: Sequence[FrameType], cfg: Config) -> str:
    """Path of the innermost entry of the config that a function in ``frames`` got as an argument; empty if none did."""
    is_test = any(frame.f_code.co_name == 'build_test_loop' for frame in frames)
    unused = 'val_' if is_test else 'test_'  # often equal to the entry that is used
    entries = [entry for entry in entries_of(cfg._cfg_dict) if not entry[0].startswith(unused)]
    part = ''
    for frame in frames:
        code = frame.f_code
        if isinstance(frame.f_locals.get('self'), Runner) and code.co_name == '__init__':
            continue  # it gets everything
        arguments = (frame.f_locals.get(name) for name in code.co_varnames[: code.co_argcount])
        value = next((argument for argument in arguments if isinstance(argument, Mapping | list | str | int)), None)
        if isinstance(value, Mapping | list):
            below = [entry for entry in entries if entry[0].startswith(part + '.')]
            part = _path_of(value, below) or _path_of(value, entries) or part
    return part


def _path_of(value: Mapping | list, entries: Sequence[tuple[str, Any]]) -> str | None:
    """Path of the entry that resembles a value most. MMEngine adds arguments to what it builds, so types decide."""
    if not isinstance(value, Mapping) or 'type' not in value:
        return next((path for path, node in entries if type(node) is type(value) and node == value), None)
    alike = [entry for entry in entries if isinstance(entry[1], Mapping) and entry[1].get('type') == value['type']]
    shared = {path: sum(node[key] == value.get(key) for key in node) for path, node in alike}
    return max(shared, key=shared.__getitem__, default=None)


def _hint(problem: Exception, frames: Sequence[FrameType]) -> str | None:
    """What is wrong, where MMEngine's own text does not say it: unknown classes and keywords, and empty datasets."""
    if frames[-1].f_code.co_name == '_serialize_data':
        return 'the dataset is empty: there is no image, or none that shows one of its classes'
    for frame in frames:
        if frame.f_locals.get('optimizer_cls', '') is None:  # MMEngine looks the optimizer up in two places
            return _unknown(frame.f_locals['self'].optimizer_cfg['type'], frame.f_locals['registry'])
    built = [frame.f_locals for frame in frames if frame.f_code.co_name in ('build_from_cfg', 'build_runner_from_cfg')]
    if not built:
        return None
    name, registry = built[-1].get('obj_type'), built[-1].get('registry')
    if isinstance(problem, KeyError) and isinstance(name, str) and isinstance(registry, Registry):
        return None if registry.get(name) else _unknown(name, registry)
    keyword = re.search(r"unexpected keyword argument '(\w+)'", str(problem))
    if keyword and (built_class := built[-1].get('obj_cls')):
        return in_words(problem) + did_you_mean(keyword[1], parameters_of(built_class))
    return None


def _unknown(name: str, registry: Registry) -> str:
    """Says that a registry has no class of a name, and proposes similar names."""
    known: set[str] = set()
    ancestor: Registry | None = registry
    while ancestor is not None:
        known.update(ancestor.module_dict)
        ancestor = ancestor.parent
    scope_hint = '; should default_scope be mmdet or mmseg?' if registry.scope == 'mmengine' else ''
    return f'{registry.scope} has no {registry.name} called {name!r}{did_you_mean(name, known)}{scope_hint}'
