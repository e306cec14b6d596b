"""Times the InternImage backbone with the compiled operator (DCNv3) and with stock PyTorch operators (DCNv3_pytorch).

    python benchmarks/backbone.py --archs tiny --images 512x512 --dtypes float32 bfloat16
    python benchmarks/backbone.py --modes inference --compile no yes frozen
    python benchmarks/backbone.py --growth

Inference is a forward without gradients; a training step is forward, backward and AdamW. A frozen model is one compiled
with its weights as constants. Memory is the peak beyond what is there between two calls: weights, and in training the
optimizer's state. What does not fit into the memory is reported and left out, as long as the weights do.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from typing import Any

import measure
import torch
from torch import Tensor, nn
from torch._inductor import config as inductor_config

from mmcv_custom import InternImage
from mmcv_custom.models.arch import CORE_OPS, PRESETS

OURS, STOCK = CORE_OPS
GROWTH = [(256, 256), (512, 512), (1024, 1024), (2048, 2048)]


def build_pair(arch: str, core_ops: Sequence[str], device: str) -> dict[str, nn.Module]:
    """Backbones that share their parameters and differ in the operator."""
    torch.manual_seed(0)
    models: dict[str, nn.Module] = {}
    for core_op in core_ops:
        with torch.device('meta' if models else device):
            model = InternImage(arch, core_op=core_op)
        for first in models.values():
            model.load_state_dict(first.state_dict(keep_vars=True), assign=True)
        models[core_op] = model
    first = models[core_ops[0]]
    first.init_weights()
    for name, parameter in first.named_parameters():
        # Samples between the pixels, as of a trained model; a fresh one's are at whole pixels.
        if '.dcn.offset.bias' in name:
            nn.init.normal_(parameter)
    return models


def inference(model: nn.Module, images: Tensor, autocast: Callable[[], Any]) -> measure.Work:
    model.eval()

    def run() -> None:
        with torch.no_grad(), autocast():
            model(images)

    return run


def training_step(model: nn.Module, images: Tensor, autocast: Callable[[], Any]) -> measure.Work:
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)

    def run() -> None:
        with autocast():
            loss = sum(feature.float().square().mean() for feature in model(images))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return run


MODES = {'inference': inference, 'training': training_step}
LABELS = {'no': 'eager', 'yes': 'compiled', 'frozen': 'frozen'}


def measure_combination(
    arch: str, image: tuple[int, int], mode: str, dtype_name: str, compile: str, args: argparse.Namespace
) -> dict[str, Any]:
    """One row, of all operators in turn."""
    dtype = measure.DTYPES[dtype_name]

    def autocast() -> Any:
        return torch.autocast(args.device, dtype, enabled=dtype != torch.float32)

    row: dict[str, Any] = {
        'arch': arch,
        'image': f'{args.batch}x{image[0]}x{image[1]}',
        'pixels': args.batch * math.prod(image),
        'batch': args.batch,
        'mode': mode,
        'dtype': dtype_name,
        'compile': compile,
    }
    works: dict[str, measure.Work] = {}
    # Of torch.compile's options, freezing alone is read from the global configuration while the model is traced.
    with measure.limited_memory(args.device), inductor_config.patch(freezing=compile == 'frozen'):
        images = torch.randn(args.batch, 3, *image, device=args.device)
        for core_op, model in build_pair(arch, args.core_ops, args.device).items():
            called = model if compile == 'no' else torch.compile(model, fullgraph=True)
            work = MODES[mode](called, images, autocast)
            if measure.fits(work):
                works[core_op] = work
        row['seconds'] = measure.medians(works, args.device, args.runs, args.seconds)
        row['peak_bytes'] = {name: measure.peak_memory(work, args.device) for name, work in works.items()}
    torch.compiler.reset()
    return row


def tables(rows: Sequence[dict[str, Any]]) -> list[list[list[str]]]:
    """Images per second and memory of every combination; then how they grow, where one was run at several sizes."""
    names = list(dict.fromkeys(name for row in rows for name in row['seconds'])) or [OURS]
    head = ['backbone', 'images', 'mode', 'type', *(f'{name} images/s' for name in names), 'ratio']
    table = [[*head, *(f'MiB/image {name}' for name in names), 'ratio']]
    for row in rows:
        cells = [row['arch'], row['image'], row['mode'], f'{row["dtype"]}, {LABELS[row["compile"]]}']
        rates = {name: row['batch'] / seconds for name, seconds in row['seconds'].items()}
        peaks = {name: peak / row['batch'] / 2**20 for name, peak in row['peak_bytes'].items()}
        for values, form in ((rates, '.3g'), (peaks, '.0f')):
            cells += [format(values[name], form) if name in values else 'does not fit' for name in names]
            cells.append(f'{values[OURS] / values[STOCK]:.2f}x' if len(values) == 2 else '')
        table.append(cells)
    growth = [['growth with pixels', 'from', 'to', 'operator', 'exponent of time', 'exponent of memory']]
    for kind in dict.fromkeys((row['arch'], row['mode'], row['dtype'], LABELS[row['compile']]) for row in rows):
        mine = [row for row in rows if (row['arch'], row['mode'], row['dtype'], LABELS[row['compile']]) == kind]
        for name in names:
            fitting = [row for row in mine if name in row['seconds']]
            pixels = [row['pixels'] for row in fitting]
            if len(set(pixels)) < 3:
                continue
            powers = (
                measure.exponent(pixels, [row[what][name] for row in fitting]) for what in ('seconds', 'peak_bytes')
            )
            ends = (fitting[0]['image'], fitting[-1]['image'])
            growth.append([', '.join(kind), *ends, name, *(f'{power:.3f}' for power in powers)])
    return [table, growth] if len(growth) > 1 else [table]


def main() -> None:
    parser = argparse.ArgumentParser(description='Times the InternImage backbone.')
    parser.add_argument('--archs', nargs='+', choices=PRESETS, default=['tiny'])
    parser.add_argument('--images', nargs='+', type=measure.image_size, default=[(512, 512)], metavar='HxW')
    parser.add_argument('--growth', action='store_true', help='squares of 256, 512, 1024 and 2048 pixels instead')
    parser.add_argument('--batch', type=int, default=1, help='images per call (default %(default)s)')
    parser.add_argument('--modes', nargs='+', choices=MODES, default=list(MODES))
    parser.add_argument('--dtypes', nargs='+', choices=['float32', 'bfloat16', 'float16'], default=['float32'])
    parser.add_argument('--compile', nargs='+', choices=LABELS, default=['no'], help='by torch.compile')
    parser.add_argument('--core-ops', nargs='+', choices=CORE_OPS, default=[OURS, STOCK])
    measure.add_arguments(parser, seconds=5.0)
    args = parser.parse_args()
    if 'frozen' in args.compile and 'training' in args.modes:
        parser.error('--compile frozen is for --modes inference only: it makes the weights constants')
    machine = measure.start(args)
    rows = [
        measure_combination(arch, image, mode, dtype, compile, args)
        for arch in args.archs
        for mode in args.modes
        for dtype in args.dtypes
        for compile in args.compile
        for image in (GROWTH if args.growth else args.images)
    ]
    for table in tables(rows):
        print('\n' + measure.markdown(table))
    measure.save(args, machine, rows)


if __name__ == '__main__':
    main()
