#!/usr/bin/env bash
# Build the wheel, install it into a new environment with pip alone, and use it in an empty folder: `make test-wheel`.
set -euo pipefail
python=${1:-python3}
root=$(cd "$(dirname "$0")/.." && pwd)
new=$(mktemp -d)
trap 'rm -rf "$new"' EXIT

git -C "$root" archive HEAD | tar -x -C "$(mkdir "$new/source" && echo "$new/source")"  # no leftovers of other builds
"$python" -m venv "$new/venv"
"$new/venv/bin/python" -m pip --disable-pip-version-check wheel --quiet --no-deps --wheel-dir "$new" "$new/source"
rm -rf "$new/source"
"$new/venv/bin/python" -m pip --disable-pip-version-check install --quiet "$new"/*.whl

mkdir "$new/empty" && cd "$new/empty"
export PATH="$new/venv/bin:$PATH" OMP_NUM_THREADS=2
unset PYTHONPATH
python -c "import densevit; assert densevit.__file__.startswith('$new'), densevit.__file__"
densevit doctor

code=0
densevit train segformer_b0_ade20k 2> said || code=$?
grep --quiet "Download http://data.csail.mit.edu/places/ADEchallenge" said || { cat said; exit 1; }
test "$code" = 2

densevit make-demo-data segmentation --train 8 --val 2
densevit train demo/segformer_b0_shapes --work-dir run \
    --cfg-options train_cfg.max_iters=2 train_cfg.val_interval=2 train_dataloader.batch_size=2
densevit test demo/segformer_b0_shapes run/iter_2.pth --work-dir run
densevit predict demo/segformer_b0_shapes run data/demo/segmentation/images/validation --out found
test "$(find found/outputs -name '*.png' | wc -l)" = 2
echo "the wheel works: $(ls "$new"/*.whl | xargs basename)"
