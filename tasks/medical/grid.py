"""Labels of voxels, from the grid of an input to that of its file."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

# Voxels of the file that are interpolated at a time.
_CHUNK = 1 << 21
# Of a voxel: two grids whose voxels are no farther apart are the same.
_TOLERANCE = 0.01


def resample_labels(labels: Tensor, to_input: Tensor, size: Sequence[int]) -> Tensor:
    """Return the labels of the voxels of a file; those outside the input are 0.

    Where the grids differ by axes that are exchanged or reversed and by whole voxels, labels are copied. Elsewhere each
    class is interpolated linearly, and the largest wins: borders are smooth, and no class is made up. Memory is that
    of a few slices.

    Args:
        labels: ``(d, h, w)`` integers on the grid of the input.
        to_input: ``(4, 4)`` float64, from indices of voxels of the file to those of the input.
        size: ``(D, H, W)`` of the file.
    """
    to_input = to_input.double().cpu()
    nearest = to_input.round()
    corners = _corners([(0, n - 1) for n in size])
    apart = _transform(to_input, corners) - _transform(nearest, corners)
    if apart.abs().max() < _TOLERANCE and nearest[:3, :3].abs().sum(0).eq(1).all():
        return _copied(labels, nearest, size)
    return _interpolated(labels, to_input, size)


def scaling(original: Sequence[int], size: Sequence[int]) -> Tensor:
    """Return the map ``(4, 4)`` from voxels of a volume to those of the same volume resized to ``size``."""
    scale = torch.tensor([n / m for n, m in zip(size, original, strict=True)], dtype=torch.float64)
    to_input = torch.diag(torch.cat([scale, torch.ones(1, dtype=torch.float64)]))
    to_input[:3, 3] = (scale - 1) / 2
    return to_input


def _copied(labels: Tensor, to_input: Tensor, size: Sequence[int]) -> Tensor:
    """Return labels whose axes are exchanged, reversed, cut and padded."""
    found = labels.new_zeros(tuple(size))
    axes = to_input[:3, :3].abs().argmax(dim=0).tolist()  # of the input, for each of the file
    labels = labels.permute(axes)
    wanted, given = [], []
    for axis, source in enumerate(axes):
        n, sign, shift = labels.shape[axis], int(to_input[source, axis]), int(to_input[source, 3])
        if sign < 0:
            labels, shift = labels.flip(axis), n - 1 - shift
        start = max(0, -shift)
        stop = max(start, min(size[axis], n - shift))
        wanted.append(slice(start, stop))
        given.append(slice(start + shift, stop + shift))
    found[tuple(wanted)] = labels[tuple(given)]
    return found


def _interpolated(labels: Tensor, to_input: Tensor, size: Sequence[int]) -> Tensor:
    """Return labels by the largest of the linear interpolations of all classes, the background outside."""
    found = labels.new_zeros(tuple(size))
    boxes = {k: _box(labels == k) for k in labels.unique().tolist() if k}
    reach = {k: _reach(box, to_input, size) for k, box in boxes.items()}
    step = max(1, _CHUNK // (size[1] * size[2]))
    for start in range(0, size[0], step):
        part = found[start : start + step]
        best = torch.zeros(part.shape, dtype=torch.float32, device=labels.device)
        total = torch.zeros_like(best)
        for k, box in boxes.items():
            first, last = max(reach[k][0][0], start), min(reach[k][0][1], start + len(part) - 1)
            if first > last or any(a > b for a, b in reach[k]):
                continue
            region = [(first, last), *reach[k][1:]]
            inside = (slice(first - start, last - start + 1), *(slice(a, b + 1) for a, b in region[1:]))
            share = _share(labels, k, box, to_input, region)
            total[inside] += share
            better = share > best[inside]
            best[inside] = torch.where(better, share, best[inside])
            part[inside] = torch.where(better, k, part[inside])
        part[best <= 1 - total] = 0
    return found


def _share(
    labels: Tensor, k: int, box: list[tuple[int, int]], to_input: Tensor, region: list[tuple[int, int]]
) -> Tensor:
    """Return the interpolation of class ``k``, which lies in a ``box``, at the voxels of a ``region`` of the file."""
    mask = labels[tuple(slice(a, b + 1) for a, b in box)] == k
    source = F.pad(mask.float(), (1, 1, 1, 1, 1, 1))  # it has borders, and no axis of one voxel
    coordinates = _transform(to_input, _mesh(region)) - torch.tensor([a - 1 for a, _ in box], dtype=torch.float64)
    # grid_sample counts from -1 to 1, and takes the last axis first
    grid = (2 * coordinates / (torch.tensor(source.shape) - 1) - 1).flip(-1).to(source)
    return F.grid_sample(source[None, None], grid[None], mode="bilinear", align_corners=True)[0, 0]


def _box(mask: Tensor) -> list[tuple[int, int]]:
    """Return the first and last index along each axis at which something is set."""
    found = []
    for axis in range(3):
        others = [a for a in range(3) if a != axis]
        indices = mask.amax(dim=others).nonzero()
        found.append((int(indices[0]), int(indices[-1])))
    return found


def _reach(box: list[tuple[int, int]], to_input: Tensor, size: Sequence[int]) -> list[tuple[int, int]]:
    """Return the voxels of the file, first and last along each axis, that a box of the input may reach."""
    corners = _transform(torch.linalg.inv(to_input), _corners([(a - 1, b + 1) for a, b in box]))
    low, high = corners.amin(dim=0).floor().tolist(), corners.amax(dim=0).ceil().tolist()
    return [(max(0, int(a)), min(n - 1, int(b))) for a, b, n in zip(low, high, size, strict=True)]


def _corners(box: Sequence[tuple[int, int]]) -> Tensor:
    return torch.cartesian_prod(*(torch.tensor(ends, dtype=torch.float64) for ends in box))


def _mesh(region: Sequence[tuple[int, int]]) -> Tensor:
    """Return the indices ``(..., 3)`` of the voxels of a region."""
    axes = [torch.arange(a, b + 1, dtype=torch.float64) for a, b in region]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)


def _transform(affine: Tensor, points: Tensor) -> Tensor:
    return points @ affine[:3, :3].T + affine[:3, 3]
