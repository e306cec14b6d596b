"""Times the DCNv3 operator beside the alternatives: the PyTorch reference, mmcv's deformable convolution, a plain
depth-wise convolution, and a copy of the bytes that the operator must move, which is the least any such operator takes.

    python benchmarks/op.py
    python benchmarks/op.py --shapes tiny large --images 512x512 800x1344 --dtypes float32 bfloat16 --json op.json

On a GPU the official DCNv3 and DCNv4 extensions take part where they are installed. Everything that samples is first
checked to give the same result. Only ratios can be compared between machines.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import measure
import torch
import torch.nn.functional as F
from torch import Tensor

from mmcv_custom.models.arch import PRESETS
from ops_dcnv3 import dcnv3, dcnv3_reference

KERNEL, POINTS = 3, 9
OURS = 'dcnv3'


@dataclass(frozen=True)
class Shape:
    """An output of the operator."""

    batch: int
    height: int
    width: int
    groups: int
    group_channels: int

    def __str__(self) -> str:
        return f'{self.batch}x{self.height}x{self.width}, {self.groups}x{self.group_channels}'

    def bytes_moved(self, element_size: int, backward: bool) -> int:
        """Bytes that must be read and written when each is touched once, without what a backward adds up twice."""
        pixels = self.batch * self.height * self.width
        features, samples = pixels * self.groups * self.group_channels, pixels * self.groups * POINTS
        forward = 2 * features + 3 * samples  # input, output; x, y and weight of each sample
        # Reads the output's gradient, the input and the samples; writes gradients of the last two.
        return element_size * (forward + backward * (3 * features + 6 * samples))


FEW = (Shape(1, 200, 336, 4, 16), Shape(2, 56, 56, 4, 16), Shape(2, 28, 28, 8, 16), Shape(2, 14, 14, 16, 16))
# The shapes on which DCNv4's authors compare operators.
DCNV4 = (
    Shape(64, 56, 56, 4, 32),
    Shape(64, 28, 28, 8, 32),
    Shape(64, 14, 14, 16, 32),
    Shape(64, 7, 7, 32, 32),
    Shape(1, 200, 320, 4, 16),
)


def stages(arch: str, height: int, width: int) -> Iterable[Shape]:
    """The four stages of a published backbone for one image."""
    preset = PRESETS[arch]
    for stage, (channels, groups) in enumerate(zip(preset.widths, preset.groups, strict=True)):
        stride = 4 * 2**stage
        yield Shape(1, math.ceil(height / stride), math.ceil(width / stride), groups, channels // groups)


def selected_shapes(names: Sequence[str], images: Sequence[tuple[int, int]]) -> list[Shape]:
    shapes: list[Shape] = []
    for name in names:
        if name == 'few':
            shapes += FEW
        elif name == 'dcnv4':
            shapes += DCNV4
        else:
            archs = PRESETS if name == 'published' else (name,)
            shapes += (shape for arch in archs for image in images for shape in stages(arch, *image))
    return list(dict.fromkeys(shapes))


class Contestant(NamedTuple):
    """An operator on its own copies of the tensors, in the layout that it wants."""

    forward: Callable[[], Tensor]
    tensors: tuple[Tensor, ...]
    channels_last: Callable[[Tensor], Tensor] | None = None  # its output as dcnv3's; None: it computes something else

    def both(self, grad_output: Tensor) -> None:
        torch.autograd.grad(self.forward(), self.tensors, grad_output)


def same(output: Tensor) -> Tensor:
    return output


def leaves(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(t.detach().clone().requires_grad_() for t in tensors)


def build_operator(operator: Callable[..., Tensor], shape: Shape, *tensors: Tensor) -> Contestant:
    tensors = leaves(*tensors)
    return Contestant(lambda: operator(*tensors, KERNEL, padding=1, groups=shape.groups), tensors, same)


def build_fused_softmax(shape: Shape, input: Tensor, offset: Tensor, mask: Tensor) -> Contestant:
    """The operator on the logits of the weights."""
    operator = functools.partial(dcnv3, mask_is_logits=True)
    return build_operator(operator, shape, input, offset, mask.log())


def build_separate_softmax(shape: Shape, input: Tensor, offset: Tensor, mask: Tensor) -> Contestant:
    """The same with PyTorch's softmax before the operator."""

    def operator(input: Tensor, offset: Tensor, logits: Tensor, *geometry: Any, **options: Any) -> Tensor:
        weights = logits.unflatten(-1, (shape.groups, POINTS)).softmax(-1).flatten(3)
        return dcnv3(input, offset, weights, *geometry, **options)

    return build_operator(operator, shape, input, offset, mask.log())


def build_mmcv(shape: Shape, input: Tensor, offset: Tensor, mask: Tensor) -> Contestant | None:
    """Its weights of one, a convolution per channel, leave the sum over the samples. None where it cannot run."""
    with contextlib.suppress(ImportError):
        from mmcv.ops import modulated_deform_conv2d

        if input.dtype not in (torch.float32, torch.float64):
            return None
        channels = input.shape[-1]
        # Points are h-outer, w-inner there, and pairs (y, x).
        grid = offset.unflatten(-1, (shape.groups, KERNEL, KERNEL, 2)).transpose(4, 5).flip(-1).flatten(3)
        weights = mask.unflatten(-1, (shape.groups, KERNEL, KERNEL)).transpose(4, 5).flatten(3)
        x, grid, weights = leaves(*(t.permute(0, 3, 1, 2).contiguous() for t in (input, grid, weights)))
        ones = torch.ones(channels, 1, KERNEL, KERNEL, dtype=input.dtype, device=input.device)
        return Contestant(
            lambda: modulated_deform_conv2d(x, grid, weights, ones, None, 1, 1, 1, channels, shape.groups),
            (x, grid, weights),
            lambda output: output.permute(0, 2, 3, 1),
        )
    return None


def build_convolution(shape: Shape, input: Tensor, offset: Tensor, mask: Tensor) -> Contestant:
    channels = input.shape[-1]
    weight = torch.ones(channels, 1, KERNEL, KERNEL, dtype=input.dtype, device=input.device)
    x, weight = leaves(input, weight)
    return Contestant(lambda: F.conv2d(x.permute(0, 3, 1, 2), weight, padding=1, groups=channels), (x, weight))


class _OfficialDCNv3(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, extension: Any, shape: Shape, *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(*tensors)
        ctx.backward_of = extension.dcnv3_backward
        ctx.numbers = (KERNEL, KERNEL, 1, 1, 1, 1, 1, 1, shape.groups, shape.group_channels, 1.0)
        return extension.dcnv3_forward(*tensors, *ctx.numbers, 256)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        grads = ctx.backward_of(*ctx.saved_tensors, *ctx.numbers, grad_output.contiguous(), 256)
        return None, None, *grads


def build_official_dcnv3(shape: Shape, *tensors: Tensor) -> Contestant | None:
    """The extension of the detection and segmentation code. It has no bfloat16 and runs on GPUs only."""
    if not tensors[0].is_cuda or tensors[0].dtype == torch.bfloat16:
        return None
    with contextlib.suppress(ImportError):
        extension = importlib.import_module('DCNv3')
        tensors = leaves(*tensors)
        return Contestant(lambda: _OfficialDCNv3.apply(extension, shape, *tensors), tensors, same)
    return None


def build_dcnv4(shape: Shape, input: Tensor, offset: Tensor, mask: Tensor) -> Contestant | None:
    """It takes a group's offsets and weights side by side, and per pixel a multiple of eight numbers."""
    if not input.is_cuda or input.dtype == torch.float64:
        return None
    with contextlib.suppress(ImportError):
        function = importlib.import_module('DCNv4.functions').DCNv4Function
        per_group = [t.unflatten(-1, (shape.groups, -1)) for t in (offset, mask)]
        packed = torch.cat(per_group, dim=-1).flatten(3)
        x, packed = leaves(input, F.pad(packed, (0, -packed.shape[-1] % 8)))
        numbers = (KERNEL, KERNEL, 1, 1, 1, 1, 1, 1, shape.groups, shape.group_channels, 1.0, 256, False)
        return Contestant(lambda: function.apply(x, packed, *numbers), (x, packed), same)
    return None


BUILDERS: dict[str, Callable[..., Contestant | None]] = {
    OURS: lambda shape, *tensors: build_operator(dcnv3, shape, *tensors),
    'fused softmax': build_fused_softmax,
    'softmax before': build_separate_softmax,
    'reference': lambda shape, *tensors: build_operator(dcnv3_reference, shape, *tensors),
    'mmcv': build_mmcv,
    'conv3x3': build_convolution,
    'official DCNv3': build_official_dcnv3,
    'DCNv4': build_dcnv4,
}
COPY = 'copy'
ONE_THREAD = 'one thread'  # the operator


def make_inputs(shape: Shape, dtype: torch.dtype, device: str) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    size, samples = (shape.batch, shape.height, shape.width), shape.groups * POINTS
    input = torch.randn(*size, shape.groups * shape.group_channels, generator=generator)
    offset = torch.randn(*size, samples * 2, generator=generator)
    mask = torch.randn(*size, shape.groups, POINTS, generator=generator).softmax(-1).flatten(3)
    input, offset, mask = (t.to(device, dtype) for t in (input, offset, mask))
    return input, offset, mask


def check_equal(contestants: dict[str, Contestant], shape: Shape, dtype: torch.dtype) -> None:
    """SystemExit where a contestant that samples gives another result than the operator."""
    with torch.no_grad():
        expected = contestants[OURS].forward().float()
        for name, contestant in contestants.items():
            if contestant.channels_last is not None:
                error = (contestant.channels_last(contestant.forward()).float() - expected).abs().max().item()
                # A wrong layout or order of points is off by the size of the values, about 1.
                if not error <= (1e-3 if dtype in (torch.float32, torch.float64) else 0.1):
                    raise SystemExit(f'{name} and {OURS} differ by {error} for {shape}, {dtype}')


def run_forward(contestant: Contestant) -> None:
    with torch.no_grad():
        contestant.forward()


def measure_shape(shape: Shape, dtype_name: str, args: argparse.Namespace) -> Iterable[dict[str, Any]]:
    """Two rows, of the forward and of forward and backward."""
    dtype = measure.DTYPES[dtype_name]
    inputs = make_inputs(shape, dtype, args.device)
    built = {name: BUILDERS[name](shape, *inputs) for name in (OURS, *args.against) if name in BUILDERS}
    contestants = {name: contestant for name, contestant in built.items() if contestant is not None}
    check_equal(contestants, shape, dtype)
    for both in (False, True):
        works: dict[str, measure.Work] = {}
        for name, contestant in contestants.items():
            grad_output = torch.ones_like(contestant.forward().detach())
            works[name] = (
                (lambda c=contestant, g=grad_output: c.both(g)) if both else (lambda c=contestant: run_forward(c))
            )
        peaks = {name: measure.peak_memory(work, args.device) for name, work in works.items()}
        total = shape.bytes_moved(dtype.itemsize, both)
        if COPY in args.against:
            source = torch.ones(total // 2, dtype=torch.uint8, device=args.device)  # each byte is read and written
            target = torch.empty_like(source)
            works[COPY] = lambda source=source, target=target: target.copy_(source)
        if ONE_THREAD in args.against and args.device == 'cpu' and args.threads > 1:
            works[ONE_THREAD] = measure.with_threads(1, works[OURS])
        yield {
            'shape': str(shape),
            'dtype': dtype_name,
            'pass': 'forward + backward' if both else 'forward',
            'bytes': total,
            'seconds': measure.medians(works, args.device, args.runs, args.seconds),
            'peak_bytes': peaks,
        }


def tables(rows: Sequence[dict[str, Any]]) -> list[list[list[str]]]:
    """One table per dtype and pass: times, how much longer the others take, and what the operator reaches."""
    found = []
    for kind in dict.fromkeys((row['dtype'], row['pass']) for row in rows):
        mine = [row for row in rows if (row['dtype'], row['pass']) == kind]
        others = [name for name in dict.fromkeys(key for row in mine for key in row['seconds']) if name != OURS]
        remembered = [name for name in others if name in BUILDERS]
        head = [', '.join(kind), OURS, *others, 'GB/s', 'of copy', *(f'MiB {name}' for name in (OURS, *remembered))]
        table, ratios = [head], {name: [] for name in others}
        for row in mine:
            ours = row['seconds'][OURS]
            cells = [row['shape'], milliseconds(ours)]
            for name in others:
                theirs = row['seconds'].get(name)
                cells.append('' if theirs is None else f'{milliseconds(theirs)} ({theirs / ours:.2f}x)')
                ratios[name] += [] if theirs is None else [theirs / ours]
            copy = row['seconds'].get(COPY)
            cells += [f'{row["bytes"] / ours / 1e9:.1f}', '' if copy is None else f'{copy / ours:.0%}']
            peaks = (row['peak_bytes'].get(name) for name in (OURS, *remembered))
            table.append(cells + ['' if peak is None else f'{peak / 2**20:.1f}' for peak in peaks])
        means = (statistics.geometric_mean(ratios[name]) for name in others)
        last = ['geometric mean', '', *(f'{mean:.2f}x' for mean in means)]
        found.append([*table, last + [''] * (len(head) - len(last))])
    return found


def milliseconds(seconds: float) -> str:
    return f'{1e3 * seconds:.3g} ms' if seconds < 0.9995 else f'{1e3 * seconds:.0f} ms'


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Bars of the times on a logarithmic axis, one panel per dtype and pass."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    kinds = list(dict.fromkeys((row['dtype'], row['pass']) for row in rows))
    shapes = list(dict.fromkeys(row['shape'] for row in rows))
    names = list(dict.fromkeys(key for row in rows for key in row['seconds']))
    size = (max(6.0, 0.25 * len(shapes) * len(names)), 3.2 * len(kinds))
    figure, axes = pyplot.subplots(len(kinds), 1, figsize=size, squeeze=False, sharex=True)
    for kind, panel in zip(kinds, axes[:, 0], strict=True):
        by_shape = {row['shape']: row['seconds'] for row in rows if (row['dtype'], row['pass']) == kind}
        for index, name in enumerate(names):
            places = [i + (index - len(names) / 2) * 0.8 / len(names) for i in range(len(shapes))]
            heights = [1e3 * by_shape[shape].get(name, math.nan) for shape in shapes]
            panel.bar(places, heights, width=0.8 / len(names), align='edge', label=name)
        panel.set(yscale='log', ylabel='ms', title=', '.join(kind), xticks=range(len(shapes)))
        panel.set_xticklabels(shapes, rotation=20, ha='right')
    axes[0, 0].legend(fontsize='small')
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description='Times the DCNv3 operator beside its alternatives.')
    parser.add_argument(
        '--shapes',
        nargs='+',
        choices=['few', 'dcnv4', 'published', *PRESETS],
        default=['few'],
        help='four shapes of InternImage-T, those of DCNv4, all stages of all or of some backbones (default: few)',
    )
    parser.add_argument(
        '--images',
        nargs='+',
        type=measure.image_size,
        default=[(512, 512), (800, 1344)],
        metavar='HxW',
        help='for the stages',
    )
    parser.add_argument('--dtypes', nargs='+', choices=measure.DTYPES, default=['float32'])
    others = [*(name for name in BUILDERS if name != OURS), COPY, ONE_THREAD]
    parser.add_argument('--against', nargs='*', choices=others, default=others, help='default: all that are there')
    parser.add_argument('--plot', type=Path, metavar='FILE', help='draw a bar chart')
    measure.add_arguments(parser, seconds=2.0)
    args = parser.parse_args()
    machine = measure.start(args)
    rows: list[dict[str, Any]] = []
    for dtype in args.dtypes:
        for shape in selected_shapes(args.shapes, args.images):
            rows += measure_shape(shape, dtype, args)
    for table in tables(rows):
        print('\n' + measure.markdown(table))
    measure.save(args, machine, rows)
    if args.plot:
        plot(rows, args.plot)


if __name__ == '__main__':
    main()
