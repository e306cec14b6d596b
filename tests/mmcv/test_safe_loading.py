"""Safe reading of checkpoints: what could run is refused, in words that fit the case."""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from safetensors.torch import save_file

from mmcv_custom.checkpoint import SAFETENSORS_META, UNSAFE_LOAD_VARIABLE, CheckpointError, load_safely, safe_loading
from tests.mmcv.saved_files import Call


class Innocent:
    """A class that a checkpoint has no business with, though it does no harm."""


BOMBS: dict[str, Callable[[Path], Call]] = {
    'posix.mkdir': lambda crater: Call(os.mkdir, str(crater)),
    'builtins.exec': lambda crater: Call(exec, f'open({str(crater)!r}, "w").close()'),
}


@pytest.mark.parametrize('culprit', BOMBS)
def test_pickle_bomb_is_refused_and_not_run(culprit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crater, file = tmp_path / 'crater', tmp_path / 'bomb.pth'
    torch.save({'state_dict': {}, 'meta': BOMBS[culprit](crater)}, file)
    monkeypatch.delenv(UNSAFE_LOAD_VARIABLE, raising=False)
    with pytest.raises(
        RuntimeError, match=f'refused to read {file}: .* {culprit}, .* set MM_INTERNIMAGE_UNSAFE_LOAD=1'
    ):
        load_safely(file)
    assert not crater.exists()

    torch.load(file, weights_only=False)
    assert crater.exists(), 'a dud proves nothing'


@pytest.mark.parametrize('legacy', [False, True], ids=['zip', 'legacy'])
def test_refusal_names_file_global_and_remedy(legacy: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / 'odd.pth'
    torch.save({'meta': Innocent()}, file, _use_new_zipfile_serialization=not legacy)
    for value in ('', '0'):
        monkeypatch.setenv(UNSAFE_LOAD_VARIABLE, value)
        with pytest.raises(RuntimeError, match=f'refused to read {file}: it needs the global {__name__}.Innocent'):
            load_safely(file)


def test_opting_in_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: list[str]) -> None:
    file = tmp_path / 'odd.pth'
    torch.save({'meta': Innocent()}, file)
    monkeypatch.setenv(UNSAFE_LOAD_VARIABLE, '1')
    assert isinstance(load_safely(file)['meta'], Innocent)
    assert len(log) == 1 and f'{__name__}.Innocent' in log[0]

    torch.save({'meta': 1}, file)
    assert load_safely(file) == {'meta': 1}
    assert len(log) == 1  # nothing to say of a harmless file


@pytest.mark.parametrize('owner, name', [(HistoryBuffer, '__init__'), (np.ndarray, 'tofile'), (OrderedDict, 'mean')])
def test_getattr_reaches_only_what_mmengine_saves(owner: Any, name: str, tmp_path: Path) -> None:
    file = tmp_path / 'reach.pth'
    torch.save(Call(getattr, HistoryBuffer, 'mean'), file)
    assert load_safely(file) is HistoryBuffer.mean
    torch.save(Call(getattr, owner, name), file)
    with pytest.raises(RuntimeError, match='refused to read .*reach.pth: it needs the global builtins.getattr'):
        load_safely(file)


def test_missing_file(tmp_path: Path) -> None:
    names = ('s3://bucket/none.pth', 'x' * 300, '~nobody_of_this_name/a.pth', '')
    for path in (tmp_path / 'none.pth', tmp_path, *names):
        with pytest.raises(FileNotFoundError, match=f'no checkpoint at {path}: expected a local file'):
            load_safely(path)


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
@pytest.mark.parametrize(
    'damage', [lambda data: data[:-100], lambda data: data[:7], lambda data: b'', lambda data: b'<html>']
)
def test_damaged_file(damage: Callable[[bytes], bytes], suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f'file{suffix}'
    (save_file if suffix == '.safetensors' else torch.save)({'a': torch.rand(100)}, file)
    assert load_safely(file)['a'].shape == (100,)
    file.write_bytes(damage(file.read_bytes()))
    message = rf'{file} \({file.stat().st_size} bytes\) could not be read: (.|\n)*fetch it again'
    with pytest.raises(RuntimeError, match=message):
        load_safely(file)


@pytest.mark.parametrize('protocol', [2, 3, 4, 5])
def test_protocols_of_pickle(protocol: int, tmp_path: Path) -> None:
    """What is intact but of another protocol than torch.save's is not only called damaged."""
    file = tmp_path / 'saved.pth'
    torch.save({'weight': torch.ones(3)}, file, pickle_protocol=protocol)
    if protocol <= 3:
        assert load_safely(file)['weight'].tolist() == [1, 1, 1]
    else:
        with pytest.raises(
            CheckpointError, match=f'its pickle protocol is {protocol}, and torch.save writes 2: save it'
        ):
            load_safely(file)


def test_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('HOME', str(tmp_path))
    torch.save({'a': 1}, tmp_path / 'a.pth')
    assert load_safely('~/a.pth') == {'a': 1}


def test_map_location(tmp_path: Path) -> None:
    torch.save({'a': torch.ones(2)}, tmp_path / 'a.pth')
    places: list = ['cpu', None, torch.device('cpu'), {'cpu': 'cpu'}, lambda memory, place: memory, 'meta']
    for place in places:
        loaded = load_safely(tmp_path / 'a.pth', place)['a']
        assert loaded.device.type == ('meta' if place == 'meta' else 'cpu') and loaded.shape == (2,)


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_configs_become_text(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meta = {'config': 'a = 1', 'cfg': 'b = 1', 'epoch': 1}
    file = tmp_path / f'a{suffix}'
    if suffix == '.pth':
        torch.save({'meta': meta, 'message_hub': {'runtime_info': {'cfg': 'c = 1', 'iter': 1}}}, file)
    else:
        save_file({'a': torch.ones(1)}, file, {SAFETENSORS_META: json.dumps(meta)})
    loaded = load_safely(file)
    assert loaded['meta'] == {'config_text': 'a = 1', 'cfg_text': 'b = 1', 'epoch': 1}
    if suffix == '.pth':
        assert loaded['message_hub']['runtime_info'] == {'cfg_text': 'c = 1', 'iter': 1}
    monkeypatch.setenv(UNSAFE_LOAD_VARIABLE, '1')
    assert load_safely(file)['meta'] == meta


@pytest.mark.parametrize('trusted', ['', '1'])
@pytest.mark.parametrize('meta', [{}, Innocent()], ids=['plain', 'needs trust'])
def test_trust_does_not_switch_off_the_guard_against_deletions(
    meta: Any, trusted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / 'iter_2.pth').touch()
    (tmp_path / 'best_b.pth').touch()
    info = {'best_ckpt': '/precious', 'best_ckpt_b': str(tmp_path / 'best_b.pth'), 'keep_ckpt_ids': [1, 2], 'cfg': 'a'}
    torch.save({'meta': meta, 'message_hub': {'runtime_info': info}}, tmp_path / 'a.pth')
    monkeypatch.setenv(UNSAFE_LOAD_VARIABLE, trusted)
    if isinstance(meta, Innocent) and not trusted:
        with pytest.raises(CheckpointError, match='refused to read'):
            load_safely(tmp_path / 'a.pth')
        return
    kept = load_safely(tmp_path / 'a.pth')['message_hub']['runtime_info']
    config = {'cfg' if trusted else 'cfg_text': 'a'}
    assert kept == {'best_ckpt_b': str(tmp_path / 'best_b.pth'), 'keep_ckpt_ids': [2], **config}


def test_a_checkpoint_names_nothing_to_delete(tmp_path: Path, log: list[str]) -> None:
    """CheckpointHook deletes what ``best_ckpt`` names, once there is a better one."""
    beside, elsewhere = str(tmp_path / 'best_a.pth'), str(tmp_path.parent / 'best_a.pth')
    info = {'best_ckpt': beside, 'best_ckpt_a': elsewhere, 'best_ckpt_b': str(tmp_path), 'best_ckpt_c': 5}
    info |= {'best_ckpt_f': f'best_{"a" * 300}.pth'}
    info |= {'best_ckpt_d': f'{tmp_path}/\0/best_a.pth', 'best_ckpt_e': f'{"a" * 5000}/best_a.pth'}
    torch.save({'message_hub': {'runtime_info': info}}, tmp_path / 'a.pth')
    assert load_safely(tmp_path / 'a.pth')['message_hub']['runtime_info'] == {'best_ckpt': beside}
    assert len(log) == 6 and f'forgets that best_ckpt_a is {elsewhere}, which is not beside it' in log[0]


@pytest.mark.parametrize(
    ('saved', 'kept'),
    [
        ([2, 3], [2, 3]),
        ([1, 2, 7], [2]),
        (['run/../../precious', 2], None),
        (['2'], None),
        ([-2], None),
        ([2.0], None),
        (5, None),
        ({2: 1}, None),
        ('23', None),
    ],
)
def test_only_numbers_of_files_beside_it_may_be_deleted(saved: Any, kept: Any, tmp_path: Path, log: list[str]) -> None:
    """CheckpointHook puts each number into the name of a file, and deletes it when there are newer ones."""
    torch.save({'message_hub': {'runtime_info': {'keep_ckpt_ids': saved}}}, tmp_path / 'iter_3.pth')
    (tmp_path / 'epoch_2.pth').touch()
    info = load_safely(tmp_path / 'iter_3.pth')['message_hub']['runtime_info']
    assert info.get('keep_ckpt_ids') == kept
    assert len(log) == (kept is None)


@pytest.mark.parametrize(
    ('error', 'memory'),
    [
        (MemoryError(), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), True),
        (OSError(12, 'Cannot allocate memory'), True),
        (RuntimeError('something else'), False),
    ],
)
def test_a_lack_of_memory_is_no_damage(
    error: Exception, memory: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: Any) -> None:
        raise error

    (tmp_path / 'a.pth').touch()
    monkeypatch.setattr(safe_loading, 'read_archive', read)
    with pytest.raises(CheckpointError, match='not enough memory' if memory else 'could not be read') as caught:
        load_safely(tmp_path / 'a.pth')
    assert ('damaged' in str(caught.value)) != memory


@pytest.mark.parametrize(
    ('content', 'text'),
    [
        ({'w': torch.eye(3).to_sparse()}, 'refused to read .*: it holds sparse tensors.*to_dense'),
        ({'w': torch.empty(3, device='meta')}, 'refused to read .*: it holds .*meta'),
        ({'w': torch.nn.ReLU()}, r'it needs the global torch\.nn.*ReLU, and such a file can run any code'),
    ],
)
def test_only_what_would_run_is_called_dangerous(content: dict, text: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / 'file.pth')
    with pytest.raises(CheckpointError, match=text) as refused:
        load_safely(tmp_path / 'file.pth')
    assert ('run any code' in str(refused.value)) == ('ReLU' in text)


def test_a_protocol_that_is_not_supported_is_named(tmp_path: Path) -> None:
    torch.save({'w': torch.ones(2)}, tmp_path / 'file.pth', pickle_protocol=5)
    with pytest.raises(CheckpointError, match='cannot read .*its pickle protocol is 5.*save it again'):
        load_safely(tmp_path / 'file.pth')
