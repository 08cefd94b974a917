"""ConvMixer-256/8 with kernels of 5 and patches of 2 on CIFAR-10 from scratch, 0.59 M parameters.

    densevit train convmixer_256_8_cifar10

Data: data/cifar10/{train,test}/<class>/*.jpg; --data-root points elsewhere. The authors' recipe of ImageNet, with their
crops for CIFAR-10. They give no score for this size that we know of, and we have not trained it.
"""

_base_ = ["_base_/imagenet.py", "_base_/deit_300e.py"]

model = dict(
    type="DenseModel",
    backbone=dict(type="convmixer_256_8", token=True),
    head=dict(type="ClassificationHead", num_classes=10, label_smoothing=0.1),
    data_preprocessor=dict(mixup=0.5, cutmix=0.5, num_classes=10),
)
train_pipeline = [
    dict(type="RandomResizedCrop", size=32, scale=(0.75, 1.0), interpolation="bicubic"),
    dict(type="RandomHorizontalFlip"),
    {{_base_.augment}},
    {{_base_.augment}},
    dict(type="NoiseErasing", p=0.25),
]
dataset = dict(type="ImageFolderDataset", data_root="data/cifar10")
train_dataloader = dict(batch_size=640, num_workers=4, repeats=1, dataset=dict(dataset, transforms=train_pipeline))
val_dataloader = dict(batch_size=250, num_workers=4, dataset=dict(dataset, split="test", transforms=[]))
test_dataloader = val_dataloader

max_epochs = 150
peak, knee = 60, 120  # 2/5 and 4/5
optim_wrapper = dict(optimizer=dict(lr=1e-2, weight_decay=2e-5, eps=1e-3), clip_grad=dict(max_norm=1.0))
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, begin=0, end=peak, convert_to_iter_based=True),
    dict(type="LinearLR", start_factor=1.0, end_factor=0.05, begin=peak, end=knee, convert_to_iter_based=True),
    dict(type="LinearLR", start_factor=1.0, end_factor=0.0, begin=knee, end=max_epochs, convert_to_iter_based=True),
]
auto_scale_lr = dict(base_batch_size=640)
train_cfg = dict(max_epochs=max_epochs)
