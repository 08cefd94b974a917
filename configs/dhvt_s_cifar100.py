"""DHVT-S with patches of 4 x 4 on CIFAR-100 from scratch, 23.4 M parameters; all else as for DHVT-T.

    torchrun --nproc-per-node 2 -m densevit train dhvt_s_cifar100

Paper (https://arxiv.org/abs/2210.05958): top-1 82.91. Not trained by us.
"""

_base_ = ["dhvt_t_cifar100.py"]

model = dict(backbone=dict(type="dhvt_small_cifar_patch4"))
