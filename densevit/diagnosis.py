"""What is installed here and what it can do, for people who look for the reason of a failure.

Everything is tried on its own, and nothing of densevit that needs torch is imported: what is broken is to be told.
"""

import importlib
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from densevit import __version__

GIB = 2**30
SHARED_MEMORY = 2 * GIB  # below it, workers that hand over batches of large images end by a "bus error"
DISK = 5 * GIB
IMPORTS = {
    "faster-coco-eval": "faster_coco_eval",
    "mmcv-lite": "mmcv",
    "opencv-python": "cv2",
    "pillow": "PIL",
    "scikit-learn": "sklearn",
}
PAIR = "torchvision must be the release made for this torch: pip install -U torch torchvision"


@dataclass(frozen=True)
class Finding:
    """One line of the diagnosis.

    Attributes:
        name: What was looked at.
        found: What it is.
        mend: What to do about it, "" if it is well.
    """

    name: str
    found: str
    mend: str = ""


def diagnose() -> dict[str, list[Finding]]:
    """Return what was found, by title."""
    parts: dict[str, Callable[[], Iterator[Finding]]] = {
        "packages": packages,
        "devices": devices,
        "codecs": codecs,
        "machine": machine,
    }
    return {title: list(part()) for title, part in parts.items()}


def packages() -> Iterator[Finding]:
    """Yield Python, this package, those that it needs, and the extras, with the versions that are there."""
    yield Finding("Python", f"{platform.python_version()} on {platform.platform()}")
    yield Finding("densevit", f"{__version__} in {Path(__file__).parent}")
    try:
        requirements = [Requirement(text) for text in metadata.requires("densevit") or ()]
    except metadata.PackageNotFoundError:
        yield Finding("installation", "none: found by the path only", "pip install -e . in the checkout")
        return
    needed = [r for r in requirements if "extra ==" not in str(r.marker) and (not r.marker or r.marker.evaluate())]
    for requirement in needed:
        yield _package(requirement)
    yield _pair()
    for extra in ("export", "plots", "timm", "web"):
        parts = [r for r in requirements if r.marker and f'extra == "{extra}"' in str(r.marker)]
        lacking = [r.name for r in parts if _package(r).mend]
        found = f'lacks {", ".join(lacking)}; if wanted: pip install "densevit[{extra}]"' if lacking else "installed"
        yield Finding(f"extra {extra}", found)


def _package(requirement: Requirement) -> Finding:
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return Finding(requirement.name, "missing", f'pip install "{requirement}"')
    if not requirement.specifier.contains(version, prereleases=True):
        return Finding(requirement.name, version, f'pip install -U "{requirement.name}{requirement.specifier}"')
    module = IMPORTS.get(requirement.name, requirement.name)
    if error := _import_error(module):
        mend = "apt install libgl1 libglib2.0-0, or pip install opencv-python-headless" if "libGL" in error else ""
        return Finding(requirement.name, f"{version}, broken: {error}", mend or f"pip install -U {requirement.name}")
    return Finding(requirement.name, version)


def _import_error(module: str) -> str:
    """Return why a module cannot be imported, in one line; torchvision's reasons are those of `_pair`."""
    if module == "torchvision":
        return ""
    try:
        importlib.import_module(module)
    except Exception as error:  # whatever it is: it is told
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return ""


def _pair() -> Finding:
    """Try an operator of torchvision that is compiled against torch."""
    try:
        import torch
        import torchvision

        torchvision.ops.nms(torch.tensor([[0.0, 0, 1, 1]]), torch.ones(1), 0.5)
    except Exception as error:
        return Finding("torch and torchvision", f"do not match: {error}".splitlines()[0], PAIR)
    return Finding("torch and torchvision", "match")


def devices() -> Iterator[Finding]:
    """Yield the CPU and the GPUs, with what they have for bf16."""
    try:
        import torch
    except Exception:  # told among the packages
        return
    flags = Path("/proc/cpuinfo")
    amx = flags.exists() and "amx_bf16" in flags.read_text()
    yield Finding("CPU", f"{platform.machine()}, {cores()} cores, bf16 {'fast (AMX)' if amx else 'not used'}")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            gpu = torch.cuda.get_device_properties(index)
            bf16 = "fast" if (gpu.major, gpu.minor) >= (8, 0) else "not used"
            yield Finding(f"GPU {index}", f"{gpu.name}, {gpu.total_memory / GIB:.0f} GiB, bf16 {bf16}")
        yield Finding("CUDA", f"{torch.version.cuda}, NCCL {'yes' if torch.distributed.is_nccl_available() else 'no'}")
    elif shutil.which("nvidia-smi") and torch.version.cuda is None:
        yield Finding("GPU", "this torch is built for CPUs only", "pip install -U torch torchvision")
    elif shutil.which("nvidia-smi"):
        mend = f"update the driver to one for CUDA {torch.version.cuda}, or see what nvidia-smi says"
        yield Finding("GPU", "torch finds none, though there is nvidia-smi", mend)
    else:
        yield Finding("GPU", "none")
    compiler = os.environ.get("CXX", "g++")
    found = shutil.which(compiler) or "none: --compile needs one on the CPU, nothing else does"
    yield Finding("C++ compiler", found)


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def codecs() -> Iterator[Finding]:
    """Yield what kinds of images and videos are read and written."""
    try:
        from PIL import features

        kinds = {name: features.check(key) for name, key in (("JPEG", "jpg"), ("PNG", "zlib"), ("WebP", "webp"))}
        lacking = [name for name, there in kinds.items() if not there]
        found = ", ".join(name for name, there in kinds.items() if there)
        yield Finding("images", found, "pip install -U pillow" if lacking else "")
        import av

        names = ("h264", "hevc", "vp9", "av1", "mpeg4")
        yield Finding("videos, read", ", ".join(name for name in names if _has_codec(av, name, "r")))
        written = _has_codec(av, "libx264", "w")
        yield Finding("videos, written", "h264" if written else "none", "" if written else "pip install -U av")
    except ImportError:  # told among the packages
        return


def _has_codec(av: Any, name: str, mode: str) -> bool:
    try:
        av.Codec(name, mode)
    except Exception:  # of PyAV, whose class moved from one release to another
        return False
    return True


def machine() -> Iterator[Finding]:
    """Yield memory, disk, and what in the environment changes how runs start."""
    shared = Path("/dev/shm")
    if shared.exists():
        free = shutil.disk_usage(shared).free
        mend = "" if free >= SHARED_MEMORY else "docker run --shm-size 8g, or train_dataloader.num_workers=0"
        yield Finding("shared memory", f"{free / GIB:.1f} GiB free in {shared}", mend)
    free = shutil.disk_usage(Path.cwd()).free
    yield Finding("disk", f"{free / GIB:.0f} GiB free here", "" if free >= DISK else "free some before a long run")
    if "LOCAL_RANK" in os.environ or int(os.environ.get("WORLD_SIZE", 1)) > 1:
        mend = "unset LOCAL_RANK RANK WORLD_SIZE, unless this is meant to be one of several processes"
        yield Finding("environment", "says that this is one of several processes", mend)
    if threads := os.environ.get("OMP_NUM_THREADS"):
        yield Finding("OMP_NUM_THREADS", threads)
