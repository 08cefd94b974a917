"""CIFAR-100 at 32 x 32 with the augmentation of DeiT: 50,000 images to train, 10,000 to test.

2 processes of 256, each image three times (repeats). Random crops after padding by 4 take the place of resized ones.
"""

_base_ = ["imagenet.py"]

train_pipeline = [
    dict(type="RandomCrop", size=32, padding=4),
    dict(type="RandomHorizontalFlip"),
    {{_base_.augment}},
    {{_base_.augment}},
    dict(type="NoiseErasing", p=0.25),
]
dataset = dict(type="CIFARDataset", num_classes=100)
train_dataloader = dict(batch_size=256, dataset=dict(dataset, transforms=train_pipeline))
val_dataloader = dict(batch_size=256, dataset=dict(dataset, split="test", transforms=[]))
test_dataloader = val_dataloader
