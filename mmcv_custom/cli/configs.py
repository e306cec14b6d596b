"""Configs of the command line, and what can be wrong with them before MMEngine builds anything."""

from __future__ import annotations

import argparse
import inspect
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from ..datasets import sources
from ..engine.resume import newest_checkpoint as find_newest_checkpoint
from ..engine.runner import LauncherError, export_rank
from ..old_configs import old_config_hint
from ..texts import in_words
from .arguments import check_output_file, existing_file, make_folder
from .messages import did_you_mean, fail, user_errors_in_one_line

# The entries of a config that belong together: MMEngine needs all of a line or none.
LOOPS = {
    'train': ('train_dataloader', 'train_cfg', 'optim_wrapper'),
    'val': ('val_dataloader', 'val_cfg', 'val_evaluator'),
    'test': ('test_dataloader', 'test_cfg', 'test_evaluator'),
}

# The types of entries, and below the numbers, that MMEngine would only miss deep within its work.
KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(('model', *(key for keys in LOOPS.values() for key in keys)), (dict,)),
    **dict.fromkeys((f'{loop}_dataloader.{part}' for loop in LOOPS for part in ('dataset', 'sampler')), (dict,)),
    **dict.fromkeys(('val_evaluator', 'test_evaluator', 'param_scheduler'), (dict, list)),
    **dict.fromkeys(
        ('default_hooks', 'visualizer', 'env_cfg', 'randomness', 'log_processor', 'auto_scale_lr'), (dict,)
    ),
    **dict.fromkeys(('default_scope', 'work_dir', 'load_from', 'experiment_name'), (str,)),
    **dict.fromkeys(('resume', 'find_unused_parameters'), (bool,)),
    **dict.fromkeys(('default_hooks.checkpoint.interval', 'default_hooks.checkpoint.max_keep_ckpts'), (int,)),
    'custom_hooks': (list,),
    'compile': (dict, bool),
}

NAMES = {dict: 'a dict', list: 'a list', str: 'a text', bool: 'True or False', int: 'an int'}

COUNTS = ('train_cfg.max_iters', 'train_cfg.max_epochs', 'train_cfg.val_interval')

# What MMEngine's runner reads from a config besides the parameters of its constructor.
RUNNER_KEYS = {
    *('runner_type', 'model_wrapper_cfg', 'find_unused_parameters', 'sync_bn', 'compile', 'tta_model', 'tta_pipeline'),
    *('activation_checkpointing', 'efficient_conv_bn_eval'),
}

# Options of metrics and hooks that name a file, and those that name a folder, to write to.
OUTPUT_FILES = ('outfile_prefix', 'out_file_path')

OUTPUT_FOLDERS = ('output_dir', 'out_dir', 'save_dir')


def read_config(path: str, overrides: dict | None = None, debug: bool = False) -> Config:
    """The config in a file. Ends the program if it cannot be read, with the traceback if ``debug``."""
    existing_file(path, 'config file')
    overrides = overrides or {}
    if circle := _base_circle(path):
        fail(f'cannot read config {path}: it is its own base: {" -> ".join(map(os.path.relpath, circle))}')
    try:
        cfg = Config.fromfile(path)
    except (Exception, SystemExit) as problem:  # a config is a program: it can do anything
        if debug:
            raise
        fail(old_config_hint(path) or f'cannot read config {path}: {in_words(problem)}')
    if hint := old_config_hint(path, cfg):
        fail(hint)
    known = {*cfg, *RUNNER_KEYS, *parameters_of(Runner)}
    for key in overrides:
        if key.startswith('custom_imports') or key == 'launcher':  # MMEngine has imported what the file says
            fail(
                f'--cfg-options {key} has no effect: '
                + ('use --launcher' if key == 'launcher' else f'write it in {path}')
            )
        if (name := key.split('.')[0]) not in known:
            fail(f'--cfg-options {key}: neither {path} nor MMEngine has {name!r}{did_you_mean(name, known)}')
    try:
        cfg.merge_from_dict(overrides)
    except (AssertionError, IndexError, KeyError, TypeError, ValueError) as problem:
        if debug:
            raise
        fail(f'--cfg-options does not fit {path}: {in_words(problem)}')
    return cfg


def _base_circle(path: str, below: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The files of a circle of ``_base_`` that begins at a config or at one of its bases; empty if there is none.

    MMEngine follows a circle up to Python's recursion limit, which takes many seconds.

    Args:
        path: Config file.
        below: The files whose base it is, from the one that the user named.
    """
    file = os.path.realpath(path)
    if file in below:
        return (*below[below.index(file) :], file)
    try:
        bases = [Config._get_cfg_path(base, path)[0] for base in Config._get_base_files(path)]
    except (Exception, SystemExit):  # Config.fromfile meets the same, and the user is told there
        return ()
    return next(filter(None, (_base_circle(base, (*below, file)) for base in bases)), ())


def load_config(args: argparse.Namespace) -> Config:
    """The config named on the command line, with its overrides, launcher and work folder."""
    if args.work_dir == '':
        fail("--work-dir must name a folder, got ''")
    cfg = read_config(args.config, args.cfg_options, args.debug)
    if args.launcher != 'none':
        _check_launcher(args.launcher)
    cfg.launcher = args.launcher
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or str(Path('work_dirs', Path(args.config).stem))
    return cfg


def _check_launcher(launcher: str) -> None:
    """Ends the program if the launcher did not prepare the environment. Says that the processes will wait."""
    try:
        export_rank(launcher)
    except LauncherError as problem:
        fail(str(problem))
    address, port, size = (os.environ[name] for name in ('MASTER_ADDR', 'MASTER_PORT', 'WORLD_SIZE'))
    if int(size) < 1:
        fail(f'the number of processes, WORLD_SIZE in the environment, must be at least 1, got {size}')
    try:
        socket.getaddrinfo(address, port)
    except (OSError, UnicodeError) as problem:
        fail(f'MASTER_ADDR in the environment must be the address of the first machine, got {address}: {problem}')
    if int(size) > 1 and os.environ['LOCAL_RANK'] == '0':  # a line per machine
        waiting = f'process {os.environ["RANK"]} of {size} waits for the others at {address}:{port}'
        print(f'{waiting}; env_cfg.dist_cfg.timeout limits how long', flush=True)


def newest_checkpoint(work_dir: str, required: bool = True) -> str | None:
    """The newest checkpoint in ``work_dir`` that can be read. Ends the program if one is required and there is none."""
    with user_errors_in_one_line():
        newest = find_newest_checkpoint(work_dir)
    if newest is None and required:
        fail(f'nothing to resume: no checkpoint was saved in {work_dir}')
    return newest


def check_config(cfg: Config, loop: str) -> None:
    """Ends the program if the config lacks what a loop (``'train'`` or ``'test'``) needs."""
    for key in ('model', *LOOPS[loop]):
        if cfg.get(key) is None:
            fail(f'{cfg.filename} has no {key}, which {loop}.py needs')
    for keys in LOOPS.values():
        lacking = [key for key in keys if cfg.get(key) is None]
        if 0 < len(lacking) < len(keys):
            fail(f'{cfg.filename} has no {", ".join(lacking)}: {", ".join(keys)} belong together, all or none')
    check_kinds(cfg)
    for path in COUNTS if loop == 'train' else ():
        value = _entry(cfg, path)
        if path == 'train_cfg.val_interval' and cfg.get('val_cfg') is None:
            continue  # not used
        if value is not None and not (isinstance(value, int | float) and value >= 1 and value % 1 == 0):
            fail(f'{path} of {cfg.filename} must be a positive whole number, got {value!r}')
    norm = _entry(cfg, 'optim_wrapper.clip_grad.max_norm')
    if norm is not None and not (isinstance(norm, int | float) and norm > 0):
        fail(f'optim_wrapper.clip_grad.max_norm of {cfg.filename} must be a positive number, got {norm!r}')
    hook = _entry(cfg, 'default_hooks.checkpoint')
    if isinstance(hook, Mapping) and hook.get('type') == 'CheckpointHook':  # else noticed when it saves the first time
        known = {'type', 'priority', '_scope_'}.union(*map(parameters_of, (CheckpointHook, Runner.save_checkpoint)))
        for key in hook:
            if key not in known:
                fail(f'default_hooks.checkpoint of {cfg.filename} holds the unknown {key!r}{did_you_mean(key, known)}')
        template = hook.get('filename_tmpl')
        if template is not None and not _numbers_files(template):
            fail(
                f'default_hooks.checkpoint.filename_tmpl of {cfg.filename} must be a file name with a place for a'
                f' number, as in iter_{{}}.pth, got {template!r}'
            )


def _numbers_files(template: Any) -> bool:
    """Whether a template gives each number a file name of its own."""
    try:
        return template.format(1) != template.format(2)
    except (AttributeError, IndexError, KeyError, ValueError):
        return False


def check_kinds(cfg: Config) -> None:
    """Ends the program if an entry of the config has an impossible type."""
    for path, kinds in KINDS.items():
        if (value := _entry(cfg, path)) is not None and not isinstance(value, kinds):
            fail(f'{path} of {cfg.filename} must be {" or ".join(NAMES[kind] for kind in kinds)}, got {value!r}')


def check_paths(cfg: Config, *splits: str) -> None:
    """Ends the program if files of the splits (``'train'``, ``'val'``, ``'test'``) are not where the config says."""
    for split in splits:
        for source in sources(cfg, split):
            for path in source.paths():
                if '://' not in path and not os.path.exists(path):
                    fail(f'{path} does not exist: {source.key} of {cfg.filename} reads it')


def check_initial_weights(cfg: Config) -> None:
    """Ends the program if a checkpoint that training starts from is not there: ``load_from`` and every ``init_cfg``."""
    files = {} if cfg.get('load_from') is None else {'load_from': cfg.load_from}
    for path, node in entries_of(cfg.model, 'model'):
        if isinstance(node, Mapping) and node.get('type') == 'Pretrained' and 'checkpoint' in node:
            files[f'{path}.checkpoint'] = node['checkpoint']
    for key, checkpoint in files.items():
        if not isinstance(checkpoint, str):
            fail(f'{key} of {cfg.filename} must name a checkpoint, got {checkpoint!r}')
        existing_file(checkpoint, 'checkpoint', f' ({key} of {cfg.filename})')


def check_outputs(cfg: Config, loop: str) -> None:
    """Makes the work folder and all other folders that the config writes to. Ends the program if one is not writable.

    To be called last, so that other mistakes leave nothing behind.
    """
    evaluator = 'test_evaluator' if loop == 'test' else 'val_evaluator'
    for key in (evaluator, 'default_hooks', 'custom_hooks', 'visualizer'):
        for path, value in entries_of(cfg.get(key), key):
            option = path.rpartition('.')[2]
            if not isinstance(value, str) or '://' in value:
                continue
            if option in OUTPUT_FOLDERS:
                make_folder(value, f'{path} of {cfg.filename}')
            elif option in OUTPUT_FILES:
                check_output_file(
                    value + ('.segm.json' if option == 'outfile_prefix' else ''), f'{path} of {cfg.filename}'
                )
    make_folder(cfg.work_dir, 'work folder')


def use_tta(cfg: Config) -> None:
    """Makes a config test with test-time augmentation, with its ``tta_model`` and ``tta_pipeline``."""
    if not isinstance(cfg.get('tta_model'), Mapping) or not isinstance(cfg.get('tta_pipeline'), list):
        fail(f'--tta needs tta_model and tta_pipeline in {cfg.filename}')
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline


def parameters_of(function: Callable) -> Iterable[str]:
    return inspect.signature(function).parameters


def _entry(node: Any, path: str) -> Any:
    """The value at a path in a config; ``None`` if there is none."""
    for key in path.split('.'):
        node = node.get(key) if isinstance(node, Mapping | Config) else None
    return node


def entries_of(node: Any, path: str = '') -> Iterator[tuple[str, Any]]:
    """Everything in a config with its path, such as ``('model.backbone', {...})``; outer entries first."""
    yield path, node
    items = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list | tuple) else ()
    for key, value in items:
        yield from entries_of(value, f'{path}.{key}' if path else str(key))
