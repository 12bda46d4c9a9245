"""Settings that Python callers give as keywords: their names and types, and the records that they make."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, Protocol, TypedDict

from grounded_seg.errors import UsageError
from grounded_seg.settings import (
    DetectSettings,
    Drawn,
    EngineKind,
    GroundingTask,
    ModelSettings,
    OnError,
    Precision,
    ResultsForm,
    RunSettings,
    SegmentSettings,
    SuppressionScope,
)

_PARTS = {"models": ModelSettings, "detect": DetectSettings, "segment": SegmentSettings}
"""The settings within those of a run."""
_OTHER_WORDS = {
    "batch": ("batch_size",),
    "box_threshold": ("score_threshold",),
    "conf": ("score_threshold", "min_score"),
    "confidence": ("score_threshold", "min_score"),
    "copy_images": ('pictures="copy"',),
    "score": ("score_threshold", "min_score"),
    "threshold": ("score_threshold", "min_score"),
    "torch_dtype": ("dtype",),
}
"""What other tools call a setting, and what may be meant: the first that the function has."""


class TorchDevice(Protocol):
    """What is needed of a torch.device; its library isn't imported for that."""

    @property
    def type(self) -> str:
        """Such as "cuda"."""

    @property
    def index(self) -> int | None:
        """Number among the devices of its type."""


class TorchDtype(Protocol):
    """What is needed of a torch.dtype."""

    @property
    def is_floating_point(self) -> bool:
        """Whether its values are fractions."""


class StageKeywords(TypedDict, total=False):
    """Fields of `DetectSettings` and `SegmentSettings`, and a tile's side and overlap, as options of `run` have them.

    `compile` is of both stages. Choices may be given as text.
    """

    task: GroundingTask | str
    score_threshold: float
    nms: SuppressionScope | str
    iou_threshold: float
    box_containment_threshold: float
    max_detections: int
    beams: int
    multimask: bool
    clean: bool
    min_area: int
    outside_share: float
    mask_iou_threshold: float
    containment_threshold: float
    compile: bool
    tile: int | Literal["auto"] | None
    overlap: float


class EngineKeywords(StageKeywords, total=False):
    """Fields of `ModelSettings`, those of both stages, and how images go through the models."""

    preset: str
    detector: str | None
    adapter: str | None
    segmenter: str | None
    device: str | TorchDevice
    dtype: Precision | str | TorchDtype
    offline: bool
    allow_base_mismatch: bool
    calibration: Path | str | None
    boxes_only: bool
    batch_size: int
    max_pixels: int
    devices: Sequence[str] | str | None
    engine: EngineKind | str
    workers: int | None


class RunKeywords(EngineKeywords, total=False):
    """What a run takes beside its output folder: the fields of `RunSettings`."""

    recursive: bool
    resume: bool
    overwrite: bool
    on_error: OnError | str
    save: Collection[Drawn | str]
    upload: str | None
    shard: str | None
    results: ResultsForm | str


def run_settings_from(
    keywords: Mapping[str, Any],
    base: RunSettings = RunSettings(),  # noqa: B008  (frozen)
) -> RunSettings:
    """Make a run's settings of keywords, each over the same setting of `base`.

    Raises:
        UsageError: If a value is wrong; all that are wrong are named.
    """
    values: dict[str, Any] = {one.name: getattr(base, one.name) for one in fields(base)}
    values |= {name: keywords[name] for name in values if name in keywords and name not in _PARTS}
    for part, kind in _PARTS.items():
        within = getattr(base, part)
        values[part] = {one.name: keywords.get(one.name, getattr(within, one.name)) for one in fields(kind)}
    if "tile" in keywords or "overlap" in keywords:
        before = {} if base.tiles is None else {"side": base.tiles.side, "overlap": base.tiles.overlap}
        given = {"side": "tile", "overlap": "overlap"}
        tiles = before | {field: keywords[name] for field, name in given.items() if name in keywords}
        if "side" not in tiles:
            raise UsageError("overlap is that of tiles; give the side of a tile too, as in tile=640")
        values["tiles"] = None if tiles["side"] is None else tiles
    return RunSettings(**values)


def refuse_unknown(names: Collection[str], known: Collection[str]) -> None:
    """Raise a `UsageError` about names of settings that aren't known, with the nearest and all that are."""
    said = [f"there is no setting {name!r}{_meant(name, known)}" for name in names if name not in known]
    if said:
        raise UsageError(f"{'; '.join(said)}; the settings are {', '.join(sorted(known))}")


def _meant(name: str, known: Collection[str]) -> str:
    """Ask about the setting that has another word elsewhere, else about the one whose name is nearest."""
    for one in _OTHER_WORDS.get(name, ()):
        if one.partition("=")[0] in known:
            return f" (did you mean {one if '=' in one else repr(one)}?)"
    # Loaded for a mistake only: it would slow --help down.
    import difflib

    near = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
