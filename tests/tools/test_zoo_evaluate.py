"""tools/zoo/evaluate.py, with a local file of random weights in place of the download and a tiny dataset."""

from __future__ import annotations

import hashlib
import importlib
import json
import re
import subprocess
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from mmdet.datasets import CocoDataset
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from mmcv_custom import zoo
from tests.support import CONFIGS, ROOT, Run
from tools.zoo import evaluate
from tools.zoo.evaluate import Comparison, compare, move_data

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
    truth['categories'] = [dict(id=1 + i, name=name) for i, name in enumerate(CocoDataset.METAINFO['classes'])]
    (root / 'annotations/instances_val2017.json').write_text(json.dumps(truth))
    return root


@pytest.fixture(scope='session')
def checkpoint(workplace: Path) -> Path:
    """A file as the official code writes it, of random weights that find a person everywhere."""
    cfg = Config.fromfile(zoo.models()[NAME].config)
    cfg.merge_from_dict(SMALL)
    init_default_scope(cfg.default_scope)
    state = MODELS.build(cfg.model).state_dict()
    state['roi_head.bbox_head.fc_cls.bias'][0] = 10.0
    file = workplace / 'official.pth'
    torch.save({'meta': {'mmcv_version': '1.5.0', 'CLASSES': ('person',)}, 'state_dict': state, 'optimizer': {}}, file)
    return file


def test_a_checkpoint_is_evaluated_and_compared(
    run: Run,
    coco: Path,
    checkpoint: Path,
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    program = [ROOT / 'tools/zoo/evaluate.py', OFFICIAL_NAME, '--data-root', 'coco', '--checkpoint', checkpoint.name]
    done = run(*program, *OPTIONS, check=False)
    assert done.returncode == 1, done.stdout[-3000:] + done.stderr[-3000:]  # random weights are not the published ones
    assert 'converted official.pth: Mask R-CNN' in done.stdout + done.stderr
    (log,) = (workplace / 'work_dirs/zoo' / NAME).glob('*/*.json')
    metrics = json.loads(log.read_text())
    header, box, mask = (re.split('  +', line) for line in done.stdout.splitlines()[-3:])
    assert header == ['metric, %', 'measured', 'published']
    assert (box[0], *box[2:]) == ('box AP', '47.2', 'differs by more than 0.2')
    assert float(box[1]) == pytest.approx(100 * metrics['coco/bbox_mAP']) and float(box[1]) < 5
    assert (mask[0], *mask[2:]) == ('mask AP', '42.5', 'differs by more than 0.2')
    assert f'sha256 {hashlib.sha256(checkpoint.read_bytes()).hexdigest()}\n' in done.stdout

    # The same result again, beside a file that looks later, with a tolerance that everything is within.
    (workplace / 'work_dirs/zoo' / NAME / 'results').mkdir()
    (workplace / 'work_dirs/zoo' / NAME / 'results/test.bbox.json').write_text('[]')
    monkeypatch.chdir(workplace)
    monkeypatch.setattr('subprocess.run', lambda command: subprocess.CompletedProcess(command, 0))
    monkeypatch.setattr('sys.argv', [*map(str, program), '--tolerance', '100', *OPTIONS])
    with pytest.raises(SystemExit) as left:
        evaluate.main()
    assert not left.value.code
    assert re.split('  +', capsys.readouterr().out.splitlines()[-2]) == [*box[:3], 'agrees']

    # Another process than the first of a launcher has no metrics.
    monkeypatch.setenv('RANK', '1')
    monkeypatch.setattr('sys.argv', [*map(str, program), '--launcher', 'pytorch', *OPTIONS])
    evaluate.main()
    assert 'box AP' not in capsys.readouterr().out


def test_overrides_are_checked_and_moved(coco: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list = []

    def run_nothing(command: list) -> subprocess.CompletedProcess:
        commands.append(Config.fromfile(command[2]))
        return subprocess.CompletedProcess(command, 1)

    monkeypatch.chdir(workplace)
    monkeypatch.setattr('subprocess.run', run_nothing)
    (coco / 'annotations/mine.json').write_text((coco / 'annotations/instances_val2017.json').read_text())
    (workplace / 'any.pth').touch()
    mine = [
        'test_dataloader.dataset.ann_file=annotations/mine.json',
        'test_evaluator.ann_file=data/coco/annotations/mine.json',
    ]
    arguments = [NAME, '--data-root', 'coco', '--checkpoint', 'any.pth', '--work-dir', 'moved', '--cfg-options', *mine]
    monkeypatch.setattr('sys.argv', ['evaluate.py', *arguments])
    with pytest.raises(SystemExit):
        evaluate.main()
    (cfg,) = commands
    assert cfg.test_dataloader.dataset.ann_file == 'annotations/mine.json'
    assert cfg.test_evaluator.ann_file == 'coco/annotations/mine.json'


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
def test_dataset_and_evaluator_move_together(path: str, prefix: str) -> None:
    cfg = Config.fromfile(CONFIGS / path)
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
    arguments: list[str],
    message: str,
    coco: Path,
    checkpoint: Path,
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def offline(url: str, *_: object, **__: object) -> None:
        raise URLError('offline')

    content = torch.load(checkpoint, weights_only=True)
    content['state_dict'].popitem()
    torch.save(content, workplace / 'part.pth')
    (workplace / 'broken.pth').write_bytes(checkpoint.read_bytes()[:100_000])
    monkeypatch.chdir(workplace)
    monkeypatch.setenv('PYTHONPATH', str(ROOT))
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
    monkeypatch.setattr(importlib.import_module('mmcv_custom.checkpoint.download'), 'urlopen', offline)
    monkeypatch.setattr('torch.hub.get_dir', lambda: str(workplace / 'hub'))
    monkeypatch.setattr('sys.argv', ['evaluate.py', *arguments, '--work-dir', 'mistakes'])
    with pytest.raises(SystemExit) as left:
        evaluate.main()
    # Python prints what main() leaves with; tools/test.py has printed its own line.
    printed = str(left.value) if left.value.code != 1 else capfd.readouterr().err
    assert re.search(f'^error: .*{message}', printed, re.MULTILINE), printed
    assert 'Traceback' not in printed


def test_a_model_without_checkpoint_needs_one() -> None:
    model = zoo.models()['cascade-rcnn_internimage-xl_fpn_3x_crowdhuman']
    with pytest.raises(SystemExit, match='no checkpoint of cascade-rcnn.* was published; name one by --checkpoint'):
        evaluate.checkpoint_url(model)
