"""The model zoo: from the name of a model to its config, checkpoint and figures.

The ``metafile.yml`` files beside the configs hold the facts, in OpenMMLab's model-index format.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from mmengine.fileio import load

MIM = Path(__file__).parent / '.mim'  # in a checkout symlinks to the repository's files, in a wheel copies of them


class UnknownModelError(LookupError):
    """There is no model of that name. The text is meant for the user."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """A detector, a segmentor or a backbone, as its metafile describes it.

    Attributes:
        name: The config's for detectors and segmentors, the checkpoint's for backbones.
        config: Where the config is.
        checkpoint: URL of the official checkpoint; ``None`` if none was published.
        metadata: ``Metadata`` of the collection, overridden by that of the model.
        results: Metrics in percent, by origin: ``'published'``, ``'converted'`` or ``'retrained'``.
        published: What else the official repository says: the name of its config, and ``Parameters`` and ``FLOPs`` as
            printed, such as ``'49M'``.
        notes: What else to know.
    """

    name: str
    config: Path
    checkpoint: str | None
    metadata: Mapping[str, Any]
    results: Mapping[str, Mapping[str, float]]
    published: Mapping[str, Any]
    notes: str

    @property
    def dataset(self) -> str:
        """The training dataset, such as ``'COCO'``."""
        return self.metadata['Training Data']

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width, in pixels, of the image that the FLOPs are counted for."""
        height, width = self.metadata['Image Size'].split('x')
        return int(height), int(width)


@cache
def metafiles() -> dict[str, dict[str, Any]]:
    """The content of all metafiles by path, in the order of model-index.yml."""
    return {path: load(MIM / path) for path in load(MIM / 'model-index.yml')['Import']}


@cache
def models() -> dict[str, Model]:
    """All detectors and segmentors, by name."""
    return _entries('configs/detection/', 'configs/segmentation/')


@cache
def backbones() -> dict[str, Model]:
    """All backbones with a classification checkpoint, by name."""
    return _entries('configs/_base_/')


def _entries(*folders: str) -> dict[str, Model]:
    found = [content for path, content in metafiles().items() if path.startswith(folders)]
    return {entry['Name']: _model(entry, content['Collections']) for content in found for entry in content['Models']}


def _model(entry: dict[str, Any], collections: list[dict[str, Any]]) -> Model:
    (collection,) = (collection for collection in collections if collection['Name'] == entry['In Collection'])
    return Model(
        name=entry['Name'],
        config=(MIM / entry['Config']).resolve(),
        checkpoint=entry.get('Weights'),
        metadata=collection.get('Metadata', {}) | entry['Metadata'],
        results={result['Origin']: result['Metrics'] for result in entry.get('Results', [])},
        published=entry.get('Published', {}),
        notes=entry.get('Notes', ''),
    )


def find(name: str) -> Model:
    """A detector or segmentor by its name, its config, or the name of its official config or checkpoint.

    Where two configs share a checkpoint, its name finds the first.

    Raises:
        UnknownModelError: There is none.
    """
    by_checkpoint = {Path(model.checkpoint).stem: model for model in reversed(models().values()) if model.checkpoint}
    by_official_config = {
        Path(model.published['Config']).stem: model for model in models().values() if 'Config' in model.published
    }
    known = by_checkpoint | by_official_config | models()
    stem = Path(name).name.removesuffix('.py').removesuffix('.pth')
    if stem not in known:
        close = get_close_matches(stem, known, n=5)
        hint = f'; close to it: {", ".join(close)}' if close else ''
        raise UnknownModelError(f'there is no model {name!r}{hint}; `mm-internimage list` names all')
    return known[stem]
