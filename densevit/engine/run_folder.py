"""The folder of a run: that a single run at a time trains in it, and how the folders of its logs are called."""

import fcntl
import os
import re
import socket
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from densevit.errors import ConfigError

LOCK = ".lock"
START = re.compile(r"(\d{8}_\d{6})(_\d+)?")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes from training in ``folder``. The lock ends with the process, however that ends.

    Raises:
        ConfigError: One does already, or the folder cannot be written.
    """
    try:
        file = open(folder / LOCK, "a+")  # noqa: SIM115 - closed below
    except OSError as error:
        raise ConfigError(f"cannot write to {folder}: {error.strerror}. Choose another --work-dir") from None
    with file:
        try:
            # Not flock, whose locks pass on to workers, and would outlast a killed run until these have noticed.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.seek(0)
            raise ConfigError(
                f"another run trains in {folder}: {file.read().strip() or 'its process is not known'}. "
                "Wait for its end or stop it, or choose another --work-dir"
            ) from None
        except OSError:  # a file system without locks
            pass
        else:
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            file.flush()
        yield


def name_of_logs(start: str, folder: Path, taken: Collection[str] = ()) -> str:
    """Return ``start``, or else the next name of its kind that sorts after all in ``folder`` and is not ``taken``.

    Names of folders are how curves know which of two starts was the later one, and the clock may have been set back.

    Args:
        start: Time of the start of the run as ``YYYYMMDD_HHMMSS``.
        folder: Work_dir of the run.
        taken: What must not be used either.
    """
    earlier = [name for name in os.listdir(folder) if START.fullmatch(name)] if folder.is_dir() else []
    newest = max(earlier, default="")
    second = max(start, newest[: len(start)])
    names = (second if number == 1 else f"{second}_{number:03d}" for number in count(1))
    return next(name for name in names if name > newest and name not in taken)
