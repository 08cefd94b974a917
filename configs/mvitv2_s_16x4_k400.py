"""MViTv2-S on Kinetics-400, 16 frames, every 4th, of 224 x 224: 34.5 M parameters, 64 G multiply-adds a clip.

Paper (https://arxiv.org/abs/2112.01526): top-1 81.0, top-5 94.6 on five clips of one crop. Not trained by us.
A retraining elsewhere gave 80.6, and 79.4 without repeats.
"""

_base_ = ["_base_/mvit_200e.py"]

model = dict(
    type="DenseModel",
    backbone=dict(type="mvitv2_s_16x4", token=True, drop_path=0.2),
    head=dict(type="VideoHead", num_classes=400, dropout=0.5, label_smoothing=0.1),
    data_preprocessor=dict(
        mean=(114.75, 114.75, 114.75),
        std=(57.375, 57.375, 57.375),
        mixup=0.8,
        cutmix=1.0,
        num_classes=400,
    ),
    inference=dict(type="ClipViews", frames=16, crop_size=224, crops=1),
)
