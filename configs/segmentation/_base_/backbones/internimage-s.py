# InternImage-S.
_base_ = 'internimage-t.py'
backbone = dict(
    arch='small',
    drop_path_rate=0.3,
    init_cfg=dict(checkpoint=_base_.checkpoints + 'internimage_s_1k_224.pth'),
)
in_channels = [80, 160, 320, 640]
