"""Times the compiled operator against the PyTorch reference, side by side in one process.

    python benchmarks/op.py --threads 2

Prints, per shape, the median time of a forward and of a forward with backward, and the reference's time over it; then
the geometric mean of these ratios. The shapes are the first stage of InternImage-T for an 800x1344 image, and its first
three for a batch of two 224x224 images. Only ratios can be compared between machines.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from ops_dcnv3 import dcnv3, dcnv3_reference, extension

# batch, height, width, groups, channels per group
SHAPES = [(1, 200, 336, 4, 16), (2, 56, 56, 4, 16), (2, 28, 28, 8, 16), (2, 14, 14, 16, 16)]


def make_inputs(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    batch, height, width, groups, group_channels = shape
    generator = torch.Generator().manual_seed(0)
    input = torch.randn(batch, height, width, groups * group_channels, generator=generator)
    offset = torch.randn(batch, height, width, groups * 9 * 2, generator=generator)
    mask = torch.randn(batch, height, width, groups, 9, generator=generator).softmax(-1).flatten(3)
    input, offset, mask = (t.to(dtype).requires_grad_() for t in (input, offset, mask))
    return input, offset, mask


def run_forward(operator: Callable[..., Tensor], tensors: tuple[Tensor, ...], groups: int) -> None:
    with torch.no_grad():
        operator(*tensors, 3, padding=1, groups=groups)


def run_both(operator: Callable[..., Tensor], tensors: tuple[Tensor, ...], groups: int) -> None:
    output = operator(*tensors, 3, padding=1, groups=groups)
    torch.autograd.grad(output, tensors, torch.ones_like(output))


def time_per_call(function: Callable[[], None], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        function()
    return (time.perf_counter() - start) / calls


def interleaved_medians(first: Callable[[], None], second: Callable[[], None], seconds: float) -> tuple[float, float]:
    """Median times per call of two functions, measured in turn for some time, so that both see the same machine.

    A turn is a block of calls, about a twentieth of a second: the second function shall not meet the caches and the
    allocator as the first leaves them.
    """
    functions = (first, second)
    calls = [max(1, int(0.05 / time_per_call(function, 3))) for function in functions]
    times: tuple[list[float], list[float]] = ([], [])
    end = time.perf_counter() + seconds
    while len(times[0]) < 5 or time.perf_counter() < end:
        for function, number, record in zip(functions, calls, times, strict=True):
            function()
            record.append(time_per_call(function, number))
    return statistics.median(times[0]), statistics.median(times[1])


def main() -> None:
    parser = argparse.ArgumentParser(description='Times the compiled operator against the PyTorch reference.')
    parser.add_argument('--threads', type=int, default=2, help='threads of torch (default %(default)s)')
    parser.add_argument('--dtype', choices=['float32', 'float64', 'bfloat16', 'float16'], default='float32')
    parser.add_argument('--seconds', type=float, default=2.0, help='time per row and direction (default %(default)s)')
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    built = extension.describe()['cpu']
    if built is None:
        raise SystemExit(f'The operator is not compiled. To build it: {extension.BUILD_COMMAND}')
    print(f'torch {torch.__version__}, {args.threads} threads, {args.dtype}, {built["isa"]}')
    columns = [f'{name:>10} {"reference":>10} {"ratio":>6}' for name in ('forward', 'both ways')]
    print(f'{"shape":>24} {"   ".join(columns)}')
    ratios: tuple[list[float], list[float]] = ([], [])
    for shape in SHAPES:
        tensors = make_inputs(shape, getattr(torch, args.dtype))
        row = f'{shape!s:>24}'
        for run, record in zip((run_forward, run_both), ratios, strict=True):
            ours, theirs = interleaved_medians(
                lambda run=run: run(dcnv3, tensors, shape[3]),  # noqa: B023
                lambda run=run: run(dcnv3_reference, tensors, shape[3]),  # noqa: B023
                args.seconds,
            )
            record.append(theirs / ours)
            row += f' {1e3 * ours:>7.2f} ms {1e3 * theirs:>7.1f} ms {theirs / ours:>5.1f}x  '
        print(row)
    means = [math.exp(statistics.fmean(map(math.log, record))) for record in ratios]
    print(f'geometric mean: forward {means[0]:.1f}x, forward and backward {means[1]:.1f}x')


if __name__ == '__main__':
    main()
