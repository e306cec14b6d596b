"""Safe reading of checkpoints: what genuine files hold is read, what could run is not. Downloads and schemes."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
from base64 import b64encode
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel
from mmengine.optim import AmpOptimWrapper
from mmengine.runner import CheckpointLoader, Runner
from safetensors.torch import save_file
from torch import Tensor, nn

from mmcv_custom.checkpoint import (
    SAFETENSORS_META,
    UNSAFE_LOAD_VARIABLE,
    CheckpointError,
    contents,
    download,
    load_safely,
    safe_loading,
)
from mmcv_custom.checkpoint.errors import redacted
from mmcv_custom.mmengine_setup import set_up_mmengine


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    for module in (safe_loading, contents):
        monkeypatch.setattr(module, 'print_log', lambda text, *_: lines.append(text))
    return lines


@pytest.fixture
def schemes() -> Iterator[None]:
    """Puts MMEngine's own loaders back."""
    before = CheckpointLoader._schemes.copy()
    yield
    CheckpointLoader._schemes = before


# --- reading safely ---------------------------------------------------------------------------------------------------


class Call:
    """Pickles as a call of a function, which is made where the pickle is read without care."""

    def __init__(self, function: Callable, *args: Any) -> None:
        self.function, self.args = function, args

    def __reduce__(self) -> tuple[Callable, tuple]:
        return self.function, self.args


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


@pytest.mark.parametrize('value', [np.float64(0.5), np.float32(0.5), np.int64(3), np.bool_(True), np.arange(3.0)])
@pytest.mark.parametrize('module', [b'numpy.core.', b'numpy._core.'])
def test_numpy_of_either_generation(module: bytes, value: Any, tmp_path: Path) -> None:
    file = tmp_path / 'numpy.pth'
    torch.save({'value': value}, file, _use_new_zipfile_serialization=False)  # a form that can be edited in place
    content = file.read_bytes()
    assert re.search(rb'numpy\._?core\.multiarray', content)
    file.write_bytes(re.sub(rb'numpy\._?core\.', module, content))
    loaded = load_safely(file)['value']
    assert type(loaded) is type(value) and np.array_equal(loaded, value)


def test_yacs_config_of_the_classification_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType('yacs.config')
    module.CfgNode = type('CfgNode', (dict,), {'__module__': 'yacs.config'})  # type: ignore[attr-defined]
    config = module.CfgNode(MODEL=module.CfgNode(NAME='intern_image'))
    config.__dict__['__immutable__'] = True
    file = tmp_path / 'ckpt_epoch_1.pth'
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, 'yacs', ModuleType('yacs'))
        patch.setitem(sys.modules, 'yacs.config', module)
        torch.save({'model': {}, 'config': config}, file)
    loaded = load_safely(file)['config']
    assert loaded == {'MODEL': {'NAME': 'intern_image'}} and type(loaded) is OrderedDict


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


# --- downloads --------------------------------------------------------------------------------------------------------


class Web:
    """A web server of a few files. It can cut them short, and notes the headers of requests."""

    def __init__(self) -> None:
        self.pages: dict[str, bytes] = {}
        self.cut = 0
        self.headers: list[Any] = []
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                web.headers.append(self.headers)
                page = web.pages.get(self.path)
                self.send_response(404 if page is None else 200)
                self.send_header('Content-Length', str(len(page or b'')))
                self.end_headers()
                self.wfile.write((page or b'')[: len(page or b'') - web.cut])

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self.host = f'127.0.0.1:{self.server.server_port}'


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    """A web server, with an empty cache of torch.hub."""
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    monkeypatch.setenv('no_proxy', '*')
    web = Web()
    thread = threading.Thread(target=web.server.serve_forever)
    thread.start()
    yield web
    web.server.shutdown()
    web.server.server_close()
    thread.join()


def saved(content: Any, folder: Path) -> bytes:
    torch.save(content, folder / 'saved.pth')
    return (folder / 'saved.pth').read_bytes()


def cached(folder: Path) -> list[str]:
    return [path.name for path in (folder / 'hub' / 'checkpoints').iterdir()]


def test_download_is_cached_and_safe(web: Web, tmp_path: Path) -> None:
    url = f'http://{web.host}/models/a.pth?download=true'
    web.pages['/models/a.pth?download=true'] = saved({'a': 1}, tmp_path)
    assert load_safely(url) == {'a': 1}
    assert cached(tmp_path) == ['a.pth']
    web.pages.clear()
    assert load_safely(url) == {'a': 1}

    web.pages['/bomb.pth'] = saved(Call(os.mkdir, str(tmp_path / 'crater')), tmp_path)
    with pytest.raises(RuntimeError, match='refused to read'):
        load_safely(f'http://{web.host}/bomb.pth')
    assert not (tmp_path / 'crater').exists()


def test_failed_download(web: Web) -> None:
    with pytest.raises(RuntimeError, match=f'could not download http://{web.host}/b.pth to .*b.pth: HTTP Error 404'):
        load_safely(f'http://{web.host}/b.pth')


def test_download_cut_short_is_not_kept(web: Web, tmp_path: Path) -> None:
    web.pages['/a.pth'] = saved({'a': 1}, tmp_path)
    size, web.cut = len(web.pages['/a.pth']), 100
    with pytest.raises(CheckpointError, match=rf'a.pth: it was cut short: got {size - 100} of {size} bytes'):
        load_safely(f'http://{web.host}/a.pth')
    assert cached(tmp_path) == []
    web.cut = 0
    assert load_safely(f'http://{web.host}/a.pth') == {'a': 1}


@pytest.mark.parametrize('where', ['name', 'argument'])
def test_digest(where: str, web: Web, tmp_path: Path) -> None:
    content = saved({'a': 1}, tmp_path)
    digest = sha256(content).hexdigest()[:12]
    digest = digest if re.search('[a-f]', digest) else 'f'  # digits alone are taken for a date
    good, bad = (f'/a-{d}.pth' if where == 'name' else f'/{d}.pth' for d in (digest, 'abcdef012345'))
    web.pages |= {good: content, bad: content, '/b-20200130.pth': content}
    options = {} if where == 'name' else {'sha256': digest}
    assert download(f'http://{web.host}{good}', **options).read_bytes() == content
    options = {} if where == 'name' else {'sha256': 'abcdef012345'}
    with pytest.raises(CheckpointError, match='its SHA-256 digest should begin with abcdef012345, and is '):
        download(f'http://{web.host}{bad}', **options)
    download(f'http://{web.host}/b-20200130.pth')
    assert sorted(cached(tmp_path)) == sorted([good[1:], 'b-20200130.pth'])


def test_secrets_go_to_the_host_and_are_not_printed(
    web: Web, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    url = f'http://alice:p%40ss@{web.host}/a.pth?token=hidden'
    with pytest.raises(CheckpointError) as caught:
        CheckpointLoader.load_checkpoint(url)
    web.pages['/a.pth?token=hidden'] = saved({'state_dict': {'a': torch.ones(1)}}, tmp_path)
    load_safely(url)
    assert web.headers[-1]['Authorization'] == f'Basic {b64encode(b"alice:p@ss").decode()}'
    printed = str(caught.value) + ''.join(capfd.readouterr()) + caplog.text
    assert f'http://***@{web.host}/a.pth?...' in printed
    for secret in ('alice', 'p%40ss', 'p@ss', 'hidden'):
        assert secret not in printed


@pytest.mark.parametrize(
    'url, message',
    [
        ('http://', r'expected http\(s\)://HOST'),
        ('http:///a.pth', r'expected http\(s\)://HOST'),
        ('https://host', 'it names no file'),
        ('https://host/', 'it names no file'),
        ('https://host/folder/..', 'it names no file'),
        ('https://host/a b.pth', 'spaces or characters that are not ASCII'),
        ('https://host/\n.pth', 'spaces or characters that are not ASCII'),
        ('https://host/\u00fc.pth', 'spaces or characters that are not ASCII'),
        ('https://host:password/a.pth', 'it is no URL'),
        ('https://[host/a.pth', 'it is no URL'),
        (f'https://host/{"a" * 300}.pth', r'longer than 255 bytes \(304\)'),
    ],
)
def test_odd_urls(url: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=f'cannot download http.*{message}') as caught:
        load_safely(url)
    assert str(caught.value).isprintable() and 'password' not in str(caught.value)


def test_redacted() -> None:
    assert redacted('folder/a.pth') == 'folder/a.pth'
    assert redacted('https://host/a.pth') == 'https://host/a.pth'
    assert redacted('ftp://user:word@host:21/a.pth?x=1#y') == 'ftp://***@host:21/a.pth?...'


# --- MMEngine ---------------------------------------------------------------------------------------------------------


class Line(BaseModel):
    """The smallest model that a runner trains."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 1)

    def forward(self, *inputs: Tensor, mode: str) -> Any:
        outputs = self.linear(torch.stack(inputs))
        return dict(loss=outputs.square().mean()) if mode == 'loss' else list(outputs)


class Half(BaseMetric):
    """A metric that returns numpy numbers, as many do."""

    default_prefix = 'half'

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results.append(0)

    def compute_metrics(self, results: list) -> dict:
        return dict(value=np.float64(0.5), other=np.float32(0.5))


def make_runner(
    work_dir: Path, epochs: int, optimizer: dict | None = None, schedule: list[dict] | None = None, **options: Any
) -> Runner:
    data = dict(dataset=list(torch.rand(4, 3)), batch_size=2, sampler=dict(type='DefaultSampler', shuffle=False))
    schedule = schedule or [
        dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=2),
        dict(type='MultiStepLR', milestones=[1]),
        dict(type='OneCycleLR', eta_max=0.1, total_steps=20),
        dict(type='CosineAnnealingMomentum', T_max=2),
        dict(type='ReduceOnPlateauLR', monitor='half/value', rule='greater'),
    ]
    return Runner(
        Line(),
        str(work_dir),
        train_dataloader=data,
        val_dataloader=data,
        val_evaluator=dict(type=Half),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        val_cfg=dict(),
        optim_wrapper=dict(optimizer=optimizer or dict(type='AdamW', lr=0.1)),
        param_scheduler=schedule,
        custom_hooks=[dict(type='EMAHook')],
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', save_best='half/value', rule='greater')),
        experiment_name=f'{work_dir.name}_{epochs}',
        **options,
    )


def test_runner_round_trip(tmp_path: Path, schemes: None) -> None:
    set_up_mmengine()
    runner = make_runner(tmp_path, 1)
    runner.train()
    file = tmp_path / 'epoch_1.pth'

    checkpoint = load_safely(file)
    assert checkpoint.keys() == {
        'meta', 'state_dict', 'ema_state_dict', 'message_hub', 'optimizer', 'param_schedulers',
    }  # fmt: skip
    history = checkpoint['message_hub']['log_scalars']['train/loss']
    assert isinstance(history, HistoryBuffer) and history.mean() > 0
    assert type(checkpoint['message_hub']['runtime_info']['best_score']) is np.float64
    unsafe = set(torch.serialization.get_unsafe_globals_in_checkpoint(file))
    assert {'builtins.getattr', 'mmengine.logging.history_buffer.HistoryBuffer'} < unsafe  # plain weights_only fails

    resumed = make_runner(tmp_path, 2, resume=True, load_from=str(file))
    resumed.train()
    assert (resumed.epoch, resumed.iter) == (2, 4)
    assert len(resumed.message_hub.get_scalar('train/loss').data[0]) == 4


def test_registered_loader_serves_mmengine(
    tmp_path: Path, schemes: None, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(UNSAFE_LOAD_VARIABLE, raising=False)
    set_up_mmengine()
    set_up_mmengine()  # again does no harm
    bomb, good = tmp_path / 'bomb.pth', tmp_path / 'good.safetensors'
    torch.save(Call(os.mkdir, str(tmp_path / 'crater')), bomb)
    save_file({'a': torch.ones(2)}, good)
    web.pages |= {'/bomb.pth': bomb.read_bytes(), '/good.safetensors': good.read_bytes()}
    for place in (f'{tmp_path}/', f'http://{web.host}/'):
        with pytest.raises(RuntimeError, match='refused to read'):
            CheckpointLoader.load_checkpoint(f'{place}bomb.pth', 'cpu')
        loaded = CheckpointLoader.load_checkpoint(f'{place}good.safetensors')
        assert torch.equal(loaded['state_dict']['a'], torch.ones(2))
    assert not (tmp_path / 'crater').exists()
    assert {loader.__module__ for loader in CheckpointLoader._schemes.values()} == {'mmcv_custom.mmengine_setup'}


TABLES = {'open-mmlab': 'external', 'openmmlab': 'external', 'mmcls': 'mmcls', 'torchvision': None, 'modelzoo': None}


@pytest.mark.parametrize('scheme', [*TABLES, 's3', 'petrel', 'cluster:s3', 'local table'])
def test_every_scheme_is_read_safely(scheme: str, tmp_path: Path, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """With both signs: a good file is loaded, a hostile one is not run."""
    state = {'backbone.a': torch.ones(2), 'head.a': torch.ones(2)}
    files = {
        'good': saved({'state_dict': state}, tmp_path),
        'bomb': saved(Call(os.mkdir, str(tmp_path / 'c')), tmp_path),
    }
    web.pages |= {f'/{name}.pth': content for name, content in files.items()}
    for name, content in files.items():
        (tmp_path / f'{name}.pth').write_bytes(content)
    place = f'http://{web.host}' if scheme != 'local table' else '.'
    table = {name: f'{place}/{name}.pth' for name in files}
    monkeypatch.setattr('mmengine.runner.checkpoint.get_external_models', lambda: table)
    monkeypatch.setattr('mmengine.runner.checkpoint.get_mmcls_models', lambda: table)
    monkeypatch.setattr('mmcv_custom.checkpoint.schemes.load', lambda _: table)
    monkeypatch.setenv('MMENGINE_HOME', str(tmp_path))
    if scheme not in TABLES and scheme != 'local table':
        backend = type('Backend', (), {'get_local_path': lambda self, path: open_locally(tmp_path / Path(path).name)})()
        monkeypatch.setattr('mmengine.fileio.io.get_file_backend', lambda *_, **__: backend)
    prefix, suffix = ('open-mmlab', '') if scheme == 'local table' else (scheme, '' if scheme in TABLES else '.pth')
    loaded = CheckpointLoader.load_checkpoint(f'{prefix}://good{suffix}', 'cpu')['state_dict']
    assert set(loaded) == ({'a'} if scheme == 'mmcls' else set(state))
    with pytest.raises(CheckpointError, match='refused to read'):
        CheckpointLoader.load_checkpoint(f'{prefix}://bomb{suffix}', 'cpu')
    assert not (tmp_path / 'c').exists()


@contextmanager
def open_locally(path: Path) -> Iterator[str]:
    yield str(path)


@pytest.mark.parametrize(
    'name, message',
    [
        ('open-mmlab://nothing', 'there is no model open-mmlab://nothing in the table of MMEngine'),
        ('mmcls://nothing', 'there is no model mmcls://nothing in the table'),
        ('torchvision://nothing', r'in the table of MMEngine \(\d+ models, such as alexnet\)'),
        ('pavi://nothing', 'pavi is not supported'),
        (
            's3://bucket/a.pth',
            'cannot fetch s3://bucket/a.pth: ImportError: .*petrel_client.*; copy it to a local file',
        ),
    ],
)
def test_names_that_lead_nowhere(name: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        CheckpointLoader.load_checkpoint(name, 'cpu')


# --- what genuine files hold ------------------------------------------------------------------------------------------

OPTIMIZERS = ['SGD', 'Adam', 'AdamW', 'RMSprop', 'Adagrad', 'Adadelta', 'Adamax', 'NAdam', 'RAdam', 'ASGD', 'Rprop']
SCHEDULERS: dict[str, dict] = {
    'ConstantLR': {},
    'CosineAnnealingLR': dict(T_max=2),
    'CosineRestartLR': dict(periods=[1, 1], restart_weights=[1, 1], eta_min=0.0),
    'ExponentialLR': dict(gamma=0.9),
    'LinearLR': {},
    'LinearMomentum': {},
    'MultiStepLR': dict(milestones=[1]),
    'MultiStepMomentum': dict(milestones=[1]),
    'OneCycleLR': dict(eta_max=0.1, total_steps=20),
    'PolyLR': {},
    'PolyMomentum': {},
    'StepLR': dict(step_size=1),
}


def assert_same(one: Any, other: Any) -> None:
    """What we read is what torch reads without care."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert list(one) == list(other)
        one, other = list(one.values()), list(other.values())
    if isinstance(one, HistoryBuffer):
        one, other = one.data, other.data
    if isinstance(one, list | tuple):
        for pair in zip(one, other, strict=True):
            assert_same(*pair)
    elif isinstance(one, Tensor):
        assert one.dtype == other.dtype and torch.equal(one, other) and one.requires_grad == other.requires_grad
    else:
        assert np.array_equal(one, other)


@pytest.mark.parametrize('legacy', [False, True], ids=['zip', 'legacy'])
@pytest.mark.parametrize('optimizer', OPTIMIZERS)
def test_training_states_of_mmengine(
    optimizer: str, legacy: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All optimizers, each with a scheduler and its state, histories and the average of weights."""
    monkeypatch.setenv(UNSAFE_LOAD_VARIABLE, '1')  # configs stay
    index = OPTIMIZERS.index(optimizer)
    names = [list(SCHEDULERS)[index], list(SCHEDULERS)[-1 - index]]
    momentum = optimizer in ('SGD', 'Adam', 'AdamW')
    names = [name for name in names if momentum or 'Momentum' not in name]
    schedule = [dict(type=name, **SCHEDULERS[name]) for name in names]
    options = dict(momentum=0.9) if optimizer == 'SGD' else {}
    runner = make_runner(tmp_path, 1, dict(type=optimizer, lr=0.01, **options), schedule)
    runner.train()
    file = tmp_path / 'epoch_1.pth'
    genuine = torch.load(file, weights_only=False)
    torch.save(genuine, file, _use_new_zipfile_serialization=not legacy)
    assert_same(load_safely(file), genuine)


def test_scaler_of_mixed_precision(tmp_path: Path) -> None:
    optimizer = torch.optim.SGD(nn.Linear(2, 2).parameters(), 0.1)
    wrapper = AmpOptimWrapper.__new__(AmpOptimWrapper)  # its constructor needs a GPU
    super(AmpOptimWrapper, wrapper).__init__(optimizer)
    wrapper.loss_scaler = torch.amp.GradScaler('cpu')
    state = {'optimizer': wrapper.state_dict()}
    torch.save(state, tmp_path / 'a.pth')
    assert_same(load_safely(tmp_path / 'a.pth'), state)
    assert 'loss_scaler' in state['optimizer']


VALUES: dict[str, Any] = {
    'a view': torch.rand(3, 4)[1:, :2],
    'transposed': torch.rand(3, 4).T,
    'no numbers': torch.zeros(0, 3),
    'one number': torch.tensor(3.0),
    'truth values': torch.tensor([True, False]),
    'bfloat16': torch.ones(2, dtype=torch.bfloat16),
    'uint16': torch.ones(2, dtype=torch.uint16),
    'complex': torch.ones(2, dtype=torch.complex64),
    'a parameter': nn.Parameter(torch.ones(2)),
    'versions of modules': nn.BatchNorm2d(2).state_dict(),
    'no history': HistoryBuffer(),
    'an array in Fortran order': np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    'truth values of numpy': np.array([True, False]),
    'no numbers of numpy': np.zeros((0, 3)),
    'plain values': [
        None,
        True,
        1,
        -(2**40),
        1.5,
        1j,
        'a',
        b'',
        b'a',
        bytearray(b'a'),
        (1,),
        {1, 'a'},
        {(1, 2): 3, np.int64(4): 5},
    ],
    'torch': [torch.float16, torch.Size([1, 2]), torch.device('cuda', 1), torch.device('cpu')],
}


@pytest.mark.parametrize('legacy', [False, True], ids=['zip', 'legacy'])
@pytest.mark.parametrize('name', VALUES)
def test_values_of_genuine_files(name: str, legacy: bool, tmp_path: Path) -> None:
    content = {'value': VALUES[name], 'again': VALUES[name], 'meta': {}}
    torch.save(content, tmp_path / 'a.pth', _use_new_zipfile_serialization=not legacy)
    loaded = load_safely(tmp_path / 'a.pth')
    assert_same(loaded, content)
    assert loaded['value'] is loaded['again'] or not isinstance(VALUES[name], Tensor)
    if name == 'versions of modules':
        assert loaded['value']._metadata == VALUES[name]._metadata


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


def test_a_checkpoint_names_nothing_to_delete(tmp_path: Path, log: list[str]) -> None:
    """CheckpointHook deletes what ``best_ckpt`` names, once there is a better one."""
    beside, elsewhere = str(tmp_path / 'best_a.pth'), str(tmp_path.parent / 'best_a.pth')
    info = {'best_ckpt': beside, 'best_ckpt_a': elsewhere, 'best_ckpt_b': str(tmp_path), 'best_ckpt_c': 5}
    info |= {'best_ckpt_d': f'{tmp_path}/\0/best_a.pth', 'best_ckpt_e': f'{"a" * 5000}/best_a.pth'}
    torch.save({'message_hub': {'runtime_info': info}}, tmp_path / 'a.pth')
    assert load_safely(tmp_path / 'a.pth')['message_hub']['runtime_info'] == {'best_ckpt': beside}
    assert len(log) == 5 and f'forgets that best_ckpt_a is {elsewhere}, which is not beside it' in log[0]
