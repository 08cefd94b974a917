"""Mask R-CNN on CMT-S, COCO, schedule 1x, 44.5 M parameters.

Paper (https://arxiv.org/abs/2107.06263, table 7): box AP 44.6 (AP50 66.8, AP75 48.9), mask AP 40.7 (AP50 63.9, AP75
43.4), 44.5 M parameters. Not trained by us. The rest of the recipe is PVT's (https://github.com/whai362/PVT).
From the authors' ImageNet weights: densevit train mask_rcnn_cmt_s_coco --weights cmt_small.pth
"""

_base_ = ["_base_/coco_instance.py", "_base_/schedule_1x.py"]

model = dict(
    type="DenseModel",
    backbone=dict(type="cmt_s", drop_path=0.1),
    neck=dict(type="FPN", num_outs=5),
    head=dict(type="MaskRCNNHead", num_classes=80),
)
optim_wrapper = dict(optimizer=dict(lr=2e-4))
val_cfg = dict(loss=False)
