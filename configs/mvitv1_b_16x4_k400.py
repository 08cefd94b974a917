"""MViT-B on Kinetics-400, 16 frames, every 4th, of 224 x 224: 36.6 M parameters, 70.5 G multiply-adds a clip.

Paper (https://arxiv.org/abs/2104.11227): top-1 78.4, top-5 93.5 on five clips of one crop. Not trained by us.
"""

_base_ = ["mvitv2_s_16x4_k400.py"]

model = dict(backbone=dict(type="mvitv1_b_16x4"))
