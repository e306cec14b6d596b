"""Hostile checkpoint files.

``refused()`` gives files that :func:`mmcv_custom.checkpoint.load_safely` must refuse, ``misformed()`` those that it
reads and that no program can use.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.hostile.archives import ARCHIVES, BYTES, LEGACY, ONE, SAFETENSORS
from tests.hostile.assembler import archive, array, call, legacy, new, safetensors, state, tensor
from tests.hostile.calls import CALLS, GETATTR, PICKLES
from tests.hostile.values import BOMBS, COPIES, HISTORIES, NUMPY, TENSORS


def refused() -> dict[str, bytes]:
    """All files that must be refused, by name; the suffix decides how they are read."""
    files: dict[str, bytes] = {f'call {m}.{n}.pth': archive(state(call(m, n, *args))) for m, n, args in CALLS}
    files |= {f'new {m}.{n}.pth': archive(state(new(m, n, *args))) for m, n, args in CALLS[:6]}
    files |= {f'legacy {m}.{n}.pth': legacy(call(m, n, *args), [], b'') for m, n, args in CALLS[:6]}
    files |= {
        f'getattr {name}.pth': archive(state(call('__builtin__', 'getattr', *args))) for name, args in GETATTR.items()
    }
    full_of_twos = {'data/0': b'\2' * 16}
    for group, things in {
        'pickle': PICKLES,
        'numpy': {name: state(thing) for name, thing in NUMPY.items()},
        'tensor': {name: thing if isinstance(thing, dict) else state(thing) for name, thing in TENSORS.items()},
        'bomb': BOMBS,
        'copies': COPIES,
        'history': HISTORIES,
    }.items():
        for name, thing in things.items():
            whole = type(thing) is bytes and thing.startswith(b'PK')
            files[f'{group} {name}.pth'] = thing if whole else archive(thing, full_of_twos)
    files |= {f'archive {name}.pth': content() for name, content in ARCHIVES.items()}
    files |= {f'row {name}.pth': content() for name, content in LEGACY.items()}
    files |= {f'{name}.safetensors': content() for name, content in SAFETENSORS.items()}
    return {name.replace('/', '_').replace('\x1b', ''): content for name, content in files.items()}


def misformed() -> dict[str, bytes]:
    """Files of harmless things that are no checkpoint."""
    things: dict[str, Any] = {
        'list': [1, 2],
        'number': 5,
        'nothing': None,
        'text': 'abc',
        'tensor': tensor(),
        'empty': {},
        'numbers as names': {1: tensor(), 2: tensor()},
        'numbers as names in a state dict': {'state_dict': {1: tensor()}},
        'meta is a list': {'meta': [1], 'state_dict': {'weight': tensor()}},
        'meta is text': {'meta': 'abc', 'state_dict': {'weight': tensor()}},
        'state dict is a list': {'state_dict': [tensor()]},
        'state dict of texts': {'state_dict': {'weight': 'abc'}},
        'arrays': {'state_dict': {'weight': array()}},
        **{
            f'two names in one with {prefix}': {
                'state_dict': {'backbone.weight': tensor(), f'{prefix}backbone.weight': tensor((3,))}
            }
            for prefix in ('module.', '_orig_mod.')
        },
        'slices of two shapes': {
            'state_dict': {
                'backbone.patch_embed.conv1.weight': tensor(),
                'bbox_head.transformer.decoder.ref_point_head.0.weight': tensor(),
                'bbox_head.transformer.encoder.layers.0.ffns.0.fc1_0.weight': tensor((1, 4), (4, 1)),
                'bbox_head.transformer.encoder.layers.0.ffns.0.fc1_1.weight': tensor((1, 3), (3, 1)),
            }
        },
    }
    files = {f'{name}.pth': archive(thing) for name, thing in things.items()}
    metas = {'text': '"abc"', 'list': '[1]', 'number': '5'}
    for name, text in metas.items():
        content = safetensors({'__metadata__': {'mmengine_meta': text}, 'backbone.weight': ONE}, BYTES)
        files[f'meta is a {name}.safetensors'] = content
    return files


def write(files: dict[str, bytes], folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in files]
