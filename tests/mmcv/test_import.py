"""What importing mmcv_custom needs, and what it changes."""

from __future__ import annotations

import subprocess
import sys

from tests.support import ROOT

# As with mmcv-lite, or an mmcv that pip built without its operators.
WITHOUT_MMCV_OPERATORS = """
import sys
sys.modules['mmcv._ext'] = None  # importing it fails
import torch
from mmcv_custom import InternImage
model = InternImage('tiny', channels=16, depths=[1, 1, 1, 1], groups=[1, 2, 4, 8])
model.init_weights()
features = model(torch.rand(1, 3, 64, 64))
sum(feature.sum() for feature in features).backward()
print([tuple(feature.shape) for feature in features], 'mmcv.ops' in sys.modules)
try:
    import mmcv.ops
except ImportError:
    print('no operators')
"""


def run(code: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_backbone_runs_without_mmcvs_operators() -> None:
    shapes, proof = run(WITHOUT_MMCV_OPERATORS)[-2:]
    assert shapes == '[(1, 16, 16, 16), (1, 32, 8, 8), (1, 64, 4, 4), (1, 128, 2, 2)] False'
    assert proof == 'no operators'


def test_importing_sets_up_mmengine() -> None:
    code = """
from mmengine.analysis import complexity_analysis
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.runner import CheckpointLoader
def state():
    loader = CheckpointLoader._get_checkpoint_loader('file.pth')
    flops = complexity_analysis._DEFAULT_SUPPORTED_FLOP_OPS
    return loader.__module__, 'mmcv_custom' in MODULE2PACKAGE, 'dcnv3::forward' in flops
print(state())
import mmcv_custom
print(state())
"""
    before, after = run(code)
    assert before == "('mmengine.runner.checkpoint', False, False)"
    assert after == "('mmcv_custom.mmengine_setup', True, True)"
