# The augmentation of DETR, for the pipelines of several datasets: half of the images are resized to one of eleven
# sizes, the other half is resized and cropped before that.
resize_to_one_of_many = dict(
    type='RandomChoiceResize', scales=[(short, 1333) for short in range(480, 801, 32)], keep_ratio=True
)
multi_scale_crop = dict(
    type='RandomChoice',
    transforms=[
        [resize_to_one_of_many],
        [
            dict(type='RandomChoiceResize', scales=[(400, 1333), (500, 1333), (600, 1333)], keep_ratio=True),
            dict(type='RandomCrop', crop_type='absolute_range', crop_size=(384, 600), allow_negative_crop=True),
            resize_to_one_of_many,
        ],
    ],
)
