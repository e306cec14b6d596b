# InternImage-G, pre-trained on 427 million images, then on ImageNet-22K.
_base_ = '../checkpoints.py'
pretrained = dict(type='Pretrained', checkpoint=_base_.checkpoints + 'internimage_g_pretrainto22k_384.pth')
backbone = dict(type='InternImage', arch='giant', drop_path_rate=0.5, with_cp=True, init_cfg=pretrained)
channels = [512, 1024, 2048, 4096]
