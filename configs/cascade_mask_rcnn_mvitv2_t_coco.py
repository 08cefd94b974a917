"""Cascade Mask R-CNN on MViTv2-T, COCO, 36 epochs, 75.9 M parameters.

detectron2 (https://github.com/facebookresearch/detectron2, projects/MViTv2) states box AP 52.2 and mask AP 45.0, 76 M
parameters; on 64 GPUs. Not trained by us. From the authors' ImageNet weights:
densevit train cascade_mask_rcnn_mvitv2_t_coco --weights MViTv2_T_in1k.pyth
"""

_base_ = ["_base_/coco_multiscale.py", "_base_/mvitv2_67500.py"]

model = dict(
    type="DenseModel",
    backbone=dict(type="mvitv2_t_window", drop_path=0.2),
    neck=dict(type="FPN", num_outs=5),
    head=dict(type="CascadeMaskRCNNHead", num_classes=80),
)
train_dataloader = dict(batch_size=8)
sync_bn = "torch"
val_cfg = dict(loss=False)
