"""tools/evaluate_zoo.py, with a local file of random weights in place of the download and a tiny data set."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from mmcv_custom import zoo
from tools import evaluate_zoo
from tools.evaluate_zoo import Comparison, compare, move_data

from tests.support import ROOT, Run

NAME = 'mask-rcnn_internimage-t_fpn_1x_coco'
OFFICIAL_NAME = 'mask_rcnn_internimage_t_fpn_1x_coco'
SMALL = {
    'model.backbone.channels': 16,
    'model.backbone.depths': [1, 1, 1, 1],
    'model.backbone.groups': [1, 2, 4, 8],
    'model.neck.in_channels': [16, 32, 64, 128],
    'model.test_cfg.rpn.max_per_img': 20,
    'test_dataloader.num_workers': 0,
    'test_dataloader.persistent_workers': False,
    'test_dataloader.dataset.pipeline.1.scale': (64, 64),
}
OPTIONS = ['--cfg-options', *(f'{key}={str(value).replace(" ", "")}' for key, value in SMALL.items())]


@pytest.fixture(scope='session')
def coco(workplace: Path) -> Path:
    """The digits where the configs of COCO look, and under the names of COCO's classes."""
    digits, root = workplace / 'data/digits', workplace / 'coco'
    (root / 'annotations').mkdir(parents=True)
    (root / 'val2017').symlink_to(digits / 'images/val')
    truth = json.loads((digits / 'annotations/val.json').read_text())
    names = ['person', 'bicycle', 'car', 'motorcycle', 'airplane', 'bus', 'train', 'truck', 'boat', 'traffic light']
    for category, name in zip(truth['categories'], names, strict=True):
        category['name'] = name
    (root / 'annotations/instances_val2017.json').write_text(json.dumps(truth))
    return root


@pytest.fixture(scope='session')
def checkpoint(workplace: Path) -> Path:
    """A file as the official code writes it, of random weights that find a person everywhere."""
    cfg = Config.fromfile(zoo.models()[NAME].path)
    cfg.merge_from_dict(SMALL)
    init_default_scope(cfg.default_scope)
    state = MODELS.build(cfg.model).state_dict()
    state['roi_head.bbox_head.fc_cls.bias'][0] = 10.0
    file = workplace / 'official.pth'
    torch.save({'meta': {'mmcv_version': '1.5.0', 'CLASSES': ('person',)}, 'state_dict': state, 'optimizer': {}}, file)
    return file


def test_a_checkpoint_is_evaluated_and_compared(run: Run, coco: Path, checkpoint: Path, workplace: Path) -> None:
    program = [ROOT / 'tools/evaluate_zoo.py', OFFICIAL_NAME, '--data-root', 'coco', '--checkpoint', checkpoint.name]
    done = run(*program, *OPTIONS, check=False)
    assert done.returncode == 1, done.stdout[-3000:] + done.stderr[-3000:]  # random weights are not the published ones
    assert 'converted official.pth: Mask R-CNN' in done.stdout + done.stderr
    folder = workplace / 'work_dirs/zoo' / NAME
    report = json.loads((folder / 'report.json').read_text())
    assert (report['model'], report['images'], report['origin']) == (NAME, 3, 'converted')
    assert report['checkpoint']['bytes'] == checkpoint.stat().st_size
    assert len(report['checkpoint']['sha256']) == 64
    assert {'device', 'torch'} < set(report['environment']) and len(report['environment']) == 5
    box, mask = report['comparisons']
    assert (box['metric'], box['published'], box['agrees']) == ('box AP', 47.2, False)
    assert box['measured'] == pytest.approx(100 * report['metrics']['coco/bbox_mAP']) and box['measured'] < 5
    assert (mask['metric'], mask['published'], mask['agrees']) == ('mask AP', 42.5, False)
    text = (folder / 'report.md').read_text()
    assert f'| box AP | {box["measured"]} | 47.2 | **differs by more than 0.2** |' in text
    assert 'data: 3 images of coco' in text and 'model.backbone.channels=16' in text
    assert done.stdout.endswith(text + '\n')


def test_figures_agree_within_the_tolerance() -> None:
    model = zoo.models()[NAME]
    metrics = {'coco/bbox_mAP': 0.470, 'coco/segm_mAP': 0.422, 'coco/bbox_mAP_s': 0.3}
    assert list(compare(model, metrics, tta=False, tolerance=0.2)) == [
        Comparison('box AP', 47.0, 47.2, True),
        Comparison('mask AP', 42.2, 42.5, False),
    ]


def test_figures_with_augmentation_are_compared_with_their_like() -> None:
    model = zoo.models()['dino-4scale_cb-internimage-h_b1-20k_objects365-coco']
    metrics = {'coco/bbox_mAP': 0.650}
    assert list(compare(model, metrics, tta=True, tolerance=0.2)) == [
        Comparison('box AP (TTA)', 65.0, 65.0, True),
        Comparison('box AP (TTA, test-dev)', None, 65.4, None),
    ]
    assert list(compare(model, metrics, tta=False, tolerance=0.2)) == [Comparison('box AP', 65.0, 64.5, False)]


def test_without_a_published_figure_there_is_nothing_to_agree_with() -> None:
    model = zoo.models()['internimage-l_upernet_8xb2-80k_mapillary-512x1024']
    assert list(compare(model, {'mIoU': 51.26, 'aAcc': 90.0}, False, 0.2)) == [Comparison('mIoU', 51.26, None, None)]


@pytest.mark.parametrize(
    ('path', 'prefix'),
    [
        ('detection/coco/mask-rcnn_internimage-t_fpn_1x_coco.py', 'data/coco'),
        ('detection/lvis/dino-4scale_cb-internimage-h_b1-80k_objects365-lvis-v1-minival.py', 'data/lvis_v1'),
        ('segmentation/ade20k/internimage-t_upernet_8xb2-160k_ade20k-512x512.py', 'data/ade/ADEChallengeData2016'),
    ],
)
def test_data_set_and_evaluator_move_together(path: str, prefix: str) -> None:
    cfg = Config.fromfile(ROOT / 'configs' / path)
    train = str(cfg.train_dataloader)
    move_data(cfg, '/mnt/set/')
    moved = f'{cfg.test_dataloader} {cfg.test_evaluator}'
    assert '/mnt/set' in moved and prefix not in moved
    assert str(cfg.train_dataloader) == train


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['mask-rcnn_t', '--data-root', 'coco'], "there is no model 'mask-rcnn_t'"),
        ([NAME, '--data-root', 'nowhere'], 'nowhere/annotations/instances_val2017.json does not exist'),
        ([NAME, '--data-root', 'coco', '--checkpoint', 'no.pth'], 'there is no checkpoint no.pth'),
        (
            [NAME, '--data-root', 'coco'],
            f'could not download https://huggingface.co/.*/{OFFICIAL_NAME}.pth to .*offline',
        ),
        ([NAME, '--data-root', 'coco', '--checkpoint', 'broken.pth', *OPTIONS], 'broken.pth .* could not be read'),
        ([NAME, '--data-root', 'coco', '--checkpoint', 'part.pth', *OPTIONS], 'part.pth does not fill MaskRCNN'),
    ],
)
def test_mistakes_get_one_clear_line(
    arguments: list[str], message: str, coco: Path, checkpoint: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(url: str, *_: object, **__: object) -> None:
        raise URLError('offline')

    content = torch.load(checkpoint, weights_only=True)
    content['state_dict'].popitem()
    torch.save(content, workplace / 'part.pth')
    (workplace / 'broken.pth').write_bytes(checkpoint.read_bytes()[:100_000])
    monkeypatch.chdir(workplace)
    monkeypatch.setattr('torch.hub.download_url_to_file', offline)
    monkeypatch.setattr('torch.hub.get_dir', lambda: str(workplace / 'hub'))
    monkeypatch.setattr('sys.argv', ['evaluate_zoo.py', *arguments, '--work-dir', 'mistakes'])
    with pytest.raises(SystemExit, match=f'^error: .*{message}'):
        evaluate_zoo.main()


def test_a_model_without_checkpoint_needs_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = zoo.models()['cascade-rcnn_internimage-xl_fpn_3x_crowdhuman']
    with pytest.raises(SystemExit, match='no checkpoint of cascade-rcnn.* was published; name one by --checkpoint'):
        evaluate_zoo.checkpoint_file(model, None)
