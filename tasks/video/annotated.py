"""Videos with what was predicted beside them."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from densevit.data.class_prediction import BAR_WIDTH, FONT_SIZE, MARGIN, ClassPrediction, bars_of, draw_bars, shortened
from densevit.data.font import font
from densevit.data.prediction import Palette
from densevit.data.video import video_info
from densevit.data.video_stream import stream_frames
from densevit.data.video_writing import write_video

LONGEST = 1280  # pixels of the longer side of the frames; larger ones are shrunk
LEGIBLE = 360  # height of frames up to which texts are as large as in still pictures
BAND, CURSOR = 8, 3  # pixels: height of the band of top classes, width of the mark on it
FALLBACK_FPS = 25.0  # of files that tell no rate
QUICK = {"crf": "22", "preset": "veryfast"}
PALE = 0.45  # share of the colour where the band is still to come


def write_annotated(
    source: Path | np.ndarray,
    target: Path,
    predictions: Sequence[ClassPrediction],
    ends: Sequence[float],
    classes: Sequence[str],
    palette: Palette,
    advance: Callable[[float], object],
) -> None:
    """Write a whole video, at its own rate, with bars of the most probable classes to its right.

    It is read and written frame by frame, and shrunk to 1280 pixels if it is larger. If there are several predictions,
    a band below has the colours of the top classes over time and a mark that moves on it.

    Args:
        source: The video, or all of its frames ``(T, H, W, 3)``, uint8 RGB.
        target: The MP4 file to write.
        predictions: One after the other in time.
        ends: The second at which each of them ends.
        classes: Names of the classes.
        palette: Their colours.
        advance: Is told the share of the video that was just written.

    Raises:
        DataError: The video cannot be read to its end.
    """
    info = video_info(source)
    fps = info.fps or FALLBACK_FPS
    frames = stream_frames(source, longest=LONGEST)

    def annotated() -> Iterator[np.ndarray]:
        layout: Layout | None = None
        for number, frame in enumerate(frames):
            layout = layout or Layout(frame.shape, predictions, ends, classes, palette)
            yield layout.draw(frame, number / fps)
            advance(1 / max(info.frames, 1))

    write_video(target, annotated(), fps, QUICK)


class Layout:
    """Where frame, bars and band are. The panel of bars is drawn when the prediction changes."""

    def __init__(
        self,
        shape: Sequence[int],
        predictions: Sequence[ClassPrediction],
        ends: Sequence[float],
        classes: Sequence[str],
        palette: Palette,
    ) -> None:
        self.height, self.width = shape[:2]
        self.ends = list(ends)
        names = [shortened(name) for name in classes]
        self.bars = [bars_of(prediction, names, palette) for prediction in predictions]
        self.scale = max(1.0, self.height / LEGIBLE)
        letters = font(round(FONT_SIZE * self.scale))
        longest = max(letters.getlength(text) for bars in self.bars for text, _, _ in bars)
        full = BAR_WIDTH * self.scale
        self.panel = round(max(longest, full) + 2 * MARGIN * self.scale)
        self.current, self.canvas = -1, np.empty(0, np.uint8)
        bottom = max(self.height, len(self._panel(max(self.bars, key=len))))
        self.shape = (bottom + (BAND if len(predictions) > 1 else 0), self.width + self.panel, 3)
        colours = np.asarray([palette[int(prediction.scores.argmax())] for prediction in predictions], np.uint8)
        seconds = (np.arange(self.shape[1]) + 0.5) / self.shape[1] * self.ends[-1]
        self.band = colours[np.minimum(np.searchsorted(self.ends, seconds, "right"), len(colours) - 1)]
        self.pale = (255 - PALE * (255 - self.band.astype(np.float32))).astype(np.uint8)

    def draw(self, frame: np.ndarray, second: float) -> np.ndarray:
        """Return the frame ``(H, W, 3)``, uint8 RGB, with what is predicted at this time."""
        current = min(bisect_right(self.ends, second), len(self.bars) - 1)
        if current != self.current:
            self.current, self.canvas = current, np.full(self.shape, 255, np.uint8)
            panel = self._panel(self.bars[current])
            self.canvas[: panel.shape[0], self.width :] = panel
        picture = self.canvas.copy()
        picture[: self.height, : self.width] = frame
        if len(self.bars) > 1:
            at = min(round(second / self.ends[-1] * self.shape[1]), self.shape[1] - CURSOR)
            picture[-BAND:] = np.where(np.arange(self.shape[1])[:, None] < at, self.band, self.pale)
            picture[-BAND:, at : at + CURSOR] = 0
        return picture

    def _panel(self, bars: Sequence[tuple[str, tuple[int, ...], float]]) -> np.ndarray:
        return np.asarray(draw_bars(bars, scale=self.scale, width=self.panel))
