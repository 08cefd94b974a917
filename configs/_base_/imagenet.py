"""ImageNet-1k at 224 x 224 with the augmentation of DeiT: 1,281,167 images to train, 50,000 to validate.

8 processes of 128, each image three times (repeats). The rest of DeiT's recipe, mixing, is in model.data_preprocessor.

RandAugment is torchvision's, put together as in timm's "rand-m9-mstd0.5-inc1": two operations, each done with
probability 0.5, at magnitude 9 of 10 (index 9 of 11). What differs: the magnitude is not drawn around 9; Identity takes
the places of Invert and SolarizeAdd; Posterize keeps 4 bits, not 1; geometric operations interpolate bilinearly.
"""

resize = dict(type="Resize", size=256, interpolation="bicubic")
augment = dict(
    type="RandomApply",
    p=0.5,
    transforms=[
        dict(
            type="RandAugment",
            num_ops=1,
            magnitude=9,
            num_magnitude_bins=11,
            interpolation="bilinear",
            fill=(124, 116, 104),
        )
    ],
)
train_pipeline = [
    dict(type="RandomResizedCrop", size=224, interpolation="bicubic"),
    dict(type="RandomHorizontalFlip"),
    augment,
    augment,
    dict(type="NoiseErasing", p=0.25),
]
test_pipeline = [resize, dict(type="CenterCrop", size=224)]
train_dataloader = dict(
    batch_size=128,
    num_workers=8,
    repeats=3,
    dataset=dict(type="ImageNetDataset", split="train", transforms=train_pipeline),
)
val_dataloader = dict(
    batch_size=128,
    num_workers=8,
    dataset=dict(type="ImageNetDataset", split="val", transforms=test_pipeline),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="Accuracy")
test_evaluator = val_evaluator
