# InternImage-L, pre-trained on ImageNet-22K.
_base_ = '../checkpoints.py'
pretrained = dict(type='Pretrained', checkpoint=_base_.checkpoints + 'internimage_l_22k_192to384.pth')
backbone = dict(type='InternImage', arch='large', drop_path_rate=0.4, init_cfg=pretrained)
channels = [160, 320, 640, 1280]
