"""Mixer-B/16 on ImageNet-1k from scratch, 59.9 M parameters.

    densevit train mixer_b16_imagenet --data-root data/imagenet

8 processes of 512. The authors' recipe (big_vision), for which they report top-1 76.3. Not trained by us.

Each class is told from the rest by itself, at first with the probability 1 / 1000. There, weights shrink by 1e-4 of
themselves at the highest learning rate; AdamW multiplies by that rate, hence 0.1. What differs: RandAugment goes to
torchvision's strongest, short of magnitude 15 there, and dropped paths are made up for by those that are kept.
"""

_base_ = ["_base_/imagenet.py", "_base_/deit_300e.py"]

model = dict(
    type="DenseModel",
    backbone=dict(type="mixer_b16", token=True, gelu="tanh", drop_path=0.1),
    head=dict(type="ClassificationHead", num_classes=1000, loss="sigmoid", init_scale=0.0, init_bias=-6.9),
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3, mixup=0.5, num_classes=1000),
)
train_pipeline = [
    dict(type="RandomResizedCrop", size=224, scale=(0.05, 1.0)),
    dict(type="RandomHorizontalFlip"),
    dict(type="RandAugment", num_ops=2, magnitude=10, num_magnitude_bins=11, fill=(128, 128, 128)),
]
train_dataloader = dict(batch_size=512, repeats=1, dataset=dict(transforms=train_pipeline))

warm_up = 32  # epochs: 10,000 steps
optim_wrapper = dict(optimizer=dict(weight_decay=0.1), clip_grad=dict(max_norm=1.0))
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, begin=0, end=warm_up, convert_to_iter_based=True),
    dict(type="LinearLR", start_factor=1.0, end_factor=1e-5, begin=warm_up, end=300, convert_to_iter_based=True),
]
auto_scale_lr = dict(base_batch_size=4096)
