"""MViTv2-T on ImageNet-1k, 24.2 M parameters.

Paper (https://arxiv.org/abs/2112.01526): top-1 82.3. Not trained by us. The authors' recipe: a batch of 2048 at 2e-3,
70 epochs of warm-up, gradients clipped, RandAugment with six operations, no repeats.
"""

_base_ = ["_base_/imagenet.py", "_base_/deit_300e.py"]

model = dict(
    type="DenseModel",
    backbone=dict(type="mvitv2_t", token=True, drop_path=0.1),
    head=dict(type="ClassificationHead", num_classes=1000, label_smoothing=0.1),
    data_preprocessor=dict(mixup=0.8, cutmix=1.0, num_classes=1000),
)
train_pipeline = [
    dict(type="RandomResizedCrop", size=224, interpolation="bicubic"),
    dict(type="RandomHorizontalFlip"),
    *[{{_base_.augment}}] * 6,
    dict(type="NoiseErasing", p=0.25),
]
train_dataloader = dict(batch_size=256, repeats=1, dataset=dict(transforms=train_pipeline))

warm_up = 70
optim_wrapper = dict(optimizer=dict(lr=2e-3), clip_grad=dict(max_norm=1.0))
param_scheduler = [
    dict(type="LinearLR", start_factor=5e-6, begin=0, end=warm_up, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", eta_min=1e-6, begin=warm_up, end=300, convert_to_iter_based=True),
]
auto_scale_lr = dict(base_batch_size=2048)
