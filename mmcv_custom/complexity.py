"""What a model costs: parameters, FLOPs and memory, from shapes alone. Also teaches MMEngine's counter DCNv3."""

from __future__ import annotations

import math
import weakref
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from mmcv.ops import multi_scale_deform_attn
from mmengine.analysis import complexity_analysis
from mmengine.analysis.jit_handles import get_shape
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import BaseDataElement
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import FlopCounterMode

from ops_dcnv3 import extension
from ops_dcnv3.functional import MACS_PER_SAMPLE

PROPOSALS = 1000  # of a two-stage detector, in the official counts
MASKS = 100  # of these, those whose mask is predicted


def dcnv3_flops(inputs: list[Any], outputs: list[Any]) -> int:
    """FLOPs of one traced ``dcnv3::forward``, in MMEngine's convention: a multiply-add is one FLOP."""
    channels, samples = get_shape(inputs[0])[-1], get_shape(inputs[2])[-1]
    groups = inputs[7].toIValue()
    return MACS_PER_SAMPLE * math.prod(get_shape(outputs[0])[:3]) * channels * samples // groups


def register_complexity() -> None:
    """Adds the formula to the default table, from which ``get_model_complexity_info`` makes its analyser."""
    complexity_analysis._DEFAULT_SUPPORTED_FLOP_OPS['dcnv3::forward'] = dcnv3_flops


class Complexity(NamedTuple):
    """What :func:`measure` finds. A multiply-add is one FLOP.

    Attributes:
        params: Parameters, trained or not.
        parts: FLOPs of each part of the model (backbone, neck, heads) in the convention of the official figures: those
            of convolution and linear layers, and of DCNv3. Norms, activations and attention's products are not counted.
        products: FLOPs of DCNv3 and of all matrix products, those between activations (attention, masks from
            queries) and with the weights of ``nn.MultiheadAttention`` included.
        activations: Bytes of the largest set of activations that exists at any one time of an inference.
    """

    params: int
    parts: dict[str, int]
    products: int
    activations: int

    @property
    def flops(self) -> int:
        """FLOPs in the convention of the official figures, in all."""
        return sum(self.parts.values())


def measure(model: nn.Module, height: int, width: int) -> Complexity:
    """The cost of one inference, of one image, in float32.

    No number is computed: on the meta device tensors have shapes and no values. For the activations every
    allocation and release of that run is followed; what a kernel needs for itself while it runs is not in there, nor
    are the weights.

    A two-stage detector's heads see 1000 proposals and predict 100 masks, whatever its ``test_cfg`` says, as in the
    official figures. Boxes are neither decoded nor suppressed, masks not pasted. A segmentor labels the image as a
    whole, whether or not its ``test_cfg`` asks for windows.

    Args:
        model: Detector of mmdet, segmentor of mmseg or backbone. It loses its weights, so build it for this, within
            ``torch.device('meta')`` to save time and memory.
        height: Of the image, in pixels.
        width: Of the image, in pixels.

    Raises:
        RuntimeError: The operator is not compiled: its pure PyTorch stand-in costs something else.
    """
    if not extension.has_kernel('meta'):
        raise RuntimeError(f'counting FLOPs needs the compiled dcnv3 operator: {extension.BUILD_COMMAND}')
    model.to('meta').eval()
    image = torch.empty(1, 3, height, width, device='meta')
    counter = FlopCounterMode(display=False)
    spent: Counter[str] = Counter()
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.modules.conv._ConvNd):
            part = name.partition('.')[0] if hasattr(model, 'backbone') else 'backbone'
            _add_to(spent, part, module, counter)
    shapes = _Shapes([image, *model.parameters(), *model.buffers()])
    # In place of mmcv's PyTorch fallback, which would run here and holds far more in memory than the kernel does.
    attention = patch.object(multi_scale_deform_attn, 'multi_scale_deformable_attn_pytorch', _attended)
    with torch.no_grad(), attention, shapes, counter:
        _infer(model, image)
    counts = counter.get_flop_counts()['Global']
    spent['backbone'] += counts.get(torch.ops.dcnv3.forward, 0)
    return Complexity(
        params=sum(parameter.numel() for parameter in model.parameters()),
        parts={part: flops // 2 for part, flops in spent.items()},
        products=sum(counts.values()) // 2,
        activations=shapes.peak,
    )


def measure_config(cfg: Config, size: tuple[int, int]) -> Complexity:
    """The cost of a config's model; ``size`` is height and width of the image. Raises what :func:`measure` does."""
    init_default_scope(cfg.default_scope)
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    return measure(model, *size)


def _add_to(spent: Counter[str], part: str, module: nn.Module, counter: FlopCounterMode) -> None:
    """Makes a layer add to ``spent[part]`` what is counted while it runs."""
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
    """Where real proposals would lie, and which map they are read from, makes no difference to the counts."""
    features = model.extract_feat(image)
    outputs = [model.rpn_head(features)]
    for count, heads in ((PROPOSALS, 'bbox_head'), (MASKS, 'mask_head')):
        for head in _each(getattr(model.roi_head, heads, nn.ModuleList())):
            outputs.append(head(image.new_empty(count, head.in_channels, *head.roi_feat_size)))
    return features, outputs


def _each(head: Any) -> Iterable[Any]:
    """A head, or the several of a cascade."""
    return head if isinstance(head, nn.ModuleList) else [head]


def _attended(value: Tensor, spatial_shapes: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    """The shape of deformable attention's output: (N, queries, heads * channels)."""
    return value.new_empty(value.shape[0], locations.shape[1], value.shape[2] * value.shape[3])


class _Shapes(TorchDispatchMode):
    """Follows the memory of a run on the meta device, and lets models run there that compute with sizes of maps.

    Integers that come from the CPU, such as those sizes, stay there, where their values are. Where they meet tensors of
    the meta device, the result is on the meta device.

    Args:
        inputs: Tensors that do not count.
    """

    def __init__(self, inputs: Iterable[Tensor]) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._inputs = [tensor.untyped_storage() for tensor in inputs]  # kept alive, as the next holds them weakly
        self._known = weakref.WeakSet(self._inputs)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._to_copy.default and not args[0].is_floating_point():
            kwargs = {**kwargs, 'device': args[0].device}
        elif len({leaf.is_meta for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}) > 1:
            args, kwargs = tree_map_only(Tensor, lambda tensor: tensor.to('meta'), (args, kwargs))
        output = func(*args, **kwargs)
        for leaf in tree_leaves(output):
            if isinstance(leaf, Tensor) and leaf.is_meta:
                self._follow(leaf.untyped_storage())
        return output

    def _follow(self, storage: torch.UntypedStorage) -> None:
        if storage in self._known:
            return
        self._known.add(storage)
        size = storage.nbytes()
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._release, size)

    def _release(self, size: int) -> None:
        self.live -= size
