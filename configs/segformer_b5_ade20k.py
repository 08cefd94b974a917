"""SegFormer-B5 on ADE20K, 84.7 M parameters.

Paper (https://arxiv.org/abs/2105.15203): mIoU 51.0 / 51.8 single scale / multi scale and flip. Not trained by us.
From the authors' ImageNet weights: densevit train segformer_b5_ade20k --weights mit_b5.pth
"""

_base_ = ["_base_/ade20k.py", "_base_/segformer_160k.py"]

model = dict(
    type="DenseModel",
    backbone=dict(type="mit_b5", drop_path=0.1),
    head=dict(type="SegFormerHead", num_classes=150, channels=768),
)

# B5 is trained and tested at 640 x 640.
train_pipeline = [
    dict(type="RandomRatioResize", scale=(2048, 640), ratio=(0.5, 2.0)),
    dict(type="RandomCategoryCrop", size=(640, 640), max_ratio=0.75),
    dict(type="RandomHorizontalFlip", p=0.5),
    dict(type="PhotometricDistortion"),
]
test_pipeline = [dict(type="AlignedResize", scale=(2048, 640), divisor=32)]
train_dataloader = dict(dataset=dict(transforms=train_pipeline))
val_dataloader = dict(dataset=dict(transforms=test_pipeline))
test_dataloader = val_dataloader
