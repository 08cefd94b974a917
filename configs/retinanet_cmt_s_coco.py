"""RetinaNet on CMT-S, COCO, schedule 1x, 34.5 M parameters.

Paper (https://arxiv.org/abs/2107.06263, table 6): box AP 44.3 (AP50 65.5, AP75 47.5; small 27.1, medium 48.3, large
59.1); it counts 44.3 M parameters. Not trained by us. The rest of the recipe is PVT's (https://github.com/whai362/PVT).
From the authors' ImageNet weights: densevit train retinanet_cmt_s_coco --weights cmt_small.pth
"""

_base_ = ["_base_/coco_detection.py", "_base_/schedule_1x.py"]

model = dict(
    type="DenseModel",
    backbone=dict(type="cmt_s", drop_path=0.1),
    neck=dict(type="FPN", start_level=1, num_outs=5, extra="on_input"),
    head=dict(type="RetinaHead", num_classes=80),
)
