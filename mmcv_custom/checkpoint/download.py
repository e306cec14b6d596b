"""Downloads of checkpoints: complete, checked, and without secrets in what is printed."""

from __future__ import annotations

import hashlib
import os
import re
import sys
import uuid
from base64 import b64encode
from http.client import HTTPException
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import Request, urlopen

import torch
from mmengine.dist import barrier, is_main_process

from .errors import CheckpointError, one_line, redacted

# The beginning of the SHA-256 digest, which torch.hub and OpenMMLab put into names. Digits alone may be a date.
_DIGEST_IN_NAME = re.compile(r'-(?=\d*[a-f])([0-9a-f]{8,64})\.\w+$')
_TIMEOUT = 60
_CHUNK = 2**20


def download(url: str, sha256: str | None = None) -> Path:
    """Downloads a file once into the cache of ``torch.hub``, under its URL's last component.

    Names with a digest are unique, and lie where MMEngine puts them. Files of any other name, such as
    ``model.safetensors``, lie in a folder of their own for each URL.

    Args:
        url: http(s) URL. A user name and password in it go to its host only.
        sha256: Digest of the file, or the beginning of it. By default the one in the file's name, if there is one.

    Returns:
        The local file.

    Raises:
        CheckpointError: The URL names no file, the download failed or was cut short, or the digest is another, also
            that of a file that was there before.
    """
    parts = _split(url)
    name = Path(parts.path).name
    folder = Path(torch.hub.get_dir(), 'checkpoints')
    in_name = _DIGEST_IN_NAME.search(name)
    if in_name is None:
        place = parts._replace(netloc=parts.netloc.rpartition('@')[2], fragment='').geturl()
        folder /= hashlib.sha256(place.encode()).hexdigest()[:16]
    elif sha256 is None:
        sha256 = in_name[1]
    file = folder / name
    if is_main_process():
        if file.exists():
            _check_cached(file, sha256, redacted(url))
        else:
            _fetch(parts, file, sha256)
    barrier()
    if not file.exists():  # on machines that do not see the first one's disk
        _fetch(parts, file, sha256)
    return file


def _check_cached(file: Path, sha256: str | None, source: str) -> None:
    if sha256 is None:
        return
    with file.open('rb') as opened:
        digest = hashlib.sha256()
        while chunk := opened.read(_CHUNK):
            digest.update(chunk)
    if problem := _other_digest(sha256, digest.hexdigest()):
        raise CheckpointError(f'{file} is not what {source} should be: {problem}; delete it')


def _other_digest(expected: str, digest: str) -> str:
    """What is wrong with a digest; empty if it is the expected one."""
    fits = digest.startswith(expected.lower())
    return '' if fits else f'its SHA-256 digest should begin with {expected}, and is {digest}'


def _split(url: str) -> SplitResult:
    problem = 'it holds spaces or characters that are not ASCII' if re.search(r'[^!-~]', url) else ''
    try:
        parts = urlsplit(url)
        if parts.scheme not in ('http', 'https') or not parts.hostname:
            problem = problem or 'expected http(s)://HOST/.../FILE'
        parts.port  # noqa: B018 - raises if it is no number
    except ValueError:
        raise CheckpointError(f'cannot download {redacted(url)}: it is no URL') from None
    name = Path(parts.path).name
    if name in ('', '..'):
        problem = problem or 'it names no file'
    if len(name) > 255:
        problem = problem or f'its file name is longer than 255 bytes ({len(name)})'
    if problem:
        raise CheckpointError(f'cannot download {redacted(url)}: {problem}')
    return parts


def _fetch(parts: SplitResult, file: Path, sha256: str | None) -> None:
    login, _, host = parts.netloc.rpartition('@')
    request = Request(parts._replace(netloc=host, fragment='').geturl(), headers={'User-Agent': 'mm-internimage'})
    if login:
        request.add_unredirected_header('Authorization', f'Basic {b64encode(unquote(login).encode()).decode()}')
    draft = file.with_name(f'.{uuid.uuid4().hex}.partial')
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        _stream(request, draft, sha256)
        os.replace(draft, file)
    except (OSError, HTTPException, ValueError) as error:  # urllib's errors are OSErrors too
        reason = one_line(error) or type(error).__name__
        raise CheckpointError(f'could not download {redacted(parts.geturl())} to {file}: {reason}') from error
    finally:
        draft.unlink(missing_ok=True)


def _stream(request: Request, draft: Path, sha256: str | None) -> None:
    digest = hashlib.sha256()
    with urlopen(request, timeout=_TIMEOUT) as answer, draft.open('xb') as out:
        expected = answer.length  # None if the server does not say
        bar = torch.hub.tqdm(total=expected, unit='B', unit_scale=True, disable=not sys.stderr.isatty())
        with bar:
            while chunk := answer.read(_CHUNK):
                out.write(chunk)
                digest.update(chunk)
                bar.update(len(chunk))
        size = out.tell()
    if expected is not None and size != expected:
        raise OSError(f'it was cut short: got {size} of {expected} bytes')
    if sha256 is not None and (problem := _other_digest(sha256, digest.hexdigest())):
        way_out = 'If its name only looks like one with a digest, download it yourself and name the local file'
        raise OSError(f'{problem}. {way_out}')
