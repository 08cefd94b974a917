"""Run an exported model of images: python run_onnx.py model.onnx photo.jpg more/*.jpg --out predictions.

Needs onnxruntime, numpy and opencv-python only: copy it to where the model is to run. It prints classes, or writes the
mask, or the objects that were found, and a picture of them. The file of the model says how images are prepared.
"""

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
import onnxruntime


def resize(image, size):
    """Return an image of another height and width, averaged where it shrinks."""
    height, width = (max(1, int(n + 0.5)) for n in size)
    shrinks = height * width < image.shape[0] * image.shape[1]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def prepare(image, about):
    """Return an image (H, W, 3), RGB, as the tests of the model saw it, but for its last resize."""
    for step in about["preparation"].get("transforms", []):
        space = image.shape[:2]
        if step["type"] == "AlignedResize":
            scale = min(max(step["scale"]) / max(space), min(step["scale"]) / min(space))
            image = resize(image, [n * scale for n in space])
        elif step["type"] in ("Resize", "ShortSideResize"):
            short = step.get("size", step.get("sizes"))
            if isinstance(short, int) or len(short) == 1:
                short, bound = np.max(short), step.get("max_size", 1333 if step["type"] == "ShortSideResize" else None)
                scale = min(short / min(space), (bound or np.inf) / max(space))
                short = [n * scale for n in space]
            image = resize(image, short)
        elif step["type"] == "CenterCrop":
            size = [step["size"]] * 2 if isinstance(step["size"], int) else step["size"]
            top, left = (max(0, (n - m) // 2) for n, m in zip(space, size, strict=True))
            image = image[top : top + size[0], left : left + size[1]]
        else:
            raise SystemExit(f"preparation by {step['type']} is not written here: add it to prepare()")
    multiples, least = (np.array(about["input"][key]) for key in ("multiples", "at_least"))  # 0: only the least will do
    return resize(image, np.maximum(-(-np.array(image.shape[:2]) // np.maximum(multiples, 1)) * multiples, least))


def write_mask(found, about, image, stem):
    """Write the class of each pixel, and the image coloured by them; return the shares of the classes."""
    labels = np.stack([cv2.resize(x, image.shape[1::-1]) for x in found["logits"][0]]).argmax(axis=0)
    cv2.imwrite(f"{stem}.png", labels.astype(np.uint8 if len(about["classes"]) < 257 else np.uint16))
    coloured = (image / 2 + np.array(about["palette"])[labels] / 2).astype(np.uint8)
    cv2.imwrite(f"{stem}_picture.jpg", coloured[..., ::-1])
    return ", ".join(f"{about['classes'][i]} {(labels == i).mean():.1%}" for i in np.unique(labels))


def draw_objects(found, about, image, scale, stem, least):
    """Write the image with the objects of scores of at least ``least``; return these."""
    listed = []
    for i in (i for i in range(found["count"][0]) if found["scores"][0, i] >= least):
        x1, y1, x2, y2 = box = np.rint(found["boxes"][0, i] * scale).astype(int).tolist()
        name, colour = (about[key][found["labels"][0, i]] for key in ("classes", "palette"))
        if "masks" in found and x1 < x2 and y1 < y2:
            inside = cv2.resize(found["masks"][0, i], (x2 - x1, y2 - y1)) >= 0.5
            image[y1:y2, x1:x2][inside] = image[y1:y2, x1:x2][inside] / 2 + np.array(colour) / 2
        listed.append(f"{name} {found['scores'][0, i]:.2f}")
        cv2.rectangle(image, (x1, y1), (x2, y2), colour, 2)
        cv2.putText(image, listed[-1], (x1, max(12, y1 - 4)), cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour)
        listed[-1] += f" {box}"
    cv2.imwrite(f"{stem}_picture.jpg", image[..., ::-1])
    return "; ".join(listed) or "nothing found"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("images", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=Path("predictions"))
    parser.add_argument("--threshold", type=float, default=0.3, help="least score of objects")
    args = parser.parse_args()
    if len({path.stem for path in args.images}) < len(args.images):
        raise SystemExit("images share a name, and results would replace each other: give them one folder at a time")
    args.out.mkdir(parents=True, exist_ok=True)
    session = onnxruntime.InferenceSession(args.model, providers=onnxruntime.get_available_providers())
    about = json.loads(session.get_modelmeta().custom_metadata_map["densevit"])
    if len(about["input"]["shape"]) != 4:
        raise SystemExit(f"{args.model} is of clips or volumes: docs/export.md says what these take")
    for path in args.images:
        if (picture := cv2.imread(str(path))) is None:
            raise SystemExit(f"{path} is no image")
        x, stem = prepare(picture := np.ascontiguousarray(picture[..., ::-1]), about), args.out / path.stem
        values = session.run(about["outputs"], {"image": x.astype(np.float32).transpose(2, 0, 1)[None]})
        found = dict(zip(about["outputs"], values, strict=True))
        if "logits" in found:
            text = write_mask(found, about, picture, stem)
        elif "boxes" in found:
            scale = np.divide(picture.shape[1::-1], x.shape[1::-1])
            text = draw_objects(found, about, picture, np.tile(scale, 2), stem, args.threshold)
        else:
            scores = found["scores"][0]
            text = ", ".join(f"{about['classes'][i]} {scores[i]:.1%}" for i in scores.argsort()[:-6:-1])
        print(f"{path}: {text}")
