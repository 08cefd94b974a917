"""SegFormer-B4 on ADE20K, 64.1 M parameters.

Paper (https://arxiv.org/abs/2105.15203): mIoU 50.3 / 51.1 single scale / multi scale and flip. Not trained by us.
From the authors' ImageNet weights: densevit train segformer_b4_ade20k --weights mit_b4.pth
"""

_base_ = ["_base_/ade20k.py", "_base_/segformer_160k.py"]

model = dict(
    type="DenseModel",
    backbone=dict(type="mit_b4", drop_path=0.1),
    head=dict(type="SegFormerHead", num_classes=150, channels=768),
)
