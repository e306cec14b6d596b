# InternImage-B.
_base_ = 'internimage-t.py'
backbone = dict(
    arch='base',
    drop_path_rate=0.4,
    init_cfg=dict(checkpoint=_base_.checkpoints + 'internimage_b_1k_224.pth'),
)
in_channels = [112, 224, 448, 896]
