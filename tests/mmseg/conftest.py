"""The demo's segmentation data for tests that change them."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import pytest
from mmengine.config import Config

from tests.mmseg.seg_data import Data
from tests.support import CONFIGS


@pytest.fixture(scope='session')
def config() -> Config:
    return Config.fromfile(CONFIGS / 'demo/upernet_digits.py', import_custom_modules=False)


@pytest.fixture
def data(workplace: Path, tmp_path: Path, config: Config) -> Data:
    shutil.copytree(workplace / 'data/digits', tmp_path / 'digits')
    return Data(tmp_path / 'digits', copy.deepcopy(config))
