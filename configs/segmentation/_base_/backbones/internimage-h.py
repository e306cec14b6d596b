# InternImage-H.
_base_ = 'internimage-l.py'
backbone = dict(
    arch='huge',
    drop_path_rate=0.5,
    init_cfg=dict(checkpoint=_base_.checkpoints + 'internimage_h_jointto22k_384.pth'),
)
in_channels = [320, 640, 1280, 2560]
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.95))
