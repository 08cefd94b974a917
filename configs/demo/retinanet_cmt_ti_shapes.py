"""RetinaNet with CMT-Ti on generated landscapes, from scratch: a few minutes on two CPU cores.

Data: python tools/make_demo_data.py detection --root data/demo
"""

_base_ = ["../_base_/runtime.py"]

classes = ("house", "tree", "fence", "car", "ball")
model = dict(
    type="DenseModel",
    backbone=dict(type="cmt_ti", drop_path=0.0),
    neck=dict(type="FPN", out_channels=64, start_level=1),
    head=dict(type="RetinaHead", num_classes=len(classes), channels=64, num_convs=2, anchor_scale=2.0),
)
train_pipeline = [
    dict(type="ShortSideResize", sizes=(112, 128, 144), max_size=180),
    dict(type="RandomHorizontalFlip", p=0.5),
]
test_pipeline = [dict(type="AlignedResize", scale=(160, 128), divisor=1)]
dataset = dict(
    type="CocoDataset",
    data_root="data/demo/detection",
    classes=classes,
    download_help="Make it: python tools/make_demo_data.py detection --root data/demo",
)
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    dataset=dict(
        dataset,
        ann_file="annotations/instances_train.json",
        image_dir="train",
        filter_empty=True,
        transforms=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=0,
    dataset=dict(dataset, ann_file="annotations/instances_val.json", image_dir="val", transforms=test_pipeline),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="CocoMetric")
test_evaluator = val_evaluator

max_iters = 400
warm_up = 50
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-3, betas=(0.9, 0.999), weight_decay=0.05, fused=True),
    paramwise_cfg=dict(norm_decay_mult=0.0),
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-2, by_epoch=False, begin=0, end=warm_up),
    dict(type="PolyLR", power=1.0, eta_min=0.0, by_epoch=False, begin=warm_up, end=max_iters),
]
auto_scale_lr = dict(enable=False, base_batch_size=8)
train_cfg = dict(by_epoch=False, max_iters=max_iters, val_interval=200)
val_cfg = dict()
test_cfg = dict()
default_hooks = dict(checkpoint=dict(type="CheckpointHook", interval=100), logger=dict(interval=20))
