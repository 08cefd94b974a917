"""RetinaNet with MiT-B0 on blood cells (BCCD) from scratch, small enough for two CPU cores.

Data: data/bccd/images/*.jpg (640 x 480) and data/bccd/annotations/instances_{train,val,test}.json; --data-root points
elsewhere. Scores: docs/results.md. Images are halved. The head is narrow, and begins at anchors of 16 pixels, for
platelets.
"""

_base_ = ["_base_/small_detector.py"]

model = dict(
    type="DenseModel",
    backbone=dict(type="mit_b0", drop_path=0.0),
    neck=dict(type="FPN", out_channels=96, start_level=1, num_outs=4, extra="on_input"),
    head=dict(type="RetinaHead", num_classes=3, channels=96, num_convs=2, anchor_scale=2.0),
)
train_pipeline = [
    dict(type="ShortSideResize", sizes=(200, 220, 240, 260, 280), max_size=400),
    dict(type="RandomHorizontalFlip", p=0.5),
    dict(type="RandomVerticalFlip", p=0.5),
    dict(type="PhotometricDistortion"),
]
test_pipeline = [dict(type="AlignedResize", scale=(320, 240), divisor=1)]
dataset = dict(type="CocoDataset", data_root="data/bccd", image_dir="images", classes=("RBC", "WBC", "Platelets"))
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    dataset=dict(dataset, ann_file="annotations/instances_train.json", filter_empty=True, transforms=train_pipeline),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=1,
    dataset=dict(dataset, ann_file="annotations/instances_val.json", transforms=test_pipeline),
)
test_dataloader = dict(
    batch_size=8,
    num_workers=1,
    dataset=dict(dataset, ann_file="annotations/instances_test.json", transforms=test_pipeline),
)
val_evaluator = dict(type="CocoMetric")
test_evaluator = val_evaluator

max_iters = 2000
warm_up = 100
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-2, by_epoch=False, begin=0, end=warm_up),
    dict(type="PolyLR", power=1.0, eta_min=0.0, by_epoch=False, begin=warm_up, end=max_iters),
]
train_cfg = dict(by_epoch=False, max_iters=max_iters, val_interval=500)
default_hooks = dict(checkpoint=dict(type="CheckpointHook", interval=250))
