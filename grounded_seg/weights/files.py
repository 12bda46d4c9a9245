"""The files that hold weights: which of a folder's they are, and their hashes. Tensors are read elsewhere."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from grounded_seg.errors import WeightsError
from grounded_seg.text.documents import json_in

SINGLE_FILE, INDEX_FILE, PICKLE_FILE = "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"
WEIGHT_FILES = (SINGLE_FILE, INDEX_FILE, PICKLE_FILE)
"""Files that may hold a model's weights, in the order of preference."""
NATIVE_WEIGHT_FILES = WEIGHT_FILES[:2]
"""Those of transformers' layout."""
ADAPTER_FILE = "adapter_model.safetensors"
"""The only one of an adapter, as peft writes it."""
ANY_WEIGHTS = (*WEIGHT_FILES, ADAPTER_FILE)
"""A model's; those of an adapter where the folder holds no model."""


def weight_files(folder: Path, names: Sequence[str]) -> tuple[Path, ...]:
    """The files that a folder's weights are read from; none if there are none.

    Args:
        folder: A model's or an adapter's.
        names: Files to look for, the best first. For an index it is the files that it names, which may be missing.

    Raises:
        WeightsError: If the index names anything but `.safetensors` beside it.
    """
    found = next((folder / name for name in names if (folder / name).is_file()), None)
    if found is None:
        return ()
    if found.name != INDEX_FILE:
        return (found,)
    try:
        shards = sorted(set(json_in(found)["weight_map"].values()))
        outside = [
            name
            for name in shards
            if Path(name).name != name or not name.endswith(".safetensors") or not name.isprintable()
        ]
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise WeightsError(f"{found} can't be read as weights ({error!r}); copy the model's own") from error
    if outside:
        names_other = f"it names {outside[0]!r}, which isn't a .safetensors beside it"
        raise WeightsError(f"{found} can't be read as weights ({names_other})")
    return tuple(folder / name for name in shards)


def sha256_of_file(path: Path) -> str:
    """The hash of a file, as 64 lower-case hex digits; a `WeightsError` if it can't be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"{path} can't be read: {error.strerror}.") from error


def sha256_of_weights(source: Path, names: Sequence[str] = ANY_WEIGHTS) -> str:
    """The hash of the weights in a file or folder, the same wherever they are.

    A folder's hash is that of the lines that `sha256sum` prints inside it for the files of `weight_files`, in the order
    of their names: `sha256sum model.safetensors | sha256sum` gives it again. Nothing else in the folder counts; one
    without weights is a `WeightsError`.
    """
    if source.is_file():
        return sha256_of_file(source)
    files = weight_files(source, names)
    if not files:
        wanted = ", ".join(names[:-1]) + f" or {names[-1]}" if len(names) > 1 else names[0]
        raise WeightsError(f"No weights at {source}: give a weight file or a folder with {wanted}.")
    lines = "".join(f"{sha256_of_file(file)}  {file.name}\n" for file in files)
    return hashlib.sha256(lines.encode()).hexdigest()
