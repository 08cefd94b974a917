"""Prediction on videos: the classes of a clip, or of the windows of a long video."""

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
from densevit.inputs import Source, rgb_array
from densevit.predictor import Advance, Predictor, Result, unwatched
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
    def stream(self, sources: Sequence[Source], batch_size: int = 1, advance: Advance = unwatched) -> Iterator[Result]:
        if self.windows is None:
            yield from super().stream(sources, batch_size, advance)
            return
        for source in sources:
            try:
                found = self.windows.predict(
                    source.value,
                    lambda clips: self._scores(clips, str(source)),  # noqa: B023
                    batch_size,
                    advance,
                )
                yield Result(source, self, found)
            except DataError as error:
                yield Result(source, self, error=error)

    def accept(self, value: Any, name: str) -> np.ndarray:
        return rgb_array(value, name, "T, H, W")

    def draw(self, source: Source, prediction: Any) -> np.ndarray:
        """Return frames with bars beside them or, of windows, their scores over time."""
        if not isinstance(prediction, Timeline):
            return super().draw(source, prediction)
        frames = read_clip(source.value, _spread, short_side=2 * STRIP)
        pictures = frames.permute(0, 2, 3, 1).numpy()
        return prediction.draw(pictures, self.classes, self.palette, Path(str(source)).name)

    def write(self, source: Source, prediction: Any, out: Path, advance: Advance = unwatched) -> dict[str, Path]:
        """Write picture, prediction and the annotated video.

        Raises:
            DataError: A file cannot be read again, or not to its end.
        """
        video = out / "videos" / f"{source.name}.mp4"
        if isinstance(prediction, Timeline):
            picture = out / "timelines" / f"{source.name}.png"
            mmcv.imwrite(mmcv.rgb2bgr(self.draw(source, prediction)), str(picture))
            files = {"timeline": picture, "output": prediction.save(out / "outputs" / source.name)}
            shown, ends = prediction.predictions(), prediction.edges()[1:]
        else:
            files = super().write(source, prediction, out)
            shown, ends = [prediction], [float("inf")]
        write_annotated(source.value, video, shown, ends, self.classes, self.palette, advance)
        return {**files, "video": video}

    def describe(self, source: Source, prediction: Any, alone: bool) -> str:
        if isinstance(prediction, Timeline):
            return prediction.describe(str(source), self.classes)
        return super().describe(source, prediction, alone)

    def draw_input(self, source: Source) -> np.ndarray:
        """Return frames of a clip, of several the one in the middle, with where the model looks if that is known."""
        image = self.read(source)
        sample = self.sample(image, str(source))
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

    def _scores(self, clips: Sequence[Tensor], name: str) -> list[Tensor]:
        return [found.scores for found in self.model.test_step([self.sample(clip, name) for clip in clips])]


def _spread(info: VideoInfo) -> list[int]:
    """Return the frames in the middle of as many equal shares of the video as there is place for."""
    count = thumbnails(info.height, info.width)
    return [int((i + 0.5) * info.frames / count) for i in range(count)]
