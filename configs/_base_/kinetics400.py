"""Kinetics-400: about 240,000 videos of ten seconds to train, 20,000 to validate, 400 classes.

Data: data/kinetics400/videos/*.mp4 with the lists train.txt and val.txt, lines `name.mp4 label`, and labels.txt, the
names of the 400 classes, one a line. Videos vanish from the web: copies differ by some percent, and so do the scores.

8 processes of 8 clips. A recipe adds what makes clips of the videos: sampling and transforms.
"""

dataset = dict(
    type="ClipDataset",
    data_root="data/kinetics400",
    short_side=320,
    download_help="How to get the videos and make the lists: docs/video.md. Or pass --data-root",
)
train_dataloader = dict(batch_size=8, num_workers=8, dataset=dict(dataset, ann_file="train.txt"))
val_dataloader = dict(batch_size=8, num_workers=8, dataset=dict(dataset, ann_file="val.txt"))
test_dataloader = dict(batch_size=1, num_workers=8, dataset=dict(dataset, ann_file="val.txt"))
val_evaluator = dict(type="ClipAccuracy")
test_evaluator = val_evaluator
