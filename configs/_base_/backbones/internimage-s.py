# InternImage-S, pre-trained on ImageNet-1K.
_base_ = '../checkpoints.py'
pretrained = dict(type='Pretrained', checkpoint=_base_.checkpoints + 'internimage_s_1k_224.pth')
backbone = dict(type='InternImage', arch='small', drop_path_rate=0.3, init_cfg=pretrained)
channels = [80, 160, 320, 640]
