"""Hostile files are refused in one line by every entrance, run nothing and take no memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmcv_custom.checkpoint import UNSAFE_LOAD_VARIABLE
from tests.hostile import corpus
from tests.hostile.assembler import CANARY, CODE
from tests.hostile.entrances import ENTRANCES, tiny_backbone
from tests.mmcv.tiny_training import runner
from tests.support import ROOT

SLOW = ('DetInferencer', 'init_detector')  # they build a detector for each file
RESUMING = ('load_from', 'resume', 'test')
NO_CONFIG = 'DetInferencer without config'
READERS = [name for name in ENTRANCES if name not in (*SLOW, NO_CONFIG)]
SAMPLE = slice(None, None, 25)
Outcomes = dict[tuple[str, str], tuple[str, str]]  # by entrance and file


def enter(jobs: list[tuple[str, list[Path]]], folder: Path, **variables: str) -> Outcomes:
    """What the entrances make of files, in a process of its own: the outcome and the text of each."""
    (folder / 'jobs.json').write_text(json.dumps([(entrance, list(map(str, files))) for entrance, files in jobs]))
    environment = {name: text for name, text in os.environ.items() if name != UNSAFE_LOAD_VARIABLE}
    done = subprocess.run(
        [sys.executable, '-m', 'tests.hostile.entrances', 'jobs.json'],
        cwd=folder,
        env={**environment, 'PYTHONPATH': str(ROOT), 'CUDA_VISIBLE_DEVICES': '', **variables},
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-3000:]
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('[')]
    return {(entrance, name): (outcome, text) for entrance, name, outcome, text in lines}


def assert_refused(outcomes: Outcomes, entrance: str, files: list[Path]) -> None:
    for file in files:
        outcome, text = outcomes[entrance, file.name]
        assert outcome == 'refused', (file.name, outcome, text)
        assert file.name in text and text.isprintable() and len(text) < 1000, text


def assert_refused_by_the_reader(outcomes: Outcomes, entrance: str, files: list[Path]) -> None:
    """What the reader lets through would be refused later, as it fills no model, and would look just as well."""
    for file in files:
        outcome, text = outcomes['load_safely', file.name]
        told = outcomes[entrance, file.name][1]
        same = text.replace('`b`', '`a`') in told.replace('`b`', '`a`')  # safetensors names any of two
        assert outcome == 'refused' and same, (text, told)


@pytest.fixture(scope='session')
def refused(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return corpus.write(corpus.refused(), tmp_path_factory.mktemp('refused'))


@pytest.fixture(scope='session')
def misformed(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return corpus.write(corpus.misformed(), tmp_path_factory.mktemp('misformed'))


@pytest.fixture(scope='session')
def armed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A genuine checkpoint, but for configs that create a file when they are run."""
    folder = tmp_path_factory.mktemp('armed')
    runner(folder, 1).train()
    content = torch.load(folder / 'iter_1.pth', weights_only=False)
    content['meta'].update(config=CODE, cfg=CODE)
    content['message_hub']['runtime_info'].update(cfg=CODE)
    torch.save(content, folder / 'armed.pth')
    return folder / 'armed.pth'


@pytest.fixture(scope='session')
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A genuine checkpoint of a backbone."""
    file = tmp_path_factory.mktemp('backbone') / 'backbone.pth'
    torch.save({'state_dict': tiny_backbone().state_dict(), 'meta': {}}, file)
    return file


@pytest.fixture(scope='session')
def outcomes(
    refused: list[Path], misformed: list[Path], armed: Path, backbone: Path, tmp_path_factory: pytest.TempPathFactory
) -> Outcomes:
    """What came of all files, in one process, as its start takes longer than the files."""
    jobs = [(entrance, [*refused, *(misformed if entrance != 'load_safely' else [])]) for entrance in READERS]
    jobs += [(entrance, [*refused[SAMPLE], *misformed[:1]]) for entrance in SLOW]
    jobs.append(('init_cfg', [backbone]))
    jobs += [(entrance, [armed]) for entrance in (*RESUMING, NO_CONFIG)]
    return enter(jobs, tmp_path_factory.mktemp('outcomes'))


def test_the_corpus_is_large_and_loaded(refused: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read without care, a hostile file does what it is meant to do."""
    assert len(refused) >= 80
    monkeypatch.chdir(tmp_path)
    for name in ('call builtins.exec', 'legacy posix.system', 'row hostile content'):
        (file,) = (file for file in refused if file.stem == name)
        torch.load(file, weights_only=False)
        Path(CANARY).unlink()


@pytest.mark.parametrize('entrance', READERS)
def test_every_hostile_file_is_refused(entrance: str, refused: list[Path], outcomes: Outcomes) -> None:
    assert_refused(outcomes, entrance, refused)
    assert_refused_by_the_reader(outcomes, entrance, refused)


@pytest.mark.parametrize('entrance', SLOW)
def test_a_sample_is_refused(entrance: str, refused: list[Path], outcomes: Outcomes) -> None:
    assert_refused(outcomes, entrance, refused[SAMPLE])
    assert_refused_by_the_reader(outcomes, entrance, refused[SAMPLE])


@pytest.mark.slow
@pytest.mark.parametrize('entrance', SLOW)
def test_every_hostile_file_is_refused_by_inferencers(entrance: str, refused: list[Path], tmp_path: Path) -> None:
    assert_refused(enter([(entrance, refused)], tmp_path), entrance, refused)


@pytest.mark.parametrize('entrance', READERS[1:])
def test_files_that_are_no_checkpoint(entrance: str, misformed: list[Path], outcomes: Outcomes) -> None:
    assert_refused(outcomes, entrance, misformed)


@pytest.mark.parametrize('entrance', RESUMING)
def test_a_config_in_a_checkpoint_is_not_run(entrance: str, outcomes: Outcomes) -> None:
    assert outcomes[entrance, 'armed.pth'] == ('loaded', '')


def test_a_genuine_backbone_is_loaded(backbone: Path, outcomes: Outcomes) -> None:
    assert outcomes['init_cfg', backbone.name] == ('loaded', '')


def test_an_inferencer_needs_a_config(armed: Path, outcomes: Outcomes) -> None:
    outcome, text = outcomes[NO_CONFIG, 'armed.pth']
    assert outcome == 'refused' and f'needs the config of {armed} as its argument model' in text


def test_with_consent_a_config_is_run(armed: Path, tmp_path: Path) -> None:
    """Which also proves that the config would have been run."""
    jobs = [('resume', [armed]), (NO_CONFIG, [armed])]
    found = enter(jobs, tmp_path, **{UNSAFE_LOAD_VARIABLE: '1'})
    assert [outcome for outcome, _ in found.values()] == ['ran', 'ran']
