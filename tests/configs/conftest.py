"""What makes hundreds of configs quick to read."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import pytest
from mmengine.config import utils


@pytest.fixture(scope='session', autouse=True)
def metafiles_read_once() -> Iterator[None]:
    """MMEngine reads every metafile of mmdet or mmseg anew for every base from there, and hardly does anything else."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils, 'load', cache(utils.load))
        yield
