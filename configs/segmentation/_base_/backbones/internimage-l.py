# InternImage-L: pre-trained on ImageNet-22k, like all larger ones, hence fine-tuned more gently.
_base_ = 'internimage-t.py'
backbone = dict(
    arch='large',
    drop_path_rate=0.4,
    init_cfg=dict(checkpoint=_base_.checkpoints + 'internimage_l_22k_192to384.pth'),
)
in_channels = [160, 320, 640, 1280]
optim_wrapper = dict(
    optimizer=dict(lr=2e-5), paramwise_cfg=dict(layer_decay_rate=0.94), clip_grad=dict(max_norm=0.1, norm_type=2)
)
