"""A config for one's own data: from a model's name and the files of the dataset to a file to train with."""

from .assembly import Draft, Options, assemble, commands, length_of
from .bases import Base, find_base
from .data import Data, Split
from .instances import read_instances
from .segments import read_segments

__all__ = [
    'Base',
    'Data',
    'Draft',
    'Options',
    'Split',
    'assemble',
    'commands',
    'find_base',
    'length_of',
    'read_instances',
    'read_segments',
]
