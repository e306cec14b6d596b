# DINO on two InternImage-H, tested on VOC 2012: the official dino_4scale_cbinternimage_h_objects365_voc12.py.
_base_ = 'dino-4scale_cb-internimage-h_b1-20k_objects365-voc07.py'
# The annotations of this split are not public: to evaluate here, put them into VOC2012test/Annotations.
test_dataloader = dict(
    dataset=dict(ann_file='VOC2012test/ImageSets/Main/test.txt', data_prefix=dict(sub_data_root='VOC2012test/'))
)
test_evaluator = dict(eval_mode='area')
