"""Hashes of weight files, for checking a download and for a run's manifest."""

import hashlib
from pathlib import Path

from grounded_seg.errors import WeightsError


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


def sha256_of_weights(source: Path) -> str:
    """Hash the weights at `source`, which stay the same wherever they lie.

    A file is hashed as it is. A folder's hash is that of the lines that `sha256sum *.safetensors` prints inside it, in
    the order of the names: `sha256sum *.safetensors | sha256sum` gives it again. Older `.bin` and `.pth` files count
    only where there is no `.safetensors`, configs and tokenizers never.

    Raises:
        WeightsError: If the source can't be read, or is a folder without weights.
    """
    if source.is_file():
        return sha256_of_file(source)
    files = sorted(source.glob("*.safetensors")) or sorted([*source.glob("*.bin"), *source.glob("*.pth")])
    if not files:
        raise WeightsError(f"No weights at {source}: it has to be a weight file or a folder with .safetensors files.")
    lines = "".join(f"{sha256_of_file(file)}  {file.name}\n" for file in files)
    return hashlib.sha256(lines.encode()).hexdigest()
