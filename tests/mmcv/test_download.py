"""Checkpoints from elsewhere: URLs, and the schemes of MMEngine, which are all read safely."""

from __future__ import annotations

import os
import re
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.runner import CheckpointLoader
from safetensors.torch import save_file

from mmcv_custom.checkpoint import UNSAFE_LOAD_VARIABLE, CheckpointError, download, load_safely
from mmcv_custom.checkpoint.errors import redacted
from mmcv_custom.mmengine_setup import set_up_mmengine
from tests.mmcv.saved_files import Call, saved


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


def cached(folder: Path) -> list[str]:
    return [path.name for path in (folder / 'hub' / 'checkpoints').rglob('*') if path.is_file()]


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
    message = 'its SHA-256 digest should begin with abcdef012345, and is .* download it yourself and name the local'
    with pytest.raises(CheckpointError, match=message):
        download(f'http://{web.host}{bad}', **options)
    download(f'http://{web.host}/b-20200130.pth')
    assert sorted(cached(tmp_path)) == sorted([good[1:], 'b-20200130.pth'])


def test_files_of_one_name_are_kept_apart(web: Web, tmp_path: Path) -> None:
    places = ('/a/model.pth', '/b/model.pth', '/b/model.pth?version=2')
    web.pages |= {place: saved({'a': place}, tmp_path) for place in places}
    for _ in range(2):
        assert [load_safely(f'http://{web.host}{place}')['a'] for place in places] == list(places)
    assert len(web.headers) == 3  # the second time they are there
    assert load_safely(f'http://me:word@{web.host}/a/model.pth#part')['a'] == '/a/model.pth'
    assert len(web.headers) == 3


@pytest.mark.parametrize('where', ['name', 'argument'])
def test_a_cached_file_is_checked(where: str, web: Web, tmp_path: Path) -> None:
    content = saved({'a': 1}, tmp_path)
    digest = sha256(content).hexdigest()
    url = f'http://{web.host}/a{f"-{digest}" if where == "name" else ""}.pth'
    web.pages[f'/{url.rpartition("/")[2]}'] = content
    options = {'sha256': digest} if where == 'argument' else {}
    file = download(url, **options)
    assert download(url, **options) == file and len(web.headers) == 1
    file.write_bytes(content[:-1])
    with pytest.raises(CheckpointError, match=f'{file} is not what {url} should be: its SHA-256 .*; delete it'):
        download(url, **options)
    file.unlink()
    assert download(url, **options).read_bytes() == content


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
