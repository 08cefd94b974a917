"""Try a trained model on a page in the browser: densevit demo --model work_dirs/mine.

Only this machine can open the page; docs/web.md says how to reach it from another one.
"""

import argparse
import os
import sys
from pathlib import Path

from densevit.errors import ConfigError, InstallationError

OLDEST = (6, 31)  # of gradio: pages of some before have the browser ask other hosts


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("--model", required=True, help="folder of a run, a checkpoint, or official weights")
    parser.add_argument("--config", help="for weights that carry none: a file, or the name of one in configs/")
    parser.add_argument("--port", type=int, default=7860, help="0 is any free one (7860)")
    parser.add_argument("--device", help="cpu or cuda")
    parser.add_argument(
        "--examples", nargs="+", metavar="FILE_OR_FOLDER", help="inputs to try (without: a few generated ones)"
    )
    parser.add_argument("--max-mb", type=float, default=200, help="size of the largest file to upload (200)")
    parser.add_argument("--open", action="store_true", help="open the page in the browser")


def main(args: argparse.Namespace) -> None:
    """Serve the page until Ctrl-C.

    Raises:
        InstallationError: gradio is not installed, or too old.
        ConfigError: The port is in use, or an option makes no sense.
    """
    for name in ("GRADIO_ANALYTICS_ENABLED", "GRADIO_RUN_HISTORY"):  # before gradio is imported, which reads them
        os.environ[name] = "False"
    os.environ["HF_HUB_OFFLINE"] = "1"
    if args.max_mb <= 0:
        raise ConfigError(f"--max-mb must be positive, not {args.max_mb:g}")
    _check_gradio()
    from densevit.loading import load
    from densevit.web.examples import generated_examples, given_examples
    from densevit.web.pages.page import build_page
    from densevit.web.server import listen, private_folder, serve

    with listen(args.port) as listener, private_folder() as folder:  # before the model, which takes longer
        predictor = load(args.model, args.config, args.device)
        name = Path(args.model).resolve().name
        examples = (
            given_examples(predictor, args.examples)
            if args.examples
            else generated_examples(predictor, folder / "examples")
        )
        code = serve(build_page(predictor, name, examples), listener, args.max_mb, args.open)
    sys.stdout.flush()
    os._exit(code)  # at once: a prediction that still runs in a thread would be waited for, or abort the process


def _check_gradio() -> None:
    try:
        import gradio

        found = gradio.__version__  # a folder that an uninstallation has left behind has none
    except (ImportError, AttributeError) as error:
        raise InstallationError(f'the page needs gradio ({error}). Install it: pip install "densevit[web]"') from error
    if tuple(map(int, found.split(".")[:2])) < OLDEST:
        raise InstallationError(
            f"gradio {found} is too old for the page, which needs {OLDEST[0]}.{OLDEST[1]}. "
            'Mend it: pip install -U "densevit[web]"'
        )
