"""Inputs that the page offers to try: given ones, else generated ones."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from densevit.data import motion
from densevit.data.phantoms import draw_phantom
from densevit.data.plane_sheet import intensity_window
from densevit.data.portraits import draw_portrait
from densevit.data.scenes import draw_scene
from densevit.data.video import VideoInfo, read_clip
from densevit.data.video_writing import write_video
from densevit.errors import DataError
from densevit.inputs import find_files
from densevit.predictor import Predictor
from densevit.tasks.classification.head import ClassificationHead
from densevit.tasks.medical.predictor import VolumePredictor
from densevit.tasks.video.predictor import ClipPredictor
from densevit.web.views.picture_size import resize_picture

MOST = 12  # that are shown
SEEDS = (3, 8, 11, 14)
THUMBNAIL = 160  # pixels of the longer side


class Example(NamedTuple):
    """A file, and a small picture of it ``(H, W, 3)``, uint8 RGB."""

    path: Path
    thumbnail: np.ndarray


def given_examples(predictor: Predictor, inputs: Sequence[str | Path]) -> list[Example]:
    """Return the first inputs that files, folders and globs name; what cannot be read is left out, and printed.

    Raises:
        DataError: A path or pattern names nothing, or nothing can be read.
    """
    paths = find_files(inputs, predictor.suffixes)
    found: list[Example] = []
    for path in paths:
        if len(found) == MOST:
            print(f"examples: the first {MOST} of {len(paths)} files are shown")
            break
        try:
            found.append(Example(path, thumbnail(predictor, path)))
        except DataError as error:
            print(f"skipped: {error}")
    if not found:
        raise DataError(f"none of the {len(paths)} files of --examples can be read")
    return found


def generated_examples(predictor: Predictor, folder: Path) -> list[Example]:
    """Write inputs of our own making to a folder, and return them."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, seed in enumerate(SEEDS, start=1):
        rng = np.random.default_rng(seed)
        if isinstance(predictor, ClipPredictor):
            paths.append(folder / f"motion_{number}.mp4")
            # the last one is longer than a clip, and changes what it shows
            labels = range(len(motion.CLASSES)) if number == len(SEEDS) else [number - 1]
            write_video(paths[-1], np.concatenate([motion.draw_clip(rng, i) for i in labels]), motion.FPS)
        elif isinstance(predictor, VolumePredictor):
            paths.append(folder / f"phantom_{number}.nii.gz")
            draw_phantom(rng)[0].to_filename(paths[-1])
        elif isinstance(predictor.model.head, ClassificationHead):
            paths.append(folder / f"object_{number}.png")
            Image.fromarray(draw_portrait(rng, number)).save(paths[-1])
        else:
            paths.append(folder / f"landscape_{number}.png")
            Image.fromarray(draw_scene(rng).image).save(paths[-1])
    return [Example(path, thumbnail(predictor, path)) for path in paths]


def thumbnail(predictor: Predictor, path: Path) -> np.ndarray:
    """Return a small picture of a file: of a video its middle frame, of a volume its middle slice.

    Raises:
        DataError: It cannot be read.
    """
    if isinstance(predictor, ClipPredictor):
        picture = read_clip(path, _middle, THUMBNAIL)[0].permute(1, 2, 0).numpy()
    elif isinstance(predictor, VolumePredictor):
        picture = _middle_slice(np.asarray(predictor.reader(path)[0]))
    else:
        picture = predictor.picture(predictor.reader(path))
    factor = THUMBNAIL / max(picture.shape[:2])
    return resize_picture(picture, (max(1, round(picture.shape[0] * factor)), max(1, round(picture.shape[1] * factor))))


def _middle(info: VideoInfo) -> list[int]:
    return [info.frames // 2]


def _middle_slice(voxels: Any) -> np.ndarray:
    low, high = intensity_window(voxels)
    plane = voxels[:, :, voxels.shape[2] // 2].T[::-1]
    grey = np.rint(255 * np.clip((plane - low) / (high - low), 0, 1)).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)
