"""TimeSformer with divided space-time attention on Kinetics-400, 8 x 32 frames of 224 x 224: 121.6 M parameters.

Paper (https://arxiv.org/abs/2102.05095): top-1 78.0, top-5 93.7 from weights of ImageNet-21k, 75.8 from
ImageNet-1k, on one clip of three crops. Not trained by us.
"""

_base_ = ["_base_/timesformer_15e.py"]

model = dict(
    type="DenseModel",
    backbone=dict(type="timesformer_base", token=True, drop_path=0.1),
    head=dict(type="VideoHead", num_classes=400),
    data_preprocessor=dict(mean=(114.75, 114.75, 114.75), std=(57.375, 57.375, 57.375)),
    inference=dict(type="ClipViews", frames=8, crop_size=224, crops=3),
)
train_pipeline = [
    dict(type="ShortSideResize", sizes=list(range(256, 321)), max_size=2048),
    dict(type="RandomCrop", size=224),
    dict(type="RandomHorizontalFlip"),
]
val_pipeline = [dict(type="ShortSideResize", sizes=224, max_size=2048), dict(type="CenterCrop", size=224)]
test_pipeline = [dict(type="ShortSideResize", sizes=224, max_size=2048)]
sampling = dict(type="DenseSampling", frames=8, interval=32, fps=30)
train_dataloader = dict(dataset=dict(sampling=dict(sampling, random=True), transforms=train_pipeline))
val_dataloader = dict(dataset=dict(sampling=sampling, transforms=val_pipeline))
test_dataloader = dict(dataset=dict(sampling=sampling, transforms=test_pipeline))
