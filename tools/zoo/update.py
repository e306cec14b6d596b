"""Update what is derived in the model zoo: figures in metafile.yml, the tables of docs/model_zoo.md, model-index.yml.

python tools/zoo/update.py            # measures all models: two minutes
python tools/zoo/update.py --pages    # keeps the figures that the metafiles hold
python tools/zoo/update.py --check    # writes nothing and fails if anything would change
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # Python has put this folder there, and the tools import each other from the root

from mmcv_custom import InternImage, zoo  # noqa: E402
from mmcv_custom.cli import fail, read_config  # noqa: E402
from tools.analysis_tools.get_flops import Complexity, measure, measure_config  # noqa: E402
from tools.zoo import page  # noqa: E402

PAGE = ROOT / 'docs/model_zoo.md'
MARKER = '<!-- Written by tools/zoo/update.py from here on. -->\n'
Figures = dict[str, int]  # by their keys in the metafile


def main() -> None:
    parser = argparse.ArgumentParser(description='Update what is derived in the model zoo.')
    parser.add_argument('--pages', action='store_true', help='keep the figures that the metafiles hold')
    parser.add_argument('--check', action='store_true', help='write nothing, fail if anything would change')
    args = parser.parse_args()
    changed = []
    for path, text in updated_files(measure_again=not args.pages):
        if not path.exists() or path.read_text() != text:
            changed.append(path.relative_to(ROOT).as_posix())
            if not args.check:
                path.write_text(text)
    if args.check and changed:
        fail(f'{", ".join(changed)} would change: run python tools/zoo/update.py')
    print('\n'.join(f'wrote {path}' for path in changed) or 'everything is up to date')


def updated_files(measure_again: bool) -> Iterator[tuple[Path, str]]:
    """Every file with something derived, and what it should hold. The index comes first: the zoo is read through it."""
    metafiles = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob('configs/**/metafile.yml'))
    yield ROOT / 'model-index.yml', '\n- '.join(['# Written by tools/zoo/update.py.\nImport:', *metafiles]) + '\n'
    models, backbones = zoo.models(), zoo.backbones()
    if measure_again:
        found = {name: measure_model(model) for name, model in models.items()}
        found |= {name: measure_backbone(backbone) for name, backbone in backbones.items()}
        for path in zoo.metafiles():
            yield ROOT / path, fill_in(ROOT / path, found)
        models, backbones = with_figures(models, found), with_figures(backbones, found)
    introduction = PAGE.read_text().partition(MARKER)[0]
    yield PAGE, f'{introduction}{MARKER}\n{page.render(models, backbones)}'


def measure_model(model: zoo.Model) -> Figures:
    """Schedule and cost of a config."""
    print(f'measuring {model.name}', file=sys.stderr)
    cfg = read_config(str(model.config))
    loop = cfg.train_cfg
    length = {'Epochs': loop.max_epochs} if 'max_epochs' in loop else {'Iterations': loop.max_iters}
    batch_size = {'Batch Size': cfg.auto_scale_lr.base_batch_size}
    return length | batch_size | _cost(measure_config(cfg, model.image_size))


def measure_backbone(backbone: zoo.Model) -> Figures:
    """Cost of a backbone without classifier."""
    with torch.device('meta'):
        model = InternImage(backbone.metadata['Arch'])
    return _cost(measure(model, *backbone.image_size))


def _cost(found: Complexity) -> Figures:
    return {'Parameters': found.params, 'FLOPs': found.flops, 'Activations': found.activations}


def fill_in(metafile: Path, found: Mapping[str, Figures]) -> str:
    """The text of a metafile with the figures found. Only the lines of these figures change."""
    blocks = re.split(r'(?m)^(?=- Name: )', metafile.read_text())
    for number, block in enumerate(blocks):
        name = block.partition('\n')[0].removeprefix('- Name: ')
        for key, value in found.get(name, {}).items():
            line = rf'(  Metadata:\n(?:    .*\n)*?    {key}:).*'
            block, count = re.subn(line, rf'\1 {value}', block, count=1)
            if not count:
                fail(f'{metafile.relative_to(ROOT)} needs a line "{key}:" in the Metadata of {name}')
        blocks[number] = block
    return ''.join(blocks)


def with_figures(models: Mapping[str, zoo.Model], found: Mapping[str, Figures]) -> dict[str, zoo.Model]:
    """The models with the figures found in place of those that their metafile holds."""
    return {
        name: dataclasses.replace(model, metadata={**model.metadata, **found[name]}) for name, model in models.items()
    }


if __name__ == '__main__':
    main()
