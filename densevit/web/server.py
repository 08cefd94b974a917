"""Serves the page to this machine only."""

import os
import signal
import socket
import tempfile
import threading
import webbrowser
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr
import uvicorn
from fastapi import FastAPI
from starlette.middleware.trustedhost import TrustedHostMiddleware

from densevit.errors import ConfigError

HOST = "127.0.0.1"
NAMES = [HOST, "localhost"]  # by which a browser may ask for it: no other page reaches it by a name of its own
FONTS = ["system-ui", "sans-serif"]  # gradio's own are on another host
STYLE = Path(__file__).parent / "pages" / "style.css"
POLICY = (  # the browser asks no other host, whatever the page says
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; frame-ancestors 'self'"
)

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


def listen(port: int) -> socket.socket:
    """Return a socket on a port of this machine; 0 is any that is free.

    Raises:
        ConfigError: The port is in use or not to be had.
    """
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
    except (OSError, OverflowError) as error:
        listener.close()
        reason = error.strerror if isinstance(error, OSError) else "there is no such port"
        raise ConfigError(f"port {port} of {HOST}: {reason}. Choose another --port, or 0 for a free one") from error
    listener.listen()
    return listener


@contextmanager
def private_folder() -> Iterator[Path]:
    """Have gradio and `tempfile` write to a folder that is removed at the end."""
    before, kept = tempfile.tempdir, os.environ.get("GRADIO_TEMP_DIR")
    with tempfile.TemporaryDirectory(prefix="densevit_demo_", ignore_cleanup_errors=True) as folder:
        os.environ["GRADIO_TEMP_DIR"] = tempfile.tempdir = folder
        try:
            yield Path(folder)
        finally:
            tempfile.tempdir = before
            if kept is None:
                del os.environ["GRADIO_TEMP_DIR"]
            else:
                os.environ["GRADIO_TEMP_DIR"] = kept


def make_server(page: gr.Blocks, max_mb: float) -> uvicorn.Server:
    """Return what serves a page.

    Args:
        page: From `build_page`.
        max_mb: Megabytes of the largest file that may be uploaded.
    """
    theme = gr.themes.Default(font=FONTS, font_mono=["monospace"])
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(OwnHostOnly)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=NAMES)
    app = gr.mount_gradio_app(
        app,
        page,
        "/",
        server_name=HOST,
        footer_links=[],
        show_error=False,
        max_file_size=round(max_mb * 2**20),
        ssr_mode=False,
        mcp_server=False,
        theme=theme,
        css=STYLE.read_text(encoding="utf-8"),
    )
    return uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))


def serve(page: gr.Blocks, listener: socket.socket, max_mb: float, show: bool) -> int:
    """Serve a page until Ctrl-C or SIGTERM, and return the exit code; server and predictions may still run then.

    Args:
        page: From `build_page`.
        listener: From `listen`.
        max_mb: Megabytes of the largest file that may be uploaded.
        show: Open it in the browser.
    """
    server, ended = make_server(page, max_mb), threading.Event()

    def work() -> None:
        try:
            server.run(sockets=[listener])
        finally:
            ended.set()

    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        # uvicorn waits for predictions, however long they take: signals go to this thread, and it runs in another
        threading.Thread(target=work, daemon=True).start()
        url = f"http://{HOST}:{listener.getsockname()[1]}"
        print(f"{url}  (Ctrl-C ends it)", flush=True)
        if show:
            webbrowser.open(url)
        while not ended.wait(1):
            pass
    except KeyboardInterrupt:
        print("\nended", flush=True)
        return 0
    except _TerminatedError:
        return 128 + signal.SIGTERM
    finally:
        signal.signal(signal.SIGTERM, before)
    return 1  # the server has failed, and said how


class _TerminatedError(Exception):
    """SIGTERM has come."""


def _terminate(number: int, frame: Any) -> None:
    raise _TerminatedError


class OwnHostOnly:
    """Tells browsers, with every answer, to ask no other host."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Send) -> None:
        """Handle a request as ASGI has it."""

        async def with_policy(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", POLICY.encode())]
            await send(message)

        await self.app(scope, receive, with_policy)
