"""What a run is made with and on: versions, device, commit."""

import os
import platform
import shlex
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import mmengine
import torch
import torchvision

from densevit import __version__


def describe_environment() -> dict[str, Any]:
    """Return, as plain values, by which command a run was started, when, and what it is made with and on."""
    return {
        "command": shlex.join(["python", *sys.argv]),
        "started": datetime.now().isoformat(" ", "seconds"),
        "device": device_name(),
        "versions": versions(),
        "commit": commit_of(Path(__file__).parents[1]),
    }


def versions() -> dict[str, str]:
    """Return the versions of what results may depend on."""
    return {
        "densevit": __version__,
        "torch": str(torch.__version__),
        "torchvision": str(torchvision.__version__),
        "mmengine": mmengine.__version__,
        "Python": platform.python_version(),
    }


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
