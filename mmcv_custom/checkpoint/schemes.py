"""From the names of checkpoints in MMEngine's schemes to files and URLs that the safe reader takes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import mmengine
from mmengine.fileio import get_local_path, load
from mmengine.runner import checkpoint as mmengine_checkpoint

from .errors import CheckpointError, one_line, redacted

_REMOTE = re.compile(r'(\S+:)?(s3|petrel)://')


@contextmanager
def local_source(name: str) -> Iterator[str]:
    """The file or http(s) URL that a name stands for; the file may be there only within the context.

    - ``open-mmlab://``, ``openmmlab://``, ``mmcls://``: looked up in MMEngine's tables.
    - ``torchvision://``, ``modelzoo://``: looked up in MMEngine's table of torchvision 0.12, without torchvision.
    - ``s3://``, ``petrel://``: fetched by MMEngine's storage backend.
    - All other names are returned as they are.

    Raises:
        CheckpointError: The table lacks the name, or the backend cannot fetch the file.
    """
    scheme, _, key = name.partition('://')
    if _REMOTE.match(name):
        with _fetched(name) as path:
            yield path
    elif scheme in ('open-mmlab', 'openmmlab'):
        key = mmengine_checkpoint.get_deprecated_model_names().get(key, key)
        place = _look_up(mmengine_checkpoint.get_external_models(), key, name)
        yield place if '://' in place else str(Path(mmengine_checkpoint._get_mmengine_home(), place))
    elif scheme == 'mmcls':
        yield _look_up(mmengine_checkpoint.get_mmcls_models(), key, name)
    elif scheme in ('torchvision', 'modelzoo'):
        yield _look_up(load(str(Path(mmengine.__path__[0], 'hub', 'torchvision_0.12.json'))), key, name)
    elif scheme == 'pavi':
        raise CheckpointError(
            f'cannot read {redacted(name)}: pavi is not supported; name a local file or an http(s) URL'
        )
    else:
        yield name


def _look_up(table: Mapping[str, str], key: str, name: str) -> str:
    if key not in table:
        raise CheckpointError(
            f'there is no model {redacted(name)} in the table of MMEngine ({len(table)} models, such as {min(table)}); '
            'name a local file or an http(s) URL'
        )
    return table[key]


@contextmanager
def _fetched(name: str) -> Iterator[str]:
    fetching = get_local_path(name, backend_args={'backend': 'petrel'})
    try:
        path = fetching.__enter__()
    except Exception as error:  # whatever the client of the storage raises
        raise CheckpointError(
            f'cannot fetch {redacted(name)}: {type(error).__name__}: {one_line(error)}; copy it to a local file'
        ) from error
    try:
        yield str(path)
    finally:
        fetching.__exit__(None, None, None)
