# InternImage-G.
_base_ = 'internimage-h.py'
backbone = dict(
    arch='giant',
    with_cp=True,
    init_cfg=dict(checkpoint=_base_.checkpoints + 'internimage_g_pretrainto22k_384.pth'),
)
in_channels = [512, 1024, 2048, 4096]
