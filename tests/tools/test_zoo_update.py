"""tools/zoo/update.py: what is derived in the metafiles, the page and the index."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from mmcv_custom import zoo
from tests.support import CONFIGS
from tools.zoo import page, update

MASK_RCNN_T = 'mask-rcnn_internimage-t_fpn_1x_coco'
METAFILE = CONFIGS / 'detection/coco/metafile.yml'


def test_everything_rendered_is_up_to_date() -> None:
    """Otherwise run tools/zoo/update.py."""
    for path, text in update.updated_files(measure_again=False):
        assert path.read_text() == text, f'{path} is stale: run python tools/zoo/update.py'


def test_stale_files_are_noticed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr('sys.argv', ['update.py', '--pages', '--check'])
    update.main()
    assert capsys.readouterr().out == 'everything is up to date\n'
    figures = {name: {'Parameters': 1_000_000} for name in [*zoo.models(), *zoo.backbones()]}
    monkeypatch.setattr(update, 'measure_model', lambda model: figures[model.name])
    monkeypatch.setattr(update, 'measure_backbone', lambda model: figures[model.name])
    monkeypatch.setattr('sys.argv', ['update.py', '--check'])
    before = METAFILE.read_text()
    with pytest.raises(
        SystemExit, match='error: .*configs/detection/coco/metafile.yml, .*docs/model_zoo.md would change'
    ):
        update.main()
    assert METAFILE.read_text() == before


def test_only_the_lines_of_figures_change() -> None:
    figures = zoo.models()[MASK_RCNN_T].metadata
    same = {key: figures[key] for key in ('Epochs', 'Batch Size', 'FLOPs', 'Activations')}
    before = METAFILE.read_text().splitlines()
    after = update.fill_in(METAFILE, {MASK_RCNN_T: {**same, 'Parameters': 7}}).splitlines()
    changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert changed == [(f'    Parameters: {figures["Parameters"]}', '    Parameters: 7')]


def test_figures_printed_by_others_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(update, 'ROOT', tmp_path)
    metafile = tmp_path / 'metafile.yml'
    text = 'Models:\n- Name: a\n  Metadata:\n    Parameters:{}\n  Published:\n    Parameters: 7M\n- Name: ab\n'
    metafile.write_text(text.format(''))
    assert update.fill_in(metafile, {'a': {'Parameters': 70}}) == text.format(' 70')
    with pytest.raises(SystemExit, match='error: metafile.yml needs a line "FLOPs:" in the Metadata of a$'):
        update.fill_in(metafile, {'a': {'FLOPs': 70}})


def test_results_of_other_origin_get_a_row_of_their_own() -> None:
    results = {'published': {'box AP': 47.2, 'mask AP': 42.5}, 'converted': {'box AP': 47.1}}
    model = dataclasses.replace(zoo.models()[MASK_RCNN_T], results=results)
    lines = page.render({model.name: model}, {}).splitlines()
    rows = [line.split(' | ') for line in lines if line.startswith(f'| [{MASK_RCNN_T}')]
    assert [(row[3:6]) for row in rows] == [['47.2', '42.5', 'published'], ['47.1', '', 'converted']]


def test_text_of_people_stays_above_the_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(update, 'PAGE', tmp_path / 'page.md')
    update.PAGE.write_text(f'# Ours\n\n{update.MARKER}stale\n')
    text = dict(update.updated_files(measure_again=False))[update.PAGE]
    assert text.startswith(f'# Ours\n\n{update.MARKER}\n**Origin**') and 'stale' not in text
