"""UNETR's decoder on a MiT-B0 of volumes: the hippocampus, from scratch, on one CPU core: 4.0 M parameters.

Data: see _base_/hippocampus.py. Scores: docs/results.md.
"""

_base_ = ["_base_/hippocampus.py"]

model = dict(
    type="DenseModel",
    backbone=dict(type="mit_b0", axes=3, in_channels=1, drop_path=0.0, out_indices=(0, 1, 2)),
    head=dict(type="UNETRHead", num_classes=3, feature_size=8),
    data_preprocessor=dict(mean=(0,), std=(1,), divisor=(16, 16, 16)),
    inference=dict(type="SlidingVolume", window=(48, 48, 48), overlap=0.5),
)
