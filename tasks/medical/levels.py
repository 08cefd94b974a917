"""The levels of a UNETR decoder, from the strides of the maps that it reads."""

from collections.abc import Iterator, Sequence

from densevit.errors import ConfigError

Stride = tuple[int, ...]


def level_strides(maps: Sequence[Stride]) -> list[Stride]:
    """Return the strides of the levels, fine to coarse, the first of them 1 along every axis.

    The last levels belong to one map each, the coarsest to the last map as it is. A map that is no finer than the
    level below it is raised to half that level's stride, as in UNETR, whose maps all have stride 16.

    Args:
        maps: Strides of the maps, fine to coarse.

    Raises:
        ConfigError: There are more maps than levels below the input, or strides that do not divide each other.
    """
    levels = [tuple(maps[-1])]
    for stride in reversed(maps[:-1]):
        finer = tuple(map(min, stride, levels[0]))
        levels.insert(0, halved(levels[0]) if finer == levels[0] else finer)
    if max(levels[0]) == 1:
        raise ConfigError(
            f"UNETRHead: {len(maps)} maps of strides {', '.join(map(str, maps))} are too many, as each wants a level "
            "of its own, coarser than the input: ask the backbone for fewer by out_indices"
        )
    pairs = [*zip(levels[1:], levels, strict=False), *zip(maps[::-1], levels[::-1], strict=False)]
    for coarse, fine in pairs:
        if any(c % f for c, f in zip(coarse, fine, strict=True)):
            raise ConfigError(f"UNETRHead: stride {coarse} is no multiple of {fine}: ask for other maps by out_indices")
    while max(levels[0]) > 1:
        levels.insert(0, halved(levels[0]))
    return levels


def ratio(coarse: Sequence[int], fine: Sequence[int]) -> Stride:
    """Return the quotients, axis by axis."""
    return tuple(c // f for c, f in zip(coarse, fine, strict=True))


def halved(stride: Stride) -> Stride:
    """Return half a stride along each axis, as near as it can be divided, where it is not 1 yet."""
    return tuple(s // _smallest_factor(s) for s in stride)


def steps(ratio: Stride) -> Iterator[Stride]:
    """Yield the factors, coarse to fine, by which a map is raised until its cells are divided by ``ratio``."""
    while max(ratio) > 1:
        yield tuple(map(_smallest_factor, ratio))
        ratio = halved(ratio)


def _smallest_factor(n: int) -> int:
    """Return the smallest prime factor, and 1 of 1."""
    return next((p for p in range(2, n + 1) if n % p == 0), 1)
