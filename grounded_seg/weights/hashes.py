"""Hashes of weight files, for checking a download and for a run's manifest."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from grounded_seg.errors import WeightsError
from grounded_seg.weights.files import ADAPTER_FILE, WEIGHT_FILES, weight_files

ANY_WEIGHTS = (*WEIGHT_FILES, ADAPTER_FILE)
"""A model's; those of an adapter where the folder holds no model."""


def sha256_of_file(path: Path) -> str:
    """Hash one file as 64 lower-case hex digits.

    Raises:
        WeightsError: If it can't be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"{path} can't be read: {error.strerror}.") from error


def sha256_of_weights(source: Path, names: Sequence[str] = ANY_WEIGHTS) -> str:
    """Hash the weights at `source`, which stay the same wherever they lie.

    A file is hashed as it is. A folder's hash is that of the lines that `sha256sum` prints inside it for the files that
    its weights are read from, in the order of their names: `sha256sum model.safetensors | sha256sum` gives it again.
    What else lies in the folder never counts: other weights, configs, tokenizers.

    Args:
        source: A file or a folder.
        names: Files to look for in a folder, see `files.weight_files`.

    Raises:
        WeightsError: If the source can't be read, or is a folder without weights.
    """
    if source.is_file():
        return sha256_of_file(source)
    files = weight_files(source, names)
    if not files:
        wanted = ", ".join(names[:-1]) + f" or {names[-1]}" if len(names) > 1 else names[0]
        raise WeightsError(f"No weights at {source}: it has to be a weight file or a folder with {wanted}.")
    lines = "".join(f"{sha256_of_file(file)}  {file.name}\n" for file in files)
    return hashlib.sha256(lines.encode()).hexdigest()
