# InternImage-B, pre-trained on ImageNet-1K.
_base_ = '../checkpoints.py'
pretrained = dict(type='Pretrained', checkpoint=_base_.checkpoints + 'internimage_b_1k_224.pth')
backbone = dict(type='InternImage', arch='base', drop_path_rate=0.4, init_cfg=pretrained)
channels = [112, 224, 448, 896]
