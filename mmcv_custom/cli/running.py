"""Building and running a config, with one line for what MMEngine cannot build from it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from traceback import walk_tb
from types import FrameType

from mmengine.config import Config
from mmengine.registry import RUNNERS, Registry
from mmengine.runner import Runner
from torch import distributed as dist

from ..datasets.sources import Source
from ..engine.runner import PortableRunner
from ..errors import UserError
from ..texts import in_words
from .configs import entries_of, parameters_of
from .messages import did_you_mean, fail

# How gloo says that another process has ended.
LOST = re.compile('Connection (closed|reset) by peer|Broken pipe')


def build_runner(cfg: Config) -> Runner:
    """The runner of a config: its ``runner_type``, by default :class:`mmcv_custom.engine.PortableRunner`."""
    return RUNNERS.build(cfg) if 'runner_type' in cfg else PortableRunner.from_cfg(cfg)


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
    if dist.is_initialized() and isinstance(problem, RuntimeError) and LOST.search(str(problem)):
        return (
            f'process {dist.get_rank()} stops, because another one has ended; its message says why: {in_words(problem)}'
        )
    frames = [frame for frame, _ in walk_tb(problem.__traceback__)]
    functions = [(str(frame.f_globals.get('__name__')), frame.f_code.co_name) for frame in frames]
    if isinstance(problem, dist.DistError) or ('torch.distributed.distributed_c10d', 'init_process_group') in functions:
        address = f'{os.environ.get("MASTER_ADDR")}:{os.environ.get("MASTER_PORT")}'
        return (
            f'the {os.environ.get("WORLD_SIZE")} processes could not meet at {address} '
            f'(MASTER_ADDR:MASTER_PORT): {in_words(problem)}'
        )
    if (loads := ('mmengine.runner.checkpoint', 'load_checkpoint')) in functions:
        return f'cannot load {frames[functions.index(loads)].f_locals["filename"]}: {in_words(problem)}'
    if any(_builds(*function) for function in functions):
        reason = f'{_reason(problem, frames)}; --debug prints the traceback'
        return f'cannot build {_part(frames, cfg)} of {cfg.filename}: {reason}'
    return None


def _builds(module: str, function: str) -> bool:
    """Whether a function is one in which MMEngine makes something of the config."""
    if not module.startswith('mmengine.'):
        return False
    of_runner = ('__init__', 'scale_lr', '_init_model_weights')
    return function.startswith('build_') or (module == 'mmengine.runner.runner' and function in of_runner)


def _part(frames: Sequence[FrameType], cfg: Config) -> str:
    """The innermost part of the config whose place is certain: its path, such as ``model.neck``, or what kind it is.

    The runner's methods are named after the entry that they build: ``build_train_loop``, ``register_default_hooks``.
    What is built within is the entry of its type, if there is only one.
    """
    nodes = [(path, node) for path, node in entries_of(cfg._cfg_dict) if isinstance(node, Mapping)]
    part, kind = '', 'runner'
    for frame in frames:
        local = frame.f_locals
        method = re.fullmatch('(?:build|register)_(.+)', frame.f_code.co_name)
        key = method[1].replace('_loop', '_cfg') if method else ''
        if key in ('dataloader', 'evaluator'):  # of the loop
            key = part.replace('cfg', key)
        if key in cfg:
            part = key
        elif isinstance(source := local.get('self'), Source):
            part = source.key
        elif key == 'from_cfg' and 'obj_type' in local:
            kind = local['registry'].name
            alike = [path for path, node in nodes if node.get('type') == local['obj_type'] and _is_in(path, part)]
            part = alike[0] if len(alike) == 1 else part
    return part or f'the {kind}'


def _is_in(path: str, part: str) -> bool:
    return not part or f'{path}.'.startswith(f'{part}.')


def _reason(problem: Exception, frames: Sequence[FrameType]) -> str:
    """What is wrong; in our words where MMEngine's do not help: unknown classes and keywords, and empty datasets."""
    if frames[-1].f_code.co_name == '_serialize_data':
        return 'the dataset is empty: there is no image, or none that shows one of its classes'
    text = in_words(problem)
    unknown = re.match(r'KeyError: (\S+) is not in the ', text)
    keyword = re.search(r"unexpected keyword argument '(\w+)'", text)
    for local in (frame.f_locals for frame in reversed(frames) if isinstance(frame.f_locals.get('registry'), Registry)):
        if unknown:
            return _unknown(unknown[1], local['registry'])
        if local.get('optimizer_cls', '') is None:  # MMEngine calls it, known or not
            return _unknown(local['self'].optimizer_cfg['type'], local['registry'])
        if keyword and 'obj_cls' in local:
            return text + did_you_mean(keyword[1], parameters_of(local['obj_cls']))
    return text


def _unknown(name: str, registry: Registry) -> str:
    """Says that a registry has no class of a name, and proposes similar names."""
    known: set[str] = set()
    ancestor: Registry | None = registry
    while ancestor is not None:
        known.update(ancestor.module_dict)
        ancestor = ancestor.parent
    scope_hint = '; should default_scope be mmdet or mmseg?' if registry.scope == 'mmengine' else ''
    return f'{registry.scope} has no {registry.name} called {name!r}{did_you_mean(name, known)}{scope_hint}'
