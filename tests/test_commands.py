"""The command ``densevit``, and that the scripts in tools/ are the same commands."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import densevit
from densevit import diagnosis
from densevit.commands import COMMANDS, command, main, run
from densevit.diagnosis import Finding

ROOT = Path(__file__).parents[1]
OTHER_NAMES = {"browse-data": "browse_dataset", "info": "model_info", "publish": "publish_model"}
IN_THE_PACKAGE_ONLY = {"bench", "demo", "doctor"}


def test_the_commands_are_the_modules_and_each_takes_options() -> None:
    modules = {path.stem.replace("_", "-") for path in (ROOT / "densevit/commands").glob("[a-z]*.py")}
    assert modules == COMMANDS.keys()
    for name in COMMANDS:
        parser, _ = command(name, f"densevit {name}")
        assert parser.format_help().startswith(f"usage: densevit {name}")


def test_each_tool_is_a_command() -> None:
    tools = {path.stem: path.read_text() for path in (ROOT / "tools").glob("*.py")}
    expected = {OTHER_NAMES.get(name, name.replace("-", "_")): name for name in COMMANDS.keys() - IN_THE_PACKAGE_ONLY}
    assert {stem: re.search(r'run\("(.+)"\)', text)[1] for stem, text in tools.items()} == expected  # type: ignore[index]
    assert len({re.sub('".*?"|``.*?``', "", text) for text in tools.values()}) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--version"], 0, f"densevit {densevit.__version__}"),
        (["--help"], 0, "plot-features "),
        ([], 2, "plot-features "),
        (["tain"], 2, "error: no command 'tain'. Did you mean 'train'?"),
        (["xyz"], 2, "error: no command 'xyz'. densevit --help lists them"),
        (["list-models", "zzz"], 2, "error: no backbone is called 'zzz'"),
        (["train", "--help"], 0, "usage: densevit train"),
        (["test", "CONFIG"], 2, "error: give either a CHECKPOINT or --from-json FILE"),
    ],
)
def test_what_is_typed_is_called_or_told(  # type: ignore[no-untyped-def]
    arguments: list[str], code: int, said: str, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["densevit", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == code
    assert said in "".join(capsys.readouterr())


def test_options_may_stand_between_the_other_arguments() -> None:
    args = command("test", "")[0].parse_intermixed_args(["CONFIG", "--out", "masks", "CHECKPOINT"])
    assert (args.config, args.checkpoint, args.out) == ("CONFIG", "CHECKPOINT", "masks")


def test_a_model_is_timed(capsys) -> None:  # type: ignore[no-untyped-def]
    run("bench", ["mit_b0", "--size", "64", "64", "--batch-size", "2", "--repeats", "1"])
    out = capsys.readouterr().out
    assert "2 x 3 x 64 x 64" in out
    assert re.search(r"evaluation +[\d.]+ +[\d.]+ +-", out)
    assert "forward and backward" in out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--size", "64"], "--size has 1 numbers, but mit_b0 reads 2"),
        (["--repeats", "0"], "--batch-size and --repeats must be positive"),
        (["--device", "tpu7"], "no device 'tpu7': there is cpu"),
    ],
)
def test_what_cannot_be_timed_is_told(options: list[str], said: str, capsys) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(SystemExit) as end:
        run("bench", ["mit_b0", *options])
    assert end.value.code == 2
    assert said in capsys.readouterr().err


def test_the_doctor_finds_this_environment_well(capsys) -> None:  # type: ignore[no-untyped-def]
    found = {finding.name: finding for findings in diagnosis.diagnose().values() for finding in findings}
    assert {"Python", "torch", "torch and torchvision", "CPU", "images", "videos, read", "disk"} <= found.keys()
    for name in ("torch", "monai", "torch and torchvision", "images"):
        assert found[name].mend == ""
    assert "h264" in found["videos, read"].found


def test_the_doctor_says_what_to_mend_and_ends_with_1(  # type: ignore[no-untyped-def]
    capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diagnosis, "diagnose", lambda: {"packages": [Finding("torch", "1.0", "pip install -U torch")]})
    with pytest.raises(SystemExit) as end:
        run("doctor", [])
    assert end.value.code == 1
    assert "to mend: torch: 1.0\n  pip install -U torch" in capsys.readouterr().out


@pytest.mark.slow
def test_the_doctor_works_where_packages_are_broken_or_missing(tmp_path: Path) -> None:
    broken = {
        "torchvision": "raise RuntimeError('operator torchvision::nms does not exist')",
        "cv2": "import no_such_part",
    }
    for name, code in broken.items():
        (tmp_path / f"{name}.py").write_text(code)
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "WORLD_SIZE": "2"}
    done = subprocess.run(
        [sys.executable, "-m", "densevit", "doctor"], capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert done.returncode == 1, done.stderr
    told = " ".join(done.stdout.split("to mend:", 1)[1].split())
    assert "operator torchvision::nms does not exist torchvision must be the release made for this torch" in told
    assert "No module named 'no_such_part' pip install -U opencv-python" in told
    assert told.index("opencv-python") < told.index("mmcv-lite")
    assert "unset LOCAL_RANK RANK WORLD_SIZE" in told
