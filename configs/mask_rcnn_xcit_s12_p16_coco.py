"""Mask R-CNN on XCiT-S12/16, COCO, schedule 3x, 44.4 M parameters.

The authors' repository (https://github.com/facebookresearch/xcit) states box AP 45.3 and mask AP 40.8. Not trained by
us. From the ImageNet weights that they start from:
densevit train mask_rcnn_xcit_s12_p16_coco --weights xcit_small_12_p16_384_dist.pth
"""

_base_ = ["_base_/coco_multiscale.py", "_base_/schedule_3x.py"]

model = dict(
    type="DenseModel",
    backbone=dict(type="xcit_small_12_p16", drop_path=0.05),
    neck=dict(type="FPN", num_outs=5),
    head=dict(type="MaskRCNNHead", num_classes=80),
)
val_cfg = dict(loss=False)
