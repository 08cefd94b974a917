"""CCT-7/3x1 on CIFAR-100 from scratch, 3.8 M parameters.

    densevit train cct_7_3x1_cifar100

Authors' figure (https://github.com/SHI-Labs/Compact-Transformers), 300 epochs: top-1 80.92. Not trained by us. Their
recipe: 300 epochs of a cosine and 10 more at the rate it ends at, 128 images a step.

Data: data/cifar/cifar-100-python/{train,test} as https://www.cs.toronto.edu/~kriz/cifar.html offers them; --data-root
points elsewhere.
"""

_base_ = ["_base_/cifar100.py", "_base_/deit_300e.py"]

model = dict(
    type="DenseModel",
    backbone=dict(type="cct_7_3x1_32", token=True, drop_path=0.1),
    head=dict(type="ClassificationHead", num_classes=100, label_smoothing=0.1),
    data_preprocessor=dict(mean=(129.3, 124.1, 112.4), std=(68.2, 65.4, 70.4), mixup=0.8, cutmix=1.0, num_classes=100),
)
train_pipeline = [
    dict(type="RandomResizedCrop", size=32, scale=(0.8, 1.0), interpolation="bicubic"),
    dict(type="RandomHorizontalFlip"),
    {{_base_.augment}},
    {{_base_.augment}},
    dict(type="NoiseErasing", p=0.25),
]
train_dataloader = dict(batch_size=128, repeats=1, dataset=dict(transforms=train_pipeline))

optim_wrapper = dict(optimizer=dict(lr=6e-4, weight_decay=0.06))
warm_up = 10
max_epochs = 310
param_scheduler = [
    dict(type="LinearLR", start_factor=2e-3, begin=0, end=warm_up, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", eta_min=1e-5, begin=warm_up, end=300, convert_to_iter_based=True),
]
auto_scale_lr = dict(base_batch_size=128)
train_cfg = dict(max_epochs=max_epochs)
