"""Reader of CIFAR-10 and CIFAR-100 as their site offers them, the Python and the binary version.

The Python version is pickles, which may run anything when loaded. Here a pickle can make plain values and arrays of
bytes, through stand-ins for the few names that its arrays need, and nothing else.

Site: https://www.cs.toronto.edu/~kriz/cifar.html
"""

import pickle
import pickletools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from densevit.errors import ConfigError, DataError

PIXELS = 3 * 32 * 32


class Layout(NamedTuple):
    """One of the archives: its folder, its files by split, and how many images each file of a split has."""

    archive: str
    folder: str
    files: Mapping[str, tuple[str, ...]]
    rows: Mapping[str, int]


class CifarImages(NamedTuple):
    """A split: ``images`` uint8 ``(N, 3, 32, 32)``, ``labels`` int64 ``(N,)``, and the files, with as many each."""

    images: np.ndarray
    labels: np.ndarray
    files: tuple[str, ...]


_TEN = tuple(f"data_batch_{i}" for i in range(1, 6))
_ROWS_TEN, _ROWS_HUNDRED = {"train": 10_000, "test": 10_000}, {"train": 50_000, "test": 10_000}
LAYOUTS = {
    10: (
        Layout("cifar-10-python", "cifar-10-batches-py", {"train": _TEN, "test": ("test_batch",)}, _ROWS_TEN),
        Layout(
            "cifar-10-binary",
            "cifar-10-batches-bin",
            {"train": tuple(f"{name}.bin" for name in _TEN), "test": ("test_batch.bin",)},
            _ROWS_TEN,
        ),
    ),
    100: (
        Layout("cifar-100-python", "cifar-100-python", {"train": ("train",), "test": ("test",)}, _ROWS_HUNDRED),
        Layout("cifar-100-binary", "cifar-100-binary", {"train": ("train.bin",), "test": ("test.bin",)}, _ROWS_HUNDRED),
    ),
}
_HUNDRED = (
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can "
    "castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin "
    "elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster "
    "man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck "
    "pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk "
    "skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger "
    "tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm"
)
CLASSES = {
    10: ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    100: tuple(_HUNDRED.split()),
}


def read_cifar(data_root: str | Path, split: str, num_classes: int) -> CifarImages:
    """Read a split of CIFAR-10 or CIFAR-100, whichever version is in ``data_root``, or is ``data_root`` itself.

    Raises:
        ConfigError: ``num_classes`` is neither 10 nor 100, or ``split`` neither "train" nor "test".
        DataError: A file is missing, damaged, unsafe, or holds something else.
    """
    if num_classes not in LAYOUTS or split not in ("train", "test"):
        raise ConfigError(
            f'CIFAR has 10 or 100 classes and the splits "train" and "test", not {num_classes} and {split!r}'
        )
    layout, folder = _find(Path(data_root), num_classes)
    help_text = _help(data_root, layout)
    paths, rows = [folder / name for name in layout.files[split]], layout.rows[split]
    images = np.empty((len(paths) * rows, PIXELS), np.uint8)
    labels = np.empty(len(paths) * rows, np.int64)
    for i, path in enumerate(paths):
        read = _read_binary if path.suffix == ".bin" else _read_pickle
        try:
            found, names = read(path, num_classes)
        except FileNotFoundError:
            raise DataError(f"no file {path}. {help_text}") from None
        except OSError as error:
            raise DataError(f"{path}: {error.strerror}. {help_text}") from error
        except DataError as error:
            raise DataError(f"{path}: {error}. {help_text}") from error
        if found.shape != (rows, PIXELS) or names.shape != (rows,):
            raise DataError(f"{path} holds {len(found)} images and {len(names)} labels, not {rows}. {help_text}")
        if names.min() < 0 or names.max() >= num_classes:
            row = int(np.argmax((names < 0) | (names >= num_classes)))
            raise DataError(f"{path}: row {row} has label {names[row]}, not one of 0..{num_classes - 1}. {help_text}")
        images[i * rows : (i + 1) * rows], labels[i * rows : (i + 1) * rows] = found, names
    return CifarImages(images.reshape(-1, 3, 32, 32), labels, tuple(map(str, paths)))


def _find(root: Path, num_classes: int) -> tuple[Layout, Path]:
    """Return the version that is there and its folder."""
    for layout in LAYOUTS[num_classes]:
        for folder in (root / layout.folder, root):
            if any((folder / name).is_file() for names in layout.files.values() for name in names):
                return layout, folder
    others = [
        layout.folder
        for n, layouts in LAYOUTS.items()
        if n != num_classes
        for layout in layouts
        if (root / layout.folder).is_dir()
    ]
    hint = f"It holds {others[0]}: is num_classes meant to be {110 - num_classes}? " if others else ""
    raise DataError(
        f"no CIFAR-{num_classes} in {root} (working directory: {Path.cwd()}). {hint}"
        + _help(root, LAYOUTS[num_classes][0])
    )


def _help(root: str | Path, layout: Layout) -> str:
    files = ", ".join(name for names in layout.files.values() for name in names)
    return (
        f"Download https://www.cs.toronto.edu/~kriz/{layout.archive}.tar.gz and unpack it in {root}, where it makes "
        f"{layout.folder}/ with {files}; or pass --data-root"
    )


def _read_binary(path: Path, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return pixels and labels of records: one label (CIFAR-100: the coarse one, then the fine one), then pixels."""
    content = np.fromfile(path, np.uint8)
    length = PIXELS + (1 if num_classes == 10 else 2)
    if len(content) % length:
        raise DataError(f"truncated: {len(content)} bytes are no multiple of {length}, the length of a record")
    records = content.reshape(-1, length)
    return records[:, -PIXELS:], records[:, -PIXELS - 1].astype(np.int64)


def _read_pickle(path: Path, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return pixels and labels of a dictionary with "data", and "labels" or "fine_labels"."""
    with path.open("rb") as file:
        try:
            _check_memo(file)
            content = _Unpickler(file, encoding="bytes").load()
        except DataError:
            raise
        except Exception as error:  # what damage raises depends on the byte
            raise DataError(f"damaged or truncated ({type(error).__name__}: {error})") from error
    content = content if isinstance(content, dict) else {}
    # Python 2 wrote names as what now are bytes.
    data, labels = (
        content.get(name.encode(), content.get(name))
        for name in ("data", "labels" if num_classes == 10 else "fine_labels")
    )
    if not isinstance(data, _Array) or not isinstance(labels, list) or not all(type(n) is int for n in labels):
        raise DataError(f"not a batch of CIFAR-{num_classes}: no array of pixels, or no list of labels")
    try:
        return data.pixels(), np.array(labels, np.int64)
    except OverflowError as error:
        raise DataError(f"damaged: a label is no class ({error})") from error


def _check_memo(file: BinaryIO) -> None:
    """Refuse a pickle with numbers for its parts that it cannot have: unpickling reserves memory up to each."""
    for operation, argument, position in pickletools.genops(file):
        if operation.name in ("PUT", "LONG_BINPUT") and int(argument or 0) > (position or 0):
            raise DataError("damaged: it numbers more parts than it has")
    file.seek(0)


class _Array:
    """Takes the place of an array in a pickle: keeps what would be its state and makes nothing of it."""

    def __init__(self, *args: Any) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def pixels(self) -> np.ndarray:
        """Return the array, if its state is that of bytes in two dimensions."""
        try:
            _, shape, dtype, by_column, data = self.state
            if dtype.code in ("u1", b"u1") and len(shape) == 2:
                return np.frombuffer(data, np.uint8).reshape(shape, order="F" if by_column else "C")
        except (AttributeError, TypeError, ValueError) as error:
            raise DataError(f"damaged: the array of pixels does not fit its shape ({error})") from error
        raise DataError("the array of pixels is not one of bytes in two dimensions")


class _Dtype:
    """Takes the place of a dtype."""

    def __init__(self, code: Any, *args: Any) -> None:
        self.code = code

    def __setstate__(self, state: Any) -> None:
        """Byte order and alignment mean nothing for bytes."""


class _Bytes(bytes):
    """Takes the place of ``_codecs.encode``, by which Python 3 writes bytes for Python 2."""

    def __new__(cls, text: str, encoding: str) -> "_Bytes":
        return super().__new__(cls, text.encode("latin1"))


_STAND_INS = {
    "numpy.core.multiarray._reconstruct": _Array,
    "numpy._core.multiarray._reconstruct": _Array,
    "numpy.ndarray": _Array,
    "numpy.dtype": _Dtype,
    "_codecs.encode": _Bytes,
}


class _Unpickler(pickle.Unpickler):
    """Makes plain values and stand-ins of arrays; any other name in a pickle ends it."""

    def find_class(self, module: str, name: str) -> Any:
        """Return a stand-in.

        Raises:
            DataError: The pickle asks for anything but an array.
        """
        if f"{module}.{name}" not in _STAND_INS:
            raise DataError(f"unsafe: the pickle asks for {module}.{name}, which an image set has no use for")
        return _STAND_INS[f"{module}.{name}"]
