"""The benchmarks measure what they say, compare like with like, and the page shows their results."""

from __future__ import annotations

import argparse
import importlib
import json
import math
import sys
import time

import pytest
import torch

from tests.support import ROOT

sys.path.insert(0, str(ROOT / 'benchmarks'))  # as for a program that is started from there
backbone, language_model, linear, measure, op, report, sequence = (
    importlib.import_module(name)
    for name in ('backbone', 'language_model', 'linear', 'measure', 'op', 'report', 'sequence')
)


THREADS = torch.get_num_threads()


def options(**changes) -> argparse.Namespace:
    defaults = dict(device='cpu', runs=1, seconds=0.0, threads=1, against=['reference', 'mmcv', 'conv3x3', 'copy'])
    return argparse.Namespace(**(defaults | changes))


def test_the_page_shows_the_results():
    """After new results: python benchmarks/report.py."""
    page = report.PAGE.read_text()
    assert report.render(page) == page
    assert report.render(page.replace('<!-- end -->', 'stale\n<!-- end -->')) == page


def test_a_benchmark_becomes_a_table_of_the_page(tmp_path, monkeypatch, capsys):
    file = tmp_path / 'sequence.json'
    arguments = ['--lengths', '16', '32', '--channels', '8', '--groups', '2', '--threads', '1', '--runs', '2']
    monkeypatch.setattr(sys, 'argv', ['benchmarks/sequence.py', *arguments, '--seconds', '0', '--json', str(file)])
    sequence.main()
    command = ' '.join(['python', *sys.argv])
    page = f'```bash\n{command}\n```\n\n<!-- results -->\n<!-- end -->\n'
    assert list(report.commands(page)) == [command] == [json.loads(file.read_text())['command']]
    rendered = report.render(page)
    printed = capsys.readouterr().out
    tables = printed.split('\n\n')[1:]
    assert len(tables) == 2 and all(table.strip() in rendered for table in tables)
    assert '| exponent' in rendered and report.render(rendered) == rendered


def test_the_page_names_the_commands_of_the_results():
    results = {path: json.loads(path.read_text()) for path in (ROOT / 'docs' / 'performance').glob('*.json')}
    commands = list(report.commands(report.PAGE.read_text()))
    assert commands and {result['command'] for result in results.values()} <= set(commands)
    assert all(result['rows'] for result in results.values())


def test_markdown():
    assert measure.markdown([['name', 'ms'], ['a', '12.5 ms'], ['longer', '3']]).splitlines() == [
        '| name   |      ms |',
        '|--------|--------:|',
        '| a      | 12.5 ms |',
        '| longer |       3 |',
    ]


def test_exponent_of_growth():
    lengths = [256, 1024, 4096]
    assert measure.exponent(lengths, [3.0 * n**1.5 for n in lengths]) == pytest.approx(1.5)
    rows = [{'length': n, 'seconds': {'attention': 1e-6 * n**2}} for n in lengths]
    rows.append({'length': 8192, 'seconds': {}})
    assert sequence.foretold(rows, 'attention', 16384) == pytest.approx(1e-6 * 16384**2)
    assert sequence.foretold(rows[:1], 'attention', 16384) == 0


def test_medians_tell_slow_from_fast():
    times = measure.medians({'slow': lambda: time.sleep(0.02), 'fast': lambda: time.sleep(0.001)}, 'cpu', runs=3)
    assert 0.02 <= times['slow'] < 0.2 and 0.001 <= times['fast'] < 0.02


def test_threads_are_changed_for_a_call_only():
    seen = []
    measure.with_threads(1, lambda: seen.append(torch.get_num_threads()))()
    assert seen == [1] and torch.get_num_threads() == THREADS
    with pytest.raises(ZeroDivisionError):
        measure.with_threads(1, lambda: 1 / 0)()
    assert torch.get_num_threads() == THREADS


def test_peak_memory_is_that_of_the_tensors_alive_at_once():
    def one_after_the_other() -> None:
        for _ in range(3):
            torch.empty(2**20)

    def together() -> None:
        kept = [torch.empty(2**20) for _ in range(3)]
        del kept

    assert measure.peak_memory(one_after_the_other, 'cpu') == 4 * 2**20
    assert measure.peak_memory(together, 'cpu') == 12 * 2**20


def test_memory_is_limited_for_a_while():
    with measure.limited_memory('cpu'):
        assert not measure.fits(lambda: torch.ones(2**44))
        assert measure.fits(lambda: torch.ones(2**20))
        with pytest.raises(RuntimeError, match='shapes cannot be multiplied'):
            measure.fits(lambda: torch.ones(2, 3) @ torch.ones(2, 3))


def test_a_backbone_that_does_not_fit_is_left_out():
    rows = [
        backbone.measure_combination('tiny', (32, 32), 'inference', 'float32', 'no', options(batch=1, core_ops=[op_]))
        for op_ in backbone.CORE_OPS
    ]
    rows[0]['seconds'] |= rows[1]['seconds']
    rows[0]['peak_bytes'] |= rows[1]['peak_bytes']
    (table,) = backbone.tables(rows)
    assert table[1][6].endswith('x') and table[2][4] == 'does not fit' and len(table[1]) == len(table[2])


def test_shapes_are_those_of_the_stages():
    assert [str(shape) for shape in op.stages('tiny', 800, 1344)] == [
        '1x200x336, 4x16',
        '1x100x168, 8x16',
        '1x50x84, 16x16',
        '1x25x42, 32x16',
    ]
    images = [(512, 512), (800, 1344)]
    assert len(op.selected_shapes(['published'], images)) > 2 * len(op.selected_shapes(['tiny', 'large'], images))
    model = backbone.InternImage('tiny')
    features = model(torch.rand(1, 3, 70, 50))
    assert [tuple(f.shape[2:]) for f in features] == [(s.height, s.width) for s in op.stages('tiny', 70, 50)]


def test_linear_layers_are_those_of_a_block():
    layers = list(linear.layers('tiny', (64, 96)))
    assert layers[:5] == [(16, 24, 64, n) for n in (64, 72, 36, 256)] + [(16, 24, 256, 64)] and len(layers) == 20
    block = backbone.InternImage('tiny').levels[0].blocks[0]
    found = {(m.in_features, m.out_features) for m in block.modules() if isinstance(m, torch.nn.Linear)}
    assert found == {layer[2:] for layer in layers[:5]}
    rows = list(linear.measure_layer((4, 4, 8, 16), 'float32', options()))
    forward, both = linear.tables(rows)
    assert forward[1][0] == '4x4, 8 to 16' and forward[1][2].endswith('x)') and len(forward[0]) == len(both[0]) + 2


def test_bytes_moved():
    """Two pixels of one group of four channels: 8 numbers of features, 18 samples."""
    shape = op.Shape(1, 1, 2, 1, 4)
    inputs = op.make_inputs(shape, torch.float32, 'cpu')
    forward = sum(t.nbytes for t in inputs) + inputs[0].nbytes
    assert shape.bytes_moved(4, backward=False) == forward
    gradients = sum(t.nbytes for t in inputs)
    assert shape.bytes_moved(4, backward=True) == forward + inputs[0].nbytes + 2 * gradients


def test_operators_are_compared_on_the_same_samples():
    pytest.importorskip('mmcv.ops')
    shape = op.Shape(2, 5, 7, 3, 4)
    others = ['reference', 'mmcv', 'conv3x3', 'copy', 'one thread']
    forward, both = op.measure_shape(shape, 'float32', options(against=others, threads=2))
    assert set(forward['seconds']) == {'dcnv3', *others}
    assert both['seconds']['dcnv3'] > 0 and both['peak_bytes']['dcnv3'] > forward['peak_bytes']['dcnv3'] > 0
    table, _ = op.tables([forward, both])
    assert len(table) == 3 and 'x)' in table[1][2]


def test_another_result_stops_the_comparison(monkeypatch):
    def swapped(shape, input, offset, mask):
        return op.build_operator(op.dcnv3_reference, shape, input, offset.flip(-1), mask)

    monkeypatch.setitem(op.BUILDERS, 'reference', swapped)
    with pytest.raises(SystemExit, match='reference and dcnv3 differ by'):
        list(op.measure_shape(op.Shape(1, 5, 7, 1, 4), 'float32', options(against=['reference'])))


def test_backbones_differ_in_the_operator_only():
    models = backbone.build_pair('tiny', ['DCNv3', 'DCNv3_pytorch'], 'cpu')
    first, second = (dict(model.named_parameters()) for model in models.values())
    assert first.keys() == second.keys() and all(first[name] is second[name] for name in first)
    x = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        outputs = [model.eval()(x)[-1] for model in models.values()]
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-5)


def test_sequence_layers_have_one_shape():
    x = torch.rand(2, 20, 16)
    layers = sequence.build_layers(16, 2, 5)
    assert all(layer(x).shape == x.shape for layer in layers.values())


@pytest.mark.parametrize('name', language_model.MIXERS)
def test_language_models_are_causal_and_of_equal_size(name):
    models = {key: language_model.build_model(mixer, 32) for key, mixer in language_model.MIXERS.items()}
    sizes = {key: language_model.parameters(model) for key, model in models.items()}
    assert sizes[name] == pytest.approx(sizes['DCNv3_1d'], rel=0.01)
    text = torch.randint(language_model.CHARACTERS, (1, 40))
    other = text.clone()
    other[:, 30:] = 0
    first, second = (models[name](t)[:, :30] for t in (text, other))
    torch.testing.assert_close(first, second, rtol=0, atol=1e-6)


def test_language_models_learn(monkeypatch):
    torch.manual_seed(0)
    text = torch.arange(2000) % 7
    args = options(steps=15, batch=4, length=32, lr=3e-3)
    model = language_model.build_model(language_model.MIXERS['DCNv3_1d'], 32)
    before = language_model.bits_per_character(model, text, args)
    language_model.train(model, text, args, seed=0)
    assert before > math.log2(language_model.CHARACTERS) - 1 > 3 > language_model.bits_per_character(model, text, args)
