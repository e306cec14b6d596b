"""The segmentation configs load images and labels from their folders and give the model what the official code does."""

from __future__ import annotations

from pathlib import Path

import mmcv
import numpy as np
import pytest
from mmengine.config import Config, ConfigDict
from mmengine.dataset import BaseDataset, pseudo_collate
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmseg.datasets import CityscapesDataset
from mmseg.datasets.transforms import LoadAnnotations

from mmseg_custom import MapillaryCityscapesDataset, NYUDepthV2Dataset
from tests.support import CONFIGS

IGNORED = 255
# The labels of Mapillary Vistas v1.2 that the official pipeline maps to each of the 19 labels of Cityscapes.
MAPILLARY = [[13, 24, 41], [2, 15], [17], [6], [3], [45, 47], [48], [50], [30], [29], [27], [19], [20, 21, 22]]
MAPILLARY += [[55], [61], [54], [58], [57], [52]]

# The new values of labels 0, 1, 2 ...
AS_IT_IS = list(range(19))
STREET = [next((new for new, olds in enumerate(MAPILLARY) if old in olds), IGNORED) for old in range(66)]
# A config of each dataset: the new values of its labels.
DATA = {
    'ade20k/internimage-t_upernet_8xb2-160k_ade20k-512x512': [IGNORED, *range(150)],
    'cityscapes/internimage-h_mask2former_8xb2-80k_mapillary-cityscapes-1024x1024': AS_IT_IS,
    'mapillary/internimage-l_segformer_8xb2-80k_mapillary-512x1024': STREET,
    'coco_stuff10k/internimage-h_mask2former_16xb1-40k_coco-stuff164k-coco-stuff10k-512x512': [IGNORED, *range(171)],
    'coco_stuff164k/internimage-h_mask2former_16xb1-80k_coco-stuff164k-896x896': list(range(171)),
    'nyu_depth_v2/internimage-h_mask2former_16xb1-40k_nyu-depth-v2-480x480': [IGNORED, *range(40)],
    'pascal_context/internimage-h_mask2former_16xb1-40k_pascal-context-59-480x480': [IGNORED, *range(59)],
}


def make_dataset(cfg: ConfigDict, root: Path, labels: np.ndarray) -> BaseDataset:
    """Builds a dataset of one image, written into the folders and with the suffixes that its config names."""
    root = root / cfg.data_root
    for folder in cfg.data_prefix.values():
        (root / folder).mkdir(parents=True)
    dataset = DATASETS.build(dict(cfg, data_root=str(root), lazy_init=True))
    image = np.random.default_rng(0).integers(0, 256, (*labels.shape, 3), dtype=np.uint8)
    mmcv.imwrite(image, f'{dataset.data_prefix["img_path"]}/photo{dataset.img_suffix}')
    mmcv.imwrite(labels, f'{dataset.data_prefix["seg_map_path"]}/photo{dataset.seg_map_suffix}')
    if dataset.ann_file:
        Path(dataset.ann_file).parent.mkdir(parents=True, exist_ok=True)
        Path(dataset.ann_file).write_text('photo\n')
    dataset.full_init()
    return dataset


@pytest.mark.parametrize('config', DATA)
def test_data_reach_the_model(config: str, tmp_path: Path) -> None:
    cfg = Config.fromfile(CONFIGS / 'segmentation' / f'{config}.py')
    init_default_scope(cfg.default_scope)
    preprocessor = MODELS.build(cfg.model.data_preprocessor)
    size, crop = (64, 128), cfg.model.data_preprocessor.size
    labels = (np.arange(size[0] * size[1]).reshape(size) % len(DATA[config])).astype(np.uint8)
    expected = np.array(DATA[config], dtype=np.uint8)[labels]

    training = cfg.train_dataloader.dataset
    for part in training.get('datasets', [training]):
        dataset = make_dataset(part, tmp_path / 'train', labels)
        assert np.array_equal(LoadAnnotations()(dataset.get_data_info(0))['gt_seg_map'], expected)
        batch = preprocessor(pseudo_collate([dataset[0]]), training=True)
        assert batch['inputs'].shape == (1, 3, *crop)
        truth = batch['data_samples'][0].gt_sem_seg.data
        assert truth.shape == (1, *crop) and set(truth.unique().tolist()) <= {IGNORED, *DATA[config]}

    if cfg.val_dataloader.dataset.type == 'CityscapesDataset':
        labels = expected = labels % 19
    sample = make_dataset(cfg.val_dataloader.dataset, tmp_path / 'val', labels)[0]
    assert np.array_equal(sample['data_samples'].gt_sem_seg.data[0], expected)  # in the size of the file
    assert all(side % 32 == 0 for side in sample['inputs'].shape[1:])


def test_mapillary_takes_the_classes_of_cityscapes() -> None:
    assert MapillaryCityscapesDataset.METAINFO == CityscapesDataset.METAINFO
    with pytest.raises(ValueError, match='the 19 of Cityscapes'):
        MapillaryCityscapesDataset(metainfo=dict(classes=('road', 'sky')), lazy_init=True)


def test_nyu_depth_v2() -> None:
    dataset = NYUDepthV2Dataset(lazy_init=True)
    classes, palette = dataset.metainfo['classes'], dataset.metainfo['palette']
    assert (classes[0], classes[11], classes[39]) == ('wall', 'counter', 'otherprop') and len(set(classes)) == 40
    assert (palette[0], palette[39]) == ([120, 120, 120], [255, 194, 7]) and len(set(map(tuple, palette))) == 40
    assert (dataset.img_suffix, dataset.seg_map_suffix) == ('.png', '.png')
