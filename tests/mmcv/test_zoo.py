"""The model zoo: complete, consistent, and what is generated of it up to date."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.fileio import load
from mmengine.registry import METRICS

from mmcv_custom import zoo
from mmcv_custom.models.arch import PRESETS
from mmcv_custom.zoo import __main__ as cli
from mmcv_custom.zoo import page
from tools.analysis import make_zoo

ROOT = Path(__file__).parents[2]
MASK_RCNN_T = 'mask-rcnn_internimage-t_fpn_1x_coco'
PUBLISHED = [path.relative_to(ROOT).as_posix() for path in sorted(ROOT.glob('configs/*/*/metafile.yml'))]


def test_every_config_is_in_the_zoo() -> None:
    configs = {path for task in ('detection', 'segmentation') for path in (ROOT / 'configs' / task).glob('*/*.py')}
    configs = {path for path in configs if '_base_' not in path.parts}
    assert {model.path for model in zoo.models().values()} == configs
    assert len(zoo.models()) == len(configs)  # no name twice
    assert len({model.official for model in zoo.models().values()}) == len(configs)


def test_everything_generated_is_up_to_date() -> None:
    """Otherwise run tools/analysis/make_zoo.py."""
    for path, text in make_zoo.files(zoo.measured()).items():
        assert path.read_text() == text, f'{path} is stale: run python tools/analysis/make_zoo.py'


def test_a_stale_page_is_noticed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr('sys.argv', ['make_zoo.py', '--pages', '--check'])
    make_zoo.main()
    assert capsys.readouterr().out == 'everything is up to date\n'
    changed = {**zoo.measured(), MASK_RCNN_T: {**zoo.measured()[MASK_RCNN_T], 'params': 1_000_000}}
    monkeypatch.setattr(zoo, 'measured', lambda: changed)
    with pytest.raises(
        SystemExit, match='error: .*docs/model_zoo.md, configs/detection/coco/metafile.yml would change'
    ):
        make_zoo.main()


@pytest.mark.parametrize(
    ('name', 'facts'),
    [
        (MASK_RCNN_T, dict(checkpoint='mask_rcnn_internimage_t_fpn_1x_coco.pth', params='49M', flops='270G')),
        (
            'dino-4scale_internimage-l_8xb2-12e-layer-wise-lr_coco',
            dict(results={'published': {'box AP': 57.5}}, pretrain='ImageNet-22K', flops=None),
        ),
        (
            'internimage-l_segformer_8xb2-160k_mapillary-cityscapes-512x1024',
            dict(results={'published': {'mIoU': 85.16, 'mIoU (TTA)': 85.67}}, pretrain='Mapillary', params='220M'),
        ),
        ('cascade-rcnn_internimage-xl_fpn_3x_crowdhuman', dict(checkpoint=None, url=None, results={})),
    ],
)
def test_facts_of_the_published_tables(name: str, facts: dict) -> None:
    model = zoo.models()[name]
    assert {key: getattr(model, key) for key in facts} == facts


def test_checkpoints_are_where_the_official_tables_link_to() -> None:
    official = 'https://huggingface.co/OpenGVLab/InternImage/resolve/main/'
    assert zoo.models()[MASK_RCNN_T].url == official + 'mask_rcnn_internimage_t_fpn_1x_coco.pth'
    assert zoo.url('internimage_t_1k_224.pth') == official + 'internimage_t_1k_224.pth'


def test_trainings_start_from_files_of_the_zoo() -> None:
    known = {backbone.file for backbone in zoo.backbones().values()}
    known |= {model.checkpoint for model in zoo.models().values() if model.checkpoint}
    known |= {f'dino_4scale_cbinternimage_h_objects365_{count}classes.pth' for count in (20, 80)}
    starts = {name: zoo.measured()[name]['start'] for name in zoo.models()}
    assert {name for name, start in starts.items() if start not in known} == {
        'dino-4scale_internimage-h_b1-20k_objects365-coco',  # not published
        'dino-4scale_internimage-g_b1-20k_objects365-coco',
    }
    assert {backbone.arch for backbone in zoo.backbones().values()} == set(PRESETS)


@pytest.mark.parametrize('name', [name for name, dataset in zoo.datasets().items() if dataset.metrics])
def test_metrics_are_called_as_the_evaluators_call_them(name: str) -> None:
    model = next(model for model in zoo.models().values() if model.dataset == name)
    cfg = Config.fromfile(model.path)
    with METRICS.switch_scope_and_registry(cfg.default_scope) as registry:
        prefix = registry.get(cfg.test_evaluator.type).default_prefix
    for key in zoo.datasets()[name].metrics.values():
        assert key.split('/')[:-1] == ([prefix] if prefix else [])
    assert set(model.results.get('published', {})) <= {
        metric + suffix for metric in zoo.datasets()[name].metrics for suffix in ('', ' (TTA)', ' (TTA, test-dev)')
    }


def test_numbers_as_tables_print_them() -> None:
    assert zoo.printed_number('49M') == (49e6, 0.5e6)
    assert zoo.printed_number('1.31B') == (1.31e9, pytest.approx(0.005e9))
    with pytest.raises(ValueError, match="expected a number with a unit, such as '49M', got '49'"):
        zoo.printed_number('49')


@pytest.mark.parametrize(
    'name',
    [
        MASK_RCNN_T,
        f'configs/detection/coco/{MASK_RCNN_T}.py',
        'mask_rcnn_internimage_t_fpn_1x_coco',
        'mask_rcnn_internimage_t_fpn_1x_coco.pth',
    ],
)
def test_models_are_found_by_any_of_their_names(name: str) -> None:
    assert zoo.find(name).name == MASK_RCNN_T


def test_a_checkpoint_of_another_name_than_its_config_is_found() -> None:
    for model in zoo.models().values():
        if model.checkpoint:
            assert zoo.find(model.checkpoint).checkpoint == model.checkpoint
    assert zoo.find('dino_4scale_cbinternimage_h_objects365_lvis.pth').name.endswith('minival')


def test_an_unknown_name_is_told_with_those_close_to_it() -> None:
    with pytest.raises(
        zoo.UnknownModelError, match=f"no model 'mask-rcnn_internimage-t'; close to it: .*{MASK_RCNN_T}"
    ):
        zoo.find('mask-rcnn_internimage-t')
    with pytest.raises(zoo.UnknownModelError, match=r"no model 'yolo'; `python -m"):
        zoo.find('yolo')


def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    monkeypatch.setattr('sys.argv', ['zoo', *arguments])
    cli.main()
    return capsys.readouterr().out


def test_the_list_and_its_filters(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(call(monkeypatch, capsys, 'list').splitlines()) == 1 + len(zoo.models())
    lines = call(monkeypatch, capsys, 'list', '--dataset', 'ade20k', '--method', 'Mask2Former').splitlines()
    assert len(lines) == 3 and lines[1].split()[0].startswith('internimage-h_mask2former')
    assert lines[1].split()[-4:] == ['mIoU', '62.6', '1313.5M', '4630G']
    with pytest.raises(SystemExit, match='error: no model has .*voc.*UperNet'):
        call(monkeypatch, capsys, 'list', '--dataset', 'voc', '--method', 'UperNet')
    with pytest.raises(SystemExit):
        call(monkeypatch, capsys, 'list', '--dataset', 'imagenet')
    assert "invalid choice: 'imagenet'" in capsys.readouterr().err


def test_a_description(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    lines = call(monkeypatch, capsys, 'show', MASK_RCNN_T).splitlines()
    facts = dict((line[:17].strip(), line[17:]) for line in lines)
    assert facts['published'] == 'box AP 47.2, mask AP 42.5'
    assert facts['checkpoint'] == zoo.models()[MASK_RCNN_T].url
    assert facts['parameters'] == '48,920,544 (published: 49M)'
    assert facts['FLOPs'] == '269.3G (published: 270G), of an image of 800 x 1280'
    assert facts['schedule'] == '1x: 12 epochs, 16 images at a time'
    assert 'params differ' not in facts
    assert 'params differ' in call(monkeypatch, capsys, 'show', 'mask2former_internimage_h_480_40k_nyu')


def test_the_path_from_any_folder(tmp_path: Path) -> None:
    command = [sys.executable, '-m', 'mmcv_custom.zoo', 'path', MASK_RCNN_T]
    done = subprocess.run(
        command, cwd=tmp_path, env={'PYTHONPATH': str(ROOT)}, capture_output=True, text=True, check=True
    )
    assert done.stdout == f'{ROOT / "configs/detection/coco" / MASK_RCNN_T}.py\n'


def test_no_configs_in_an_installed_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(zoo, 'CONFIGS', tmp_path)
    monkeypatch.setattr('sys.argv', ['zoo', 'path', MASK_RCNN_T])
    with pytest.raises(SystemExit, match='does not exist: configs come with a clone of the repository'):
        cli.main()


def test_results_of_other_origin_get_a_row_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    results = {'published': {'box AP': 47.2, 'mask AP': 42.5}, 'converted': {'box AP': 47.1}}
    model = dataclasses.replace(zoo.models()[MASK_RCNN_T], results=results)
    monkeypatch.setattr(page, 'models', lambda: {model.name: model})
    monkeypatch.setattr(page, 'backbones', dict)
    rows = [
        line.split(' | ') for line in page.render(zoo.measured()).splitlines() if line.startswith(f'| [{MASK_RCNN_T}')
    ]
    assert [(row[3:6]) for row in rows] == [['47.2', '42.5', 'published'], ['47.1', '', 'converted']]


def test_the_index_of_openmmlab_tools() -> None:
    index = load(ROOT / 'model-index.yml')['Import']
    assert sorted(index) == PUBLISHED
    entries = [entry for file in index for entry in load(ROOT / file)['Models']]
    assert [entry['Name'] for entry in entries if not (ROOT / entry['Config']).is_file()] == []
    assert {entry['Name'] for entry in entries} == set(zoo.models())
    (entry,) = (entry for entry in entries if entry['Name'] == MASK_RCNN_T)
    assert entry['Metadata'] == {
        'Training Data': 'COCO',
        'Epochs': 12,
        'Batch Size': 16,
        'Parameters': 48_920_544,
        'FLOPs': zoo.measured()[MASK_RCNN_T]['flops'],
    }
    metrics = {'box AP': 47.2, 'mask AP': 42.5}
    assert entry['Results'] == [
        {'Task': 'Object Detection', 'Dataset': 'COCO', 'Origin': 'published', 'Metrics': metrics}
    ]
    assert entry['Weights'].endswith('/mask_rcnn_internimage_t_fpn_1x_coco.pth')
