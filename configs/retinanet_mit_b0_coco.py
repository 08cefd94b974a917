"""RetinaNet on MiT-B0, COCO, schedule 1x, 12.9 M parameters.

A combination of ours, without published figures. Not trained by us. PVTv2-B0, which is built much alike, gives box AP
37.1 with this recipe (https://github.com/open-mmlab/mmdetection, configs/pvt).
From the official ImageNet weights: densevit train retinanet_mit_b0_coco --weights mit_b0.pth
"""

_base_ = ["_base_/coco_detection.py", "_base_/schedule_1x.py"]

model = dict(
    type="DenseModel",
    backbone=dict(type="mit_b0", drop_path=0.1),
    neck=dict(type="FPN", start_level=1, num_outs=5, extra="on_input"),
    head=dict(type="RetinaHead", num_classes=80),
)
