"""Parameters, FLOPs and memory: counted by hand on small modules, and compared with the published figures."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mmcv_custom import InternImage, zoo
from mmcv_custom.cli import read_config
from ops_dcnv3 import extension
from tests.support import ROOT
from tools.analysis_tools import get_flops
from tools.analysis_tools.get_flops import measure, measure_config
from tools.zoo import update

MASK_RCNN_T = 'configs/detection/coco/mask-rcnn_internimage-t_fpn_1x_coco.py'
# A cheap model of each kind, with the FLOPs of its parts and of all products, as measured when the zoo was set up.
SAMPLE: dict[str, tuple[dict[str, int], int]] = {
    'mask-rcnn_internimage-t_fpn_1x_coco': (
        dict(backbone=99287040000, neck=52101120000, rpn_head=50615792640, roi_head=67290112000),
        269294064640,
    ),
    'dino-4scale_internimage-t_8xb2-12e-layer-wise-lr_coco': (
        dict(
            backbone=99287040000,
            neck=1224212480,
            encoder=163015557120,
            memory_trans_fc=1393295360,
            bbox_head=4780994560,
            decoder=15968501760,
        ),
        289573498880,
    ),
    'internimage-t_upernet_8xb2-160k_ade20k-512x512': (
        dict(backbone=101669928960, decode_head=842296459264),
        943966388224,
    ),
    'internimage-l_segformer_8xb2-80k_mapillary-512x1024': (
        dict(backbone=1527979704320, decode_head=49459232768),
        1577438937088,
    ),
    'internimage-h_mask2former_16xb1-40k_nyu-depth-v2-480x480': (
        dict(backbone=832004352000, decode_head=33469491200),
        874505523200,
    ),
}
FLOAT = 4  # bytes
FLOPS_TOLERANCE = 0.02


class Small(nn.Module):
    """Every kind of product: a convolution, a linear layer, one between activations, one with free weights."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.linear = nn.Linear(8, 5)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, image: Tensor) -> Tensor:
        x = self.norm(self.conv(image)).flatten(2).transpose(1, 2)
        x = x + self.attention(x, x, x)[0]
        return self.linear(x)


def test_flops_are_those_counted_by_hand() -> None:
    found = measure(Small(), 16, 24)
    tokens = 8 * 12
    layers = tokens * 8 * 3 * 9 + tokens * 8 * 5
    attention = tokens * 8 * (3 * 8 + 8) + 2 * tokens * tokens * 8  # projections in and out, two products
    assert found.parts == {'backbone': layers}
    assert (found.flops, found.products) == (layers, layers + attention)
    assert found.params == 3 * 8 * 9 + 8 + 2 * 8 + 8 * 5 + 5 + 8 * (3 * 8 + 8) + 4 * 8


class Chain(nn.Module):
    """With a residual branch its input outlives the first step."""

    def __init__(self, residual: bool) -> None:
        super().__init__()
        self.residual = residual
        self.wide = nn.Linear(3, 10, bias=False)
        self.narrow = nn.Linear(10, 3, bias=False)

    def forward(self, image: Tensor) -> Tensor:
        start = image.permute(0, 2, 3, 1) * 2
        x = self.wide(start)
        if not self.residual:
            start = None
        x = self.narrow(x)
        return x + start if self.residual else x.relu_()


@pytest.mark.parametrize(('residual', 'channels'), [(False, 10 + 3), (True, 3 + 10 + 3)])
def test_activations_are_those_alive_together(residual: bool, channels: int) -> None:
    """Not the image and the weights, nor views and operations in place."""
    assert measure(Chain(residual), 32, 40).activations == 32 * 40 * channels * FLOAT


class LooksAtSizes(nn.Module):
    """As mmdet's transformers do: the sizes of the maps in a tensor on the maps' device, and loops over it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        size = torch._shape_as_tensor(image)[2:].to(image.device)
        height, width = size
        assert size.prod() == 6 * 7
        grid = torch.linspace(0, 1, height, device=image.device)[:, None] / size[None]
        return self.conv(image.flatten(2)[:, :, : height * (width - 1)]) * grid.sum()


def test_models_that_look_at_sizes_run_without_values() -> None:
    assert measure(LooksAtSizes(), 6, 7).flops == 6 * 6 * 3 * 2


@pytest.mark.parametrize(
    ('arch', 'size', 'flops'),
    [
        ('tiny', (800, 1280), 99_287_040_000),
        ('base', (224, 224), 16_122_075_648),
        ('large', (512, 2048), 763_989_852_160),
    ],
)
def test_backbones_cost_what_the_official_rule_says(arch: str, size: tuple[int, int], flops: int) -> None:
    """Recorded of the official model: its layers, and 5 * 9 * C per pixel and block."""
    with torch.device('meta'):
        model = InternImage(arch)
    assert measure(model, *size).flops == flops


def test_the_stand_in_of_the_operator_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extension, '_forced_to_reference', True)
    with pytest.raises(RuntimeError, match='needs the compiled dcnv3 operator: pip install'):
        measure(InternImage('tiny', depths=[1, 1, 1, 1]), 64, 64)


@pytest.mark.parametrize('name', SAMPLE)
def test_measurements_on_record_are_those_of_the_configs(name: str) -> None:
    model = zoo.models()[name]
    check(update.measure_model(model), model)
    found = measure_config(read_config(str(model.config)), model.image_size)
    assert (found.parts, found.products) == SAMPLE[name]


@pytest.mark.slow
def test_all_measurements_on_record() -> None:
    for model in zoo.models().values():
        check(update.measure_model(model), model)
    for backbone in zoo.backbones().values():
        check(update.measure_backbone(backbone), backbone)


def check(found: update.Figures, model: zoo.Model) -> None:
    # Versions of torch differ in what they hold at a time.
    assert found.pop('Activations') == pytest.approx(model.metadata['Activations'], rel=0.1)
    assert found == {key: model.metadata[key] for key in found}
    schedule = {'Epochs', 'Iterations'} & set(model.metadata)
    assert set(found) == {'Parameters', 'FLOPs'} | (schedule | {'Batch Size'} if schedule else set())


@pytest.mark.parametrize('entry', [*zoo.models().values(), *zoo.backbones().values()], ids=lambda entry: entry.name)
@pytest.mark.parametrize(('key', 'tolerance'), [('Parameters', 0.0), ('FLOPs', FLOPS_TOLERANCE)])
def test_published_figures_are_met(entry: zoo.Model, key: str, tolerance: float) -> None:
    """Parameters within rounding, FLOPs within two percent; those said to differ do differ."""
    printed = entry.published.get(key)
    measured = entry.metadata[key]
    differs = key in entry.published.get('Differs', {})
    if printed is None:
        assert not differs
    else:
        assert agrees(measured, printed, tolerance) != differs, (measured, printed)


def test_flops_of_detectors_and_segmentors_come_out_as_the_page_says() -> None:
    for model in zoo.models().values():
        if 'FLOPs' in model.published:
            assert agrees(model.metadata['FLOPs'], model.published['FLOPs'], 0.003)


def agrees(count: int, printed: str, tolerance: float) -> bool:
    value, rounding = printed_number(printed)
    return abs(count - value) <= max(rounding, tolerance * value)


def printed_number(text: str) -> tuple[float, float]:
    """A number as tables print it, such as ``'1.31B'``, and half a unit of its last digit."""
    match = re.fullmatch(r'(\d+(?:\.(\d+))?)([KMGB])', text)
    if not match:
        raise ValueError(f"expected a number with a unit, such as '49M', got {text!r}")
    unit = {'K': 1e3, 'M': 1e6, 'G': 1e9, 'B': 1e9}[match[3]]
    return float(match[1]) * unit, 0.5 * unit * 10.0 ** -len(match[2] or '')


def test_numbers_as_tables_print_them() -> None:
    assert printed_number('49M') == (49e6, 0.5e6)
    assert printed_number('1.31B') == (1.31e9, pytest.approx(0.005e9))
    with pytest.raises(ValueError, match="expected a number with a unit, such as '49M', got '49'"):
        printed_number('49')


def test_figures_agree_within_rounding_or_tolerance() -> None:
    assert agrees(48_600_000, '49M', 0.0) and not agrees(48_400_000, '49M', 0.0)
    assert agrees(265_000_000_000, '270G', FLOPS_TOLERANCE) and not agrees(264_000_000_000, '270G', FLOPS_TOLERANCE)


def test_the_program_describes_a_config(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    out = run(monkeypatch, capsys, str(ROOT / MASK_RCNN_T))
    assert out[0] == 'mask-rcnn_internimage-t_fpn_1x_coco, image 800 x 1280'
    assert [line.split() for line in out[1:5]] == [
        ['parameters', '48,920,544', 'published:', '49M'],
        ['FLOPs', '269.3G', 'published:', '270G'],
        ['backbone', '99.3G'],
        ['neck', '52.1G'],
    ]
    shrunk = ['--cfg-options', 'model.backbone.depths=[1,1,1,1]']
    out = run(monkeypatch, capsys, str(ROOT / MASK_RCNN_T), '--shape', '65', '96', *shrunk)
    assert out[0].endswith('image 96 x 96')
    assert 'published: 49M' in out[1] and 'published' not in out[2]


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    monkeypatch.setattr('sys.argv', ['get_flops.py', *arguments])
    get_flops.main()
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['nowhere.py'], 'there is no config file nowhere.py'),
        ([str(ROOT / MASK_RCNN_T), '--shape', '0', '32'], '--shape must be two positive numbers, got 0 32'),
        (['strange.py'], "default_scope of strange.py must be one of mmdet, mmseg, got 'mmpose'"),
        (['empty.py'], 'empty.py holds no model'),
    ],
)
def test_mistakes_get_one_clear_line(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / 'strange.py').write_text("default_scope = 'mmpose'\n")
    (tmp_path / 'empty.py').write_text("default_scope = 'mmdet'\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr('sys.argv', ['get_flops.py', *arguments])
    with pytest.raises(SystemExit, match=f'^error: .*{message}'):
        get_flops.main()
