"""Dense prediction with interchangeable vision backbones."""

__version__ = "0.1.0"
