"""The model zoo as a page of Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from . import (
    Backbone,
    Entry,
    Model,
    backbones,
    datasets,
    models,
    official,
    omitted,
    printed_number,
    unpublished,
    url,
)

Measured = Mapping[str, Mapping[str, Any]]
_CONFIGS = '../configs/'  # from the folder of the page
_ORIGINS = {
    'published': 'printed by the official repository for its checkpoint',
    'converted': 'measured by this project with the official checkpoint',
    'retrained': 'measured by this project with a checkpoint of its own training',
}
_INTRODUCTION = """\
# Model zoo

Every detector and segmentor that the [official repository]({repository})
has a config for, but one of DCNv4, as a config of MMDetection 3 or MMSegmentation 1. `tools/test.py` and `load_from`
read the official checkpoints as they are and convert them on the way.

```bash
python -m mmcv_custom.zoo list --dataset coco         # also: --method, --backbone
python -m mmcv_custom.zoo show NAME                   # NAME as in the tables, or that of the official config
python tools/evaluate_zoo.py NAME --data-root DATA    # download, convert, evaluate, compare with the figure below
python tools/analysis/get_flops.py CONFIG             # parameters, FLOPs and memory, of configs of your own too
python tools/analysis/make_zoo.py                     # writes this page; edit mmcv_custom/zoo/published.yml instead
```

## How to read the tables

**Origin** of the results:

{origins}

Conversion itself is tested against names, shapes and recorded outputs of the official code, with random weights.

**Schedule** is that of the config: its length, and the images in all of a step.

**Params** and **FLOPs** are measured here, with what the official tables print in brackets; † marks printed ones
[that are something else](#printed-figures-that-are-not-those-of-the-model). They are of the model in evaluation, with
FLOPs in the official convention: a multiply-add is one; counted are convolution and linear layers, and 5 per channel
and sampling point of DCNv3, but no norms, activations or products of attention. Detectors see an image of 800 x 1280
and, those of two stages, 1000 proposals and 100 masks. Segmentors see 512 x 2048, or what the printed figure was found
to be of, which `show` tells. At these sizes all printed FLOPs of detectors and segmentors
come out within {worst:.1%}.

**Memory** is an estimate: the largest set of activations alive at once in the inference of one such image in float32,
followed through a run of the model on tensors that have shapes and no values. Weights, and what kernels need for
themselves, come on top.
"""


def render(measured: Measured) -> str:
    """The whole page."""
    sections = (
        _dataset_sections(measured),
        _backbone_section(measured),
        _differences_section(measured),
        _names_section(),
    )
    return '\n'.join([_introduction(measured), *(line for section in sections for line in section), ''])


def _introduction(measured: Measured) -> str:
    rows = Counter(origin for model in models().values() for origin in model.results)
    printed = {model.name: printed_number(model.flops)[0] for model in models().values() if model.flops}
    return _INTRODUCTION.format(
        repository=official()['repository'],
        origins='\n'.join(f'- *{origin}* ({rows[origin]} rows): {meaning}.' for origin, meaning in _ORIGINS.items()),
        worst=max(abs(measured[name]['flops'] / flops - 1) for name, flops in printed.items()),
    )


def _dataset_sections(measured: Measured) -> Iterator[str]:
    for name, dataset in datasets().items():
        members = [model for model in models().values() if model.dataset == name]
        metrics = dict.fromkeys(metric for model in members for found in model.results.values() for metric in found)
        yield f'## {dataset.title}\n'
        header = ['Model', 'Pre-training', 'Schedule', *metrics, 'Origin', 'Params', 'FLOPs', 'Memory', 'Checkpoint']
        yield _table(header, (row for model in members for row in _model_rows(model, metrics, measured[model.name])))
        yield ''
        notes = list(dict.fromkeys(model.notes for model in members if model.notes))
        for note in notes:
            yield f'- {", ".join(model.name for model in members if model.notes == note)}: {note}.'
        if notes:
            yield ''


def _model_rows(model: Model, metrics: Iterable[str], found: Mapping[str, Any]) -> Iterator[list[str]]:
    for origin, results in (model.results or {'': {}}).items():
        yield [
            f'[{model.name}]({_CONFIGS}{model.config})',
            model.pretrain,
            f'{found["schedule"].replace("000 ", "k ")} x {found["batch_size"]}',
            *(str(results.get(metric, '')) for metric in metrics),
            origin,
            _figure(found['params'] / 1e6, 'M', model, 'params'),
            _figure(found['flops'] / 1e9, 'G', model, 'flops'),
            f'{found["activations"] / 2**20:.0f} MiB',
            f'[official]({model.url})' if model.url else '',
        ]


def _figure(count: float, unit: str, entry: Entry, kind: str) -> str:
    printed = getattr(entry, kind)
    return f'{count:.1f}{unit}' + (f' ({printed}{"†" * (kind in entry.differs)})' if printed else '')


def _backbone_section(measured: Measured) -> Iterator[str]:
    yield '## Backbones\n'
    yield 'Classification checkpoints, which `init_cfg` reads. Params and FLOPs are those of the backbone alone.\n'
    yield _table(
        ['Checkpoint', 'arch', 'Pre-training', 'Image', 'Top-1', 'Params', 'FLOPs'],
        (_backbone_row(backbone, measured[backbone.name]) for backbone in backbones().values()),
    )
    yield ''


def _backbone_row(backbone: Backbone, found: Mapping[str, Any]) -> list[str]:
    return [
        f'[{backbone.file}]({url(backbone.file)})',
        backbone.arch,
        backbone.pretrain,
        str(backbone.resolution),
        str(backbone.accuracy or ''),
        _figure(found['params'] / 1e6, 'M', backbone, 'params'),
        _figure(found['flops'] / 1e9, 'G', backbone, 'flops'),
    ]


def _differences_section(measured: Measured) -> Iterator[str]:
    yield '## Printed figures that are not those of the model\n'
    entries: list[Model | Backbone] = [*models().values(), *backbones().values()]
    rows = [
        [entry.name, kind, getattr(entry, kind), f'{measured[entry.name][kind]:,}', reason]
        for entry in entries
        for kind, reason in entry.differs.items()
    ]
    yield _table(['Model', 'Figure', 'Printed', 'Measured', 'Why'], rows)
    yield ''


def _names_section() -> Iterator[str]:
    yield '## From official names to these\n'
    rows = (
        [
            f'`{Path(model.official).stem}`',
            f'[{model.name}]({_CONFIGS}{model.config})',
            f'`{model.checkpoint}`' if model.checkpoint else '',
        ]
        for model in models().values()
    )
    yield _table(['Official config', 'Config', 'Official checkpoint'], rows)
    yield '\nWithout a counterpart:\n'
    yield from (f'- `{Path(entry["official"]).stem}`: {entry["reason"]}.' for entry in omitted())
    for entry in unpublished():
        figures = '; '.join(f'{metric} {value}' for metric, value in entry['results'].items())
        title = datasets()[entry['dataset']].title
        yield (
            f'- {entry["method"]} on {entry["backbone"]}, {title} ({figures}; {entry["params"]} parameters): '
            'results were published, but neither config nor checkpoint.'
        )


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ['---'] * len(header), *rows]
    return '\n'.join(f'| {" | ".join(cells)} |' for cells in lines)
