"""What detectors trained from scratch on a CPU share: AdamW at 1e-3 for a batch of 8. Their lengths differ."""

_base_ = ["runtime.py"]

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-3, betas=(0.9, 0.999), weight_decay=0.05, fused=True),
    paramwise_cfg=dict(norm_decay_mult=0.0),
    clip_grad=dict(max_norm=5.0),
)
auto_scale_lr = dict(base_batch_size=8)
val_cfg = dict()
test_cfg = dict()
