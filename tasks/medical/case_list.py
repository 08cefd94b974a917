"""Which volumes belong to a split: the dataset.json of the Medical Segmentation Decathlon, and folds of its lists."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from densevit.data.checks import class_names
from densevit.data.missing import missing_path
from densevit.errors import ConfigError, DataError
from densevit.registry import suggestion

FOLD_SEED = 12345  # of nnU-Net, whose folds these are


class Case(NamedTuple):
    """A volume: a file per channel, its labels if there are any, and the fold that the list puts it in."""

    images: tuple[str, ...]
    label: str | None
    fold: int | None = None


def read_description(path: Path, download_help: str = "") -> dict[str, Any]:
    """Return what a dataset.json holds.

    Raises:
        DataError: It is missing or no JSON object.
    """
    if not path.is_file():
        raise missing_path("file", path, download_help)
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: no valid JSON ({error}); mend or replace it") from error
    if not isinstance(description, dict):
        raise DataError(f"{path}: holds no JSON object with lists of volumes; mend or replace it")
    return description


def read_cases(description: Mapping[str, Any], section: str, path: Path) -> list[Case]:
    """Return the volumes of a list, with paths from the folder of ``path`` on.

    Entries are ``{"image": file or [file per channel], "label": file, "fold": number}``, the last two of them optional,
    or files by themselves.

    Raises:
        DataError: There is no such list, or an entry is something else.
    """
    entries = description.get(section)
    if not isinstance(entries, list) or not entries:
        lists = [key for key, value in description.items() if isinstance(value, list) and value]
        raise DataError(f"{path}: no list {section!r} of volumes.{suggestion(section, lists)}")
    return [_case(entry, f"{path}: {section}[{i}]", path.parent) for i, entry in enumerate(entries)]


def _case(entry: Any, where: str, root: Path) -> Case:
    item = entry if isinstance(entry, dict) else {"image": entry}
    image, label, fold = item.get("image"), item.get("label"), item.get("fold")
    images: list[Any] = image if isinstance(image, list) else [image]
    if (
        not images
        or not all(isinstance(name, str) for name in images)
        or not isinstance(label, str | None)
        or not isinstance(fold, int | None)
    ):
        raise DataError(f'{where} is {entry!r}, but must be like {{"image": "imagesTr/a.nii.gz", "label": ...}}')
    return Case(tuple(str(root / name) for name in images), label and str(root / label), fold)


def of_fold(cases: Sequence[Case], fold: int, folds: int, held_out: bool) -> list[Case]:
    """Return the volumes that are in a fold, or all that are not.

    The list may say the folds. Else they are those of nnU-Net: of the names of the volumes in order, drawn as by
    ``sklearn.model_selection.KFold(folds, shuffle=True, random_state=12345)``.

    Raises:
        ConfigError: There is no such fold, or are fewer volumes than folds.
    """
    known = [case.fold for case in cases if case.fold is not None]
    of = known if len(known) == len(cases) else _drawn_folds(cases, folds)
    if fold not in of:
        raise ConfigError(f"fold {fold} is none of {', '.join(map(str, sorted(set(of))))}")
    return [case for case, own in zip(cases, of, strict=True) if (own == fold) == held_out]


def _drawn_folds(cases: Sequence[Case], folds: int) -> list[int]:
    """Return the fold of each volume."""
    if not 1 < folds <= len(cases):
        raise ConfigError(
            f"{len(cases)} volumes cannot be shared out to {folds} folds: folds is 2 or more, and no more than volumes"
        )
    by_name = np.argsort([Path(case.images[0]).name for case in cases])
    drawn = np.arange(len(cases))
    np.random.RandomState(FOLD_SEED).shuffle(drawn)
    of = np.empty(len(cases), int)
    for fold, part in enumerate(np.array_split(drawn, folds)):
        of[by_name[part]] = fold
    return of.tolist()


def read_classes(description: Mapping[str, Any], path: Path, expected: Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of the classes in the order of their ids.

    "labels" of a dataset.json is ``{"0": name}``, or of nnU-Net ``{name: 0}``.

    Raises:
        ConfigError: They are not those ``expected``, or neither say any.
        DataError: They have no ids 0, 1, 2 ...
    """
    labels = description.get("labels")
    if labels is None:
        if expected is None:
            raise ConfigError(f'{path} has no "labels": name the classes in the config')
        return class_names(expected)
    if not isinstance(labels, dict) or not labels:
        raise DataError(f'{path}: labels are {labels!r}, but must be like {{"0": "background", "1": "liver"}}')
    by_id = {int(k): v for k, v in labels.items()} if all(k.isdecimal() for k in labels) else _inverted(labels, path)
    if sorted(by_id) != list(range(len(by_id))):
        raise DataError(f"{path}: ids of labels must be 0 to {len(by_id) - 1}, each once, not {sorted(by_id)}")
    names = tuple(str(by_id[i]) for i in range(len(by_id)))
    if expected is not None and tuple(expected) != names:
        raise ConfigError(
            f"classes are {', '.join(expected)} in the config, but {', '.join(names)} in {path}: "
            "correct one of them, or leave classes out to take those of the file"
        )
    return class_names(names)


def _inverted(labels: Mapping[str, Any], path: Path) -> dict[int, str]:
    if not all(type(i) is int for i in labels.values()) or len(set(labels.values())) < len(labels):
        raise DataError(f"{path}: a class has one id of its own, not {labels}; classes that overlap are not supported")
    return {i: name for name, i in labels.items()}
