"""tools/new_config.py: the config that it writes trains and is evaluated."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from mmengine.runner import Runner
from PIL import Image

from mmcv_custom.cli import build_runner
from mmcv_custom.new_config import Options, assemble, commands, find_base, length_of, read_instances, read_segments
from mmcv_custom.new_config.source import assignment
from mmcv_custom.old_configs.comparison import values_of
from tests.configs.helpers import LEAVES
from tests.configs.test_training import FAMILIES
from tests.shrink import shrink_model
from tests.support import CONFIGS, ROOT
from tests.tools.helpers import (
    DETECTION,
    MASK_RCNN,
    NAMES,
    SEGMENTATION,
    UPERNET,
    Write,
    read,
    reverse_categories,
    save,
)
from tools.demo import digits


def small(cfg: Config) -> Config:
    """The config with a shrunken model, for two steps in this process."""
    if 'mmcv_custom::demo' not in cfg.text:
        cfg.model = shrink_model(cfg.model)
    cfg.load_from = None
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'].update(num_workers=0, persistent_workers=False)
    cfg.train_cfg.update(dict(max_iters=2, val_interval=2) if 'max_iters' in cfg.train_cfg else dict(max_epochs=1))
    cfg.update(work_dir='work', log_level='ERROR')
    return cfg


def final_scores(runner: Runner) -> dict[str, float]:
    scalars = runner.message_hub.log_scalars
    return {
        name: scalars[name].current()
        for name in ('val/coco/bbox_mAP', 'val/coco/segm_mAP', 'val/mIoU')
        if name in scalars
    }


TRAINED = {name: Path(FAMILIES[name].config).stem for name in FAMILIES if name != 'dino-denoising'} | {
    'cbdino-voc': 'dino-4scale_cb-internimage-h_b1-20k_objects365-voc07',
    'demo-mask-rcnn': 'mask-rcnn_digits',
    'demo-dino': 'dino_digits',
    'demo-upernet': 'upernet_digits',
}
FAST = ('mask-rcnn', 'mask2former', 'demo-dino', 'demo-upernet')  # a method of each kind, and configs of both kinds


@pytest.mark.parametrize(
    'name', [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in TRAINED]
)
def test_what_is_written_trains_and_is_evaluated(name: str, write: Write) -> None:
    cfg = write(TRAINED[name], '--batch-size', '4', '--size', '64', '64')
    detects = cfg.default_scope == 'mmdet'
    assert set(values_of(cfg.model, 'num_classes')) == {10 if detects else 11}
    runner = build_runner(small(cfg))
    runner.train()
    assert runner.iter == 2
    assert runner.train_dataloader.dataset.metainfo['classes'] == (digits.CLASSES if detects else NAMES)
    scores = final_scores(runner)
    assert len(scores) == (2 if 'mask-rcnn' in name else 1) and all(np.isfinite(list(scores.values())))


def written_lines(text: str) -> list[str]:
    """The lines of a config but empty ones and those of its list of classes."""
    before, rest = re.split(r'^classes = ', text, maxsplit=1, flags=re.MULTILINE)
    after = rest.partition('\n)\n' if rest.startswith('(\n') else '\n')[2]
    return [line for line in (before + after).splitlines() if line]


def test_source_is_formatted_as_ruff_does() -> None:
    values = [
        *({f'key_{index}': 'x' * index for index in range(count)} for count in range(4, 20, 3)),
        *(tuple(f'name {index}' for index in range(count)) for count in (0, 1, 8, 9, 10, 11, 12)),
        [dict(type='Resize', scale=(64, 48)), {'a': [1.5, 1e-7, 2e20, -1], 'b': {'c': 'x' * 70}}],
        ['it\'s "quoted"', "it's", '"quoted"', None, True],
    ]
    lines = '\n'.join(assignment(f'value_{index}', value) for index, value in enumerate(values)) + '\n'
    ruff = [sys.executable, '-m', 'ruff', 'format', '--config', ROOT / 'pyproject.toml', '-']
    assert subprocess.run(ruff, input=lines, capture_output=True, text=True, check=True).stdout == lines
    found: dict[str, Any] = {}
    exec(lines, found)
    assert [found[f'value_{index}'] for index in range(len(values))] == values


def check_text(names: list[str], place: Path) -> None:
    """The longest configs that are written for some models: all class numbers are set, in 25 lines, well formatted."""
    pairs = {
        split: (f'data/digits/images/{split}', f'data/digits/annotations/{split}.json') for split in ('train', 'val')
    }
    instances = read_instances(pairs)
    segments = read_segments(
        {split: (images, images.replace('images', 'masks')) for split, (images, _) in pairs.items()}
    )
    written = place / 'written'
    written.mkdir()
    for name in names:
        base = find_base(name)
        data = instances if base.detects else segments
        draft = assemble(base, data, Options(size=(96, 128), from_official=base.checkpoint is not None))
        path = written / f'{name}.py'
        path.write_text(draft.text(path))
        assert len(written_lines(path.read_text())) <= 25, name
        cfg = Config.fromfile(path)
        assert set(values_of(cfg.model, 'num_classes')) == {len(data.classes)}, name
        for weights in values_of(cfg.model, 'class_weight'):
            assert weights == ([1.0] * len(data.classes) + [0.1] if 'mask2former' in name else None), name
        for split in ('train', 'val', 'test'):
            assert cfg[f'{split}_dataloader'].dataset.type == ('CocoDataset' if base.detects else 'BaseSegDataset')
            assert cfg[f'{split}_dataloader'].dataset.data_root == 'data/digits/'
        assert cfg.test_evaluator.type == ('CocoMetric' if base.detects else 'IoUMetric')
    command = [
        sys.executable,
        '-m',
        'ruff',
        'format',
        '--check',
        '--config',
        str(ROOT / 'pyproject.toml'),
        str(written),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_configs_are_short_and_well_formatted(place: Path) -> None:
    check_text(sorted(set(TRAINED.values())), place)


@pytest.mark.slow
def test_configs_of_all_models_are_short_and_well_formatted(place: Path) -> None:
    check_text([path.stem for path in LEAVES], place)


def test_classes_are_in_the_order_of_the_file(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever order --classes has: mmdet's dataset numbers them in that of the file."""
    for split in ('train', 'val'):
        reverse_categories(split)
    cfg = write('mask-rcnn_digits', '--classes', '1', '7', '4')
    dataset = cfg.train_dataloader.dataset
    assert dataset.metainfo.classes == ('7', '4', '1')
    assert 'the classes are in the order of data/digits/annotations/train.json' in capsys.readouterr().out
    init_default_scope('mmdet')
    built = DATASETS.build(dict(dataset, pipeline=[]))
    names = {category['id']: category['name'] for category in read('train')['categories']}
    assert [dataset.metainfo.classes[built.cat2label[identity]] for identity in built.cat_ids] == [
        names[identity] for identity in built.cat_ids
    ]


def test_learning_rate_belongs_to_the_batch(write: Write) -> None:
    base = Config.fromfile(find_base(MASK_RCNN).path)
    assert (base.optim_wrapper.optimizer.lr, base.auto_scale_lr.base_batch_size) == (1e-4, 16)
    cfg = write(MASK_RCNN, '--batch-size', '4', '--gpus', '8', '--out', 'more.py')
    assert (cfg.train_dataloader.batch_size, cfg.optim_wrapper.optimizer.lr) == (4, 2e-4)
    assert cfg.auto_scale_lr == dict(base_batch_size=32, enable=False)  # --auto-scale-lr does not scale again
    same = write(MASK_RCNN, '--gpus', '8', '--out', 'same.py')
    assert same.optim_wrapper.optimizer.lr == 1e-4
    assert 'lr' not in Path('same.py').read_text()


def test_upernet_gets_two_images_per_step(write: Write) -> None:
    """Its pooling to one pixel leaves BatchNorm one value per channel else."""
    name = 'internimage-h_upernet_16xb1-160k_ade20k-896x896'
    assert write(name, '--out', 'one_gpu.py').train_dataloader.batch_size == 2
    assert write(name, '--out', 'two_gpus.py', '--gpus', '2').train_dataloader.batch_size == 1


def test_official_detector(write: Write) -> None:
    cfg = write(MASK_RCNN, '--from-official')
    assert cfg.load_from == find_base(MASK_RCNN).checkpoint
    assert cfg.model.backbone.init_cfg is None  # nothing is downloaded in vain


def test_test_files(write: Write) -> None:
    cfg = write(MASK_RCNN, *('--test', *DETECTION[1:3]))
    assert cfg.val_dataloader.dataset.ann_file == 'annotations/val.json'
    assert cfg.test_dataloader.dataset.ann_file == 'annotations/train.json'
    assert cfg.test_evaluator.ann_file == 'data/digits/annotations/train.json'


def test_demo_starts_from_what_the_demo_learned(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    assert write('upernet_digits', '--out', 'random.py').model.backbone.init_cfg is None
    assert 'random weights: there is no work_dirs/demo/mask-rcnn/iter_1000.pth' in capsys.readouterr().out
    Path('work_dirs/demo/mask-rcnn').mkdir(parents=True)
    Path('work_dirs/demo/mask-rcnn/iter_1000.pth').touch()
    assert write('upernet_digits', '--out', 'learned.py').model.backbone.init_cfg.checkpoint.endswith('iter_1000.pth')


def test_small_images_are_not_left_out(write: Write) -> None:
    """mmdet's COCO configs drop images below 32 pixels from training."""
    content = read('train')
    image = content['images'][0]
    Image.new('RGB', (24, 24)).save(f'data/digits/images/train/{image["file_name"]}')
    image.update(width=24, height=24)
    square = dict(bbox=[2, 2, 9, 9], area=81, segmentation=[[2, 2, 11, 2, 11, 11, 2, 11]])
    for entry in content['annotations']:
        if entry['image_id'] == image['id']:
            entry.update(square)
    save('train', content)
    init_default_scope('mmdet')
    cfg = write(MASK_RCNN)
    assert len(DATASETS.build(dict(cfg.train_dataloader.dataset, pipeline=[]))) == 8


def test_crops_fit_the_images(write: Write) -> None:
    cfg = write(UPERNET, '--out', 'small.py')
    assert cfg.model.data_preprocessor.size == (64, 64) == cfg.train_pipeline[3].crop_size
    assert (cfg.train_pipeline[2].scale, cfg.test_pipeline[1].scale) == ((256, 64), (256, 64))
    cfg = write(UPERNET, '--out', 'large.py', '--size', '256', '512')
    assert cfg.model.data_preprocessor.size == (256, 512) == cfg.train_pipeline[3].crop_size
    assert cfg.train_dataloader.dataset.pipeline[2].scale == (1024, 256)


def test_masks_without_names(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    cfg = write(UPERNET, data=SEGMENTATION)
    assert cfg.train_dataloader.dataset.metainfo.classes == tuple(f'class_{number}' for number in range(11))
    assert 'the masks do not name their classes: they are called class_0 to class_10' in capsys.readouterr().out


def test_a_file_of_names(write: Write) -> None:
    Path('names.txt').write_text('\n'.join(NAMES) + '\n\n')
    assert write(UPERNET, '--classes', 'names.txt').train_dataloader.dataset.metainfo.classes == NAMES


def test_bases_are_named_relatively_in_a_checkout(tmp_path: Path) -> None:
    base = find_base(MASK_RCNN)
    assert base.written_as(CONFIGS / 'my.py') == f'detection/coco/{MASK_RCNN}.py'
    assert base.written_as(ROOT / 'mine/my.py') == f'../configs/detection/coco/{MASK_RCNN}.py'
    assert base.written_as(tmp_path / 'my.py') == f'mmcv_custom::detection/coco/{MASK_RCNN}.py'


def test_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    cfg = Config.fromfile(find_base(MASK_RCNN).path)
    assert commands(cfg, Path('configs/my.py'), gpus=1, amp=False) == [
        'python tools/train.py configs/my.py',
        'python tools/test.py configs/my.py work_dirs/my/epoch_12.pth --show-dir pictures',
    ]
    assert commands(cfg, Path('a b.py'), gpus=8, amp=True) == [
        "tools/dist_train.sh 'a b.py' 8 --amp",
        "tools/dist_test.sh 'a b.py' 'work_dirs/a b/epoch_12.pth' 8 --show-dir pictures",
    ]


@pytest.mark.parametrize(
    ('images', 'text'),
    [
        (16, '12 epochs, 96 steps, of which the learning rate takes 500 to warm up: train longer, or shorten'),
        (3000, '12 epochs, 18000 steps'),
    ],
)
def test_length_of_training(images: int, text: str) -> None:
    cfg = Config.fromfile(find_base(MASK_RCNN).path)
    found = length_of(cfg, images, gpus=1)
    assert found.startswith(text) and ('warm up' in found) == ('warm up' in text)


@pytest.mark.slow
def test_the_printed_commands_run(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    write('mask-rcnn_digits')
    train, evaluate = capsys.readouterr().out.splitlines()[-2:]
    short = ' --cfg-options train_cfg.max_iters=2 train_cfg.val_interval=2'
    environment = {
        **os.environ,
        'PATH': f'{Path(sys.executable).parent}:{os.environ["PATH"]}',
        'CUDA_VISIBLE_DEVICES': '',
    }
    for command in (train + short, evaluate.replace('iter_1000', 'iter_2')):
        done = subprocess.run(command, shell=True, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
    assert len(list(Path('pictures').rglob('*.png'))) == 5
