"""Necks. To add one: write its file, then name it here."""

from densevit.necks.fpn import FPN

__all__ = ["FPN"]
