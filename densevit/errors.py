"""Errors that are the user's to mend. Each message names the file or key and the way out.

The tools print these in one line; anything else is a bug of ours and keeps its traceback.
"""


class DensevitError(Exception):
    """Base of the errors below."""


class ConfigError(DensevitError, ValueError):
    """A config names something that does not exist, or states something impossible."""


class DataError(DensevitError, ValueError):
    """A file or folder of a dataset is missing, unreadable or contradicts the config."""


class CheckpointError(DensevitError, RuntimeError):
    """A checkpoint cannot be written, is corrupt, or belongs to another model."""


class NonFiniteLossError(DensevitError, FloatingPointError):
    """The loss became NaN or infinite."""


class InstallationError(DensevitError, ImportError):
    """Installed packages do not fit each other."""


class StoppedError(DensevitError):
    """A signal stopped the run; what had been reached is saved."""


class ProcessError(DensevitError, RuntimeError):
    """Another process of the run has ended, or answers no more."""


class OutputError(DensevitError, OSError):
    """A file of the run, a log for instance, cannot be written."""
