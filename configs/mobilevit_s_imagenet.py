"""MobileViT-S on ImageNet-1k, 5.6 M parameters: densevit train mobilevit_s_imagenet

Paper (https://arxiv.org/abs/2110.02178): top-1 78.4. Not trained by us. The authors' recipe: crops and flips only,
batches of images of 160 to 320 pixels, weight decay on all parameters, averaged weights, pixels of 0..1. Their code
keeps batches of 288 and 320 at 128 images; here no batch has more pixels than 128 images of 256.

From the authors' weights, which see blue first: model.data_preprocessor.bgr=True.
"""

_base_ = ["_base_/imagenet.py", "_base_/deit_300e.py"]

model = dict(
    type="DenseModel",
    backbone=dict(type="mobilevit_s", token=True),
    head=dict(type="ClassificationHead", num_classes=1000, dropout=0.1, label_smoothing=0.1),
    # Not to pad 160 and 288 to multiples of 64: the authors interpolate maps of odd sides, as the backbone does.
    data_preprocessor=dict(divisor=(32, 32), mean=(0.0, 0.0, 0.0), std=(255.0, 255.0, 255.0)),
)
train_pipeline = [dict(type="MultiScaleCrop", size=256), dict(type="RandomHorizontalFlip")]
test_pipeline = [dict(type="Resize", size=288), dict(type="CenterCrop", size=256)]
train_dataloader = dict(
    repeats=1,
    multi_scale=dict(sizes=(160, 192, 256, 288, 320), base_size=256),
    dataset=dict(transforms=train_pipeline),
)
val_dataloader = dict(dataset=dict(transforms=test_pipeline))
test_dataloader = val_dataloader

warm_up = 22  # epochs: 20,000 steps of 8 processes
optim_wrapper = dict(constructor="DefaultOptimWrapperConstructor", optimizer=dict(lr=2e-3, weight_decay=0.01))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.1, begin=0, end=warm_up, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", eta_min=2e-4, begin=warm_up, end=300, convert_to_iter_based=True),
]
custom_hooks = [dict(type="EMAHook", ema_type="WarmupEMA", momentum=5e-4)]
