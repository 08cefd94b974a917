"""Generated landscapes with objects, and 400 steps on them: a few minutes on two CPU cores.

Data: densevit make-demo-data detection --root data/demo
"""

_base_ = ["small_detector.py"]

classes = ("house", "tree", "fence", "car", "ball")
train_pipeline = [
    dict(type="ShortSideResize", sizes=(112, 128, 144), max_size=180),
    dict(type="RandomHorizontalFlip", p=0.5),
]
test_pipeline = [dict(type="AlignedResize", scale=(160, 128), divisor=1)]
dataset = dict(
    type="CocoDataset",
    data_root="data/demo/detection",
    classes=classes,
    download_help="The data of the demo are made by densevit make-demo-data detection --root data/demo",
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
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-2, by_epoch=False, begin=0, end=warm_up),
    dict(type="PolyLR", power=1.0, eta_min=0.0, by_epoch=False, begin=warm_up, end=max_iters),
]
train_cfg = dict(by_epoch=False, max_iters=max_iters, val_interval=200)
default_hooks = dict(checkpoint=dict(type="CheckpointHook", interval=100), logger=dict(interval=20))
