"""A loss that is not finite spoils one step, and several in a row end the training."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.optim import AmpOptimWrapper
from mmengine.optim.optimizer import amp_optimizer_wrapper
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from mmcv_custom.checkpoint import load_safely
from mmcv_custom.engine import FiniteLossHook, PortableRunner
from mmcv_custom.errors import UserError
from tests.mmcv.tiny_training import Line, runner
from tests.support import Run

STEPS = 12
BAD = torch.tensor([torch.nan, 0.0, 0.0])
WRAPPERS = [
    dict(type='OptimWrapper'),
    dict(type='OptimWrapper', clip_grad=dict(max_norm=1.0)),
    dict(type='CPUAmpOptimWrapper'),
    dict(type='OptimWrapper', accumulative_counts=3),
]


class Seen(Line):
    """Its images carry names, its loss has two terms, and it normalises its input by a BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)

    def forward(self, inputs: list[Tensor], data_samples: list[BaseDataElement], mode: str) -> Any:
        outputs = self.head(self.backbone(self.norm(torch.stack(inputs))))
        return dict(loss_square=outputs.square().mean(), loss_sum=outputs.sum() * 0 + 1, acc=torch.tensor(torch.nan))


def images(bad: set[int], count: int = 24) -> list[dict]:
    """Images of which those with an index in ``bad`` are NaN."""
    inputs = torch.rand(count, 3, generator=torch.Generator().manual_seed(1))
    names = [BaseDataElement(metainfo=dict(img_path=f'{index}.png')) for index in range(count)]
    return [dict(inputs=BAD if index in bad else inputs[index], data_samples=names[index]) for index in range(count)]


def train(
    work_dir: Path, bad: set[int], steps: int = STEPS, model: Seen | None = None, **options: Any
) -> PortableRunner:
    """A training on the images in their order, two in a step."""
    data = dict(dataset=images(bad), batch_size=2, sampler=dict(type='InfiniteSampler', shuffle=False))
    training = runner(work_dir, steps, **{'train_dataloader': data, 'param_scheduler': None, **options})
    training.model = model or new_model()
    training.train()
    return training


def new_model() -> Seen:
    torch.manual_seed(0)
    return Seen()


def log_of(work_dir: Path) -> str:
    return '\n'.join(path.read_text() for path in work_dir.glob('*/*.log'))


def wrapper(options: dict) -> dict:
    return dict(copy.deepcopy(options), optimizer=dict(type='AdamW', lr=0.1))


def assert_equal(first: nn.Module, second: nn.Module, **tolerance: float) -> None:
    torch.testing.assert_close(first.state_dict(), second.state_dict(), **(tolerance or dict(rtol=0, atol=0)))


@pytest.mark.parametrize('options', WRAPPERS, ids=str)
def test_good_losses_change_nothing(options: dict, tmp_path: Path) -> None:
    guarded = train(tmp_path / 'a', set(), optim_wrapper=wrapper(options))
    bare = train(tmp_path / 'b', set(), optim_wrapper=wrapper(options), default_hooks=dict(finite_loss=None))
    assert [sum(isinstance(hook, FiniteLossHook) for hook in each.hooks) for each in (guarded, bare)] == [1, 0]
    assert_equal(guarded.model, bare.model)
    assert 'left out' not in log_of(tmp_path / 'a')


@pytest.mark.parametrize('options', WRAPPERS[:3], ids=str)
def test_a_bad_step_is_left_out(options: dict, tmp_path: Path) -> None:
    """The training is that on the other images, to the last bit: weights and statistics of BatchNorm."""
    training = train(tmp_path / 'a', {7}, optim_wrapper=wrapper(options))
    others = [image for index, image in enumerate(images(set())) if index not in (6, 7)]
    data = dict(dataset=others, batch_size=2, sampler=dict(type='InfiniteSampler', shuffle=False))
    expected = train(tmp_path / 'b', set(), STEPS - 1, optim_wrapper=wrapper(options), train_dataloader=data)
    assert_equal(training.model, expected.model)
    terms = 'loss nan, loss_square nan, loss_sum nan with images 6.png, 7.png'
    assert f'step 4 is left out, its loss is not finite ({terms}); 1 so far' in log_of(tmp_path / 'a')
    assert (tmp_path / f'a/iter_{STEPS}.pth').exists()


@pytest.mark.parametrize(('bad_step', 'used'), [(2, {1, 3}), (3, set())], ids=['within', 'last'])
def test_accumulation(bad_step: int, used: set[int], tmp_path: Path) -> None:
    """A bad loss leaves out its own gradients; the last one before an update leaves out the update."""
    sgd = dict(type='SGD', lr=0.1)
    options = dict(type='OptimWrapper', accumulative_counts=3, optimizer=sgd)
    training = train(tmp_path, {2 * bad_step - 1}, 6, optim_wrapper=options)
    model, data = new_model(), images({2 * bad_step - 1})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(1, 7):
        if step != bad_step:
            inputs = [image['inputs'] for image in data[2 * step - 2 : 2 * step]]
            losses = model(inputs, [], mode='loss')
            if step in used | {4, 5, 6}:
                ((losses['loss_square'] + losses['loss_sum']) / 3).backward()
        if step in (3, 6):
            optimizer.step()
            optimizer.zero_grad()
    assert_equal(training.model, model, rtol=1e-6, atol=1e-7)


def test_bad_steps_with_good_ones_between_do_not_stop(tmp_path: Path) -> None:
    bad = {0, 2, 4, 6, 10, 12, 14, 16, 20, 22}  # steps 1 to 4, 6 to 9, 11 and 12
    train(tmp_path, bad)
    assert '10 so far' in log_of(tmp_path)


@pytest.mark.parametrize('limit', [None, 2])
def test_several_in_a_row_stop(limit: int | None, tmp_path: Path) -> None:
    """The message names step, terms and images, and the last checkpoint, which is there and finite."""
    hooks = dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2, max_keep_ckpts=1))
    if limit:
        hooks['finite_loss'] = dict(limit=limit)
    last = 2 + (limit or 5)  # the first two are good
    with pytest.raises(UserError) as stopped:
        train(tmp_path, set(range(4, 24)), default_hooks=hooks)
    assert re.match(
        rf'the loss was not finite in {limit or 5} steps in a row, the last is step {last} \(loss nan, .*'
        rf'{2 * last - 2}.png, {2 * last - 1}.png\); the last checkpoint is .*iter_2.pth\. Lower the learning rate',
        str(stopped.value),
    )
    (saved,) = tmp_path.glob('iter_*.pth')
    assert (tmp_path / 'last_checkpoint').read_text() == str(saved)
    assert all(tensor.isfinite().all() for tensor in load_safely(saved)['state_dict'].values())


@pytest.mark.parametrize('options', WRAPPERS, ids=str)
def test_a_diverging_training_stops(options: dict, tmp_path: Path) -> None:
    """One update makes the weights overflow, and no later loss is finite."""
    optimizer = dict(type='SGD', lr=1e30)
    changed = dict(copy.deepcopy(options), optimizer=optimizer)
    changed.pop('clip_grad', None)
    with pytest.raises(UserError, match='not finite in 5 steps in a row.*there is no checkpoint yet. Lower the learn'):
        hook = dict(type='CheckpointHook', by_epoch=False, interval=100)
        train(tmp_path, set(), 40, optim_wrapper=changed, default_hooks=dict(checkpoint=hook))


def test_what_only_the_scaler_rejects_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first scale makes gradients overflow; it halves it until they do not."""
    monkeypatch.setattr(amp_optimizer_wrapper, 'is_cuda_available', lambda: True)
    model = new_model()
    model.head.bias.data.fill_(8.0)  # a loss above 64
    before = copy.deepcopy(model)
    scaled = AmpOptimWrapper(optimizer=torch.optim.SGD(model.parameters(), lr=0.01))
    scaled.loss_scaler = torch.amp.GradScaler('cpu', init_scale=2.0**127)
    train(tmp_path, {23}, model=model, optim_wrapper=scaled)
    assert scaled.loss_scaler.get_scale() <= 2.0**124  # at least three were rejected
    assert '1 so far' in log_of(tmp_path) and '2 so far' not in log_of(tmp_path)
    assert not torch.equal(before.head.weight, model.head.weight) and model.head.weight.isfinite().all()


def test_limit_is_positive() -> None:
    with pytest.raises(ValueError, match='limit must be at least 1, got 0'):
        FiniteLossHook(limit=0)


PROGRAM = """
import os, sys
from pathlib import Path
import torch
from mmengine.model import MMDistributedDataParallel
from mmcv_custom.errors import UserError
from tests.mmcv import test_finite
from tests.mmcv.tiny_training import runner

rank = os.environ['RANK']
for name, (unused, accumulated, bad) in test_finite.TOGETHER.items():
    data = dict(dataset=test_finite.images(bad), batch_size=1, sampler=dict(type='InfiniteSampler', shuffle=False))
    options = dict(type='OptimWrapper', accumulative_counts=accumulated, optimizer=dict(type='SGD', lr=0.1))
    options = dict(train_dataloader=data, param_scheduler=None, optim_wrapper=options, launcher='pytorch')
    training = runner(Path(sys.argv[1], name), 12, **options)
    model = test_finite.new_model()
    model.norm = torch.nn.Identity()  # one image has no variance
    training.model = MMDistributedDataParallel(model, find_unused_parameters=unused)
    try:
        training.train()
        text = f'has {sum(p.double().sum() for p in model.parameters()).item():.12f}'
    except UserError as problem:
        text = f'ended: {problem}'
    Path(sys.argv[1], f'{name}_{rank}.txt').write_text(text)
"""
# Trainings in two processes: whether unused parameters are looked for, accumulated steps, and bad images.
TOGETHER: dict[str, tuple[bool, int, set[int]]] = {
    'used': (False, 1, {5, 7}),
    'unused': (True, 2, {5, 7}),
    'stopped': (False, 1, set(range(5, 24, 2))),
}


@pytest.fixture(scope='module')
def together(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the trainings in two processes, and of what each process says of them."""
    folder = tmp_path_factory.mktemp('together')
    (folder / 'program.py').write_text(PROGRAM)
    launch = ['-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2']
    run(*launch, folder / 'program.py', folder)
    return folder


def told(folder: Path, name: str) -> list[str]:
    return [(folder / f'{name}_{rank}.txt').read_text() for rank in range(2)]


@pytest.mark.parametrize('name', ['used', 'unused'])
def test_processes_leave_out_a_step_together(name: str, together: Path) -> None:
    """The second process gets a bad image in steps 3 and 4; both have the same weights at the end."""
    first, second = told(together, name)
    assert first == second and re.match(r'has -?\d', first)
    log = log_of(together / name)
    assert '3 is left out' in log and '4 is left out' in log and 'images 7.png); 2 so far' in log


def test_processes_stop_together(together: Path) -> None:
    """With the same message, which names the images of the process that has them."""
    first, second = told(together, 'stopped')
    assert first == second
    assert re.match(r'ended: the loss was not finite in 5 steps in a row, the last is step 7 .* images 13.png\)', first)
