"""Errors of a dataset's pipeline name the image, also from workers and through wrappers of datasets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.dataset import BaseDataset, ClassBalancedDataset, Compose, ConcatDataset, DefaultSampler, RepeatDataset
from torch import Tensor

from mmcv_custom.engine import PipelineError
from mmcv_custom.engine.pipeline import NamingPipeline
from mmcv_custom.engine.runner import PortableRunner
from mmcv_custom.errors import UserError
from tests.mmcv.tiny_training import runner


class Shape:
    """Stands for the transforms that load."""

    def __call__(self, results: dict) -> dict:
        return dict(results, img_shape=(1, 5000), inputs=torch.zeros(3))


class Fail:
    """Fails on one image."""

    def __init__(self, problem: Exception, path: str = 'b.png') -> None:
        self.problem, self.path = problem, path

    def __call__(self, results: dict) -> Tensor | None:
        if results['img_path'] == self.path:
            raise self.problem
        return results['inputs']


class Named(BaseDataset):
    """Three images."""

    def load_data_list(self) -> list[dict]:
        return [dict(img_path=path) for path in ('a.png', 'b.png', 'c.png')]

    def get_cat_ids(self, idx: int) -> list[int]:
        return [0]


def load(dataset: Any, workers: int) -> Any:
    """Reads all images, and returns the dataset that the loader reads."""
    loader = PortableRunner.build_dataloader(
        dict(dataset=dataset, sampler=DefaultSampler(dataset), batch_size=1, num_workers=workers)
    )
    for _ in loader:
        pass
    return loader.dataset


WRAPPERS: dict[str, Callable[[Any], Any]] = dict(
    none=lambda dataset: dataset,
    repeat=lambda dataset: RepeatDataset(dataset, 2),
    concat=lambda dataset: ConcatDataset([Named(pipeline=[Shape(), Fail(ValueError(), 'x')]), dataset]),
    balanced=lambda dataset: ClassBalancedDataset(dataset, 0.5),
)


@pytest.mark.parametrize('workers', [0, 1])
@pytest.mark.parametrize('wrapper', WRAPPERS)
def test_the_image_is_named(wrapper: str, workers: int) -> None:
    dataset = Named(pipeline=[Shape(), Fail(ValueError('wrong\n  shape'))])
    with pytest.raises(PipelineError) as caught:
        load(WRAPPERS[wrapper](dataset), workers)
    assert str(caught.value).startswith('Fail fails on b.png (5000 x 1 pixels): ValueError: wrong shape. Repair')
    assert '\n' not in str(caught.value)
    assert isinstance(caught.value.__cause__, RuntimeError if workers else ValueError)
    assert ('in DataLoader worker' in str(caught.value.__cause__)) == bool(workers)


def test_good_images_pass() -> None:
    dataset = load(Named(pipeline=[Shape(), Fail(ValueError(), 'x')]), 0)
    assert isinstance(dataset.pipeline, NamingPipeline) and len(dataset.pipeline.transforms) == 2


def test_none_still_asks_for_another_image() -> None:
    assert NamingPipeline([lambda results: None, Fail(ValueError())])(dict(img_path='b.png')) is None


def test_what_is_known_to_be_the_users_passes() -> None:
    with pytest.raises(UserError, match='^the user knows$'):
        NamingPipeline([Shape(), Fail(UserError('the user knows'))])(dict(img_path='b.png'))


def test_other_pipelines_are_left_alone() -> None:
    class Own(Compose):
        pass

    dataset = Named(pipeline=[])
    dataset.pipeline = Own([Shape()])
    assert type(load(dataset, 0).pipeline) is Own


@pytest.mark.parametrize('workers', [0, 1])
def test_options_of_workers_without_workers(workers: int, tmp_path: Path) -> None:
    data = dict(dataset=list(torch.rand(4, 3)), batch_size=2, sampler=dict(type='InfiniteSampler'))
    data.update(num_workers=workers, persistent_workers=True, prefetch_factor=2)
    training = runner(tmp_path, 1, train_dataloader=data)
    training.train()
    assert training.train_dataloader.persistent_workers == bool(workers)
    assert data['persistent_workers'] is True
