# A small DINO that learns ten handwritten digits, on the backbone that mask-rcnn_digits.py learned.
_base_ = ['_base_/digits_detection.py', '../detection/_base_/models/dino-4scale.py']

load_truth = dict(type='LoadAnnotations', with_bbox=True)
pack = dict(type='PackDetInputs', meta_keys=_base_.meta_keys)
train_dataloader = dict(dataset=dict(pipeline=[_base_.load_image, load_truth, _base_.resize, pack]))
val_dataloader = dict(dataset=dict(pipeline=[_base_.load_image, _base_.resize, load_truth, pack]))
test_dataloader = val_dataloader

attention, ffn = dict(embed_dims=64), dict(embed_dims=64, feedforward_channels=128)
model = dict(
    num_queries=50,
    backbone=dict(
        _base_.backbone,
        _delete_=True,  # drops with_cp
        out_indices=(1, 2, 3),
        init_cfg=dict(type='Pretrained', checkpoint='work_dirs/demo/mask-rcnn/iter_1000.pth'),
    ),
    neck=dict(in_channels=_base_.channels[1:], out_channels=64, norm_cfg=dict(num_groups=8)),
    positional_encoding=dict(num_feats=32),
    encoder=dict(num_layers=2, layer_cfg=dict(self_attn_cfg=attention, ffn_cfg=ffn)),
    decoder=dict(num_layers=2, layer_cfg=dict(self_attn_cfg=attention, cross_attn_cfg=attention, ffn_cfg=ffn)),
    bbox_head=dict(embed_dims=64, num_classes=10),
    dn_cfg=dict(group_cfg=dict(num_dn_queries=50)),
    test_cfg=dict(max_per_img=20),
)

optim_wrapper = dict(
    optimizer=dict(lr=2e-3),
    paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.1))),
    clip_grad=dict(max_norm=0.5),
)
param_scheduler = [_base_.param_scheduler[0], dict(_base_.param_scheduler[1], end=800)]
train_cfg = dict(max_iters=800, val_interval=200)

val_evaluator = dict(metric='bbox')
test_evaluator = val_evaluator
