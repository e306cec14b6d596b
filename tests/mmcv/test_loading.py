"""The loading transforms of a pipeline are those before the first that draws a random number."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from mmcv_custom.datasets.loading import Loading, same_random_states

INFO: dict[str, Any] = dict(steps=[])


def step(name: str, draw: Callable[[], Any] = lambda: None, **entries: Any) -> Callable[[dict], dict]:
    """A transform that changes its input in place, as many do."""

    def transform(results: dict) -> dict:
        results['steps'].append(name)
        results.update(entries)
        draw()
        return results

    return transform


def states() -> tuple:
    return (
        random.getstate(),
        np.random.get_state()[1].tolist(),
        np.random.get_state()[2:],
        torch.get_rng_state().tolist(),
    )


@pytest.mark.parametrize('draw', [random.random, np.random.rand, np.random.randn, lambda: torch.rand(1)])
def test_a_random_transform_ends_the_loading(draw: Callable[[], Any]) -> None:
    loading = Loading([step('load'), step('turn'), step('flip', draw), step('pack')])
    before = states()
    for _ in range(2):
        assert loading(INFO) == dict(steps=['load', 'turn'])
    assert dict(steps=[]) == INFO and states() == before


def test_packing_ends_the_loading() -> None:
    loading = Loading([step('load'), step('pack', data_samples=1)])
    assert loading(INFO) == dict(steps=['load'])
    assert Loading([step('load')])(INFO) == dict(steps=['load'])


def test_a_change_of_shape_ends_the_loading() -> None:
    transforms = [step('load', labels=np.zeros((4, 4))), step('remap', labels=np.ones((4, 4)))]
    transforms += [step('resize', labels=np.zeros((2, 2)))]
    assert Loading(transforms)(INFO)['steps'] == ['load', 'remap', 'resize']
    assert Loading(transforms, fixed='labels')(INFO)['steps'] == ['load', 'remap']


def test_a_refused_image_gives_none() -> None:
    assert Loading([step('load'), lambda results: None, step('turn')])(INFO) is None


def test_random_states_come_back_after_an_error() -> None:
    before = states()
    with pytest.raises(ZeroDivisionError), same_random_states() as drawn:
        assert not drawn()
        random.random()
        assert drawn()
        raise ZeroDivisionError
    assert states() == before
