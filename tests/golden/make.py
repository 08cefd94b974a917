"""Fill the numbers of a golden file from a recording of the official model.

    python tests/golden/make.py tests/golden/cmt_ti.json RECORDING.json --runs 160/B

The file must say which model of ours it is for, what the starts of our names are officially, and which outputs are
compared (ours: theirs):

    {"backbone": {"type": "cmt_ti", "token": true}, "head": {"type": "ClassificationHead", "num_classes": 1000},
     "names": {"backbone.": "", "head.fc.": "head."}, "outputs": {"logits": "out"}}

Where tensors of ours are not theirs under another name, as those of JAX, it has no "names" but the list of theirs,
given by --keys, in which * stands for the number of a block; "adapted" names ours that loading lays out otherwise.
"layout" is "NHWC" if inputs were.
"""

import argparse
import json
import re
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("golden", type=Path)
    parser.add_argument("recording", type=Path)
    parser.add_argument("--runs", nargs="+", required=True, help="of the recording; two suffice")
    parser.add_argument("--keys", type=Path, help="JSON of the official names and shapes")
    args = parser.parse_args()
    golden, recorded = json.loads(args.golden.read_text()), json.loads(args.recording.read_text())["runs"]
    if args.keys is not None:
        names = json.loads(args.keys.read_text())
        golden["keys"] = {re.sub(r"(block_|^vit\.blocks\.)\d+", r"\1*", name): s for name, s in names.items()}
    golden["runs"] = {}
    for run in args.runs:
        outputs = {ours: recorded[run]["outputs"][theirs] for ours, theirs in golden["outputs"].items()}
        kept = {ours: {"shape": o["shape"], "samples": o["samples"]} for ours, o in outputs.items()}
        golden["runs"][run] = {"input": recorded[run]["input_shapes"][0], "outputs": kept}
    args.golden.write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
