"""DHVT-T on one domain of DomainNet from scratch, 6.1 M parameters.

    densevit train dhvt_t_domainnet

Paper (https://arxiv.org/abs/2210.05958). Not trained by us, and we know no number to compare with. The authors' recipe
is DeiT's with a batch of 256 at 1e-3, 20 epochs of warm-up, averaged weights and synchronised batch norms.

Data: https://ai.bu.edu/M3SDA has, per domain, an archive of images in folders of 345 classes, and the lists
<domain>_train.txt and <domain>_test.txt. Move the images of each list into folders of its split, which gives
data/domainnet/clipart/{train,test}/<class>/*.jpg; --data-root points to another domain.
"""

_base_ = ["_base_/imagenet.py", "_base_/deit_300e.py"]

sync_bn = "torch"
model = dict(
    type="DenseModel",
    backbone=dict(type="dhvt_tiny_domain_patch16", token=True, drop_path=0.1),
    head=dict(type="ClassificationHead", num_classes=345, label_smoothing=0.1),
    data_preprocessor=dict(mixup=0.8, cutmix=1.0, num_classes=345),
)
dataset = dict(type="ImageFolderDataset", data_root="data/domainnet/clipart")
train_dataloader = dict(batch_size=256, dataset=dataset)
val_dataloader = dict(batch_size=256, dataset=dict(dataset, split="test"))
test_dataloader = val_dataloader

warm_up = 20
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, begin=0, end=warm_up, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", eta_min=1e-5, begin=warm_up, end=300, convert_to_iter_based=True),
]
auto_scale_lr = dict(base_batch_size=256)
custom_hooks = [dict(type="EMAHook", ema_type="WarmupEMA", momentum=4e-5)]
