"""The command mm-internimage in a checkout; test_installed.py has it in an installation."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmcv_custom import __main__ as command
from mmcv_custom import zoo
from tests.support import CONFIGS

NAME = 'mask-rcnn_internimage-t_fpn_1x_coco'


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr('sys.argv', ['mm-internimage', *arguments])
    command.main()


@pytest.mark.parametrize(
    ('arguments', 'printed'),
    [
        (['path', NAME], f'{CONFIGS}/detection/coco/{NAME}.py\n'),
        (['path', 'mask_rcnn_internimage_t_fpn_1x_coco.pth'], f'{CONFIGS}/detection/coco/{NAME}.py\n'),
        (['list', 'MASK-RCNN', 't_fpn_1x'], f'{NAME}\n'),
        (['list'], ''.join(f'{name}\n' for name in zoo.models())),
    ],
)
def test_names_and_paths(
    arguments: list[str], printed: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call(monkeypatch, *arguments)
    assert capsys.readouterr().out == printed


def test_help_names_the_tools(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    call(monkeypatch)
    tools = capsys.readouterr().out.splitlines()[-1]
    assert {'train', 'test', 'zoo/evaluate', 'analysis_tools/get_flops'} <= set(tools.replace(',', '').split())
    assert 'demo/pictures' not in tools  # no program


def test_a_tool_runs_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(tmp_path)  # so that what the command adds is taken out again
    call(monkeypatch, 'demo/digits', str(tmp_path / 'digits'), '--train', '1', '--val', '1', '--size', '64')
    assert (tmp_path / 'digits/annotations/train.json').is_file()
    assert capsys.readouterr().out == f'{tmp_path / "digits"} written\n'


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['trian'], "there is no command 'trian'; expected path, list or a tool: "),
        (['path'], 'path needs one name, got 0'),
        (['path', NAME, NAME], 'path needs one name, got 2'),
        (['path', 'mask-rcnn_internimage-t'], f"there is no model 'mask-rcnn_internimage-t'; close to it: .*{NAME}"),
        (['list', 'yolo', 'coco'], 'no name of a model contains yolo and coco'),
    ],
)
def test_mistakes_get_one_clear_line(arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match=f'^error: {message}'):
        call(monkeypatch, *arguments)
