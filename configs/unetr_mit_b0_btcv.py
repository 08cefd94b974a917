"""UNETR's decoder on a MiT-B0 of volumes, BTCV: 17.8 M parameters.

A combination of ours, without published figures. Not trained by us.
From SegFormer's ImageNet weights: densevit train unetr_mit_b0_btcv --weights mit_b0.pth
Data: see _base_/btcv.py.
"""

_base_ = ["_base_/btcv.py"]

model = dict(
    type="DenseModel",
    backbone=dict(type="mit_b0", axes=3, in_channels=1, drop_path=0.1),
    head=dict(type="UNETRHead", num_classes=14, feature_size=16),
    data_preprocessor=dict(mean=(0,), std=(1,)),
    inference=dict(type="SlidingVolume", window=(96, 96, 96), overlap=0.5),
)
