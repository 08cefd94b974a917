"""DHVT-T with patches of 4 x 4 on CIFAR-100 from scratch, 6.0 M parameters.

    torchrun --nproc-per-node 2 -m densevit train dhvt_t_cifar100

Paper (https://arxiv.org/abs/2210.05958): top-1 80.93. Not trained by us. The authors' recipe is DeiT's with a batch of
512 at 1e-3, averaged weights and synchronised batch norms.

Data: data/cifar/cifar-100-python/{train,test} as https://www.cs.toronto.edu/~kriz/cifar.html offers them; --data-root
points elsewhere.
"""

_base_ = ["_base_/cifar100.py", "_base_/deit_300e.py"]

sync_bn = "torch"
model = dict(
    type="DenseModel",
    backbone=dict(type="dhvt_tiny_cifar_patch4", token=True, drop_path=0.1),
    head=dict(type="ClassificationHead", num_classes=100, label_smoothing=0.1),
    data_preprocessor=dict(mixup=0.8, cutmix=1.0, num_classes=100),
)
auto_scale_lr = dict(base_batch_size=512)
custom_hooks = [dict(type="EMAHook", ema_type="WarmupEMA", momentum=4e-5)]
