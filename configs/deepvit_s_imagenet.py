"""DeepViT-S on ImageNet-1k, 27.3 M parameters.

    torchrun --nproc-per-node 8 -m densevit train deepvit_s_imagenet

Paper (https://arxiv.org/abs/2103.11886): top-1 82.3. Not trained by us. The authors' recipe is DeiT's without repeats,
with half the learning rate for a batch of 256, 32 on each of 8 processes, and averaged weights; the values of images
are scaled to -1..1.
"""

_base_ = ["_base_/imagenet.py", "_base_/deit_300e.py"]

model = dict(
    type="DenseModel",
    backbone=dict(type="deepvit_s", token=True, drop_path=0.2),
    head=dict(type="ClassificationHead", num_classes=1000, label_smoothing=0.1),
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3, mixup=0.8, cutmix=1.0, num_classes=1000),
)
train_dataloader = dict(batch_size=32, repeats=1)

warm_up = 5
optim_wrapper = dict(optimizer=dict(lr=5e-4))
param_scheduler = [
    dict(type="LinearLR", start_factor=2e-3, begin=0, end=warm_up, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", eta_min=1e-5, begin=warm_up, end=300, convert_to_iter_based=True),
]
auto_scale_lr = dict(base_batch_size=256)
custom_hooks = [dict(type="EMAHook", ema_type="WarmupEMA", momentum=4e-5)]
