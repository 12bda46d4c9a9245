"""Which files of a folder hold its weights: those that are hashed, fetched and read, and no other. Names only."""

import json
from collections.abc import Sequence
from pathlib import Path

from grounded_seg.errors import WeightsError

SINGLE_FILE, INDEX_FILE, PICKLE_FILE = "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"
WEIGHT_FILES = (SINGLE_FILE, INDEX_FILE, PICKLE_FILE)
"""Where a model's weights may lie, in the order of preference."""
NATIVE_WEIGHT_FILES = WEIGHT_FILES[:2]
"""The layouts of transformers are never read from elsewhere."""
ADAPTER_FILE = "adapter_model.safetensors"
"""peft's own; an adapter is never read from elsewhere."""


def weight_files(folder: Path, names: Sequence[str]) -> tuple[Path, ...]:
    """List the files that a folder's weights are read from; none if there are none.

    Args:
        folder: A model's or an adapter's.
        names: Files to look for; the first that is there counts, and if it is an index, those that it names, in the
            order of their names. These may be missing.

    Raises:
        WeightsError: If the index can't be read, or names anything but `.safetensors` beside it.
    """
    found = next((folder / name for name in names if (folder / name).is_file()), None)
    if found is None:
        return ()
    if found.name != INDEX_FILE:
        return (found,)
    try:
        shards = sorted(set(json.loads(found.read_text(encoding="utf-8"))["weight_map"].values()))
        outside = [name for name in shards if Path(name).name != name or not name.endswith(".safetensors")]
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise WeightsError(f"{found} can't be read as weights ({error!r}); copy the model's own") from error
    if outside:
        raise WeightsError(
            f"{found} can't be read as weights (it names {outside[0]!r}, which isn't a .safetensors beside it)"
        )
    return tuple(folder / name for name in shards)
