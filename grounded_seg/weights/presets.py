"""The table of presets, each a detector and a segmenter that belong together; read from `presets.toml`."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType

from grounded_seg.errors import UsageError

PRESETS_FILE = Path(__file__).with_name("presets.toml")


@dataclass(frozen=True)
class Preset:
    """The weights of one `--preset`."""

    name: str
    detector: str
    """Hub id of a native Florence-2; a folder below `checkpoints/<name>` where the preset ships with the project."""
    segmenter: str
    """Name in the table of segmenters; a folder, likewise."""
    adapter: str | None = None
    """Folder of the LoRA adapter on top of the detector, likewise; most presets have none."""
    revision: str | None = None
    """Branch or commit of the detector on the hub."""
    ships_with_project: bool = False


@dataclass(frozen=True)
class SegmenterFile:
    """A published Segment Anything file."""

    name: str
    """Which model it is: vit_b, vit_l or vit_h."""
    url: str
    sha256: str
    """Of the whole file, as 64 lower-case hex digits."""

    @property
    def file_name(self) -> str:
        """Last part of the address, and the file's name in the cache."""
        return self.url.rpartition("/")[2]


@dataclass(frozen=True)
class PresetTable:
    """All that `presets.toml` says, by name."""

    presets: Mapping[str, Preset]
    segmenters: Mapping[str, SegmenterFile]


@cache
def preset_table() -> PresetTable:
    """The table that comes with this package."""
    content = tomllib.loads(PRESETS_FILE.read_text(encoding="utf-8"))
    return PresetTable(
        presets=MappingProxyType({name: Preset(name=name, **row) for name, row in content["presets"].items()}),
        segmenters=MappingProxyType(
            {name: SegmenterFile(name=name, **row) for name, row in content["segmenters"].items()}
        ),
    )


def preset_by_name(name: str) -> Preset:
    """The preset of this name; a `UsageError` that lists the presets if there is none."""
    presets = preset_table().presets
    if name not in presets:
        raise UsageError(f"Unknown preset {name!r}; there are {', '.join(presets)}.")
    return presets[name]
