"""Options that commands share, and the config that they change."""

import argparse
import os
import tempfile
from pathlib import Path

from mmengine.config import Config, DictAction

from densevit.engine.config import load_config
from densevit.errors import ConfigError


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Add the config and what may be changed in it from the command line."""
    parser.add_argument("config", help="a file, or the name of one in configs/, such as segformer_b0_ade20k")
    parser.add_argument("--data-root", help="folder of the data, in place of the config's")
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=DictAction,
        default={},
        metavar="KEY=VALUE",
        help='set dotted keys, e.g. optim_wrapper.optimizer.lr=1e-4 model.head.class_weights="[1,2]"',
    )


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add what training and testing share."""
    parser.add_argument("--work-dir", help="where everything is written (work_dirs/CONFIG)")
    parser.add_argument(
        "--amp", action=argparse.BooleanOptionalAction, help="bf16 autocast (default: where the device has it)"
    )
    parser.add_argument("--compile", action="store_true", help="torch.compile the backbone")
    parser.add_argument(
        "--check-data", choices=("sample", "all", "off"), help="look at some, all or no files before the run"
    )
    parser.add_argument(
        "--launcher",
        choices=("none", "pytorch", "slurm", "mpi"),
        default="none",
        help="who has started the processes (none; torchrun is known by itself)",
    )


def config_from(args: argparse.Namespace) -> Config:
    """Load the config with the changes of the command line.

    Raises:
        ConfigError: The config is wrong, or the work_dir cannot be written.
    """
    cfg = load_config(args.config, args.cfg_options)
    if args.data_root is not None:
        for split in ("train", "val", "test"):
            if cfg.get(f"{split}_dataloader"):
                cfg[f"{split}_dataloader"].dataset.data_root = args.data_root
    if "work_dir" in args:
        cfg.work_dir = args.work_dir or cfg.get("work_dir") or str(Path("work_dirs") / Path(args.config).stem)
        _check_writable(Path(cfg.work_dir))
        # torchrun says by the environment that there are several processes
        cfg.launcher = "pytorch" if args.launcher == "none" and "LOCAL_RANK" in os.environ else args.launcher
        if args.check_data is not None:
            cfg.check_data = args.check_data
        if args.amp is not None:
            cfg.model.precision = "bf16" if args.amp else "fp32"
        if args.compile:
            cfg.model.compile = cfg.model.get("compile") or True
    return cfg


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):  # a name of its own: all ranks try at once
            pass
    except OSError as error:
        raise ConfigError(f"cannot write to {folder}: {error.strerror}. Choose another --work-dir") from None
