"""A segmented volume, slice by slice."""

import numpy as np
from nibabel.orientations import apply_orientation, io_orientation
from PIL import Image, ImageDraw

from densevit.data.font import font
from densevit.data.plane_sheet import intensity_window
from densevit.data.regions import paint_regions
from densevit.data.volume import volume_header
from densevit.predictor import Result
from densevit.web.views.markup import html_table, paragraph
from densevit.web.views.picture_size import NUMBER_SIZE, SMALLEST, resize_ids, resize_picture

PLANES = {"axial": 2, "coronal": 1, "sagittal": 0}  # and the axis that their slices lie along
SIDES = (("L", "R"), ("P", "A"), ("I", "S"))  # where axes of RAS start and end
FONT_SIZE = 18


class VolumeView:
    """The voxels of a file as grey levels, turned so that axes point right, front and top.

    Args:
        result: Of a segmentation model for volumes.

    Attributes:
        shape: Voxels towards right, front and top.

    Raises:
        DataError: The file cannot be read again.
    """

    def __init__(self, result: Result) -> None:
        voxels = np.asarray(result.predictor.read(result.source)[0])
        header = volume_header(result.source.value)
        turns = io_orientation(header.affine)
        low, high = intensity_window(voxels)
        grey = np.rint(255 * np.clip((voxels - low) / (high - low), 0, 1)).astype(np.uint8)
        self.grey = apply_orientation(grey, turns)
        self.ids = apply_orientation(result.prediction.mask.numpy(), turns)
        self.shape: tuple[int, ...] = self.grey.shape
        self.spacing = [header.spacing[int(np.flatnonzero(turns[:, 0] == axis)[0])] for axis in range(3)]
        self.classes, self.palette = result.classes, result.predictor.palette
        self.ml: dict[str, float] = result.prediction.summary(self.classes)["ml"]

    def fullest(self, plane: str) -> int:
        """Return the slice, counted from 1, in which the most is labelled; the middle one where nothing is."""
        axis = PLANES[plane]
        counts = (self.ids > 0).sum(tuple(i for i in range(3) if i != axis))
        return 1 + int(counts.argmax() if counts.any() else self.shape[axis] // 2)

    def slices(self, plane: str) -> int:
        """Return how many slices there are."""
        return self.shape[PLANES[plane]]

    def picture(self, plane: str, number: int, opacity: float) -> np.ndarray:
        """Return a slice ``(H, W, 3)``, uint8 RGB, in proportion, with letters for the sides of the patient.

        Args:
            plane: One of `PLANES`.
            number: Of the slice, counted from 1; numbers beyond the ends mean the ends.
            opacity: Of the colours of the classes, 0 to 1.
        """
        axis = PLANES[plane]
        index = int(np.clip(number, 1, self.shape[axis])) - 1
        grey, ids = (np.ascontiguousarray(np.take(a, index, axis).T[::-1]) for a in (self.grey, self.ids))
        right, up = (i for i in range(3) if i != axis)
        edges = [self.shape[i] * self.spacing[i] for i in (up, right)]
        size = (max(1, round(SMALLEST * edges[0] / max(edges))), max(1, round(SMALLEST * edges[1] / max(edges))))
        image = np.repeat(resize_picture(grey, size)[..., None], 3, axis=2)
        painted = paint_regions(
            image, resize_ids(ids, size), range(1, len(self.classes)), self.palette, opacity, NUMBER_SIZE
        )
        return _with_sides(painted, SIDES[right], SIDES[up])

    def table(self) -> str:
        """Return the volumes of the classes in millilitres, in HTML."""
        if not self.ml:
            return paragraph("Only background was found.")
        indices = [self.classes.index(name) for name in self.ml]
        rows = [(str(i), name, f"{ml:.4g}") for i, (name, ml) in zip(indices, self.ml.items(), strict=True)]
        return html_table(("number", "class", "millilitres"), rows, [self.palette[i] for i in indices])

    def about(self) -> str:
        """Return size and spacing, for people."""
        size, edges = " x ".join(map(str, self.shape)), " x ".join(f"{edge:.3g}" for edge in self.spacing)
        return f"{size} voxels of {edges} mm (towards right, front, top)"


def _with_sides(picture: np.ndarray, across: tuple[str, str], up: tuple[str, str]) -> np.ndarray:
    canvas = Image.fromarray(picture)
    draw = ImageDraw.Draw(canvas)
    width, height = canvas.size
    places = (
        (across[0], (4, height / 2), "lm"),
        (across[1], (width - 4, height / 2), "rm"),
        (up[0], (width / 2, height - 4), "mb"),
        (up[1], (width / 2, 4), "mt"),
    )
    for text, place, anchor in places:
        draw.text(place, text, fill="white", font=font(FONT_SIZE), anchor=anchor, stroke_width=2, stroke_fill="black")
    return np.asarray(canvas)
