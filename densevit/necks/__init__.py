"""Necks. To add one: write its file, then name it here."""

from densevit.necks.fpn import FPN
from densevit.necks.simple_pyramid import SimplePyramid

__all__ = ["FPN", "SimplePyramid"]
