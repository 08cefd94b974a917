"""TimeSformer's recipe: 15 epochs of SGD at 0.005 for a batch of 64 clips, a tenth of it from epochs 11 and 14 on.

Paper (https://arxiv.org/abs/2102.05095), section 4. It starts from an image ViT: --weights FILE, e.g. timm's
vit_base_patch16_224, trained on ImageNet-21k. A config adds sampling and transforms.
"""

_base_ = ["runtime.py", "kinetics400.py"]

optim_wrapper = dict(
    type="OptimWrapper",
    constructor="LayerDecayConstructor",
    optimizer=dict(type="SGD", lr=5e-3, momentum=0.9, weight_decay=1e-4),
)
param_scheduler = [dict(type="MultiStepLR", by_epoch=True, milestones=[11, 14], gamma=0.1)]
auto_scale_lr = dict(base_batch_size=64)
train_cfg = dict(by_epoch=True, max_epochs=15, val_interval=1)
val_cfg = dict()
test_cfg = dict()
default_hooks = dict(checkpoint=dict(type="CheckpointHook", interval=1, by_epoch=True, save_best="top1"))
