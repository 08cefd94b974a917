"""Prediction on video files: the classes of a clip, or of the windows of a long video."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import torch
from torch import Tensor

from densevit.data.contact_sheet import heat_sheet
from densevit.data.video import VideoInfo, read_clip
from densevit.engine.frame_attention import frame_attention
from densevit.errors import DataError
from densevit.predictor import Advance, Predictor, unwatched
from densevit.tasks.video.annotated import write_annotated
from densevit.tasks.video.inference import ClipViews
from densevit.tasks.video.sliding import SlidingWindows
from densevit.tasks.video.timeline import STRIP, Timeline, thumbnails

CAPTION = "below each frame: attention of the last layer, a mean over heads; bright is more"


class ClipPredictor(Predictor):
    """Predicts one class per video or, after `slide`, that of each window; writes annotated videos too."""

    windows: SlidingWindows | None = None
    folders = ("overlays", "outputs", "videos")

    def slide(self, dataset: Mapping[str, Any], window: float | None = None, stride: float | None = None) -> None:
        """Predict windows of videos from now on, see `SlidingWindows`."""
        self.windows = SlidingWindows(dataset, window, stride)
        self.folders = ("timelines", "outputs", "videos")

    @torch.inference_mode()
    def __call__(
        self, paths: Sequence[Path], batch_size: int = 1, advance: Advance = unwatched
    ) -> Iterator[tuple[Path, Any]]:
        if self.windows is None:
            yield from super().__call__(paths, batch_size, advance)
            return
        for path in paths:
            try:
                yield path, self.windows.predict(path, lambda clips: self._scores(clips, path), batch_size, advance)  # noqa: B023
            except DataError as error:
                yield path, error

    def write(self, path: Path, name: str, prediction: Any, out: Path, advance: Advance = unwatched) -> dict[str, Any]:
        """Write picture, prediction and the annotated video under ``name``; return the entry for the JSON.

        Raises:
            DataError: The file cannot be read again, or not to its end.
        """
        video = out / "videos" / f"{name}.mp4"
        if isinstance(prediction, Timeline):
            entry = self._write_timeline(path, name, prediction, out)
            shown, ends = prediction.predictions(), prediction.edges()[1:]
        else:
            entry = super().write(path, name, prediction, out)
            shown, ends = [prediction], [float("inf")]
        write_annotated(path, video, shown, ends, self.classes, self.palette, advance)
        return {**entry, "video": str(video)}

    def describe(self, path: Path, prediction: Any, alone: bool) -> str:
        if isinstance(prediction, Timeline):
            return prediction.describe(str(path), self.classes)
        return super().describe(path, prediction, alone)

    def draw_input(self, path: Path) -> np.ndarray:
        """Return frames of a clip, of several the one in the middle, with where the model looks if that is known."""
        image = self.read(path)
        sample = self.sample(image, path)
        x = self.model.data_preprocessor([sample])["inputs"][0][None]
        seen = sample.image.as_subclass(Tensor).transpose(0, 1)[None]
        clips = 1
        if isinstance(self.model.inference, ClipViews):
            views = self.model.inference.views(x)
            clips = x.shape[2] // views[0].shape[2]
            middle = (2 * (clips // 2) + 1) * (len(views) // clips) // 2
            x, seen = views[middle], self.model.inference.views(seen)[middle]
        heat = frame_attention(self.model, x)
        if heat is None:
            return self.picture(image)
        image = image.split(len(image) // clips)[clips // 2]
        return heat_sheet(image, seen[0].transpose(0, 1), heat, CAPTION)

    def _scores(self, clips: Sequence[Tensor], path: Path) -> list[Tensor]:
        return [found.scores for found in self.model.test_step([self.sample(clip, path) for clip in clips])]

    def _write_timeline(self, path: Path, name: str, timeline: Timeline, out: Path) -> dict[str, Any]:
        frames = read_clip(path, _spread, short_side=2 * STRIP)
        picture = timeline.draw(frames.permute(0, 2, 3, 1).numpy(), self.classes, self.palette, path.name)
        target = out / "timelines" / f"{name}.png"
        mmcv.imwrite(mmcv.rgb2bgr(picture), str(target))
        saved = timeline.save(out / "outputs" / name)
        return {"input": str(path), "timeline": str(target), "output": str(saved), **timeline.summary(self.classes)}


def _spread(info: VideoInfo) -> list[int]:
    """Return the frames in the middle of as many equal shares of the video as there is place for."""
    count = thumbnails(info.height, info.width)
    return [int((i + 0.5) * info.frames / count) for i in range(count)]
