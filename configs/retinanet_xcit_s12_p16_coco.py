"""RetinaNet on XCiT-S12/16, COCO, schedule 1x, 32.9 M parameters.

A combination of ours, without published figures. Not trained by us. RetinaNet does not read the map of stride 4: it is
not asked for, since the layers that only it needs would get no gradient.
From the authors' ImageNet weights:
densevit train retinanet_xcit_s12_p16_coco --weights xcit_small_12_p16_384_dist.pth
"""

_base_ = ["_base_/coco_detection.py", "_base_/schedule_1x.py"]

model = dict(
    type="DenseModel",
    backbone=dict(type="xcit_small_12_p16", drop_path=0.05, out_indices=(1, 2, 3)),
    neck=dict(type="FPN", num_outs=5, extra="on_input"),
    head=dict(type="RetinaHead", num_classes=80),
)
