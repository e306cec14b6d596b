"""The paper's rules, and how far the published variants follow them."""

from __future__ import annotations

import pytest

from mmcv_custom.arch import PRESETS
from mmcv_custom.scaling import ALPHA, BETA, scale, stack


def test_the_rules_double_the_cost_per_step():
    assert pytest.approx(2, abs=0.02) == ALPHA * BETA**1.99


@pytest.mark.parametrize('name', ['tiny', 'small', 'base', 'large', 'xlarge'])
def test_stacking_rules_give_the_published_stages(name):
    arch = PRESETS[name]
    shape = stack(arch.channels, 16, arch.depths[0], arch.depths[2])
    assert (shape.channels, shape.groups, shape.depths) == (arch.widths, tuple(arch.groups), tuple(arch.depths))


def test_huge_stacks_with_32_channels_per_group():
    arch = PRESETS['huge']
    assert stack(320, 32, 6, 32) == (arch.widths, tuple(arch.groups), tuple(arch.depths))


def test_giant_departs_from_the_stacking_rules():
    """Its first two stages are shallower than the last: L_1 = L_2 = 2, L_4 = 4."""
    arch = PRESETS['giant']
    shape = stack(512, 32, 4, 48)
    assert (shape.channels, shape.groups) == (arch.widths, tuple(arch.groups))
    assert (shape.depths, tuple(arch.depths)) == ((4, 4, 48, 4), (2, 2, 48, 4))


# phi, and the depths by the rule where the published ones are others. Widths: tiny to large follow at phi 0, 1, 2, 3;
# xlarge between 3 and 4. Depths: base, large and xlarge were made shallower than the rule asks for.
SCALED = {
    'tiny': (0, None),
    'small': (1, None),
    'base': (2, (5, 5, 21, 5)),
    'large': (3, (5, 5, 24, 5)),
    'xlarge': (3.5, (5, 5, 26, 5)),
}


@pytest.mark.parametrize('name', SCALED)
def test_scaling_rules_and_departures(name):
    arch = PRESETS[name]
    phi, depths_by_rule = SCALED[name]
    shape = scale(phi)
    assert (shape.channels, shape.groups) == (arch.widths, tuple(arch.groups))
    assert shape.depths == (depths_by_rule or tuple(arch.depths))
    assert depths_by_rule != tuple(arch.depths)


@pytest.mark.parametrize(
    'call, message',
    [
        (lambda: stack(60, 16, 4, 18), 'channels must be a multiple of group_channels=16, got 60'),
        (lambda: stack(64, 16, 4, 3), 'depth must be at most depth_stage3=3, got 4'),
        (lambda: scale(-1), 'phi must be at least 0, got -1'),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
