"""Makes reading hundreds of configs fast."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import pytest
from mmengine.config import utils


@pytest.fixture(scope='session', autouse=True)
def metafiles_read_once() -> Iterator[None]:
    """MMEngine reads all metafiles of mmdet or mmseg again for every base from there: nearly all of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils, 'load', cache(utils.load))
        yield
