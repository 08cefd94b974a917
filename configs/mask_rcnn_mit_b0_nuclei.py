"""Mask R-CNN with MiT-B0 on nuclei in microscopy from scratch, small enough for two CPU cores.

Data: data/nuclei/images/*.png (up to 360 pixels) and data/nuclei/annotations/instances_{train,val}.json with polygons;
--data-root points elsewhere. Scores: docs/results.md. Half of the nuclei are smaller than 16 pixels and there are up to
150 in an image: so images are enlarged, anchors begin at 8 pixels, all heads are narrow, few RoIs are sampled.
"""

_base_ = ["_base_/small_detector.py"]

model = dict(
    type="DenseModel",
    backbone=dict(type="mit_b0", drop_path=0.0),
    neck=dict(type="FPN", out_channels=96, num_outs=4),
    head=dict(
        type="MaskRCNNHead",
        num_classes=1,
        anchor_scales=(2.0, 2.83),
        rpn_channels=96,
        roi_samples=128,
        fc_channels=256,
        mask_convs=2,
        mask_channels=64,
        max_per_image=150,
    ),
)
train_pipeline = [
    dict(type="ShortSideResize", sizes=(256, 320, 384, 448, 512), max_size=720),
    dict(type="RandomCrop", size=(256, 256)),
    dict(type="RandomHorizontalFlip", p=0.5),
    dict(type="RandomVerticalFlip", p=0.5),
    dict(type="PhotometricDistortion"),
    dict(type="SanitizeObjects", min_size=2, boxes_from_masks=True),
]
test_pipeline = [dict(type="AlignedResize", scale=(512, 384), divisor=1)]
dataset = dict(
    type="CocoDataset",
    data_root="data/nuclei",
    image_dir="images",
    classes=("nucleus",),
    masks=True,
)
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    dataset=dict(dataset, ann_file="annotations/instances_train.json", filter_empty=True, transforms=train_pipeline),
)
val_dataloader = dict(
    batch_size=4,
    num_workers=1,
    dataset=dict(dataset, ann_file="annotations/instances_val.json", transforms=test_pipeline),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="CocoMetric", max_per_image=150)
test_evaluator = val_evaluator

max_iters = 1200
warm_up = 100
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-2, by_epoch=False, begin=0, end=warm_up),
    dict(type="PolyLR", power=1.0, eta_min=0.0, by_epoch=False, begin=warm_up, end=max_iters),
]
train_cfg = dict(by_epoch=False, max_iters=max_iters, val_interval=400)
default_hooks = dict(checkpoint=dict(type="CheckpointHook", interval=200))
