"""Times DCNv3_1d over sequences beside self-attention and a depth-wise convolution, and how each grows with the length.

    python benchmarks/sequence.py
    python benchmarks/sequence.py --lengths 1024 4096 16384 --device cuda --dtype bfloat16

All three map (N, L, C) to (N, L, C). Attention is torch.nn.MultiheadAttention without returned weights. A contestant is
left out where one call would take longer than --limit, by the growth of its times so far, or does not fit into memory;
the table says which.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import measure
import torch
from torch import Tensor, nn

from ops_dcnv3 import DCNv3_1d

OURS = 'DCNv3_1d'


class Attention(nn.MultiheadAttention):
    """Self-attention of one argument."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x, x, x, need_weights=False)[0]


class Convolution(nn.Conv1d):
    """A depth-wise convolution of channels-last sequences."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


def build_layers(channels: int, groups: int, kernel: int) -> dict[str, nn.Module]:
    torch.manual_seed(0)
    ours = DCNv3_1d(channels, groups, kernel)
    nn.init.normal_(ours.offset.bias)  # samples between the positions, as of a trained layer
    return {
        OURS: ours,
        'attention': Attention(channels, groups, batch_first=True),
        'conv1d': Convolution(channels, channels, kernel, padding=kernel // 2, groups=channels),
    }


def inference(layer: nn.Module, x: Tensor) -> measure.Work:
    def run() -> None:
        with torch.no_grad():
            layer(x)

    return run


def training(layer: nn.Module, x: Tensor) -> measure.Work:
    grad_output = torch.ones_like(x)
    wanted = (x.requires_grad_(), *layer.parameters())

    def run() -> None:
        torch.autograd.grad(layer(x), wanted, grad_output)

    return run


MODES: dict[str, Callable[[nn.Module, Tensor], measure.Work]] = {'forward': inference, 'forward + backward': training}


def measure_mode(mode: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """One row per length."""
    dtype = measure.DTYPES[args.dtype]
    layers = build_layers(args.channels, args.groups, args.kernel)
    layers = {name: layer.to(args.device, dtype) for name, layer in layers.items()}
    rows: list[dict[str, Any]] = []
    for length in args.lengths:
        x = torch.randn(args.batch, length, args.channels).to(args.device, dtype)
        works: dict[str, measure.Work] = {}
        peaks: dict[str, int] = {}
        stopped: dict[str, str] = {}
        for name, layer in layers.items():
            if (expected := foretold(rows, name, length)) > args.limit:
                stopped[name] = f'about {expected:.2g} s'
                continue
            with measure.limited_memory(args.device):
                work = MODES[mode](layer, x.clone())
                if measure.fits(work):
                    peaks[name] = measure.peak_memory(work, args.device)
                    works[name] = work
                else:
                    stopped[name] = 'does not fit'
        rows.append(
            {
                'mode': mode,
                'length': length,
                'seconds': measure.medians(works, args.device, args.runs, args.seconds),
                'peak_bytes': peaks,
                'stopped': stopped,
                'layer': f'{args.dtype}, batch {args.batch}, {args.channels} channels, {args.groups} groups or heads, '
                f'kernel {args.kernel}',
            }
        )
    return rows


def foretold(rows: Sequence[dict[str, Any]], name: str, length: int) -> float:
    """Seconds of a call, by the growth between the last two lengths that were measured; 0 before there are two."""
    known = [(row['length'], row['seconds'][name]) for row in rows if name in row['seconds']][-2:]
    if len(known) < 2:
        return 0.0
    lengths, seconds = zip(*known, strict=True)
    return seconds[-1] * (length / lengths[-1]) ** measure.exponent(lengths, seconds)


def tables(rows: Sequence[dict[str, Any]]) -> list[list[list[str]]]:
    """Times and memory by length, and below them the power of the length with which they grow, per mode."""
    found = []
    for mode in dict.fromkeys(row['mode'] for row in rows):
        mine = [row for row in rows if row['mode'] == mode]
        names = list(mine[0]['seconds'])
        head = [f'{mode}: {mine[0]["layer"]}', *(f'{name} ms' for name in names), *(f'{name} MiB' for name in names)]
        table = [head]
        for row in mine:
            times = [f'{1e3 * row["seconds"][n]:.2f}' if n in row['seconds'] else row['stopped'][n] for n in names]
            peaks = [f'{row["peak_bytes"][n] / 2**20:.1f}' if n in row['peak_bytes'] else '' for n in names]
            table.append([f'L = {row["length"]}', *times, *peaks])
        last = ['exponent']
        for what in ('seconds', 'peak_bytes'):
            for name in names:
                points = [(row['length'], row[what][name]) for row in mine if name in row[what]]
                last.append(f'{measure.exponent(*zip(*points, strict=True)):.2f}' if len(points) > 1 else '')
        found.append([*table, last])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description='Times DCNv3_1d, self-attention and a depth-wise convolution.')
    parser.add_argument('--lengths', nargs='+', type=int, default=[256, 1024, 4096, 16384, 65536], metavar='L')
    parser.add_argument('--batch', type=int, default=1)
    parser.add_argument('--channels', type=int, default=256)
    parser.add_argument('--groups', type=int, default=8, help='of DCNv3_1d, and heads of the attention')
    parser.add_argument('--kernel', type=int, default=9, help='points of DCNv3_1d, and kernel of the convolution')
    parser.add_argument('--dtype', choices=measure.DTYPES, default='float32')
    parser.add_argument(
        '--limit', type=float, default=20.0, help='most seconds that one call may take (default %(default)s)'
    )
    measure.add_arguments(parser, seconds=1.0)
    args = parser.parse_args()
    args.lengths.sort()
    machine = measure.start(args)
    rows = [row for mode in MODES for row in measure_mode(mode, args)]
    for table in tables(rows):
        print('\n' + measure.markdown(table))
    measure.save(args, machine, rows)


if __name__ == '__main__':
    main()
