"""How the page is served: to this machine only, without traces, and what stands in the way is said."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from densevit.errors import ConfigError, InstallationError
from densevit.predictor import Predictor

pytest.importorskip("gradio", reason="gradio is not installed")
from starlette.testclient import TestClient

from densevit.commands import demo
from densevit.web.pages.page import build_page, describe, task_page
from densevit.web.server import HOST, listen, make_server, private_folder

API = "/gradio_api"  # below which gradio answers its own page


@pytest.fixture
def client(predictor_of: Callable[[str], Predictor]) -> Any:
    with private_folder():
        page = build_page(predictor_of("segmentation"), "mine", [])
        with TestClient(make_server(page, 1).config.app, base_url=f"http://{HOST}") as client:
            yield client


def test_the_page_asks_browsers_to_ask_no_other_host(client: Any) -> None:
    answer = client.get("/")
    assert answer.status_code == 200
    assert "mine - densevit" in answer.text
    assert answer.headers["content-security-policy"].startswith("default-src 'self'")
    assert "google" not in answer.text
    assert "google" not in client.get("/theme.css").text


def test_only_names_of_this_machine_are_answered(client: Any) -> None:
    assert client.get("/", headers={"host": "localhost:7860"}).status_code == 200
    assert client.get("/", headers={"host": "elsewhere.example"}).status_code == 400


def test_files_of_the_machine_are_not_served(client: Any, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    for path in (secret, Path(__file__), Path.cwd() / "README.md"):
        assert client.get(f"{API}/file={path}").status_code in (403, 404)


def test_a_file_that_is_too_large_is_refused(client: Any) -> None:
    codes = [
        client.post(f"{API}/upload", files={"files": ("a.png", bytes(size))}).status_code for size in (1000, 2 << 20)
    ]
    assert codes == [200, 413]


def test_what_is_uploaded_goes_when_the_server_ends() -> None:
    before = tempfile.gettempdir()
    with private_folder() as folder:
        assert Path(tempfile.mkdtemp()).parent == folder == Path(os.environ["GRADIO_TEMP_DIR"])
    assert not folder.exists()
    assert tempfile.gettempdir() == before
    assert "GRADIO_TEMP_DIR" not in os.environ


def test_a_port_in_use_is_said() -> None:
    with listen(0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"port {port} of 127\.0\.0\.1: Address already in use.*--port"):
            listen(port)
    listen(port).close()
    with pytest.raises(ConfigError, match="there is no such port"):
        listen(70000)


def test_lack_of_gradio_and_options_that_make_no_sense_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for lacking in (None, SimpleNamespace()):  # and what an uninstallation may leave: an empty folder
        monkeypatch.setitem(sys.modules, "gradio", lacking)
        with pytest.raises(InstallationError, match=r'pip install "densevit\[web\]"'):
            demo.main(SimpleNamespace(max_mb=1))  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "gradio", SimpleNamespace(__version__="6.16.0"))
    with pytest.raises(InstallationError, match=r"gradio 6\.16\.0 is too old for the page, which needs 6\.31"):
        demo.main(SimpleNamespace(max_mb=1))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="--max-mb must be positive, not 0"):
        demo.main(SimpleNamespace(max_mb=0))  # type: ignore[arg-type]


def test_the_page_says_what_the_model_is(predictor_of: Callable[[str], Predictor]) -> None:
    assert describe(predictor_of("video")) == ("TimeSformer with VideoHead · 334,532 parameters · 4 classes · on cpu")


def test_volumes_of_several_files_are_refused_at_the_start(predictor_of: Callable[[str], Predictor]) -> None:
    predictor = predictor_of("volume")
    predictor.model.backbone.in_channels = 4  # type: ignore[assignment]
    with pytest.raises(ConfigError, match="volumes of 4 files"):
        task_page(predictor)


def heed_ctrl_c() -> None:
    """Undo that SIGINT is ignored, as it is by all that a shell without a terminal starts in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_command_and_its_folder(
    number: int, code: int, predictor_of: Callable[[str], Predictor], tmp_path: Path
) -> None:
    predictor_of("segmentation")
    folder, log = tmp_path / "temporary", tmp_path / "log"
    folder.mkdir()
    arguments = [
        sys.executable,
        "-m",
        "densevit",
        "demo",
        "--model",
        str(tmp_path / "runs" / "segmentation"),
        "--port",
        "0",
    ]
    with log.open("w") as file:
        process = subprocess.Popen(
            arguments,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": str(folder)},
            preexec_fn=heed_ctrl_c,
        )
    try:
        until = time.monotonic() + 90
        while "Ctrl-C ends it" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until
            time.sleep(0.2)
        port = int(log.read_text().split(f"http://{HOST}:")[1].split()[0])
        socket.create_connection((HOST, port)).close()
        assert len(list(folder.glob("densevit_demo_*"))) == 1
        process.send_signal(number)
        assert process.wait(20) == code
    finally:
        process.kill()
    assert "Traceback" not in log.read_text()
    assert not list(folder.glob("densevit_demo_*"))
