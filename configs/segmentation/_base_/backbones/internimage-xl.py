# InternImage-XL.
_base_ = 'internimage-l.py'
backbone = dict(
    arch='xlarge',
    init_cfg=dict(checkpoint=_base_.checkpoints + 'internimage_xl_22k_192to384.pth'),
)
in_channels = [192, 384, 768, 1536]
