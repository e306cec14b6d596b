"""Configs of mmdet 2 and mmseg 0: recognised, matched with the zoo, and carried over by tools/new_config.py --from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config

from mmcv_custom import zoo
from mmcv_custom.cli import build_runner
from mmcv_custom.errors import UserError
from mmcv_custom.models.arch import PRESETS, Arch
from mmcv_custom.old_configs import model_of, old_config_hint, read_old_config
from tests.configs.helpers import LEAVES
from tests.shrink import shrink_model
from tests.support import DATA
from tests.tools.old_sources import MASK_RCNN, UPERNET
from tools import new_config
from tools.demo import digits

OFFICIAL: list[dict[str, Any]] = json.loads((DATA / 'official_detectors.json').read_text())
TYPES = {'Mask R-CNN': 'MaskRCNN', 'Cascade Mask R-CNN': 'CascadeRCNN', 'Cascade R-CNN': 'CascadeRCNN', 'DINO': 'DINO'}


def convert(monkeypatch: pytest.MonkeyPatch, source: str, *arguments: str) -> Config:
    Path('old.py').write_text(source)
    monkeypatch.setattr('sys.argv', ['new_config.py', '--from', 'old.py', '--out', 'new.py', *arguments])
    new_config.main()
    return Config.fromfile('new.py')


def train(cfg: Config, score: str) -> None:
    """Trains a shrunken model for two steps, and checks that it was evaluated."""
    cfg.model = shrink_model(cfg.model)
    cfg.update(work_dir='work', log_level='ERROR')
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'].update(num_workers=0, persistent_workers=False)
    cfg.train_cfg.update({key: 1 for key in ('max_epochs', 'val_interval') if 'max_epochs' in cfg.train_cfg})
    runner = build_runner(cfg)
    runner.train()
    assert runner.iter == 2 and score in runner.message_hub.log_scalars


def test_an_edited_detector(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    cfg = convert(monkeypatch, MASK_RCNN)
    dataset = cfg.train_dataloader.dataset
    assert (dataset.data_root, dataset.ann_file) == ('data/digits/', 'annotations/train.json')
    assert dataset.metainfo.classes == digits.CLASSES
    assert cfg.test_dataloader == cfg.val_dataloader
    step = dict(type='RandomResize', scale=[(64, 48), (64, 64)], keep_ratio=True)
    assert dataset.pipeline[2] == step and cfg.val_dataloader.dataset.pipeline[1].scale == (64, 64)
    assert (cfg.train_dataloader.batch_size, cfg.train_dataloader.num_workers) == (4, 0)
    assert not cfg.train_dataloader.persistent_workers
    assert (cfg.model.backbone.drop_path_rate, cfg.model.backbone.with_cp) == (0.3, True)
    norm = cfg.model.data_preprocessor
    assert (norm.mean, norm.std, norm.bgr_to_rgb) == ([103.53, 116.28, 123.675], [1.0, 1.0, 1.0], False)
    assert (cfg.optim_wrapper.optimizer.lr, cfg.optim_wrapper.optimizer.weight_decay) == (5e-5, 0.1)
    assert cfg.optim_wrapper.paramwise_cfg == dict(layer_decay_rate=0.9)
    assert cfg.optim_wrapper.clip_grad == dict(max_norm=1.0, norm_type=2)
    warm_up, steps = cfg.param_scheduler
    assert (warm_up.type, warm_up.end, warm_up.start_factor) == ('LinearLR', 100, 0.001)
    assert (steps.type, steps.milestones, steps.end) == ('MultiStepLR', [16, 22], 24)
    assert (cfg.train_cfg.max_epochs, cfg.train_cfg.val_interval) == (24, 2)
    assert (cfg.default_hooks.checkpoint.max_keep_ckpts, cfg.default_hooks.logger.interval) == (5, 10)
    printed = capsys.readouterr().out
    assert [line for line in printed.splitlines() if 'not carried over' in line] == [
        '- not carried over: train_pipeline: PhotoMetricDistortion',
        '- not carried over: fp16.loss_scale',
        '- not carried over: model.rpn_head.anchor_generator.scales=[4]',
        '- not carried over: my_settings',
    ]
    assert 'train.py new.py --amp\n' in printed  # fp16
    train(cfg, 'val/coco/segm_mAP')


def test_an_edited_segmentor(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    cfg = convert(monkeypatch, UPERNET)
    assert 'UperNet on InternImage-S' in capsys.readouterr().out
    dataset = cfg.train_dataloader.dataset
    assert dataset.metainfo.classes == ('none', *digits.CLASSES)
    assert cfg.model.data_preprocessor.size == (32, 64) == dataset.pipeline[3].crop_size
    step = dict(type='RandomResize', scale=(128, 96), ratio_range=(0.5, 2.0), keep_ratio=True)
    assert dataset.pipeline[2] == step
    warm_up, poly = cfg.param_scheduler
    assert (warm_up.end, poly.type, poly.power, poly.eta_min, poly.end) == (10, 'PolyLR', 0.9, 1e-7, 2)
    train(cfg, 'val/mIoU')


def test_arguments_win(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = ('data/digits/images/val', 'data/digits/annotations/val.json')
    cfg = convert(monkeypatch, MASK_RCNN, '--train', *files, '--batch-size', '3', '--size', '96', '128')
    assert cfg.train_dataloader.dataset.ann_file == 'annotations/val.json'
    assert (cfg.train_dataloader.batch_size, cfg.test_dataloader.dataset.pipeline[1].scale) == (3, (128, 96))


def test_bases_that_exist_are_read(place: Path) -> None:
    """And their missing bases do not matter."""
    Path('base.py').write_text(MASK_RCNN)
    Path('leaf.py').write_text(
        "_base_ = 'base.py'\noptimizer = dict(lr=1.0)\nmodel = dict(rpn_head=dict(_delete_=True))\n"
    )
    old = read_old_config('leaf.py')
    assert (old.content['optimizer']['lr'], old.content['optimizer']['type']) == (1.0, 'AdamW')
    assert (old.content['model']['rpn_head'], len(old.missing)) == ({}, 4)
    assert model_of(old) == 'mask-rcnn_internimage-t_fpn_1x_coco'


def official_source(entry: dict[str, Any]) -> tuple[str, zoo.Model]:
    """A config of mmdet 2 with the facts that are recorded of an official one, and the model that it is here."""
    model = zoo.models()[Path(entry['config']).stem]
    method, backbone = model.metadata['Architecture']
    roi_head = dict(mask_head={}) if 'Mask' in method else {}
    kind = 'CBInternImage' if backbone.startswith('CB') else 'InternImage'
    constructor = 'CustomLayerDecayOptimizerConstructor' if entry['layer_decay_rate'] else None
    runner = dict(max_epochs=entry['epochs']) if entry['epochs'] else dict(max_iters=entry['iterations'])
    content = dict(
        model=dict(type=TYPES[method], backbone=dict(entry['backbone'], type=kind), roi_head=roi_head),
        optimizer=dict(type='AdamW', lr=entry['lr'], **(dict(constructor=constructor) if constructor else {})),
        runner=runner,
        data=dict(train=dict(ann_file=entry['train_annotations'][0], img_prefix=entry['train_images'][0])),
    )
    return '\n'.join(f'{key} = {value!r}' for key, value in content.items()), model


@pytest.mark.parametrize('entry', OFFICIAL, ids=lambda entry: entry['official'])
def test_official_detectors_are_found_by_what_they_are(entry: dict[str, Any], tmp_path: Path) -> None:
    """Under another name. Those that differ in their validation files only are taken for each other."""
    source, model = official_source(entry)
    (tmp_path / 'mine.py').write_text(source)
    found = zoo.models()[model_of(read_old_config(str(tmp_path / 'mine.py')))]
    facts = ('Architecture', 'Epochs', 'Iterations')
    assert [found.metadata.get(fact) for fact in facts] == [model.metadata.get(fact) for fact in facts]
    assert found.dataset == model.dataset
    if 'DINO' in model.metadata['Architecture'] and 'InternImage-L' in model.metadata['Architecture']:
        assert found.name == model.name  # by the rule for learning rates


@pytest.mark.parametrize('entry', OFFICIAL, ids=lambda entry: entry['official'])
def test_official_detectors_are_found_by_name(entry: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / entry['official']).write_text(official_source(entry)[0])
    assert model_of(read_old_config(str(tmp_path / entry['official']))) == Path(entry['config']).stem


def backbone_of(arch: str) -> str:
    preset: Arch = PRESETS[arch]
    return f"backbone=dict(type='InternImage', channels={preset.channels}, depths={preset.depths})"


@pytest.mark.parametrize(
    ('source', 'name'),
    [
        (
            f"_base_ = '../_base_/datasets/ade20k.py'\nmodel = dict(decode_head=dict(type='UPerHead'), "
            f'{backbone_of("tiny")})\n',
            'internimage-t_upernet_8xb2-160k_ade20k-512x512',
        ),
        (
            f"dataset_type = 'CityscapesDataset'\nrunner = dict(max_iters=160000)\n"
            f"model = dict(decode_head=dict(type='SegformerHead'), {backbone_of('large')})\n",
            'internimage-l_segformer_8xb2-160k_mapillary-cityscapes-512x1024',
        ),
        (
            f"_base_ = ['../_base_/models/mask2former_beit.py', '../_base_/datasets/coco-stuff10k.py']\n"
            f'model = dict({backbone_of("huge")})\n',
            'internimage-h_mask2former_16xb1-40k_coco-stuff164k-coco-stuff10k-512x512',
        ),
        ("_base_ = './mask_rcnn_internimage_s_fpn_3x_coco.py'\n", 'mask-rcnn_internimage-s_fpn_3x_coco'),
    ],
    ids=['upernet', 'segformer', 'mask2former', 'base'],
)
def test_models_are_found_without_their_bases(source: str, name: str, tmp_path: Path) -> None:
    (tmp_path / 'mine.py').write_text(source)
    assert model_of(read_old_config(str(tmp_path / 'mine.py'))) == name


SAME = {
    'mask-rcnn_internimage-t_fpn_1x_coco': """
_base_ = './mask_rcnn_internimage_t_fpn_1x_coco.py'
optimizer = dict(lr=0.0001)
""",
    'dino-4scale_internimage-t_8xb2-12e-layer-wise-lr_coco': """
_base_ = './dino_4scale_internimage_t_1x_coco_layer_wise_lr.py'
model = dict(
    bbox_head=dict(
        num_query=900, as_two_stage=True, with_box_refine=True,
        positional_encoding=dict(type='SinePositionalEncoding', num_feats=128, temperature=20, normalize=True),
        dn_cfg=dict(
            type='CdnQueryGenerator', noise_scale=dict(label=0.5, box=1.0),
            group_cfg=dict(dynamic=True, num_groups=None, num_dn_queries=100))),
    train_cfg=dict(assigner=dict(
        cls_cost=dict(type='FocalLossCost', weight=2.0), reg_cost=dict(type='BBoxL1Cost', weight=5.0),
        iou_cost=dict(type='IoUCost', weight=2.0))))
optimizer = dict(
    type='AdamW', lr=0.0001, weight_decay=0.0001, constructor='CustomLayerDecayOptimizerConstructor',
    paramwise_cfg=dict(num_layers=30, layer_decay_rate=0.9, depths=[4, 4, 18, 4]))
optimizer_config = dict(grad_clip=dict(max_norm=0.1, norm_type=2))
lr_config = dict(policy='step', warmup='linear', warmup_iters=500, warmup_ratio=0.001, step=[11])
runner = dict(type='EpochBasedRunner', max_epochs=12)
""",
}


@pytest.mark.parametrize('name', SAME)
def test_what_says_nothing_new_becomes_its_model(
    name: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without data of its own: one line, the base."""
    convert(monkeypatch, SAME[name])
    lines = Path('new.py').read_text().splitlines()
    assert len(lines) == 2 and lines[1].startswith('_base_ = ') and lines[1].endswith(f"/{name}.py'")
    assert 'not carried over' not in capsys.readouterr().out


@pytest.mark.parametrize(
    ('source', 'message'),
    [
        ('model = dict(', 'cannot read it: SyntaxError'),
        ('a = 1; exit(', 'cannot read it: SyntaxError'),
        ('import nowhere', "cannot run it: ModuleNotFoundError: No module named 'nowhere'"),
        ('x = {{_base_.model}}', 'cannot run it: (NameError|TypeError)'),
        ('exit(3)', 'cannot run it: (SystemExit|NameError)'),
        ("_base_ = 'old.py'", 'it is its own base'),
        (
            'model = dict()\ntrain_dataloader = dict()',
            'this is a config of mmdet 3 or mmseg 1, which have train_dataloader',
        ),
        ('a = 1', 'it has neither model nor data'),
        ('runner = 3', 'runner must be a dict, got 3'),
        ("model = dict(type='MaskRCNN', backbone=dict(type='ResNet'))", 'must be an InternImage, got ResNet'),
        ("model = dict(type='MaskRCNN', backbone=dict(type='InternImage'))", 'model.backbone.channels is missing'),
        (
            "model = dict(type='MaskRCNN', backbone=dict(channels=96))",
            'no published model has .*channels=96, but 64, 80',
        ),
        (
            "model = dict(type='MaskRCNN', backbone=dict(channels=64, depths=[2, 2, 9, 2]))",
            r'depths=\[2, 2, 9, 2\] is that of no published model of 64 channels: InternImage-T has \[4, 4, 18, 4\]',
        ),
        ("model = dict(type='FCOS', backbone=dict(channels=64))", 'neither the type of its model nor its bases tell'),
        (
            "model = dict(type='MaskRCNN', backbone=dict(channels=192))",
            'no Mask R-CNN on InternImage-XL here, but Cascade Mask R-CNN, Cascade R-CNN, SegFormer, UperNet',
        ),
        (
            MASK_RCNN.replace('data/digits/', 'elsewhere/'),
            '--train elsewhere/images/train/: there is no such folder of images',
        ),
        (
            MASK_RCNN.replace("'annotations/train.json'", "['a.json', 'b.json']").replace('data_root + [', '['),
            'joins several',
        ),
        (
            UPERNET.replace("ann_dir='masks/train'", "ann_dir='masks/train', split='train.txt'"),
            'train.split lists images',
        ),
        (
            UPERNET.replace("dict(type='LoadAnnotations')", "dict(type='LoadAnnotations', reduce_zero_label=True)"),
            'reduce_zero_label=True is not carried over',
        ),
        (UPERNET.partition('dataset = ')[0], 'num_classes=11, and it names neither data nor classes'),
        (
            UPERNET.replace('CustomDataset', 'PascalContextDataset').replace("classes=('none', *'0123456789'), ", ''),
            'data.train is a PascalContextDataset, and that of the model here a CityscapesDataset',
        ),
    ],
)
def test_mistakes(source: str, message: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match=message) as caught:
        convert(monkeypatch, source)
    assert str(caught.value).startswith('error: ') and '\n' not in str(caught.value)
    assert not Path('new.py').exists()


def test_a_model_can_be_named(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where an old config does not tell, or another one is wanted."""
    source = MASK_RCNN.replace('channels=64', 'channels=66')
    cfg = convert(monkeypatch, source, 'mask-rcnn_internimage-t_fpn_3x_coco')
    assert cfg.model.backbone.channels == 66


def test_old_configs_are_recognised(tmp_path: Path) -> None:
    path = tmp_path / 'old.py'
    path.write_text(MASK_RCNN + 'exit(3)\n')
    hint = old_config_hint(str(path))  # does not run it
    assert f'{path} is a config of mmdet 2 or mmseg 0 (it has checkpoint_config, evaluation, fp16)' in hint
    assert f'`python tools/new_config.py --from {path}`' in hint and '\n' not in hint
    assert old_config_hint(str(path), keys=['model', 'lr_config'])  # what a base defined
    path.write_text("_base_ = './mask_rcnn_internimage_t_fpn_1x_coco.py'\nmodel = dict()\n")
    assert old_config_hint(str(path))


@pytest.mark.parametrize(
    'source', ['model = dict()', 'data = dict()', 'optim_wrapper = dict(); runner = 1', '(', "'\0'"]
)
def test_other_files_are_not_old_configs(source: str, tmp_path: Path) -> None:
    (tmp_path / 'new.py').write_text(source)
    assert old_config_hint(str(tmp_path / 'new.py')) == ''


def test_our_configs_are_not_old() -> None:
    assert [path for path in LEAVES if old_config_hint(str(path))] == []


def test_a_missing_file(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('sys.argv', ['new_config.py', '--from', 'nowhere.py'])
    with pytest.raises(SystemExit, match='error: --from nowhere.py: there is no such file'):
        new_config.main()


def test_a_new_config_is_not_carried_over() -> None:
    with pytest.raises(UserError, match='this is a config of mmdet 3 or mmseg 1'):
        read_old_config(str(next(path for path in LEAVES if path.stem == 'upernet_digits')))
