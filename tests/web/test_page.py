"""The page as people use it, in a browser, for each task. Screenshots go to $SCREENSHOTS, where that is set."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from densevit.data.motion import draw_clip
from densevit.data.video_writing import write_video
from densevit.predictor import Predictor

pytest.importorskip("gradio", reason="gradio is not installed")

from densevit.web.examples import generated_examples
from densevit.web.pages.page import build_page
from densevit.web.server import HOST, listen, make_server, private_folder

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: install one, or name it in the environment as CHROMIUM"),
]
PATIENCE = 60_000  # milliseconds
MAX_MB = 1
PREDICTED = "mine.*(reading|model) "  # what the page says of an upload when it is done


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def served(predictor: Predictor) -> Iterator[str]:
    """Serve the page of a model, and give its address."""
    with listen(0) as listener, private_folder() as folder:
        page = build_page(predictor, "mine", generated_examples(predictor, folder / "examples"))
        server = make_server(page, MAX_MB)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://{HOST}:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(30)


@pytest.fixture
def opened(browser: Any, predictor_of: Callable[[str], Predictor], request: pytest.FixtureRequest) -> Iterator[Any]:
    """Return the page of the task that the test names, which must ask no other host, and say nothing of errors."""
    with served(predictor_of(request.param)) as url:
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(PATIENCE)
        asked, failures = set(), []
        page.on("request", lambda sent: asked.add((urlsplit(sent.url).scheme, urlsplit(sent.url).hostname)))
        page.on("pageerror", lambda error: failures.append(str(error)))
        page.on("console", lambda line: failures.append(line.text) if line.type == "error" else None)
        page.goto(url)
        page.wait_for_selector("#examples .thumbnail-item")
        yield page
        page.close()
    assert {host for scheme, host in asked if scheme not in ("data", "blob")} == {HOST}
    assert failures == []


def upload(page: Any, path: Path, says: str = PREDICTED) -> str:
    """Upload a file, and return what the page says of it."""
    status, clear = page.locator("#status"), page.locator("#upload").get_by_label("Clear")
    if clear.count():
        clear.click()
        sync_api.expect(status).to_contain_text("choose an example")
    page.set_input_files("#upload input[type=file]", path)
    sync_api.expect(status).to_have_text(re.compile(says), timeout=PATIENCE)
    return str(status.inner_text())


def shown(page: Any, where: str = "#picture") -> bytes:
    """Return the picture that is shown, as a file."""
    page.wait_for_function(f"document.querySelector('{where} img')?.naturalWidth > 0")
    return bytes(page.request.get(page.locator(f"{where} img").get_attribute("src")).body())


def changed(page: Any, before: bytes, where: str = "#picture") -> bytes:
    """Wait until another picture is shown, and return it."""
    for _ in range(100):
        if (now := shown(page, where)) != before:
            return now
        page.wait_for_timeout(100)
    raise AssertionError("the picture stays as it is")


def slide(page: Any, label: str, value: float) -> None:
    """Type the value of a slider."""
    field = page.get_by_label(f"number input for {label}")
    field.fill(str(value))
    field.press("Enter")


def downloaded(page: Any, folder: Path) -> Path:
    with page.expect_download() as download:
        page.click("#download")
    path = folder / str(download.value.suggested_filename)
    download.value.save_as(path)
    return path


def keep(page: Any, name: str) -> None:
    """Write screenshots of a wide, a narrow and a dark page."""
    if folder := os.environ.get("SCREENSHOTS"):
        for look, width, scheme in (("wide", 1280, "light"), ("narrow", 420, "light"), ("dark", 1280, "dark")):
            page.set_viewport_size({"width": width, "height": 900})
            page.evaluate(f"document.body.classList.toggle('dark', {str(scheme == 'dark').lower()})")
            page.wait_for_timeout(500)
            page.screenshot(path=Path(folder, f"{name}_{look}.png"), full_page=True)


def fits(page: Any) -> bool:
    """Say whether nothing sticks out of a narrow page."""
    page.set_viewport_size({"width": 420, "height": 900})
    page.wait_for_timeout(300)
    return bool(page.evaluate("document.documentElement.scrollWidth <= 420"))


@pytest.mark.parametrize("opened", ["segmentation"], indirect=True)
def test_segmentation_shows_classes_and_keeps_the_mask(
    opened: Any, input_of: Callable[[str], Path], tmp_path: Path
) -> None:
    assert "160 x 128 pixels" in upload(opened, input_of("segmentation"))
    coloured = shown(opened)
    assert "<segmentation>" in opened.inner_text("#legend")
    mask = np.asarray(Image.open(downloaded(opened, tmp_path)))
    assert mask.shape == (128, 160)
    keep(opened, "segmentation")
    slide(opened, "Opacity of the classes", 0)
    changed(opened, coloured)
    assert fits(opened)


@pytest.mark.parametrize("opened", ["detection"], indirect=True)
def test_detection_shows_objects_from_a_score_on(opened: Any, input_of: Callable[[str], Path], tmp_path: Path) -> None:
    upload(opened, input_of("detection"))
    few = shown(opened)
    slide(opened, "Objects from this score on", 0.01)
    changed(opened, few)
    rows = opened.locator("#objects tbody tr")
    sync_api.expect(rows.first).to_contain_text("<detection>")
    keep(opened, "detection")
    slide(opened, "Objects from this score on", 1)
    sync_api.expect(opened.locator("#objects")).to_contain_text("No object has a score of 1.00")
    assert downloaded(opened, tmp_path).name == "mine.json"
    assert fits(opened)


@pytest.mark.parametrize("opened", ["classification"], indirect=True)
def test_classification_shows_the_most_probable_classes(opened: Any, input_of: Callable[[str], Path]) -> None:
    upload(opened, input_of("classification"))
    shown(opened)
    assert opened.inner_text("#scores").count("<classification>") == 6  # the first is the heading, too
    keep(opened, "classification")
    assert fits(opened)


@pytest.mark.parametrize("opened", ["video"], indirect=True)
def test_a_video_is_shown_with_its_classes_over_time(
    opened: Any, input_of: Callable[[str], Path], tmp_path: Path
) -> None:
    assert "2.1 seconds" in upload(opened, input_of("video"))
    shown(opened, "#timeline")
    opened.wait_for_function("document.querySelector('#video video')?.readyState >= 2")
    assert opened.evaluate("document.querySelector('#video video').duration") == pytest.approx(32 / 15, abs=0.1)
    assert opened.locator("#segments tbody tr").count()
    assert "windows" in downloaded(opened, tmp_path).read_text()
    keep(opened, "video")
    opened.get_by_label("Over time").click()
    sync_api.expect(opened.locator("#segments")).to_contain_text("classified as a whole")
    assert fits(opened)


@pytest.mark.parametrize("opened", ["volume"], indirect=True)
def test_a_volume_is_shown_slice_by_slice(opened: Any, input_of: Callable[[str], Path], tmp_path: Path) -> None:
    assert "voxels of" in upload(opened, input_of("volume"))
    axial = shown(opened)
    assert opened.locator("#volumes tbody tr").count()
    slide(opened, "Slice", 2)
    second = changed(opened, axial)
    opened.get_by_label("sagittal").click()
    changed(opened, second)
    assert downloaded(opened, tmp_path).name == "mine.nii.gz"
    keep(opened, "volume")
    assert fits(opened)


@pytest.mark.parametrize("opened", ["segmentation"], indirect=True)
def test_files_that_cannot_be_used_are_named_and_the_page_goes_on(
    opened: Any, input_of: Callable[[str], Path], tmp_path: Path
) -> None:
    good = input_of("segmentation")
    bad = {
        "empty.png": (b"", r"empty\.png: an empty file"),
        "notes.txt": (b"notes", r"notes\.txt: not an image"),
        "cut.png": (good.read_bytes()[:900], r"cut\.png: damaged"),
    }
    for name, (content, says) in bad.items():
        upload(opened, good)
        shown(opened)
        (tmp_path / name).write_bytes(content)
        told = upload(opened, tmp_path / name, says)
        assert str(tmp_path) not in told
        assert opened.locator("#picture img").count() == 0  # that of another file is gone
        assert opened.locator("#status [role=alert]").count() == 1
    keep(opened, "error")
    opened.locator("#upload").get_by_label("Clear").click()
    (tmp_path / "huge.png").write_bytes(bytes(MAX_MB * 2**20 + 1))
    opened.set_input_files("#upload input[type=file]", tmp_path / "huge.png")
    sync_api.expect(opened.locator(".toast-body")).to_contain_text("exceed the maximum allowed size")
    opened.locator("#examples .thumbnail-item").nth(1).click()
    sync_api.expect(opened.locator("#status")).to_contain_text("landscape_2.png: 160 x 128 pixels")


def test_the_command_does_not_wait_for_a_prediction_that_runs(
    browser: Any, predictor_of: Callable[[str], Predictor], tmp_path: Path
) -> None:
    predictor_of("video")
    clip = draw_clip(np.random.default_rng(0), 0)
    write_video(tmp_path / "long.mp4", (frame for _ in range(400) for frame in clip), 15)
    arguments = ["--model", str(tmp_path / "runs" / "video"), "--port", "0"]
    with (tmp_path / "log").open("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "densevit", "demo", *arguments],
            stdout=log,
            stderr=log,
            # it may be ignored here, as by all that a shell without a terminal starts in the background
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        try:
            while not (address := re.search(r"http://\S+", (tmp_path / "log").read_text())):
                assert process.poll() is None
                time.sleep(0.2)
            page = browser.new_page()
            page.goto(address[0])
            page.set_input_files("#upload input[type=file]", tmp_path / "long.mp4")
            sync_api.expect(page.locator("#status")).to_contain_text("long.mp4 - ", timeout=PATIENCE)  # its progress
            process.send_signal(signal.SIGINT)
            assert process.wait(10) == 0
            page.close()
        finally:
            process.kill()
    assert not re.search("Traceback|ERROR", (tmp_path / "log").read_text())
