"""Mask R-CNN with MiT-B0 on a handful of images, which it is to learn by heart: do targets, heads and scores agree?

Worth a few minutes before a long training on data of your own. The images to train on and to test are the same, and
not augmented. Data: any in COCO's format; docs/results.md takes eight images of COCO and names them in a file
annotations/overfit.json, made by hand. Scores are there too.
"""

_base_ = ["_base_/small_detector.py"]

model = dict(
    type="DenseModel",
    backbone=dict(type="mit_b0", drop_path=0.0),
    neck=dict(type="FPN", out_channels=96, num_outs=5),
    head=dict(
        type="MaskRCNNHead",
        num_classes=80,
        anchor_scales=(3.0, 5.0),
        rpn_channels=96,
        roi_samples=128,
        fc_channels=256,
        mask_convs=2,
        mask_channels=64,
    ),
)
dataset = dict(
    type="CocoDataset", data_root="data/coco", ann_file="annotations/overfit.json", image_dir="train2017", masks=True
)
train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    dataset=dict(dataset, filter_empty=True, transforms=[dict(type="ShortSideResize", sizes=(256,), max_size=448)]),
)
val_dataloader = dict(
    batch_size=4,
    num_workers=1,
    dataset=dict(dataset, transforms=[dict(type="AlignedResize", scale=(448, 256), divisor=1)]),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="CocoMetric")
test_evaluator = val_evaluator

max_iters = 600
warm_up = 50
optim_wrapper = dict(optimizer=dict(weight_decay=0.0))
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-2, by_epoch=False, begin=0, end=warm_up),
    dict(type="PolyLR", power=1.0, eta_min=0.0, by_epoch=False, begin=warm_up, end=max_iters),
]
auto_scale_lr = dict(base_batch_size=4)
train_cfg = dict(by_epoch=False, max_iters=max_iters, val_interval=200)
default_hooks = dict(checkpoint=dict(type="CheckpointHook", interval=200))
