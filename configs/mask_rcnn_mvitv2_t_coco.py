"""Mask R-CNN on MViTv2-T, COCO, 36 epochs, 43.7 M parameters.

Paper (https://arxiv.org/abs/2112.01526): box AP 48.2, mask AP 43.8, 44 M parameters; detectron2 (projects/MViTv2): 48.3
and 43.8, on 64 GPUs. Not trained by us. From the authors' ImageNet weights:
densevit train mask_rcnn_mvitv2_t_coco --weights MViTv2_T_in1k.pyth
"""

_base_ = ["_base_/coco_multiscale.py", "_base_/mvitv2_67500.py"]

model = dict(
    type="DenseModel",
    backbone=dict(type="mvitv2_t_window", drop_path=0.2),
    neck=dict(type="FPN", num_outs=5),
    head=dict(type="MaskRCNNHead", num_classes=80),
)
train_dataloader = dict(batch_size=8)
val_cfg = dict(loss=False)
