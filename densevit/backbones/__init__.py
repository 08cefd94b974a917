"""Backbones. To add one: write its file, then name it here."""

from densevit.backbones.mit import MiT, mit_b0, mit_b1, mit_b2, mit_b3, mit_b4, mit_b5

__all__ = ["MiT", "mit_b0", "mit_b1", "mit_b2", "mit_b3", "mit_b4", "mit_b5"]
