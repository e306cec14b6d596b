"""Times the linear layers of a backbone in the layout of ops_dcnv3.layers.Linear beside nn.Linear.

    python benchmarks/linear.py
    python benchmarks/linear.py --archs tiny large --images 512x512 800x1344 --dtypes float32

The layers are those of one block per stage: the projections of DCNv3, its offsets and masks, and the MLP.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

import measure
import torch
from op import POINTS, milliseconds, stages
from torch import nn

from mmcv_custom.models.arch import PRESETS
from ops_dcnv3.layers import Linear

OURS, STOCK = 'Linear', 'nn.Linear'
Layer = tuple[int, int, int, int]  # height, width, input channels, output channels


def layers(arch: str, image: tuple[int, int]) -> Iterable[Layer]:
    ratio = PRESETS[arch].mlp_ratio
    for shape in stages(arch, *image):
        channels = shape.groups * shape.group_channels
        samples, hidden = shape.groups * POINTS, int(channels * ratio)
        for inputs, outputs in (
            (channels, channels), (channels, 2 * samples), (channels, samples), (channels, hidden), (hidden, channels)
        ):  # fmt: skip
            yield shape.height, shape.width, inputs, outputs


def measure_layer(
    layer: tuple[int, int, int, int], dtype_name: str, args: argparse.Namespace
) -> Iterable[dict[str, Any]]:
    """Two rows, of the forward and of forward and backward."""
    height, width, inputs, outputs = layer
    dtype = measure.DTYPES[dtype_name]
    x = torch.randn(1, height, width, inputs, dtype=dtype, requires_grad=True)
    grad_output = torch.randn(1, height, width, outputs, dtype=dtype)
    stock, ours = (cls(inputs, outputs, dtype=dtype) for cls in (nn.Linear, Linear))
    ours.load_state_dict(stock.state_dict())

    def forward(module: nn.Module) -> None:
        with torch.no_grad():
            module(x)

    def both(module: nn.Module) -> None:
        torch.autograd.grad(module(x), (x, *module.parameters()), grad_output)

    for name, work in (('forward', forward), ('forward + backward', both)):
        works: dict[str, measure.Work] = {
            OURS: lambda work=work: work(ours),
            STOCK: lambda work=work: work(stock),
        }
        yield {
            'layer': f'{height}x{width}, {inputs} to {outputs}',
            'dtype': dtype_name,
            'pass': name,
            'operations': 2 * height * width * inputs * outputs,
            'seconds': measure.medians(works, 'cpu', args.runs, args.seconds),
        }


def tables(rows: Sequence[dict[str, Any]]) -> list[list[list[str]]]:
    """One table per dtype and pass: times, and how much longer nn.Linear takes."""
    found = []
    for kind in dict.fromkeys((row['dtype'], row['pass']) for row in rows):
        mine = [row for row in rows if (row['dtype'], row['pass']) == kind]
        ratios = [row['seconds'][STOCK] / row['seconds'][OURS] for row in mine]
        speed = ['GFLOP/s of the forward'] if kind[1] == 'forward' else []
        table = [[', '.join(kind), OURS, STOCK, *(f'{what}: {name}' for what in speed for name in (OURS, STOCK))]]
        for row, ratio in zip(mine, ratios, strict=True):
            ours, stock = row['seconds'][OURS], row['seconds'][STOCK]
            rates = [f'{row["operations"] / seconds / 1e9:.0f}' for _ in speed for seconds in (ours, stock)]
            table.append([row['layer'], milliseconds(ours), f'{milliseconds(stock)} ({ratio:.2f}x)', *rates])
        mean = f'{statistics.geometric_mean(ratios):.2f}x'
        found.append([*table, ['geometric mean', '', mean] + [''] * (2 * len(speed))])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description='Times the linear layers of a backbone on the CPU.')
    parser.add_argument('--archs', nargs='+', choices=PRESETS, default=['tiny'])
    parser.add_argument('--images', nargs='+', type=measure.image_size, default=[(512, 512)], metavar='HxW')
    parser.add_argument('--dtypes', nargs='+', choices=['float32', 'bfloat16'], default=['float32'])
    measure.add_arguments(parser, seconds=0.5)
    args = parser.parse_args()
    machine = measure.start(args)
    found = dict.fromkeys(layer for arch in args.archs for image in args.images for layer in layers(arch, image))
    rows = [row for dtype in args.dtypes for layer in found for row in measure_layer(layer, dtype, args)]
    for table in tables(rows):
        print('\n' + measure.markdown(table))
    measure.save(args, machine, rows)


if __name__ == '__main__':
    main()
