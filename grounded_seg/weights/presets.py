"""The table of presets, each a detector and a segmenter that belong together; read from `presets.toml`."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType

from grounded_seg.errors import UsageError
from grounded_seg.text.documents import toml_of

_PRESETS_FILE = Path(__file__).with_name("presets.toml")


@dataclass(frozen=True)
class Preset:
    """The weights of one `--preset`."""

    name: str
    detector: str
    """Hub id of a native Florence-2."""
    segmenter: str
    """Name in the table of segmenters, or a hub id."""
    adapter: str | None = None
    parameters: int | None = None
    """Of the detector: it has 2 or 4 bytes for each."""
    revision: str | None = None
    """Branch or commit of the detector on the hub."""
    segmenter_parameters: int | None = None
    segmenter_revision: str | None = None
    """Likewise, of a segmenter on the hub."""
    ships_with_project: bool = False
    """Its three parts are folders below `checkpoints/<name>`."""


@dataclass(frozen=True)
class SegmenterFile:
    """A published Segment Anything file."""

    name: str
    """vit_b, vit_l or vit_h."""
    url: str
    sha256: str
    n_bytes: int | None = None

    @property
    def file_name(self) -> str:
        """Its name in the cache."""
        return self.url.rpartition("/")[2]


@dataclass(frozen=True)
class PresetTable:
    """All that `presets.toml` says, by name."""

    presets: Mapping[str, Preset]
    segmenters: Mapping[str, SegmenterFile]


@cache
def preset_table() -> PresetTable:
    """The table that comes with this package."""
    content = toml_of(_PRESETS_FILE.read_text(encoding="utf-8"))
    presets = {name: Preset(name=name, **row) for name, row in content["presets"].items()}
    segmenters = {name: SegmenterFile(name=name, **row) for name, row in content["segmenters"].items()}
    return PresetTable(MappingProxyType(presets), MappingProxyType(segmenters))


def preset_by_name(name: str) -> Preset:
    """The preset of this name; a `UsageError` that lists the presets if there is none."""
    presets = preset_table().presets
    if name not in presets:
        near, known = name.strip().lower(), ", ".join(presets)
        what = f"did you mean {near}? There are {known}." if near in presets else f"there are {known}."
        raise UsageError(f"Unknown preset {name!r}; {what}")
    return presets[name]


def preset_with(detector: str) -> Preset | None:
    """The one preset whose detector a run's manifest names so; None if it is no preset's, or that of several."""
    found = [
        one
        for one in preset_table().presets.values()
        if detector == (f"{one.name}/{one.detector}" if one.ships_with_project else one.detector)
    ]
    return found[0] if len(found) == 1 else None
