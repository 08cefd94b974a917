"""SegFormer-B0 on generated landscapes, from scratch: about two minutes on two CPU cores.

Data: densevit make-demo-data segmentation --root data/demo
"""

_base_ = ["../_base_/segformer_160k.py"]

classes = ("sky", "ground", "water", "house", "tree", "fence", "car", "ball")
palette = (
    (150, 200, 255),
    (140, 170, 90),
    (50, 100, 200),
    (220, 110, 80),
    (30, 130, 60),
    (190, 150, 100),
    (170, 60, 200),
    (255, 210, 40),
)
model = dict(
    type="DenseModel",
    backbone=dict(type="mit_b0", drop_path=0.0),
    head=dict(type="SegFormerHead", num_classes=len(classes), dropout=0.0, class_weights=(1, 1, 1, 1, 1.5, 1.5, 2, 2)),
)
train_pipeline = [
    dict(type="RandomRatioResize", scale=(160, 128), ratio=(0.75, 1.5)),
    dict(type="RandomCategoryCrop", size=(128, 128)),
    dict(type="RandomHorizontalFlip", p=0.5),
]
test_pipeline = [dict(type="AlignedResize", scale=(160, 128), divisor=32)]
dataset = dict(
    type="SegDataset",
    data_root="data/demo/segmentation",
    classes=classes,
    palette=palette,
    reduce_zero_label=True,
    download_help="The data of the demo are made by densevit make-demo-data segmentation --root data/demo",
)
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    dataset=dict(dataset, image_dir="images/training", mask_dir="annotations/training", transforms=train_pipeline),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=0,
    dataset=dict(dataset, image_dir="images/validation", mask_dir="annotations/validation", transforms=test_pipeline),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="MeanIoU")
test_evaluator = val_evaluator

max_iters = 700
warm_up = 50
optim_wrapper = dict(optimizer=dict(lr=2e-3, weight_decay=0.05), paramwise_cfg=dict(_delete_=True, norm_decay_mult=0.0))
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, by_epoch=False, begin=0, end=warm_up),
    dict(type="PolyLR", power=1.0, eta_min=0.0, by_epoch=False, begin=warm_up, end=max_iters),
]
auto_scale_lr = dict(base_batch_size=8)
train_cfg = dict(max_iters=max_iters, val_interval=350)
default_hooks = dict(checkpoint=dict(interval=100), logger=dict(interval=20))
