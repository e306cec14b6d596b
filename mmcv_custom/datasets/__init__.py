"""The data check: what is wrong with the datasets of a config, before the first step."""

from .cache import Cache, key_of
from .check import check_datasets, fix_datasets
from .contexts import silence
from .report import Harm, Report
from .sources import DATA_CHECKS, DatasetCheck, Source, class_of, sources

__all__ = [
    'DATA_CHECKS',
    'Cache',
    'DatasetCheck',
    'Harm',
    'Report',
    'Source',
    'check_datasets',
    'fix_datasets',
    'class_of',
    'key_of',
    'silence',
    'sources',
]
