"""An unpickler for which a pickle is data: it builds tensors, arrays and plain containers, and calls nothing else.

A pickle is a program for a stack machine. Here the machine has only the instructions that ``torch.save`` writes
(:mod:`.machine`). The functions that a pickle names are never called: :mod:`.calls` maps each name to a function of
ours that checks its arguments, and :mod:`.states` checks the states of objects. So neither a wrong size nor a forged
state reaches torch, numpy or MMEngine.
"""

from .calls import DICTS, SAVED_METHODS
from .machine import Unpickler
from .refusals import (
    GlobalRefusedError,
    UnsupportedError,
    is_count,
    kind_of,
    require,
    require_supported,
    unfolded_limit,
)
from .tensors import Storage

__all__ = [
    'DICTS',
    'SAVED_METHODS',
    'GlobalRefusedError',
    'Storage',
    'Unpickler',
    'UnsupportedError',
    'is_count',
    'kind_of',
    'require',
    'require_supported',
    'unfolded_limit',
]
