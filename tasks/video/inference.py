"""Several clips and crops of a video, the views, in place of one."""

from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

import torch
from torch import Tensor

from densevit.errors import ConfigError
from densevit.registry import MODELS


@MODELS.register_module()
class ClipViews:
    """See each clip of a video in several crops; the head averages the probabilities of all of them.

    A dataset gives several clips one after the other, see ``clips`` of the samplings of frames. Where the input is not
    larger than a crop, or no longer than a clip, there is one: a validation on a single centre crop needs no other
    settings than a test on all views.

    Args:
        frames: Of a clip; by default all that the input has.
        crop_size: Side of the square crops, in pixels; by default the shorter side of the input.
        crops: Evenly spaced along the longer side; a single one is the centre.

    Raises:
        ConfigError: A number is not positive.
    """

    def __init__(self, frames: int | None = None, crop_size: int | None = None, crops: int = 3) -> None:
        if min(frames or 1, crop_size or 1, crops) < 1:
            raise ConfigError(f"ClipViews: its numbers are positive, not {frames}, {crop_size}, {crops}")
        self.frames, self.crop_size, self.crops = frames, crop_size, crops

    def __call__(self, network: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Return the outputs ``(N, V, K)`` for ``(N, C, clips * frames, H, W)``.

        Raises:
            ConfigError: The frames are not whole clips.
        """
        return torch.stack([network(view) for view in self.views(x)], dim=1)

    def views(self, x: Tensor) -> list[Tensor]:
        """Return the crops of the first clip of ``(N, C, clips * frames, H, W)``, then those of the next.

        Raises:
            ConfigError: The frames are not whole clips.
        """
        frames = self.frames or x.shape[2]
        if x.shape[2] % frames:
            raise ConfigError(
                f"ClipViews: {x.shape[2]} frames are no whole clips of {frames}; "
                "give model.inference.frames the number that sampling of the dataset has"
            )
        return [crop for clip in x.split(frames, dim=2) for crop in self._crop(clip)]

    @staticmethod
    def configure(dataset: MutableMapping[str, Any]) -> dict[str, Any]:
        """Return the config of the views of a dataset that was made for one; its centre crop gives way to them."""
        options = {"type": "ClipViews", "frames": dataset["sampling"]["frames"]}
        last = dataset["transforms"][-1] if dataset["transforms"] else {}
        if isinstance(last, Mapping) and last.get("type") == "CenterCrop":
            size = last["size"]
            options["crop_size"] = size if isinstance(size, int) else min(size)
            dataset["transforms"] = dataset["transforms"][:-1]
        return options

    def _crop(self, clip: Tensor) -> list[Tensor]:
        """Return the crops of a clip ``(N, C, T, H, W)``; of an axis that is shorter than a crop, all of it."""
        side = self.crop_size or min(clip.shape[3:])
        height, width = (min(side, n) for n in clip.shape[3:])
        rows, columns = clip.shape[3] - height, clip.shape[4] - width  # to move a crop by
        count = self.crops if max(rows, columns) > 0 else 1
        shares = [i / (count - 1) for i in range(count)] if count > 1 else [0.5]
        corners = [(int(s * rows), columns // 2) if rows > columns else (rows // 2, int(s * columns)) for s in shares]
        return [clip[..., top : top + height, left : left + width] for top, left in corners]
