"""The paper's rules for stacking and scaling, and how far the published presets follow them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mmcv_custom.models.arch import DEPTH_GROWTH, PRESETS, WIDTH_GROWTH, Arch


def shape(arch: Arch) -> tuple[tuple[int, ...], ...]:
    return arch.widths, tuple(arch.groups), tuple(arch.depths)


def test_the_rules_double_the_cost_per_step() -> None:
    assert pytest.approx(2, abs=0.02) == DEPTH_GROWTH * WIDTH_GROWTH**1.99


@pytest.mark.parametrize('name', ['tiny', 'small', 'base', 'large', 'xlarge'])
def test_stacking_rules_give_the_published_stages(name: str) -> None:
    arch = PRESETS[name]
    assert shape(Arch.stacked(arch.channels, 16, arch.depths[0], arch.depths[2])) == shape(arch)


def test_huge_stacks_with_32_channels_per_group() -> None:
    assert shape(Arch.stacked(320, 32, 6, 32)) == shape(PRESETS['huge'])


def test_giant_departs_from_the_stacking_rules() -> None:
    """Its first two stages are shallower than the last: L_1 = L_2 = 2, L_4 = 4."""
    giant, stacked = shape(PRESETS['giant']), shape(Arch.stacked(512, 32, 4, 48))
    assert giant[:2] == stacked[:2]
    assert (stacked[2], giant[2]) == ((4, 4, 48, 4), (2, 2, 48, 4))


# phi, and the depths by the rule where the published ones differ. Widths: tiny to large follow at phi 0, 1, 2, 3;
# xlarge lies between 3 and 4. Depths: base, large and xlarge were made shallower than the rule asks for.
SCALED = {
    'tiny': (0, None),
    'small': (1, None),
    'base': (2, (5, 5, 21, 5)),
    'large': (3, (5, 5, 24, 5)),
    'xlarge': (3.5, (5, 5, 26, 5)),
}


@pytest.mark.parametrize('name', SCALED)
def test_scaling_rules_and_departures(name: str) -> None:
    phi, depths_by_rule = SCALED[name]
    widths, groups, depths = shape(PRESETS[name])
    assert shape(PRESETS['tiny'].scaled(phi)) == (widths, groups, depths_by_rule or depths)
    assert depths_by_rule != depths


def test_scaling_keeps_the_other_options() -> None:
    large = PRESETS['large'].scaled(1)
    assert (large.offset_scale, large.post_norm) == (2.0, True)
    assert large.channels == 224 and large.groups[0] == 14  # 1.36 * 160 = 217.6, to a multiple of 16


def test_presets_are_told_by_their_width() -> None:
    assert {name: Arch.preset_of_width(arch.channels) for name, arch in PRESETS.items()} == {
        name: name for name in PRESETS
    }
    assert Arch.preset_of_width(63) is None


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (lambda: Arch.stacked(60, 16, 4, 18), 'channels must be a multiple of group_channels=16, got 60'),
        (lambda: Arch.stacked(64, 16, 4, 3), 'depth must be at most depth_stage3=3, got 4'),
        (lambda: PRESETS['tiny'].scaled(-1), 'phi must be at least 0, got -1'),
        (lambda: PRESETS['giant'].scaled(1), r'scaled needs depths and groups .*, got \(2, 2, 48, 4\) and'),
        (lambda: Arch(depths=(1,), groups=(4,)).scaled(1), r'scaled needs depths and groups .*, got \(1,\) and'),
        (lambda: Arch(groups=(4, 4, 4, 4)).scaled(0), r'scaled needs depths and groups .* and \(4, 4, 4, 4\)'),
        (lambda: PRESETS['huge'].scaled(1), 'scaled cannot place the norms of level2_post_norm'),
    ],
)
def test_errors(call: Callable[[], Arch], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
