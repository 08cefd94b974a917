# csv_config.py
_base_ = ["densevit::demo/cct_2_3x2_objects.py"]

custom_imports = dict(imports=["csv_dataset", "grey_patch", "calibration_error"])
mine = dict(
    _delete_=True,
    type="CsvDataset",
    data_root="data/demo/classification",
    classes=("house", "tree", "fence", "car", "ball"),
)
train_dataloader = dict(
    dataset=dict(mine, ann_file="train.csv", transforms=[dict(type="RandomHorizontalFlip"), dict(type="GreyPatch")])
)
val_dataloader = dict(dataset=dict(mine, ann_file="val.csv", transforms=[]))
test_dataloader = val_dataloader
val_evaluator = [dict(type="Accuracy"), dict(type="CalibrationError")]
test_evaluator = val_evaluator
