"""The installed package works outside of a checkout."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
USE = """
import densevit
from densevit.engine.config import load_config
from densevit.registry import MODELS

print(densevit.__file__)
cfg = load_config("demo/segformer_b0_shapes")
model = MODELS.build(cfg.model)
print(type(model.backbone).__name__, type(model.head).__module__)
"""


@pytest.mark.slow
def test_a_wheel_has_tasks_and_configs_and_works_alone(tmp_path: Path) -> None:
    source, wheels, installed = tmp_path / "source", tmp_path / "wheels", tmp_path / "installed"
    source.mkdir()
    for name in ("densevit", "tasks", "configs"):  # a build writes into its source
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-w",
        wheels,
        source,
    ]
    done = subprocess.run(list(map(str, build)), capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = wheels.iterdir()
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    shutil.unpack_archive(wheel, installed, "zip")
    for folder in ("densevit", "tasks", "configs"):
        files = {p.relative_to(ROOT) for p in (ROOT / folder).rglob("*.py") if folder != "densevit" or p.is_file()}
        expected = {p.as_posix() if folder == "densevit" else f"densevit/{p.as_posix()}" for p in files}
        assert expected <= names
    assert {"densevit/py.typed", "densevit/web/pages/style.css"} <= names
    assert {name.split("/")[0] for name in names} == {"densevit", wheel.name.split("-py3")[0] + ".dist-info"}

    (tmp_path / "elsewhere").mkdir()
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    run = [sys.executable, "-c", USE]
    done = subprocess.run(run, capture_output=True, text=True, cwd=tmp_path / "elsewhere", env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        str(installed / "densevit/__init__.py"),
        "MiT densevit.tasks.segmentation.segformer_head",
    ]
