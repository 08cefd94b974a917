"""UPerNet's schedule with Swin and XCiT: that of SegFormer, but one learning rate for all; batch norms synchronised."""

_base_ = ["segformer_160k.py"]

sync_bn = "torch"
optim_wrapper = dict(paramwise_cfg=dict(_delete_=True, custom_keys={"norm": dict(decay_mult=0.0)}))
