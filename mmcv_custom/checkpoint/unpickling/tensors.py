"""Tensors: what stands for their storages, the calls that build them, and the kinds that are not supported."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from .refusals import is_count, require, require_supported

STORAGE_TYPES = {
    'DoubleStorage': torch.float64,
    'FloatStorage': torch.float32,
    'HalfStorage': torch.float16,
    'BFloat16Storage': torch.bfloat16,
    'LongStorage': torch.int64,
    'IntStorage': torch.int32,
    'ShortStorage': torch.int16,
    'CharStorage': torch.int8,
    'ByteStorage': torch.uint8,
    'BoolStorage': torch.bool,
    'ComplexDoubleStorage': torch.complex128,
    'ComplexFloatStorage': torch.complex64,
}
# Some dtypes have no class of storages. Those that are missing here (quantized, bits, packed) are not for plain
# tensors, and crash torch.
DTYPES = (
    *STORAGE_TYPES.values(),
    *(torch.uint16, torch.uint32, torch.uint64, torch.complex32),
    *(torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2, torch.float8_e5m2fnuz),
)
MAX_DIMS = 32

_OTHER_DEVICE = 'tensors of another kind of device, which are not supported: save them as Tensor.cpu()'
_UNSUPPORTED = {
    'torch._utils._rebuild_sparse_tensor': 'sparse tensors, which are not supported: save them as Tensor.to_dense()',
    'torch._utils._rebuild_nested_tensor': 'nested tensors, which are not supported: save them as Tensor.unbind()',
    'torch._utils._rebuild_qtensor': 'quantized tensors, which are not supported: save them as Tensor.dequantize()',
    'torch._utils._rebuild_meta_tensor_no_storage': (
        'meta tensors, which have no values to load: save the model again after its weights are on a real device'
    ),
    'torch._utils._rebuild_device_tensor_from_cpu_tensor': _OTHER_DEVICE,
    'torch._utils._rebuild_device_tensor_from_numpy': _OTHER_DEVICE,
    'torch._utils._rebuild_parameter_with_state': (
        'parameters with attributes, which are not supported: save them as Parameter.detach()'
    ),
    'torch.serialization._get_layout': 'a layout of torch, which is not supported: save its name as text',
}


def unsupported(name: str) -> str:
    """What in a file needs this global of torch, and how to save it instead. Empty for names that are unknown."""
    module, _, member = name.rpartition('.')
    known = vars(torch).get(member) if module == 'torch' else None
    if isinstance(known, torch.dtype) or (isinstance(known, type) and member.endswith('Storage')):
        return f'numbers of the type {member}, which is not supported: convert them to another dtype before saving'
    return _UNSUPPORTED.get(name, '')


class StorageType:
    """What a pickle holds in place of a class of storages."""

    __slots__ = ('dtype',)

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype


class Storage:
    """The memory of tensors: ``nbytes`` bytes that begin ``start`` elements of ``dtype`` after the beginning."""

    __slots__ = ('dtype', 'memory', 'nbytes', 'start')

    def __init__(self, memory: torch.UntypedStorage, dtype: torch.dtype, nbytes: int, start: int = 0) -> None:
        self.memory, self.dtype, self.nbytes, self.start = memory, dtype, nbytes, start


def check_empty(shape: tuple[int, ...]) -> None:
    """Checks a shape with a zero in it, whose other sizes no number of bytes bounds."""
    require(math.prod(length or 1 for length in shape) < 2**31, 'the shape of something without numbers is too large')


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, dtype: torch.dtype | None = None) -> Tensor:
    require(type(storage) is Storage, 'a tensor has no storage')
    dtype = storage.dtype if dtype is None else dtype
    require(type(dtype) is torch.dtype and dtype.itemsize > 0, 'a tensor has no dtype')
    require(type(size) in (tuple, torch.Size) and type(stride) is tuple, 'the shape of a tensor is no tuple')
    require(len(size) == len(stride) <= MAX_DIMS, f'a tensor has {len(size)} sizes and {len(stride)} strides')
    require(all(map(is_count, (offset, *size, *stride))), 'offset, sizes and strides of a tensor must be counts')
    if 0 in size:
        check_empty(size)
        return torch.empty(size, dtype=dtype, device=storage.memory.device)
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    fits = last < storage.nbytes // dtype.itemsize
    require(fits, f'a tensor is larger than its {storage.nbytes} bytes')
    # Nothing that is trained repeats its numbers, and a file that does could claim any size.
    require_supported(
        math.prod(size) * dtype.itemsize <= storage.nbytes,
        'a tensor repeats its numbers, as Tensor.expand makes it: save it as Tensor.contiguous()',
    )
    tensor = torch.empty(0, dtype=dtype, device=storage.memory.device)
    return tensor.set_(storage.memory, storage.start + offset, size, stride)


def _check_metadata(metadata: Any) -> None:
    require_supported(
        not metadata,
        'a tensor is a conjugate or negative view, which is not supported: save it as '
        'Tensor.resolve_conj().resolve_neg()',
    )


def rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any) -> Tensor:
    return _tensor(storage, offset, size, stride)


def rebuild_tensor_v2(
    storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any, hooks: Any, metadata: Any = None
) -> Tensor:
    _check_metadata(metadata)
    return _tensor(storage, offset, size, stride).requires_grad_(requires_grad is True)


def rebuild_tensor_v3(
    storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any, hooks: Any, dtype: Any, metadata: Any = None
) -> Tensor:
    _check_metadata(metadata)
    require(type(dtype) is torch.dtype, 'a tensor has no dtype')
    return _tensor(storage, offset, size, stride, dtype).requires_grad_(requires_grad is True)


def rebuild_parameter(data: Any, requires_grad: Any, hooks: Any) -> nn.Parameter:
    require(type(data) is Tensor, 'a parameter holds no tensor')
    return nn.Parameter(data, requires_grad is True)


def make_size(values: Any) -> torch.Size:
    require(type(values) is tuple and all(map(is_count, values)), 'a torch.Size must hold counts')
    return torch.Size(values)


def make_device(kind: Any, index: Any = None) -> torch.device:
    require(type(kind) is str and (index is None or index in range(128)), 'a torch.device needs a name')
    return torch.device(kind) if index is None else torch.device(kind, index)
