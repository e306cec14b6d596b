"""DINO: equality with the published detector, and what mmdet's lacks for it."""

from __future__ import annotations

import pytest
import torch
from mmengine.registry import MODELS

from mmcv_custom import convert_state_dict
from mmdet_custom import PublishedDINO, PublishedDINOHead
from tests.mmdet.detectors import CLASSES, QUERIES, WIDTH, build_dino, make_samples, without_gradient
from tests.support import golden_weights, load_tensors


@pytest.mark.parametrize('batch', ['', 'padded/'], ids=['one image', 'two, padded'])
def test_golden(batch):
    golden = load_tensors('dino_tiny')
    model = build_dino().eval()
    model.load_state_dict(convert_state_dict(golden_weights(golden)))
    expected = {key.removeprefix(batch): value for key, value in golden.items() if key.startswith(batch)}
    samples = make_samples(expected['img_shape'])
    with torch.no_grad():
        features = model.extract_feat(expected['img'])
        outputs = model.forward_transformer(features, samples)
        scores, boxes = model.bbox_head(**outputs)
        model.predict(expected['img'], samples, rescale=False)
    actual = {f'neck/{level}': feature for level, feature in enumerate(features)}
    actual['decoder_hidden_states'] = outputs['hidden_states']
    actual['decoder_references'] = torch.stack(outputs['references'])
    actual |= dict(cls_scores=scores, bbox_preds=boxes)
    for key, value in actual.items():
        torch.testing.assert_close(value, expected[key], rtol=0, atol=1e-4, msg=lambda text, key=key: f'{key}: {text}')
    for index, sample in enumerate(samples):
        found = sample.pred_instances
        corners, confidence = expected[f'det_bboxes/{index}'].split([4, 1], dim=1)
        torch.testing.assert_close(found.bboxes, corners, rtol=0, atol=1e-4 * 160)  # pixels
        torch.testing.assert_close(found.scores, confidence.flatten(), rtol=0, atol=1e-4)
        assert torch.equal(found.labels, expected[f'det_labels/{index}'])


def test_stock_dino_cannot_be_the_published_one():
    """Its reference points have another number of features (the onedl fork always, mmdet 3.3 where E is not 256)."""
    golden = load_tensors('dino_tiny')
    with pytest.raises(RuntimeError, match='ref_point_head|mat1 and mat2 shapes'):
        model = build_dino('DINO', 'DINOHead').eval()
        model.load_state_dict(convert_state_dict(golden_weights(golden)))
        model.predict(golden['img'], make_samples(golden['img_shape']))


@pytest.mark.parametrize('head, is_official', [('PublishedDINOHead', True), ('DINOHead', False)])
def test_boxes_at_the_border(head, is_official):
    """Official: coordinates within 1e-3 of 0 and 1 count as 1e-3 from them."""
    head = build_dino(head=head).bbox_head.eval()
    near = torch.tensor([0.0, 2e-4, 0.3, 1 - 2e-4, 1.0])
    references = torch.cartesian_prod(near, near, near, near)[None]
    states = torch.randn(1, 1, references.shape[1], WIDTH)
    with torch.no_grad():
        for parameter in head.reg_branches[0].parameters():
            parameter.normal_(std=0.1)
        scores, boxes = head(states, [references, references])
        inverse = references.clamp(min=1e-3).log() - (1 - references).clamp(min=1e-3).log()
        expected = (head.reg_branches[0](states[0]) + inverse).sigmoid()
    error = (boxes[0] - expected).abs()
    assert torch.equal(scores[0], head.cls_branches[0](states[0]))
    assert error[references == 0.3].max() < 1e-6
    assert (error.max() < 1e-6) == is_official


@pytest.mark.parametrize('objects', [[2], [1, 0, 4], [0]], ids=str)
def test_training_reaches_every_parameter(objects):
    model = build_dino(**{'backbone.drop_path_rate': 0.0}).train()
    model.init_weights()
    samples = make_samples([(96, 120 + index) for index in range(len(objects))], objects)
    losses = model.loss(torch.rand(len(objects), 3, 128, 160), samples)
    parts = [kind + part for kind in ('', 'dn_') for part in ('loss_cls', 'loss_bbox', 'loss_iou')]
    names = {*parts, *(f'd0.{part}' for part in parts), 'enc_loss_cls', 'enc_loss_bbox', 'enc_loss_iou'}
    assert losses.keys() == names
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert without_gradient(model) == []


@pytest.mark.parametrize('scope', ['mmdet', 'mmengine'])
def test_registered_for_every_scope(scope):
    registry = __import__(f'{scope}.registry', fromlist=['MODELS']).MODELS
    assert registry.get('PublishedDINO') is PublishedDINO
    assert registry.get('PublishedDINOHead') is PublishedDINOHead
    assert MODELS.get('PublishedDINO') is PublishedDINO


def test_published_size():
    """E = 256: the shape of the weights in every published DINO."""
    with torch.device('meta'):
        model = build_dino(width=256)
    assert model.decoder.ref_point_head.layers[0].weight.shape == (256, 512)
    assert model.query_embedding.weight.shape == (QUERIES, 256)
    assert model.dn_query_generator.label_embedding.weight.shape == (CLASSES, 256)


def test_needs_the_states_of_all_layers():
    with pytest.raises(ValueError, match='return_intermediate must be True.*got False'):
        build_dino(**{'decoder.return_intermediate': False})
