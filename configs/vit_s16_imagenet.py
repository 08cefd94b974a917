"""ViT-S/16 on ImageNet-1k, 22.1 M parameters: the "better plain" recipe of 90 epochs.

    torchrun --nproc-per-node 8 -m densevit train vit_s16_imagenet

Authors (https://arxiv.org/abs/2205.01580; big_vision's config): top-1 76.5. Not trained by us. They hold out 1 % of the
training images. Decoupled weight decay is 1e-4 a step officially: 0.1 of the learning rate, as AdamW states it.
RandAugment has two of torchvision's operations at magnitude 10 of 10, without Cutout, Invert and SolarizeAdd.
10,000 steps of warm-up are 8 epochs.
"""

_base_ = ["_base_/imagenet.py", "_base_/deit_300e.py"]

model = dict(
    type="DenseModel",
    backbone=dict(type="vit_s16", token=True, pool="gap", representation=True, positions="sincos2d"),
    head=dict(type="ClassificationHead", num_classes=1000, init_scale=0.0),
    data_preprocessor=dict(mean=(127.5,) * 3, std=(127.5,) * 3, mixup=0.2, num_classes=1000),
)
train_pipeline = [
    dict(type="RandomResizedCrop", size=224, scale=(0.05, 1.0)),
    dict(type="RandomHorizontalFlip"),
    dict(
        type="RandAugment",
        num_ops=2,
        magnitude=10,
        num_magnitude_bins=11,
        interpolation="bilinear",
        fill=(128, 128, 128),
    ),
]
test_pipeline = [dict(type="Resize", size=256), dict(type="CenterCrop", size=224)]
train_dataloader = dict(repeats=1, dataset=dict(transforms=train_pipeline))
val_dataloader = dict(dataset=dict(transforms=test_pipeline))
test_dataloader = val_dataloader

max_epochs = 90
warm_up = 8
optim_wrapper = dict(optimizer=dict(weight_decay=0.1), clip_grad=dict(max_norm=1.0))
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-4, begin=0, end=warm_up, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", eta_min=0.0, begin=warm_up, end=max_epochs, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=max_epochs)
