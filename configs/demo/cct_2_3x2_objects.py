"""CCT-2/3x2 on generated pictures of single objects, from scratch: about two minutes on two CPU cores.

Data: densevit make-demo-data classification --root data/demo
"""

_base_ = ["../_base_/runtime.py"]

model = dict(
    type="DenseModel",
    backbone=dict(type="cct_2_3x2_32", token=True, img_size=64, attn_dropout=0.0, drop_path=0.0),
    head=dict(type="ClassificationHead", num_classes=5, label_smoothing=0.1),
)
train_pipeline = [
    dict(type="Resize", size=64),
    dict(type="RandomCrop", size=64, padding=6, padding_mode="edge"),
    dict(type="RandomHorizontalFlip"),
]
test_pipeline = [dict(type="Resize", size=64), dict(type="CenterCrop", size=64)]
dataset = dict(
    type="ImageFolderDataset",
    data_root="data/demo/classification",
    cache=True,
    download_help="The data of the demo are made by densevit make-demo-data classification --root data/demo",
)
train_dataloader = dict(
    batch_size=32,
    num_workers=1,
    dataset=dict(dataset, split="train", transforms=train_pipeline),
)
val_dataloader = dict(batch_size=100, num_workers=0, dataset=dict(dataset, split="val", transforms=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type="Accuracy")
test_evaluator = val_evaluator

max_iters = 450
warm_up = 50
optim_wrapper = dict(
    type="OptimWrapper",
    constructor="LayerDecayConstructor",
    optimizer=dict(type="AdamW", lr=2e-3, betas=(0.9, 0.999), weight_decay=0.03),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-2, by_epoch=False, begin=0, end=warm_up),
    dict(type="CosineAnnealingLR", eta_min=0.0, by_epoch=False, begin=warm_up, end=max_iters),
]
auto_scale_lr = dict(base_batch_size=32)
train_cfg = dict(by_epoch=False, max_iters=max_iters, val_interval=150)
val_cfg = dict()
test_cfg = dict()
default_hooks = dict(checkpoint=dict(type="CheckpointHook", interval=150, save_best="top1"), logger=dict(interval=20))
