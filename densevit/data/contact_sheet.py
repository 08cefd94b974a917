"""Pictures of clips."""

import cv2
import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from densevit.data.font import font

FRAMES, COLUMNS, HEIGHT = 8, 4, 120
HEAT_SHARE = 0.55  # of the colour of a cell; the rest is the frame in grey
CAPTION, FONT_SIZE = 22, 13


def contact_sheet(clip: Tensor) -> np.ndarray:
    """Return up to eight frames of ``(T, 3, H, W)`` uint8, evenly spaced, in rows of four: ``(H', W', 3)``, uint8."""
    return np.concatenate(_rows(_frames(clip)))


def heat_sheet(clip: Tensor, seen: Tensor, heat: Tensor, caption: str) -> np.ndarray:
    """Return the sheet of a clip with heat maps of the same frames below each of its rows, and a caption below all.

    The largest value of the frames that are shown is the brightest.

    Args:
        clip: ``(T, 3, H, W)`` uint8, as read.
        seen: ``(T, 3, H', W')`` uint8, what the values are of, such as a crop.
        heat: ``(T, h, w)``, not negative.
        caption: What the values are.
    """
    rows = _rows(_frames(clip))
    width = rows[0].shape[1] // min(COLUMNS, len(clip))
    chosen = heat[_chosen(len(heat))].float().cpu().numpy()
    chosen = chosen / max(chosen.max(), 1e-12)
    maps = [_heat_map(frame, values) for frame, values in zip(_frames(seen), chosen, strict=True)]
    sheet = np.concatenate(
        [part for pair in zip(rows, _rows([_centred(m, width) for m in maps]), strict=True) for part in pair]
    )
    return np.concatenate([sheet, _captions(caption, sheet.shape[1])])


def _captions(text: str, width: int) -> np.ndarray:
    """Return a text on white, in as many lines as it needs."""
    letters = font(FONT_SIZE)
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".lstrip()
        lines = [*lines[:-1], longer] if letters.getlength(longer) <= width - 8 else [*lines, word]
    canvas = Image.new("RGB", (width, CAPTION * len(lines)), "white")
    for i, line in enumerate(lines):
        ImageDraw.Draw(canvas).text((4, CAPTION * i + 3), line, fill="black", font=letters)
    return np.asarray(canvas)


def _chosen(count: int) -> Tensor:
    return torch.linspace(0, count - 1, min(count, FRAMES)).round().long()


def _frames(clip: Tensor) -> list[np.ndarray]:
    """Return the frames that are shown ``(HEIGHT, W', 3)``."""
    frames = clip.as_subclass(Tensor)[_chosen(len(clip))].permute(0, 2, 3, 1).numpy()
    width = max(1, round(frames.shape[2] * HEIGHT / frames.shape[1]))
    return [cv2.resize(frame, (width, HEIGHT), interpolation=cv2.INTER_AREA) for frame in frames]


def _rows(frames: list[np.ndarray]) -> list[np.ndarray]:
    """Return frames side by side, in rows of four; white ones fill the last."""
    columns = min(COLUMNS, len(frames))
    frames = frames + [np.full_like(frames[0], 255)] * (-len(frames) % columns)
    return [np.concatenate(frames[i : i + columns], axis=1) for i in range(0, len(frames), columns)]


def _heat_map(frame: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return a frame in grey, coloured by values between 0 and 1."""
    values = cv2.resize(values, frame.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    colours = cv2.applyColorMap((255 * values).round().astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)[..., None]
    return (HEAT_SHARE * colours + (1 - HEAT_SHARE) * grey).round().astype(np.uint8)


def _centred(picture: np.ndarray, width: int) -> np.ndarray:
    """Return a picture on white, or its middle, in another width."""
    cut = max(0, picture.shape[1] - width)
    picture = picture[:, cut // 2 : picture.shape[1] - (cut - cut // 2)]
    left = (width - picture.shape[1]) // 2
    return np.pad(picture, ((0, 0), (left, width - picture.shape[1] - left), (0, 0)), constant_values=255)
