"""Test a checkpoint: python tools/test.py CONFIG CHECKPOINT."""

import argparse

from densevit.cli import add_config_options, add_run_options, config_from, run, use_inference


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_config_options(parser)
    parser.add_argument("checkpoint", help="of a run of ours, or official weights")
    add_run_options(parser)
    parser.add_argument(
        "--out", metavar="DIR", help="write the predictions (masks as PNG, scores as JSON) for tools/score.py"
    )
    parser.add_argument("--show-dir", metavar="DIR", help="write pictures of the predictions")
    parser.add_argument("--tta", action="store_true", help="average over scales and the mirror image")
    parser.add_argument("--slide", action="store_true", help="sliding windows in place of the whole image")
    args = parser.parse_args()

    cfg = config_from(args)
    cfg.load_from, cfg.resume = args.checkpoint, False
    use_inference(cfg, args.slide, args.tta)
    if args.out or args.show_dir:
        writer = {"type": "PredictionWriterHook", "out": args.out, "show_dir": args.show_dir}
        cfg.custom_hooks = [*cfg.get("custom_hooks", []), writer]

    from densevit.engine.runner import Runner  # slow to import: --help should not wait for it

    Runner.from_cfg(cfg).test()


if __name__ == "__main__":
    run(main)
