"""UNETR on the hippocampus, from scratch, small enough for two CPU cores: 24.0 M parameters.

Data: see _base_/hippocampus.py. Scores: docs/results.md.
"""

_base_ = ["_base_/hippocampus.py"]

model = dict(
    type="DenseModel",
    backbone=dict(type="unetr_vit_s16", img_size=48, in_channels=1),
    head=dict(type="UNETRHead", num_classes=3, feature_size=8),
    data_preprocessor=dict(mean=(0,), std=(1,)),
    inference=dict(type="SlidingVolume", window=(48, 48, 48), overlap=0.5),
)
