"""What the tools share: common arguments, loading configs, and one clear line for a user's mistake."""

from __future__ import annotations

import argparse
import inspect
import os
import re
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from tempfile import TemporaryFile
from textwrap import shorten
from traceback import walk_tb
from types import FrameType
from typing import Any, NoReturn
from urllib.parse import urlsplit

from mmengine.config import Config, ConfigDict, DictAction
from mmengine.hooks import CheckpointHook
from mmengine.registry import RUNNERS, Registry
from mmengine.runner import CheckpointLoader, Runner
from torch.distributed import DistError

from .checkpoint import CheckpointError
from .engine.resume import newest_checkpoint as find_newest_checkpoint
from .engine.runner import LAUNCHERS, LauncherError, PortableRunner, export_rank

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


def fail(message: str) -> NoReturn:
    """Ends the program with one line on stderr and exit code 1."""
    raise SystemExit(f'error: {" ".join(message.split())}')


def in_words(problem: BaseException) -> str:
    """Type and text of an exception in at most 400 characters: MMEngine's texts can hold whole configs."""
    text = problem.args[0] if isinstance(problem, KeyError) and problem.args else problem  # str() would quote it
    return shorten(f'{type(problem).__name__}: {text}', 400, placeholder=' ...').removesuffix(':')


@contextmanager
def checkpoint_errors_in_one_line() -> Iterator[None]:
    """Inside this context a checkpoint that cannot be used ends the program, like :func:`fail`."""
    try:
        yield
    except CheckpointError as problem:
        raise SystemExit(f'error: {" ".join(str(problem).split())}') from problem


class Parser(argparse.ArgumentParser):
    """argparse's parser, which answers mistakes like :func:`fail`."""

    def error(self, message: str) -> NoReturn:
        """Ends the program. Called by argparse."""
        fail(f'{message}; --help explains the arguments')


class Overrides(DictAction):
    """MMEngine's action of ``--cfg-options``, which refuses what MMEngine would misread."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Adds KEY=VALUE pairs to the namespace. Called by argparse."""
        for pair in values:
            key, equals, value = pair.partition('=')
            if not equals or not all(key.split('.')):
                raise argparse.ArgumentError(self, f'expected KEY=VALUE, as in train_cfg.max_iters=9, got {pair!r}')
            if value.count('(') != value.count(')') or value.count('[') != value.count(']'):
                raise argparse.ArgumentError(self, f'brackets must be closed, got {pair!r}')
            if re.search(r'[^\s,(\[]\s+[^\s,)\]]', value):
                raise argparse.ArgumentError(
                    self, f'MMEngine would drop the space in {pair!r}: write this value in the config file'
                )
        super().__call__(parser, namespace, values, option_string)


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments ``config``, ``--cfg-options`` and ``--debug``."""
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=Overrides,
        metavar='KEY=VALUE',
        help='entries of the config to override, as in optim_wrapper.optimizer.lr=1e-4',
    )
    parser.add_argument('--debug', action='store_true', help='print the traceback of every error')


def new_parser(description: str) -> argparse.ArgumentParser:
    """A parser of the arguments that train.py and test.py share."""
    parser = Parser(description=description)
    add_config_arguments(parser)
    parser.add_argument(
        '--work-dir', help='folder of logs and checkpoints (default: work_dir of the config, else work_dirs/<its name>)'
    )
    parser.add_argument(
        '--launcher', choices=['none', *LAUNCHERS], default='none', help='what started this process (%(default)s)'
    )
    return parser


def read_config(path: str, overrides: dict | None = None, debug: bool = False) -> Config:
    """The config in a file. Ends the program if it cannot be read, with the traceback if ``debug``."""
    existing_file(path, 'config file')
    overrides = overrides or {}
    try:
        cfg = Config.fromfile(path)
    except (Exception, SystemExit) as problem:  # a config is a program: it can do anything
        if debug:
            raise
        looped = '; is it its own base?' if isinstance(problem, RecursionError) else ''
        raise SystemExit(f'error: cannot read config {path}: {in_words(problem)}{looped}') from problem
    known = {*cfg, *RUNNER_KEYS, *_parameters(Runner)}
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
        raise SystemExit(f'error: --cfg-options does not fit {path}: {in_words(problem)}') from problem
    return cfg


def _parameters(function: Callable) -> Iterable[str]:
    return inspect.signature(function).parameters


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of an error text that proposes similar names, if there are any."""
    close = get_close_matches(name, known)
    return f'; did you mean {" or ".join(close)}?' if close else ''


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


def existing_file(path: str, what: str, source: str = '') -> str:
    """``path``. Ends the program if it is a local path and there is no such file, or an impossible URL.

    Args:
        path: File or URL.
        what: What it is, for the error text.
        source: Where it is named, for the end of the error text.
    """
    if '://' in path:
        _check_url(path, what, source)
    elif not os.path.isfile(os.path.expanduser(path)):
        fail(f'there is no {what} {path or repr(path)}{": it is a folder" if os.path.isdir(path) else ""}{source}')
    return path


def _check_url(url: str, what: str, source: str) -> None:
    schemes = [prefix for prefix in CheckpointLoader._schemes if prefix]
    if not any(re.match(prefix, url) for prefix in schemes):
        fail(f'{what} {url}: expected a file, or a URL that begins with https:// or http://{source}')
    if url.startswith(('http://', 'https://')):
        try:
            parts = urlsplit(url)
            complete = parts.hostname and Path(parts.path).name and (parts.port or True) and not re.search(r'\s', url)
        except ValueError:  # brackets that are not closed, a port that is no number
            complete = False
        if not complete:
            fail(f'{what} {url}: expected a URL with a host and a file, as in https://host/file.pth{source}')


def newest_checkpoint(work_dir: str, required: bool = True) -> str | None:
    """The newest checkpoint in ``work_dir`` that can be read. Ends the program if one is required and there is none."""
    with checkpoint_errors_in_one_line():
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
        if value is not None and not (isinstance(value, int | float) and value >= 1 and value % 1 == 0):
            fail(f'{path} of {cfg.filename} must be a positive whole number, got {value!r}')
    norm = _entry(cfg, 'optim_wrapper.clip_grad.max_norm')
    if norm is not None and not (isinstance(norm, int | float) and norm > 0):
        fail(f'optim_wrapper.clip_grad.max_norm of {cfg.filename} must be a positive number, got {norm!r}')
    hook = _entry(cfg, 'default_hooks.checkpoint')
    if isinstance(hook, Mapping) and hook.get('type') == 'CheckpointHook':  # else noticed when it saves the first time
        known = {'type', 'priority', '_scope_'}.union(*map(_parameters, (CheckpointHook, Runner.save_checkpoint)))
        for key in hook:
            if key not in known:
                fail(f'default_hooks.checkpoint of {cfg.filename} holds the unknown {key!r}{did_you_mean(key, known)}')


def check_kinds(cfg: Config) -> None:
    """Ends the program if an entry of the config has an impossible type."""
    for path, kinds in KINDS.items():
        if (value := _entry(cfg, path)) is not None and not isinstance(value, kinds):
            fail(f'{path} of {cfg.filename} must be {" or ".join(NAMES[kind] for kind in kinds)}, got {value!r}')


def check_data(cfg: Config, *splits: str) -> None:
    """Ends the program if files of the splits (``'train'``, ``'val'``, ``'test'``) are not where the config says."""
    for split in splits:
        for path in _data_paths((cfg.get(f'{split}_dataloader') or {}).get('dataset') or {}):
            if '://' not in path and not os.path.exists(path):
                fail(f'{path} does not exist: {split}_dataloader.dataset of {cfg.filename} reads it')


def _data_paths(dataset: Any) -> Iterator[str]:
    """The files and folders that a dataset config reads, including those of the datasets that it wraps."""
    if not isinstance(dataset, Mapping):
        return
    for wrapped in [dataset.get('dataset'), *dataset.get('datasets', [])]:
        yield from _data_paths(wrapped)
    prefixes = dataset.get('data_prefix')
    for path in [dataset.get('ann_file'), *(prefixes.values() if isinstance(prefixes, Mapping) else [prefixes])]:
        if path and isinstance(path, str):
            yield os.path.join(str(dataset.get('data_root') or ''), path)


def check_initial_weights(cfg: Config) -> None:
    """Ends the program if a checkpoint that training starts from is not there: ``load_from`` and every ``init_cfg``."""
    sources = {} if cfg.get('load_from') is None else {'load_from': cfg.load_from}
    for path, node in _entries(cfg.model, 'model'):
        if isinstance(node, Mapping) and node.get('type') == 'Pretrained' and 'checkpoint' in node:
            sources[f'{path}.checkpoint'] = node['checkpoint']
    for key, checkpoint in sources.items():
        if not isinstance(checkpoint, str):
            fail(f'{key} of {cfg.filename} must name a checkpoint, got {checkpoint!r}')
        existing_file(checkpoint, 'checkpoint', f' ({key} of {cfg.filename})')


def check_outputs(cfg: Config, loop: str) -> None:
    """Makes the work folder and all other folders that the config writes to. Ends the program if one is not writable.

    To be called last, so that other mistakes leave nothing behind.
    """
    evaluator = 'test_evaluator' if loop == 'test' else 'val_evaluator'
    for key in (evaluator, 'default_hooks', 'custom_hooks', 'visualizer'):
        for path, value in _entries(cfg.get(key), key):
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


def make_folder(path: str, what: str) -> None:
    """Makes a folder. Ends the program if this or writing a file there fails, with ``what`` in the error text."""
    if os.path.exists(path) and not os.path.isdir(path):
        fail(f'{what} {path}: it is no folder; name another one')
    try:
        os.makedirs(path, exist_ok=True)
        with TemporaryFile(dir=path) as file:
            file.write(bytes(4096))  # on a full disk there is place for an empty file
    except OSError as problem:
        fail(f'{what} {path}: cannot write there: {problem.strerror}; name another folder')


def check_output_file(path: str, what: str) -> None:
    """Makes the folder of a file to be written later. Ends the program if the file cannot be opened."""
    make_folder(os.path.dirname(path) or '.', f'folder of {what}')
    is_new = not os.path.exists(path)
    try:
        with open(path, 'ab'):
            pass
        if is_new:
            Path(path).unlink(missing_ok=True)  # another process may have done it
    except OSError as problem:
        fail(f'{what} {path}: cannot write it: {problem.strerror}; name another file')


def use_tta(cfg: Config) -> None:
    """Makes a config test with test-time augmentation, with its ``tta_model`` and ``tta_pipeline``."""
    if not isinstance(cfg.get('tta_model'), Mapping) or not isinstance(cfg.get('tta_pipeline'), list):
        fail(f'--tta needs tta_model and tta_pipeline in {cfg.filename}')
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline


def build_runner(cfg: Config) -> Runner:
    """The runner of a config: its ``runner_type``, by default :class:`mmcv_custom.engine.PortableRunner`."""
    return RUNNERS.build(cfg) if 'runner_type' in cfg else PortableRunner.from_cfg(cfg)


@contextmanager
def mistakes_in_one_line(cfg: Config, debug: bool = False) -> Iterator[None]:
    """Inside this context a mistake of the user ends the program like :func:`fail`; ``debug`` prints the traceback too.

    A mistake is a checkpoint that cannot be used, an environment without the other processes, or what MMEngine cannot
    build from the config. Any other error is ours and passes.
    """
    try:
        yield
    except Exception as problem:
        text = _mistake(problem, cfg)
        if debug or text is None:
            raise
        raise SystemExit(f'error: {" ".join(text.split())}') from problem


def _mistake(problem: Exception, cfg: Config) -> str | None:
    """The user's mistake that led to an exception, in words; ``None`` if it is not known to be one."""
    if isinstance(problem, CheckpointError | LauncherError):
        return str(problem)
    frames = [frame for frame, _ in walk_tb(problem.__traceback__)]
    places = [(str(frame.f_globals.get('__name__')), frame.f_code.co_name) for frame in frames]
    if isinstance(problem, DistError) or ('torch.distributed.distributed_c10d', 'init_process_group') in places:
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
    entries = [entry for entry in _entries(cfg._cfg_dict) if not entry[0].startswith(unused)]
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


def _entry(node: Any, path: str) -> Any:
    """The value at a path in a config; ``None`` if there is none."""
    for key in path.split('.'):
        node = node.get(key) if isinstance(node, Mapping | Config) else None
    return node


def _entries(node: Any, path: str = '') -> Iterator[tuple[str, Any]]:
    """Everything in a config with its path, such as ``('model.backbone', {...})``; outer entries first."""
    yield path, node
    items = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list | tuple) else ()
    for key, value in items:
        yield from _entries(value, f'{path}.{key}' if path else str(key))


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
        return in_words(problem) + did_you_mean(keyword[1], _parameters(built_class))
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


def table(rows: Iterable[Sequence[Any]]) -> str:
    """Rows of cells as lines of text with aligned columns."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ('  '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)
    return '\n'.join(line.rstrip() for line in lines)
