"""Calls torch.ops.dcnv3 with wrong arguments: python -m tests.ops.fuzz_bare EXAMPLES.

Every call must return or raise. A call that is accepted is one that the wrapper accepts too, with the same shape of the
output. It runs as a program because a mistake may end the process; the last line of its output is then the call.
"""

from __future__ import annotations

import contextlib
import sys
from typing import Any

import hypothesis
import torch
from hypothesis import strategies as st
from torch import Tensor

import ops_dcnv3  # noqa: F401  registers the operators
from ops_dcnv3.arguments import check_geometry, check_tensors

PAIRS = ('kernel_size', 'stride', 'padding', 'dilation')
TENSORS = ('input', 'offset', 'mask', 'grad_output')
WILD_INTS = (-(2**63), -(2**31), -1, 0, 1, 2, 3, 4, 2**14, 2**28, 2**29, 2**30, 2**31 - 1, 2**31, 2**62, 2**63 - 1)
ERRORS = (RuntimeError, TypeError, ValueError, NotImplementedError, IndexError)


def valid_arguments() -> dict[str, Any]:
    return {
        'input': torch.ones(2, 5, 4, 6),
        'offset': torch.zeros(2, 2, 3, 24),
        'mask': torch.ones(2, 2, 3, 12),
        'kernel_size': [3, 2],
        'stride': [2, 1],
        'padding': [1, 0],
        'dilation': [2, 1],
        'groups': 2,
        'offset_scale': 1.0,
        'mask_is_logits': False,
        'grad_output': torch.ones(2, 2, 3, 6),
    }


def resized(tensor: Tensor, dimension: int, size: int) -> Tensor:
    """Ones of the same rank with another size along one dimension; a huge one takes no memory."""
    shape = list(tensor.shape)
    if shape:
        shape[dimension % len(shape)] = size
    return tensor.new_ones(1).expand(shape)


DTYPES = [t for t in vars(torch).values() if isinstance(t, torch.dtype)]
CHANGES = {
    'rank': (st.integers(0, 6), lambda t, rank: t.flatten()[:1].expand([2] * rank)),
    'size': (
        st.tuples(st.integers(0, 3), st.sampled_from((0, 1, 2, 3, 5, 7, 25, 2**20, 2**31, 2**40))),
        lambda t, change: resized(t, *change),
    ),
    'dtype': (st.sampled_from(DTYPES), lambda t, dtype: torch.empty(t.shape, dtype=dtype)),
    'kind': (
        st.sampled_from(('sparse', 'meta', 'none', 'list', 'negative', 'zero', 'permuted', 'subclass', 'mkldnn')),
        lambda t, kind: {
            'sparse': lambda: t.to_sparse(),
            'meta': lambda: t.to('meta'),
            'none': lambda: None,
            'list': lambda: t.flatten()[:3].tolist(),
            'negative': lambda: torch._neg_view(t),
            'zero': lambda: torch._efficientzerotensor(t.shape),
            'permuted': lambda: t.permute(*reversed(range(t.dim()))),
            'subclass': lambda: torch.nn.Parameter(t),
            'mkldnn': lambda: t.to_mkldnn(),
        }[kind](),
    ),
}
ints = st.sampled_from(WILD_INTS)
NUMBERS = {
    **dict.fromkeys(PAIRS, st.lists(ints | st.integers(1, 4), min_size=2, max_size=2) | st.lists(ints, max_size=4)),
    'groups': ints,
    'offset_scale': st.sampled_from((0.0, -1.0, 1e300, -1e300, 5e-324, float('inf'), float('nan'))),
    'mask_is_logits': st.just(True),
}
mistakes = st.lists(
    st.one_of(
        *(st.tuples(st.sampled_from(TENSORS), st.just(name), values) for name, (values, _) in CHANGES.items()),
        *(st.tuples(st.just(name), st.just('number'), values) for name, values in NUMBERS.items()),
        st.tuples(st.just('batch'), st.just('size'), st.sampled_from((0, 1, 2**40))),
    ),
    min_size=1,
    max_size=3,
)


def call_wrongly(mistakes: list[tuple[str, str, Any]], needs: tuple[bool, bool, bool]) -> None:
    print(mistakes, needs, flush=True)
    arguments = valid_arguments()
    for name, kind, value in sorted(mistakes, key=lambda mistake: mistake[1] == 'size'):  # a huge tensor is not copied
        if kind == 'number':
            arguments[name] = value
            continue
        for key in TENSORS if name == 'batch' else (name,):
            if isinstance(arguments[key], Tensor):
                change = (lambda t, size: resized(t, 0, size)) if name == 'batch' else CHANGES[kind][1]
                try:
                    arguments[key] = change(arguments[key], value)
                except ERRORS:  # such a tensor cannot be made
                    return
    grad_output = arguments.pop('grad_output')
    values = list(arguments.values())
    try:
        output = torch.ops.dcnv3.forward(*values)
    except ERRORS:
        pass
    else:
        if all(value.device.type == 'cpu' for value in values[:3]):
            geometry = check_geometry(*(values[3:8]), 1.0)
            check_tensors(*values[:3], geometry)
            assert output.shape[1:3] == geometry.output_size(*values[0].shape[1:3])
    with contextlib.suppress(*ERRORS):
        torch.ops.dcnv3.backward(grad_output, *values, *needs)


def main(examples: int) -> None:
    settings = hypothesis.settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    needs = st.tuples(st.booleans(), st.booleans(), st.booleans())
    settings(hypothesis.given(mistakes, needs)(call_wrongly))()
    print('every call returned or raised')


if __name__ == '__main__':
    main(int(sys.argv[1]))
