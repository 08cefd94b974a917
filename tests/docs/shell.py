"""Bash, in which some words are commands that this process answers.

So lines run as a user writes them, with globs, pipes, variables and here-documents, and torch is imported once.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

Answer = Callable[[str, list[str], str], tuple[int, str]]  # word, arguments, what comes in -> code, what goes out
PORT = "DENSEVIT_DOCS_PORT"
CLIENT = f"""#!{sys.executable} -IS
import json, os, socket, sys
word, *arguments = sys.argv
content = sys.stdin.read() if arguments[:1] == ["-"] else ""
with socket.create_connection(("127.0.0.1", int(os.environ["{PORT}"]))) as server:
    server.sendall(json.dumps([os.path.basename(word), arguments, content]).encode() + b"\\n")
    code, text = json.loads(server.makefile().read())
sys.stdout.write(text)
sys.exit(code)
"""
# The number of the line is told where a command fails.
START = 'trap \'echo "exit code $? of line $LINENO"\' ERR; source "$1"'


def run_bash(text: str, folder: Path, words: Sequence[str], answer: Answer) -> tuple[int, str]:
    """Run lines in a folder; return the exit code, of the first that fails, and all that is printed."""
    with (
        tempfile.TemporaryDirectory() as place,
        (Path(place) / "printed").open("w+") as printed,
        socket.create_server(("127.0.0.1", 0)) as server,
    ):
        bin_folder, script = Path(place) / "bin", Path(place) / "script"
        bin_folder.mkdir()
        script.write_text(text)
        for word in words:
            (bin_folder / word).write_text(CLIENT)
            (bin_folder / word).chmod(0o755)
        environment = {
            **os.environ,
            "PATH": f"{bin_folder}:{os.environ['PATH']}",
            PORT: str(server.getsockname()[1]),
        }
        command = ["bash", "-eE", "-o", "pipefail", "-c", START, "bash", str(script)]
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=printed, stderr=subprocess.STDOUT
        )
        try:
            _serve(server, process, answer)
        finally:
            process.kill()
            process.wait()
        printed.seek(0)
        return process.returncode, printed.read()


def _serve(server: socket.socket, process: subprocess.Popen[bytes], answer: Answer) -> None:
    """Answer until the process has ended."""
    server.settimeout(0.02)
    while process.poll() is None:
        try:
            connection, _ = server.accept()
        except TimeoutError:
            continue
        with connection:
            word, arguments, content = json.loads(connection.makefile().readline())
            connection.sendall(json.dumps(answer(word, arguments, content)).encode())
