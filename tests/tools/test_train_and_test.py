"""tools/train.py and tools/test.py on the demo's configs, from end to end, and their answers to mistakes."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from mmcv_custom.checkpoint import load_safely
from mmcv_custom.cli import build_runner
from tests.support import ROOT, Run
from tools import test, train

DETECTOR = ROOT / 'configs/demo/mask-rcnn_digits.py'
SEGMENTOR = ROOT / 'configs/demo/upernet_digits.py'
SHORT = ['--cfg-options', 'train_dataloader.batch_size=2', 'train_dataloader.num_workers=0']
SHORT += ['train_dataloader.persistent_workers=False', 'default_hooks.logger.interval=1']


def iterations(count: int) -> list[str]:
    return [f'train_cfg.max_iters={count}', f'train_cfg.val_interval={count}']


def train_config(run: Run, config: Path, work_dir: str, *options: str) -> str:
    return run(ROOT / 'tools/train.py', config, '--work-dir', work_dir, *SHORT, *options).stdout


def metrics(work_dir: Path) -> dict[str, Any]:
    return json.loads(max(work_dir.glob('*/*.json')).read_text())


@pytest.fixture(scope='session')
def detector(run: Run, workplace: Path) -> Path:
    """A Mask R-CNN after two steps, and its log."""
    log = train_config(run, DETECTOR, 'detector', *iterations(2))
    assert re.search(r'Iter\(train\) \[2/2\].*eta:.*loss: ', log)
    assert 'coco/bbox_mAP:' in log and 'coco/segm_mAP:' in log
    return workplace / 'detector' / 'iter_2.pth'


@pytest.fixture(scope='session')
def segmentor(run: Run, workplace: Path, detector: Path) -> Path:
    """A UperNet after two steps, on the detector's backbone."""
    log = train_config(run, SEGMENTOR, 'segmentor', *iterations(2), f'model.backbone.init_cfg.checkpoint={detector}')
    assert re.search(r'loaded 100.0% of InternImage from \S*iter_2.pth', log)
    assert 'mIoU:' in log
    return workplace / 'segmentor' / 'iter_2.pth'


def test_the_detector_is_evaluated(run: Run, workplace: Path, detector: Path) -> None:
    run(ROOT / 'tools/test.py', DETECTOR, detector, '--work-dir', 'dt', '--out', 'dt/out.pkl', '--show-dir', 'dt/shown')
    assert metrics(workplace / 'dt')['coco/bbox_mAP'] >= 0
    predictions = pickle.loads((workplace / 'dt/out.pkl').read_bytes())
    assert [prediction['img_id'] for prediction in predictions] == [0, 1, 2]
    found = predictions[0]['pred_instances']
    assert len(found['masks']) == len(found['scores']) and found['bboxes'].shape[1:] == (4,)
    assert sorted(path.name for path in (workplace / 'dt/shown').iterdir()) == ['00000.png', '00001.png', '00002.png']
    height, width, _ = np.asarray(Image.open(workplace / 'dt/shown/00000.png')).shape
    assert (height, width) == (64, 128)  # truth and prediction side by side


def test_the_segmentor_is_evaluated(run: Run, workplace: Path, segmentor: Path) -> None:
    run(
        ROOT / 'tools/test.py',
        SEGMENTOR,
        segmentor,
        '--work-dir',
        'st',
        '--out',
        'st/out.pkl',
        '--show-dir',
        'st/shown',
    )
    assert metrics(workplace / 'st')['mIoU'] >= 0
    predictions = pickle.loads((workplace / 'st/out.pkl').read_bytes())
    assert [Path(prediction['img_path']).name for prediction in predictions] == ['00000.png', '00001.png', '00002.png']
    labels = predictions[0]['pred_sem_seg']
    assert labels.shape == (64, 64) and labels.dtype == torch.uint8
    assert len(list((workplace / 'st/shown').iterdir())) == 3


TTA_CONFIGS = {
    'detector': f'_base_ = [{str(DETECTOR)!r}, {str(ROOT / "configs/detection/_base_/tta.py")!r}]',
    'segmentor': f"""
_base_ = {str(SEGMENTOR)!r}
tta_model = dict(type='SegTTAModel')
views = [[dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)]]
views += [[dict(type='LoadAnnotations')], [dict(type='PackSegInputs')]]
tta_pipeline = [dict(type='LoadImageFromFile'), dict(type='TestTimeAug', transforms=views)]
""",
}


@pytest.mark.parametrize('model', TTA_CONFIGS)
def test_test_time_augmentation(run: Run, workplace: Path, model: str, request: pytest.FixtureRequest) -> None:
    checkpoint = request.getfixturevalue(model)
    config = workplace / f'{model}_tta.py'
    config.write_text(TTA_CONFIGS[model])
    arguments = [config, checkpoint, '--work-dir', f'{model}-tta', '--tta']
    if model == 'detector':
        arguments += ['--cfg-options', 'tta_pipeline.1.transforms.0.0.scale=(64,64)']
    run(ROOT / 'tools/test.py', *arguments)
    assert set(metrics(workplace / f'{model}-tta')) >= ({'coco/segm_mAP'} if model == 'detector' else {'mIoU'})


@pytest.mark.parametrize('model', ['detector', 'segmentor'])
def test_training_goes_on_from_the_newest_checkpoint(
    run: Run, workplace: Path, model: str, request: pytest.FixtureRequest
) -> None:
    """Also after the work folder was moved. The optimiser's state comes along, and the iteration."""
    checkpoint = request.getfixturevalue(model)
    moved = workplace / f'{model}-moved'
    moved.mkdir()
    (moved / checkpoint.name).write_bytes(checkpoint.read_bytes())
    (moved / 'last_checkpoint').write_text(f'/where/it/was/{checkpoint.name}')
    config = DETECTOR if model == 'detector' else SEGMENTOR
    log = train_config(run, config, moved.name, *iterations(3), 'model.backbone.init_cfg=None', '--resume')
    assert re.search(r'resumed epoch: 0, iter: 2', log)
    assert re.findall(r'Iter\(train\) \[(\d)/3\]', log) == ['3']
    steps = {int(state['step']) for state in load_safely(moved / 'iter_3.pth')['optimizer']['state'].values()}
    assert steps == {3}


def test_resume_auto_starts_where_nothing_was_saved_and_goes_on_where_something_was(run: Run, workplace: Path) -> None:
    """It goes on from the newest checkpoint that can be read, and names those that it skipped."""
    first = train_config(run, SEGMENTOR, 'auto', *iterations(2), 'model.backbone.init_cfg=None', '--resume', 'auto')
    assert re.findall(r'Iter\(train\) \[(\d)/2\]', first) == ['1', '2']
    torn = workplace / 'auto/iter_3.pth'
    torn.write_bytes((workplace / 'auto/iter_2.pth').read_bytes()[:999])
    (workplace / 'auto/last_checkpoint').write_text(str(torn))
    options = [*iterations(4), 'model.backbone.init_cfg=None', 'experiment_name=auto']
    done = run(ROOT / 'tools/train.py', SEGMENTOR, '--work-dir', 'auto', *SHORT, *options, '--resume', 'auto')
    assert re.search(r'skipped in auto: .*iter_3.pth .* could not be read', done.stdout + done.stderr)
    assert re.findall(r'Iter\(train\) \[(\d)/4\]', done.stdout) == ['3', '4']
    steps = {int(state['step']) for state in load_safely(workplace / 'auto/iter_4.pth')['optimizer']['state'].values()}
    assert steps == {4}


FORMS: dict[str, Callable[[dict], Any]] = {
    'model': lambda state: {'model': state, 'epoch': 9},
    'module': lambda state: {'module': state},
    'bare': lambda state: state,
    'compiled and in parallel': lambda state: {'state_dict': {f'module._orig_mod.{key}': state[key] for key in state}},
    'Lightning': lambda state: {'state_dict': {f'model.{key}': state[key] for key in state}, 'epoch': 9},
}


@pytest.mark.parametrize('form', FORMS)
def test_weights_kept_elsewhere_are_the_weights_that_are_evaluated(
    form: str, segmentor: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = load_safely(segmentor)['state_dict']
    torch.save(FORMS[form](dict(state)), workplace / 'form.pth')
    cfg = Config.fromfile(SEGMENTOR)
    cfg.merge_from_dict(dict(work_dir=str(workplace / 'forms'), load_from=str(workplace / 'form.pth')))
    cfg.custom_hooks = [dict(type='CompleteCheckpointHook')]
    cfg.experiment_name = f'form {form}'
    monkeypatch.chdir(workplace)
    runner = build_runner(cfg)
    runner.load_or_resume()
    for name, tensor in runner.model.state_dict().items():
        assert torch.equal(tensor, state[name]), name


def test_two_processes_train_together_on_cpus(run: Run, workplace: Path, free_port: int) -> None:
    """Two processes train, in mixed precision, and evaluate all images together."""
    launch = ['-m', 'torch.distributed.run', '--nproc-per-node', '2', '--master-port', str(free_port)]
    arguments = [SEGMENTOR, '--work-dir', 'gloo', '--launcher', 'pytorch', '--amp', *SHORT, *iterations(2)]
    done = run(*launch, ROOT / 'tools/train.py', *arguments, 'model.backbone.init_cfg=None')
    assert 'SyncBatchNorm layers, if any, become BatchNorm' in done.stdout
    (log,) = (path.read_text() for path in workplace.glob('gloo/*/*.log'))
    assert 'Distributed training: True' in log and 'GPU number: 2' in log and "type='CPUAmpOptimWrapper'" in log
    assert 'CPU, 2 processes, bfloat16' in done.stdout
    assert re.search(r'Iter\(val\) \[2/2\].*mIoU:', done.stdout)  # three images, one by one in each process
    assert load_safely(workplace / 'gloo/iter_2.pth')['meta']['iter'] == 2


@pytest.mark.parametrize(
    ('program', 'arguments', 'message'),
    [
        (train, ['nowhere.py'], 'there is no config file nowhere.py'),
        (train, ['broken.py'], r'cannot read config broken.py: ZeroDivisionError'),
        (train, ['orphan.py'], r'cannot read config orphan.py: FileNotFoundError: .*no_base.py'),
        (train, [str(DETECTOR)], r'data/digits/annotations/train.json does not exist: train_dataloader.dataset of'),
        (
            train,
            [str(DETECTOR), '--resume'],
            'nothing to resume: no checkpoint was saved in work_dirs/mask-rcnn_digits',
        ),
        (train, [str(DETECTOR), '--resume', 'no.pth'], 'there is no checkpoint no.pth'),
        (train, [str(DETECTOR), '--auto-scale-lr'], 'needs auto_scale_lr.base_batch_size'),
        (test, [str(DETECTOR), 'no.pth'], 'there is no checkpoint no.pth'),
        (test, [str(DETECTOR), 'broken.py'], 'data/digits/annotations/val.json does not exist'),
        (test, [str(DETECTOR), 'no.pth', '--out', 'a.json'], r"--out must name a .pkl file, got '?a.json"),
    ],
)
def test_mistakes_get_one_clear_line(
    program: Any, arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / 'broken.py').write_text('a = 1 / 0\n')
    (tmp_path / 'orphan.py').write_text("_base_ = 'no_base.py'\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr('sys.argv', ['program', *arguments])
    with pytest.raises(SystemExit) as caught:
        program.main()
    assert re.search(message, str(caught.value))
    assert str(caught.value).startswith('error: ') and '\n' not in str(caught.value)


def test_a_launcher_that_did_not_start_us(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    monkeypatch.delenv('RANK', raising=False)
    monkeypatch.setattr('sys.argv', ['train.py', str(DETECTOR), '--work-dir', 'alone', '--launcher', 'pytorch'])
    with pytest.raises(SystemExit, match="error: launcher 'pytorch' was asked for, but RANK"):
        train.main()


class Payload:
    """Unpickling it creates a file."""

    def __reduce__(self) -> tuple:
        return Path.touch, (Path('executed'),)


def test_a_checkpoint_cannot_run_code(workplace: Path, detector: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = load_safely(detector)
    torch.save({**content, 'extra': Payload()}, workplace / 'evil.pth')
    monkeypatch.chdir(workplace)
    monkeypatch.setattr('sys.argv', ['test.py', str(DETECTOR), 'evil.pth', '--work-dir', 'evil'])
    with pytest.raises(SystemExit, match='error: refused to read evil.pth.*MM_INTERNIMAGE_UNSAFE_LOAD=1'):
        test.main()
    assert not (workplace / 'executed').exists()
