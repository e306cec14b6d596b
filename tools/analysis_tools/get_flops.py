"""Parameters, FLOPs and activation memory of a model, from its config alone: no weights, no data, little memory.

python tools/analysis_tools/get_flops.py configs/detection/coco/mask-rcnn_internimage-t_fpn_1x_coco.py
python tools/analysis_tools/get_flops.py my_config.py --shape 640 640
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from mmcv.ops import multi_scale_deform_attn
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import BaseDataElement
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import FlopCounterMode

from mmcv_custom import zoo
from mmcv_custom.cli import (
    Parser,
    add_config_arguments,
    check_kinds,
    fail,
    mistakes_in_one_line,
    read_config,
    table,
)
from mmcv_custom.texts import in_words
from ops_dcnv3 import extension

# What the official tools count: image sizes (height, width) by default_scope, padded to multiples of the divisor, and
# the proposals of a two-stage detector, of which so many get a mask.
IMAGE_SIZES = {'mmdet': (800, 1280), 'mmseg': (512, 2048)}
DIVISOR = 32
LARGEST_SIDE = 100_000
PROPOSALS = 1000
MASKS = 100
CONVENTION = """FLOPs, official convention: a multiply-add is one; convolution and linear layers, and 5 per channel and
sampling point of DCNv3. All products: also those of attention. Activations: largest set alive at once in
the inference of one image in float32, followed through a run on tensors that have shapes and no values."""


def main() -> None:
    parser = Parser(description='Parameters, FLOPs and activation memory of a model.')
    add_config_arguments(parser)
    parser.add_argument(
        '--shape',
        type=int,
        nargs=2,
        metavar=('H', 'W'),
        help='image size, rounded up to multiples of 32 (default: that of the published figure, '
        'else 800 1280 for detectors and 512 2048 for segmentors)',
    )
    args = parser.parse_args()
    if args.shape and not all(0 < side <= LARGEST_SIDE for side in args.shape):
        fail(
            f'--shape must be two positive numbers, got {args.shape[0]} {args.shape[1]}; the largest is {LARGEST_SIDE}'
        )
    print(describe(args.config, args.shape, args.cfg_options, args.debug))
    print(CONVENTION)


def describe(config: str, shape: list[int] | None, overrides: dict | None, debug: bool = False) -> str:
    """The figures of a config, line by line, beside the published ones where it is in the zoo."""
    cfg = read_config(config, overrides, debug)
    check_kinds(cfg)
    scope = cfg.get('default_scope')
    if scope not in IMAGE_SIZES:
        fail(f'default_scope of {config} must be one of {", ".join(IMAGE_SIZES)}, got {scope!r}')
    if cfg.get('model') is None:
        fail(f'{config} holds no model')
    model = next((model for model in zoo.models().values() if model.config == Path(config).resolve()), None)
    size = default = model.image_size if model else IMAGE_SIZES[scope]
    if shape:
        size = -(-shape[0] // DIVISOR) * DIVISOR, -(-shape[1] // DIVISOR) * DIVISOR
    try:
        with mistakes_in_one_line(cfg, debug):
            found = measure_config(cfg, size)
    except MeasureError as problem:
        if debug:
            raise
        raise SystemExit(f'error: cannot measure the model of {config}: {problem}') from problem
    published = {key: f'published: {value}' for key, value in model.published.items()} if model else {}
    if size != default or overrides:
        published.pop('FLOPs', None)
    rows = [
        ('parameters', f'{found.params:,}', published.get('Parameters', '')),
        ('FLOPs', giga(found.flops), published.get('FLOPs', '')),
        *((f'  {part}', giga(flops), '') for part, flops in found.parts.items()),
        ('all products', giga(found.products), ''),
        ('activations', f'{found.activations / 2**20:.0f} MiB', ''),
    ]
    return f'{Path(config).stem}, image {size[0]} x {size[1]}\n{table(rows)}'


def giga(flops: int) -> str:
    return f'{flops / 1e9:.1f}G'


class MeasureError(RuntimeError):
    """The model cannot be measured. The text is meant for the user."""


class Complexity(NamedTuple):
    """What :func:`measure` finds. A multiply-add is one FLOP.

    Attributes:
        params: Parameters, trained or not.
        parts: FLOPs of each part of the model (backbone, neck, heads) in the official convention: those of convolution
            and linear layers, and of DCNv3. Norms, activations and the products of attention are not counted.
        products: FLOPs of DCNv3 and of all matrix products, also those between activations (attention, masks from
            queries) and those with the weights of ``nn.MultiheadAttention``.
        activations: Bytes of the largest set of activations that exists at any one time of an inference.
    """

    params: int
    parts: dict[str, int]
    products: int
    activations: int

    @property
    def flops(self) -> int:
        """All FLOPs in the official convention."""
        return sum(self.parts.values())


def measure_config(cfg: Config, size: tuple[int, int]) -> Complexity:
    """:func:`measure` for the model of a config; ``size`` is height and width of the image."""
    init_default_scope(cfg.default_scope)
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    return measure(model, *size)


def measure(model: nn.Module, height: int, width: int) -> Complexity:
    """The cost of one inference of one image in float32.

    Nothing is computed: on the meta device tensors have shapes and no values. Every allocation and release of an
    activation is followed; the weights and what a kernel allocates for itself do not count.

    The heads of a two-stage detector see 1000 proposals and predict 100 masks, whatever its ``test_cfg`` says, as in
    the official figures. Boxes are neither decoded nor suppressed, masks are not pasted. A segmentor labels the image
    as a whole, even if its ``test_cfg`` asks for windows.

    Args:
        model: Detector of mmdet, segmentor of mmseg, or backbone. It loses its weights, so build it for this purpose,
            under ``torch.device('meta')`` to save time and memory.
        height: Height of the image, in pixels.
        width: Width of the image, in pixels.

    Raises:
        MeasureError: The operator is not compiled (its substitute in pure PyTorch has other costs), or the model does
            not run on such an image.
    """
    if not extension.has_kernel('meta'):
        raise MeasureError(f'counting FLOPs needs the compiled dcnv3 operator: {extension.BUILD_COMMAND}')
    model.to('meta').eval()
    image = torch.empty(1, 3, height, width, device='meta')
    counter = FlopCounterMode(display=False)
    spent: Counter[str] = Counter()
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.modules.conv._ConvNd):
            part = name.partition('.')[0] if hasattr(model, 'backbone') else 'backbone'
            _count_layer(module, spent, part, counter)
    memory = _MemoryMode([image, *model.parameters(), *model.buffers()])
    # mmcv would run its PyTorch fallback here, which holds far more in memory than its kernel.
    attention = patch.object(multi_scale_deform_attn, 'multi_scale_deformable_attn_pytorch', _attention_output)
    with torch.no_grad(), attention, memory, counter:
        try:
            _infer(model, image)
        except (AssertionError, IndexError, RuntimeError, ValueError) as problem:  # parts that do not fit each other
            raise MeasureError(f'it does not run on an image of {height} x {width}: {in_words(problem)}') from problem
    counts = counter.get_flop_counts()['Global']
    spent['backbone'] += counts.get(torch.ops.dcnv3.forward, 0)
    return Complexity(
        params=sum(parameter.numel() for parameter in model.parameters()),
        parts={part: flops // 2 for part, flops in spent.items()},
        products=sum(counts.values()) // 2,
        activations=memory.peak,
    )


def _count_layer(module: nn.Module, spent: Counter[str], part: str, counter: FlopCounterMode) -> None:
    """Makes a layer add its FLOPs to ``spent[part]`` when it runs."""
    module.register_forward_pre_hook(lambda *_: spent.subtract({part: counter.get_total_flops()}))
    module.register_forward_hook(lambda *_: spent.update({part: counter.get_total_flops()}))


def _infer(model: Any, image: Tensor) -> Any:
    size = tuple(image.shape[2:])
    metainfo = {key: size for key in ('img_shape', 'ori_shape', 'pad_shape', 'batch_input_shape')}
    if hasattr(model, 'encode_decode'):
        return model.encode_decode(image, [metainfo])
    if hasattr(model, 'roi_head'):
        return _infer_two_stage(model, image)
    if hasattr(model, 'extract_feat'):
        return model(image, [BaseDataElement(metainfo=metainfo)], mode='tensor')
    return model(image)


def _infer_two_stage(model: Any, image: Tensor) -> Any:
    """The counts do not depend on where the proposals lie, nor on the map that they are read from."""
    features = model.extract_feat(image)
    outputs = [model.rpn_head(features)]
    for count, heads in ((PROPOSALS, 'bbox_head'), (MASKS, 'mask_head')):
        stages = getattr(model.roi_head, heads, nn.ModuleList())
        for head in stages if isinstance(stages, nn.ModuleList) else [stages]:  # a cascade has several
            outputs.append(head(image.new_empty(count, head.in_channels, *head.roi_feat_size)))
    return features, outputs


def _attention_output(value: Tensor, spatial_shapes: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    """A tensor of the shape of deformable attention's output: (N, queries, heads * channels)."""
    return value.new_empty(value.shape[0], locations.shape[1], value.shape[2] * value.shape[3])


class _MemoryMode(TorchDispatchMode):
    """Follows the memory of a run on the meta device, and lets models run there that compute with sizes of maps.

    Integers that come from the CPU, such as those sizes, stay on the CPU, where they have values. Where they meet
    tensors of the meta device, the result is on the meta device.

    Args:
        inputs: Tensors that do not count.
    """

    def __init__(self, inputs: Iterable[Tensor]) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._inputs = [tensor.untyped_storage() for tensor in inputs]  # kept alive: the set refers to them weakly
        self._known = weakref.WeakSet(self._inputs)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._to_copy.default and not args[0].is_floating_point():
            kwargs = {**kwargs, 'device': args[0].device}
        elif len({leaf.is_meta for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}) > 1:
            args, kwargs = tree_map_only(Tensor, lambda tensor: tensor.to('meta'), (args, kwargs))
        output = func(*args, **kwargs)
        for leaf in tree_leaves(output):
            if isinstance(leaf, Tensor) and leaf.is_meta and (storage := leaf.untyped_storage()) not in self._known:
                self._known.add(storage)
                self.live += storage.nbytes()
                self.peak = max(self.peak, self.live)
                weakref.finalize(storage, self._release, storage.nbytes())
        return output

    def _release(self, size: int) -> None:
        self.live -= size


if __name__ == '__main__':
    main()
