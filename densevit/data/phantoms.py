"""Drawn volumes of a body with organs in it, to try segmentation of volumes where no data are at hand.

They vary as files do: in the voxels along each axis, their edges, the orientation of the axes, and a scanner that is
not quite aligned with the patient. Bones look like kidneys but lie elsewhere and are no class.
"""

import gzip
import json
from pathlib import Path

import numpy as np
from nibabel import Nifti1Image
from nibabel.affines import from_matvec
from nibabel.orientations import axcodes2ornt, ornt_transform
from numpy.typing import ArrayLike

from densevit.data.generated import claim, remove, write_whole
from densevit.data.volume import read_labels, read_volume
from densevit.errors import DataError

VERSION = 1  # of the volumes: those of another version are drawn anew
CLASSES = ("background", "liver", "kidney")
SIDE = (32, 41)  # voxels
EDGE = (2.0, 3.0)  # mm of a voxel
NOISE = 15.0  # standard deviation, in Hounsfield units like all intensities
AIR, BODY, BONE = -1000, 0, 160
BONES = [  # centre and half axes, of a body from -1 to 1: a spine and ribs
    ((0, -0.5, 0), (0.15, 0.15, 5)),
    *(((side, 0.3, z), (0.1, 0.15, 0.1)) for side in (-0.6, 0.6) for z in (-0.6, 0, 0.6)),
]
ORGANS = [  # class, intensity, centre and half axes
    (1, 60, (0.4, 0.15, 0.2), (0.35, 0.4, 0.5)),
    *((2, 150, (side, -0.4, -0.3), (0.16, 0.18, 0.3)) for side in (-0.45, 0.45)),
]
TURN = 0.15  # radians between scanner and patient
AXES = ("RAS", "LPS", "LAS", "SPL", "PIR", "ASL")


def make_phantoms(root: str | Path, train: int = 40, val: int = 8, seed: int = 0) -> None:
    """Write volumes in the layout of the Medical Segmentation Decathlon.

    Volumes are ``imagesTr/*.nii.gz``, labels ``labelsTr/*.nii.gz``, and ``dataset.json`` has the lists "training" and
    "validation". A volume depends on seed, split and number only. Intact files stay as they are; missing and damaged
    ones are written, surplus ones removed.

    Raises:
        DataError: ``root`` holds volumes that were not made here.
    """
    root = Path(root)
    claim(root, {"version": VERSION, "seed": seed}, ("imagesTr/*", "labelsTr/*", "dataset.json"))
    known: set[Path] = set()
    lists = {}
    for stream, (split, count) in enumerate([("training", train), ("validation", val)]):
        names = [f"{split}_{number:05d}.nii.gz" for number in range(count)]
        for number, name in enumerate(names):
            image, label = root / "imagesTr" / name, root / "labelsTr" / name
            known |= {image, label}
            if not _is_intact(image, label):
                drawn = draw_phantom(np.random.default_rng((seed, stream, number)))
                for path, volume in zip((image, label), drawn, strict=True):
                    write_whole(path, gzip.compress(volume.to_bytes(), mtime=0))
        lists[split] = [{"image": f"imagesTr/{name}", "label": f"labelsTr/{name}"} for name in names]
    remove(path for folder in ("imagesTr", "labelsTr") for path in (root / folder).glob("*") if path not in known)
    labels = {str(i): name for i, name in enumerate(CLASSES)}
    description, text = root / "dataset.json", json.dumps({"name": "phantoms", "labels": labels, **lists}, indent=1)
    remove(root.glob(f".{description.name}.*"))  # what an interrupted run left
    if not description.exists() or description.read_text() != text:
        write_whole(description, text.encode())


def draw_phantom(rng: np.random.Generator) -> tuple[Nifti1Image, Nifti1Image]:
    """Draw a body, int16, with a liver on its right and two kidneys at its back; return it and its labels, uint8."""
    size, edges = rng.integers(*SIDE, 3), rng.uniform(*EDGE, 3)
    place = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in size), indexing="ij"), axis=-1)  # right, front, top
    image, ids = np.full(size, float(AIR)), np.zeros(size, np.uint8)
    image[_ellipsoid(place, (0, 0, 0), (0.9, 0.8, 1.4))] = BODY
    for centre, radii in BONES:
        image[_ellipsoid(place, centre, radii)] = BONE
    for label, intensity, centre, radii in ORGANS:
        moved, sized = centre + rng.normal(0, 0.05, 3), radii * rng.uniform(0.8, 1.2, 3)
        inside = _ellipsoid(place, moved, sized)
        image[inside], ids[inside] = intensity + rng.normal(0, 8), label
    image = np.clip(image + rng.normal(0, NOISE, size), -1024, 3071).astype(np.int16)
    angle = rng.normal(0, TURN)
    turn = [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    affine = from_matvec(turn @ np.diag(edges), rng.uniform(-100, 100, 3))
    axes = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(AXES[rng.integers(len(AXES))]))
    first, second = (Nifti1Image(voxels, affine).as_reoriented(axes) for voxels in (image, ids))
    return first, second


def _ellipsoid(place: np.ndarray, centre: ArrayLike, radii: ArrayLike) -> np.ndarray:
    return (((place - np.asarray(centre)) / np.asarray(radii)) ** 2).sum(axis=-1) <= 1


def _is_intact(image: Path, label: Path) -> bool:
    try:
        return read_volume(image).shape == read_labels(label).shape
    except DataError:
        return False
