"""What a run is made with and on: versions, device, commit."""

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import mmengine
import torch
import torchvision

from densevit import __version__
from densevit.errors import ConfigError


def describe_environment() -> dict[str, Any]:
    """Return, as plain values, by which command a run was started, when, and what it is made with and on."""
    return {
        "command": shlex.join(command()),
        "started": datetime.now().isoformat(" ", "seconds"),
        "device": device_name(),
        "versions": versions(),
        "commit": commit_of(Path(__file__).parents[1]),
    }


def command() -> list[str]:
    """Return the command that runs, as it is typed."""
    program = Path(sys.argv[0])
    if program.name == "__main__.py":
        return ["python", "-m", program.parent.name, *sys.argv[1:]]
    return [program.name, *sys.argv[1:]] if program.suffix != ".py" else ["python", *sys.argv]


def versions() -> dict[str, str]:
    """Return the versions of what results may depend on."""
    return {
        "densevit": __version__,
        "torch": str(torch.__version__),
        "torchvision": str(torchvision.__version__),
        "mmengine": mmengine.__version__,
        "Python": platform.python_version(),
    }


def choose_device(name: str | torch.device | None) -> torch.device:
    """Return a device, by default the GPU if there is one.

    Raises:
        ConfigError: There is no such device.
    """
    there = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    device = torch.device("cuda" if len(there) > 1 else "cpu") if name is None else _parse(name, there)
    if device.type == "cuda" and f"cuda:{device.index or 0}" not in there:
        raise ConfigError(f"no device {device}: there is {', '.join(there)}. densevit doctor says more")
    return device


def _parse(name: str | torch.device, there: Sequence[str]) -> torch.device:
    try:
        return torch.device(name)
    except RuntimeError:
        raise ConfigError(f"no device {name!r}: there is {', '.join(there)}") from None


def device_name() -> str:
    """Return the GPU, or the number of threads and cores of the CPU."""
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}"
    return f"CPU, {torch.get_num_threads()} threads on {os.cpu_count()} cores ({platform.machine()})"


def commit_of(folder: Path) -> str | None:
    """Return the commit that a folder is checked out at, "-dirty" if it differs; None where git knows no such thing."""
    git = ["git", "-C", str(folder)]
    try:
        tracked = subprocess.run([*git, "ls-files", "__init__.py"], capture_output=True, text=True, check=True)
        if not tracked.stdout:  # installed somewhere within another repository
            return None
        describe = [*git, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        return subprocess.run(describe, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
