# Cityscapes with its coarsely labelled images, at 512x1024. The refined labels of these have the file names and numbers
# of the fine labels (..._gtFine_labelTrainIds.png).
_base_ = 'cityscapes_512x1024.py'
fine = _base_.train_dataloader.dataset
coarse = dict(fine, data_prefix=dict(img_path='leftImg8bit/train_extra', seg_map_path='refinement_final/train_extra'))
train_dataloader = dict(dataset=dict(_delete_=True, type='ConcatDataset', datasets=[fine, coarse]))
