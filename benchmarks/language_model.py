"""Trains small character-level language models on the documentation strings of Python's own library.

    python benchmarks/language_model.py

The models differ in what mixes the positions: causal DCNv3_1d layers, or causal convolutions of the same kernel sizes
and dilations, depth-wise or dense, widened or narrowed to the same number of parameters. All see the same batches. The
result is the loss on modules that the training has not seen, in bits per character.
"""

from __future__ import annotations

import argparse
import ast
import math
import sysconfig
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import measure
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ops_dcnv3 import DCNv3_1d

CHARACTERS = 128  # ASCII; anything else in the texts counts as a question mark
KERNEL = 5
DILATIONS = (1, 2, 4, 8)  # one block each; a prediction sees 4 * (1 + 2 + 4 + 8) characters before its own, or further
GROUPS = 8
VALIDATION_SHARE = 10  # every tenth file

documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def read_texts() -> Iterator[str]:
    """The documentation strings of each file of Python's library, without those that an earlier file holds too."""
    library = Path(sysconfig.get_path('stdlib'))
    known: set[str] = set()
    for path in sorted(library.rglob('*.py')):
        if {'site-packages', 'dist-packages', 'test', 'tests', 'lib2to3'} & set(path.relative_to(library).parts):
            continue
        nodes = (node for node in ast.walk(ast.parse(path.read_bytes())) if isinstance(node, documented))
        texts = [text for node in nodes if (text := ast.get_docstring(node)) and text not in known]
        known.update(texts)
        if texts:
            yield '\n\n'.join(texts) + '\n\n'


def read_splits() -> tuple[Tensor, Tensor]:
    """Characters of the training and of the validation files."""
    texts = list(read_texts())
    validation = ''.join(texts[::VALIDATION_SHARE])
    training = ''.join(text for index, text in enumerate(texts) if index % VALIDATION_SHARE)
    train, val = (torch.tensor(list(text.encode('ascii', 'replace'))) for text in (training, validation))
    return train, val


class CausalConv1d(nn.Conv1d):
    """A convolution of (N, L, C) that sees its own and earlier positions."""

    def forward(self, x: Tensor) -> Tensor:
        past = self.dilation[0] * (self.kernel_size[0] - 1)
        return super().forward(F.pad(x.transpose(1, 2), (past, 0))).transpose(1, 2)


def depthwise(channels: int, hidden: int, dilation: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(channels, hidden),
        CausalConv1d(hidden, hidden, KERNEL, dilation=dilation, groups=hidden),
        nn.GELU(),
        nn.Linear(hidden, channels),
    )


def dense(channels: int, hidden: int, dilation: int) -> nn.Module:
    return nn.Sequential(
        CausalConv1d(channels, hidden, KERNEL, dilation=dilation), nn.GELU(), nn.Linear(hidden, channels)
    )


def deformable(channels: int, dilation: int) -> nn.Module:
    return DCNv3_1d(channels, GROUPS, KERNEL, dilation, causal=True)


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def as_large(build: Callable[[int, int, int], nn.Module]) -> Callable[[int, int], nn.Module]:
    """The mixer with the hidden width that brings it closest to DCNv3_1d's number of parameters."""

    def mixer(channels: int, dilation: int) -> nn.Module:
        with torch.device('meta'):
            one, two = (parameters(build(channels, hidden, dilation)) for hidden in (1, 2))
            wanted = parameters(deformable(channels, dilation))
        return build(channels, 1 + round((wanted - one) / (two - one)), dilation)

    return mixer


MIXERS: dict[str, Callable[[int, int], nn.Module]] = {
    'DCNv3_1d': deformable,
    'depth-wise conv1d': as_large(depthwise),
    'dense conv1d': as_large(dense),
}


class Block(nn.Module):
    """Mixer and MLP, each a residual branch of its normalised input: (N, L, C) -> (N, L, C)."""

    def __init__(self, channels: int, mixer: nn.Module) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.mixer = mixer
        self.mlp = nn.Sequential(nn.Linear(channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mixer(self.norm1(x))
        return x + self.mlp(self.norm2(x))


def build_model(mixer: Callable[[int, int], nn.Module], channels: int) -> nn.Sequential:
    """Characters (N, L) -> logits (N, L, CHARACTERS) of the character after each."""
    blocks = (Block(channels, mixer(channels, dilation)) for dilation in DILATIONS)
    return nn.Sequential(
        nn.Embedding(CHARACTERS, channels), *blocks, nn.LayerNorm(channels), nn.Linear(channels, CHARACTERS)
    )


def loss_of(model: nn.Module, windows: Tensor) -> Tensor:
    """Mean cross-entropy of windows (N, L + 1), in nats per character."""
    return F.cross_entropy(model(windows[:, :-1]).flatten(0, 1), windows[:, 1:].flatten())


def train(model: nn.Module, text: Tensor, args: argparse.Namespace, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.lr, args.steps, pct_start=0.1)
    span = torch.arange(args.length + 1)
    for _ in range(args.steps):
        starts = torch.randint(len(text) - args.length - 1, (args.batch, 1), generator=generator)
        loss_of(model, text[starts + span].to(args.device)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()


def bits_per_character(model: nn.Module, text: Tensor, args: argparse.Namespace) -> float:
    """On consecutive windows of the text."""
    windows = text[: len(text) // (args.length + 1) * (args.length + 1)].view(-1, args.length + 1)
    with torch.no_grad():
        losses = [loss_of(model, part.to(args.device)).item() * len(part) for part in windows.split(args.batch)]
    return sum(losses) / len(windows) / math.log(2)


def tables(rows: Sequence[dict[str, Any]]) -> list[list[list[str]]]:
    """Loss of every model."""
    table = [['model', 'parameters', 'validation, bits per character', 'training, minutes']]
    for row in rows:
        losses = ', '.join(f'{loss:.3f}' for loss in row['bits'])
        table.append([row['model'], f'{row["parameters"]:,}', losses, f'{row["seconds"] / 60:.1f}'])
    return [table]


def main() -> None:
    parser = argparse.ArgumentParser(description='Trains character-level language models with DCNv3_1d and conv1d.')
    parser.add_argument('--steps', type=int, default=500, help='of each training (default %(default)s)')
    parser.add_argument('--seeds', type=int, default=1, help='trainings of each model (default %(default)s)')
    parser.add_argument('--batch', type=int, default=16)
    parser.add_argument('--length', type=int, default=256, help='characters of a window (default %(default)s)')
    parser.add_argument('--channels', type=int, default=128)
    parser.add_argument('--lr', type=float, default=3e-3)
    measure.add_machine_arguments(parser)
    args = parser.parse_args()
    machine = measure.start(args)
    training, validation = read_splits()
    print(f'{len(training):,} characters to train on, {len(validation):,} of other modules to validate on')
    rows: list[dict[str, Any]] = []
    for name, mixer in MIXERS.items():
        bits, begin = [], time.monotonic()
        for seed in range(args.seeds):
            torch.manual_seed(seed)
            model = build_model(mixer, args.channels).to(args.device)
            train(model, training, args, seed)
            bits.append(bits_per_character(model, validation, args))
        seconds = (time.monotonic() - begin) / args.seeds
        rows.append({'model': name, 'parameters': parameters(model), 'bits': bits, 'seconds': seconds})
        print(measure.markdown(tables(rows[-1:])[0]), flush=True)
    print('\n' + measure.markdown(tables(rows)[0]))
    measure.save(args, machine, rows)


if __name__ == '__main__':
    main()
