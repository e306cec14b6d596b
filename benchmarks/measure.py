"""How the benchmarks measure: times taken in turn, peak memory, the machine, and the files that hold the results."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import math
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from ops_dcnv3 import __version__, extension

DTYPES = {'float32': torch.float32, 'float64': torch.float64, 'bfloat16': torch.bfloat16, 'float16': torch.float16}
Work = Callable[[], object]


def add_machine_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that all benchmarks share."""
    parser.add_argument('--device', choices=['cpu', 'cuda'], default='cpu')
    parser.add_argument('--threads', type=int, default=2, help='threads of torch on the CPU (default %(default)s)')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the results there, for report.py')


def add_arguments(parser: argparse.ArgumentParser, seconds: float) -> None:
    """Those and the ones of benchmarks that take medians."""
    add_machine_arguments(parser)
    parser.add_argument('--runs', type=int, default=5, help='least number of runs of a median (default %(default)s)')
    parser.add_argument(
        '--seconds', type=float, default=seconds, help='least time of all runs of a row (default %(default)s)'
    )


def image_size(text: str) -> tuple[int, int]:
    """(height, width) of an option such as 800x1344."""
    height, _, width = text.partition('x')
    return int(height), int(width)


def time_per_call(work: Work, calls: int, device: str) -> float:
    """Seconds per call; on a GPU by its own clock, from the first call's start to the last one's end."""
    if device == 'cuda':
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for _ in range(calls):
            work()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3 / calls
    begin = time.perf_counter()
    for _ in range(calls):
        work()
    return (time.perf_counter() - begin) / calls


def with_threads(number: int, work: Work) -> Work:
    """The same on another number of torch's threads."""

    def run() -> None:
        before = torch.get_num_threads()
        torch.set_num_threads(number)
        try:
            work()
        finally:
            torch.set_num_threads(before)

    return run


def medians(works: Mapping[str, Work], device: str, runs: int = 5, seconds: float = 0.0) -> dict[str, float]:
    """Median seconds per call of several functions, measured in turn, so that all see the same machine.

    A turn of a function is one call that is not measured and then a block of calls, about a twentieth of a second: it
    shall not meet the caches and the allocator as its predecessor leaves them.
    """
    for work in works.values():
        work()
    calls = {name: max(1, int(0.05 / time_per_call(work, 1, device))) for name, work in works.items()}
    times: dict[str, list[float]] = {name: [] for name in works}
    begin = time.perf_counter()
    for turn in range(10**9):
        if turn >= runs and time.perf_counter() - begin >= seconds:
            break
        for name, work in works.items():
            work()
            times[name].append(time_per_call(work, calls[name], device))
    return {name: statistics.median(values) for name, values in times.items()}


def peak_memory(work: Work, device: str) -> int:
    """Most bytes of tensors that are alive at once during a call, beyond those alive before it.

    On the CPU by torch's own record of its allocations: exact, but blind to buffers of libraries.
    """
    if device == 'cuda':
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with _without_stderr(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        work()
    events = [e for e in record.profiler.kineto_results.events() if e.name() == '[memory]']
    alive = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        alive += event.nbytes()
        peak = max(peak, alive)
    return peak


@contextlib.contextmanager
def _without_stderr() -> Iterator[None]:
    """The profiler's library logs each start and stop there, past Python."""
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)


@contextlib.contextmanager
def limited_memory(device: str) -> Iterator[None]:
    """Lets torch fail to allocate what is not there, before the system kills the process for it."""
    if device == 'cuda':
        yield
        return
    lines = Path('/proc/meminfo').read_text().splitlines()
    available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith('MemAvailable'))
    before = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (_data_size() + int(0.9 * available), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def _data_size() -> int:
    """Bytes that the limit counts already."""
    pages = int(Path('/proc/self/statm').read_text().split()[5])
    return pages * resource.getpagesize()


def fits(work: Work) -> bool:
    """Whether a call finds the memory that it needs."""
    try:
        work()
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
            return False
        raise
    return True


def describe_machine(args: argparse.Namespace) -> str:
    """One line: processor, threads, torch and the operator's build."""
    built = extension.describe()
    if built[args.device] is None or built[args.device].get('loaded') is False:
        raise SystemExit(f'The operator is not compiled for {args.device}. To build it: {extension.BUILD_COMMAND}')
    if args.device == 'cuda':
        name, kernel = torch.cuda.get_device_name(), f'CUDA {torch.version.cuda}'
    else:
        threads = '1 thread' if args.threads == 1 else f'{args.threads} threads'
        name, kernel = f'{_processor()}, {threads}', built['cpu']['isa']
    return f'{name}, torch {torch.__version__}, ops_dcnv3 {__version__} ({kernel})'


def _processor() -> str:
    with contextlib.suppress(FileNotFoundError):
        for line in Path('/proc/cpuinfo').read_text().splitlines():
            if line.startswith('model name'):
                return line.partition(':')[2].strip()
    return platform.machine()


def start(args: argparse.Namespace) -> str:
    """Sets the threads, prints the machine's line and returns it."""
    torch.set_num_threads(args.threads)
    machine = describe_machine(args)
    print(machine)
    return machine


def save(args: argparse.Namespace, machine: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes the rows, with the machine and the command that made them, to ``--json`` if that was given."""
    if args.json is None:
        return
    program = Path(sys.argv[0])
    result = {
        'benchmark': program.stem,
        'command': ' '.join(['python', f'benchmarks/{program.name}', *sys.argv[1:]]),
        'machine': machine,
        'date': datetime.date.today().isoformat(),
        'rows': list(rows),
    }
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(result, indent=1) + '\n')


def exponent(pixels: Sequence[float], values: Sequence[float]) -> float:
    """The power of ``pixels`` with which ``values`` grow, by least squares on the logarithms."""
    return statistics.linear_regression([math.log(p) for p in pixels], [math.log(v) for v in values]).slope


def markdown(table: Sequence[Sequence[str]]) -> str:
    """A table of cells, the first row its head, as Markdown that can be read as it is; numbers to the right."""
    widths = [max(3, *map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for first, *rest in table:
        numbers = (f'{cell:>{width}}' for cell, width in zip(rest, widths[1:], strict=True))
        lines.append(' | '.join([f'{first:<{widths[0]}}', *numbers]))
    rule = '|'.join(['-' * (widths[0] + 2), *('-' * (width + 1) + ':' for width in widths[1:])])
    return '\n'.join([f'| {lines[0]} |', f'|{rule}|', *(f'| {line} |' for line in lines[1:])])
