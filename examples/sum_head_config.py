# sum_head_config.py
_base_ = ["densevit::demo/segformer_b0_shapes.py"]

custom_imports = dict(imports=["sum_head"])
model = dict(head=dict(_delete_=True, type="SumHead", num_classes=8, dice_weight=0.5))
