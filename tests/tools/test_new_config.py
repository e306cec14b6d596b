"""tools/new_config.py: the config that it writes trains and is evaluated; what does not fit is one line."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
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
from tools import new_config
from tools.demo import digits

IMAGES, FILES, MASKS = (
    [f'data/digits/{kind}/{split}' for split in ('train', 'val')] for kind in ('images', 'annotations', 'masks')
)
DETECTION = ['--train', IMAGES[0], f'{FILES[0]}.json', '--val', IMAGES[1], f'{FILES[1]}.json']
SEGMENTATION = ['--train', IMAGES[0], MASKS[0], '--val', IMAGES[1], MASKS[1]]
NAMES = ('background', *digits.CLASSES)
MASK_RCNN = 'mask-rcnn_internimage-t_fpn_1x_coco'
UPERNET = 'internimage-t_upernet_8xb2-160k_ade20k-512x512'
Write = Callable[..., Config]


@pytest.fixture(scope='module')
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a dataset of the demo in data/digits; every digit is in every split."""
    folder = tmp_path_factory.mktemp('new_config')
    digits.generate(folder / 'data/digits', train=8, val=5, size=64)
    return folder


@pytest.fixture
def place(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a copy of the dataset, in which the test runs."""
    shutil.copytree(dataset, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def write(place: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Runs the tool and reads what it wrote; ``data`` replaces the dataset of the demo."""

    def call(name: str, *arguments: str, data: list[str] | None = None) -> Config:
        segments = 'upernet' in name or 'mask2former' in name or 'segformer' in name
        default = [*SEGMENTATION, *(() if '--classes' in arguments else ('--classes', *NAMES))]
        data = data if data is not None else default if segments else DETECTION
        monkeypatch.setattr('sys.argv', ['new_config.py', name, *data, *arguments])
        new_config.main()
        return Config.fromfile(arguments[arguments.index('--out') + 1] if '--out' in arguments else 'my_digits.py')

    return call


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


@pytest.mark.parametrize('name', TRAINED)
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


def read(split: str) -> dict[str, Any]:
    return json.loads(Path(f'data/digits/annotations/{split}.json').read_text())


def save(split: str, content: Any) -> None:
    Path(f'data/digits/annotations/{split}.json').write_text(json.dumps(content))


def reverse_categories(split: str) -> None:
    content = read(split)
    content['categories'].reverse()
    save(split, content)


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
    content['images'][0].update(width=24, height=24)
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


def rename(folder: str, pattern: str) -> None:
    """Renames all files of both splits, by a pattern for their stem such as ``'city/{}_leftImg8bit.png'``."""
    for path in sorted(Path('data/digits', folder).rglob('*.png')):
        target = path.parent / pattern.format(path.stem)
        target.parent.mkdir(exist_ok=True)
        path.rename(target)


@pytest.mark.parametrize(
    ('images', 'masks', 'suffixes'),
    [
        ('{}.png', '{}.png', ('.png', '.png')),
        ('{}.bmp', '{}_mask.png', ('.bmp', '_mask.png')),
        ('city/{}_leftImg8bit.png', 'city/{}_gtFine_labelIds.png', ('_leftImg8bit.png', '_gtFine_labelIds.png')),
    ],
    ids=['same', 'mask', 'cityscapes'],
)
def test_endings_are_found(images: str, masks: str, suffixes: tuple[str, str], write: Write) -> None:
    rename('images', images)
    rename('masks', masks)
    cfg = write(UPERNET)
    init_default_scope('mmseg')
    for split, count in (('train', 8), ('val', 5)):
        dataset = cfg[f'{split}_dataloader'].dataset
        assert (dataset.img_suffix, dataset.get('seg_map_suffix', '.png')) == suffixes
        built = DATASETS.build(dict(dataset, pipeline=[]))
        assert len(built) == count and all(Path(item['seg_map_path']).is_file() for item in built)


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


def change(split: str, key: str, index: int | None, **changes: Any) -> None:
    """Changes entries of an annotation file: one, or all if there is no index."""
    content = read(split)
    for entry in content[key] if index is None else [content[key][index]]:
        entry.update(changes)
    save(split, content)


def drop_objects(split: str, category: int) -> None:
    content = read(split)
    content['annotations'] = [entry for entry in content['annotations'] if entry['category_id'] != category]
    save(split, content)


def write_mask(values: Any, name: str = 'train/00002.png') -> None:
    Image.fromarray(np.asarray(values)).save(f'data/digits/masks/{name}')


def write_masks(values: Any) -> None:
    for index in range(8):
        write_mask(values, f'train/{index:05d}.png')


BLACK = np.zeros((64, 64), np.uint8)
DATASET = Path('data/digits')
DETECTION_FAULTS: dict[str, tuple[Callable[[], Any], str]] = {
    'order of val': (
        lambda: reverse_categories('val'),
        r"val.json: its categories .* label 0 would be '0' in training and '9' here",
    ),
    'missing in val': (
        lambda: save('val', {**read('val'), 'categories': read('val')['categories'][:9]}),
        r"val.json: the category '9' of .*train.json is missing",
    ),
    'more in val': (
        lambda: save('train', {**read('train'), 'categories': read('train')['categories'][:9]}),
        r"val.json: the category '9' is not in .*train.json; --classes names",
    ),
    'two of a name': (lambda: change('train', 'categories', 3, name='0'), "1 names belong to several .* such as '0'"),
    'two of an id': (lambda: change('train', 'categories', 3, id=1), 'train.json: 1 ids belong to several'),
    'a name is no text': (lambda: change('train', 'categories', 3, name=3), 'name of a category .* a text, got 3'),
    'no name': (lambda: change('train', 'categories', 3, name=None), 'name of a category must be a text, got None'),
    'no object of a class': (
        lambda: drop_objects('train', 4),
        "train.json: the category '3' has no object; --classes 0 1 2 4 5",
    ),
    'no object': (lambda: save('train', {**read('train'), 'annotations': []}), 'train.json: there is no object'),
    'no category': (lambda: save('train', {**read('train'), 'categories': []}), 'train.json: there is no category'),
    'no image': (lambda: save('train', {**read('train'), 'images': []}), 'train.json: there is no image in it'),
    'no COCO file': (lambda: save('train', [1]), "train.json: .* has a list of objects under 'images'"),
    'no JSON': (lambda: (DATASET / 'annotations/train.json').write_text('{'), 'train.json: expected a COCO JSON file'),
    'no text': (lambda: (DATASET / 'annotations/train.json').write_bytes(b'\xff\x00'), 'expected a COCO JSON file'),
    'doubled folder': (
        lambda: change('train', 'images', None, file_name='images/train/0.png'),
        'none of the 8 images .* such as data/digits/images/train/images/train/0.png',
    ),
    'no masks': (
        lambda: change('train', 'annotations', None, segmentation=[]),
        'no object has a mask .* Mask R-CNN on InternImage-T needs',
    ),
}
SEGMENTATION_FAULTS: dict[str, tuple[Callable[[], Any], str]] = {
    'a mask is missing': (
        lambda: (DATASET / 'masks/train/00003.png').unlink(),
        '1 of 8 images in .* have no mask in .*, such as 00003.png: expected 00003.png',
    ),
    'an image is missing': (
        lambda: (DATASET / 'images/train/00003.png').unlink(),
        '1 of 8 masks in .* have no image in .*, such as 00003.png',
    ),
    'two endings': (
        lambda: (DATASET / 'images/train/00003.png').rename('data/digits/images/train/00003.PNG'),
        '7 .png, 1 .PNG: mmseg reads images of one ending',
    ),
    'other endings in val': (
        lambda: [path.rename(path.with_suffix('.bmp')) for path in (DATASET / 'images/val').iterdir()],
        '--val: names of images and masks end in .bmp and .png, those of --train in .png and .png',
    ),
    'a number without a name': (
        lambda: write_mask(BLACK + 37),
        'masks/train/00002.png: class 37 has no name: with 11 names the numbers are 0 to 10',
    ),
    'colours': (lambda: write_mask(np.zeros((64, 64, 3), np.uint8)), '00002.png: .* one channel .* this one has 3'),
    '16 bits': (lambda: write_mask(np.full((64, 64), 999, np.uint16)), '00002.png: class numbers are 0 to 254'),
    'only 0 and 255': (
        lambda: write_masks(np.eye(64, dtype=np.uint8) * 255),
        'masks hold only 0 and 255, and 255 is ignored',
    ),
    'broken mask': (lambda: (DATASET / 'masks/train/00002.png').write_bytes(b'\x89PNG'), '00002.png: cannot read'),
}
FAULTS = {fault: (MASK_RCNN, *rest) for fault, rest in DETECTION_FAULTS.items()} | {
    fault: (UPERNET, *rest) for fault, rest in SEGMENTATION_FAULTS.items()
}


@pytest.mark.parametrize('fault', FAULTS)
def test_faults_in_the_data(fault: str, write: Write) -> None:
    name, break_it, message = FAULTS[fault]
    break_it()
    with pytest.raises(SystemExit, match=message) as caught:
        write(name)
    assert str(caught.value).startswith('error: ') and '\n' not in str(caught.value)
    assert not Path('my_digits.py').exists()


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ([], 'name a model, such as mask-rcnn'),
        ([MASK_RCNN], '--train must name a folder'),
        ([MASK_RCNN, *DETECTION[:3]], '--val must name a folder'),
        (['mask-rcnn_internimage-q', *DETECTION], 'no model .*; close to it: .* for a CPU there are'),
        ([MASK_RCNN, *SEGMENTATION], 'a detector needs a COCO JSON file, and this is a folder'),
        ([UPERNET, *DETECTION], 'a segmentor needs a folder of masks, and this is a file'),
        ([MASK_RCNN, '--train', 'nowhere', 'a.json', *DETECTION[3:]], 'nowhere: there is no such folder of images'),
        ([MASK_RCNN, *DETECTION[:2], 'a.json', *DETECTION[3:]], 'a.json: cannot read .* No such file'),
        ([UPERNET, '--train', IMAGES[0], 'nowhere', *SEGMENTATION[3:]], 'nowhere: there is no such folder of masks'),
        ([UPERNET, '--train', 'data', MASKS[0], *SEGMENTATION[3:]], 'of 26 images in data have no mask'),
        ([UPERNET, '--train', 'data/digits/annotations', MASKS[0], *SEGMENTATION[3:]], 'there is no image in it'),
        ([MASK_RCNN, *DETECTION, '--classes', 'Two'], '--classes Two: .*train.json has no such category'),
        ([UPERNET, *SEGMENTATION, '--classes', 'a', 'b'], 'has no name: with 2 names the numbers are 0 to 1'),
        ([MASK_RCNN, *DETECTION, '--batch-size', '0'], '--batch-size must be at least 1, got 0'),
        ([MASK_RCNN, *DETECTION, '--gpus', '-2'], '--gpus must be at least 1, got -2'),
        ([MASK_RCNN, *DETECTION, '--size', '64', '8'], '--size must be at least 32, got 8'),
        (['mask-rcnn_digits', *DETECTION, '--from-official'], 'no official checkpoint of mask-rcnn_digits'),
        (['mask-rcnn_digits', *DETECTION, '--out', 'mine.yaml'], '--out must name a .py file, got mine.yaml'),
        (['mask-rcnn_digits', *DETECTION, '--out', 'data/digits/digits.json/mine.py'], 'it is no folder'),
    ],
)
def test_mistakes(arguments: list[str], message: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(place.rglob('*'))  # nothing is left behind
    monkeypatch.setattr('sys.argv', ['new_config.py', *arguments])
    with pytest.raises(SystemExit, match=message) as caught:
        new_config.main()
    assert str(caught.value).startswith('error: ') and '\n' not in str(caught.value)
    assert sorted(place.rglob('*')) == before


def test_no_file_is_overwritten(write: Write) -> None:
    Path('my_digits.py').write_text('mine')
    with pytest.raises(SystemExit, match='my_digits.py exists already, and is not overwritten'):
        write('mask-rcnn_digits')
    assert Path('my_digits.py').read_text() == 'mine'
