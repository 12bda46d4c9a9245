"""`run.json`: what a run does, with what, and in the end what it came to and how long it took."""

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import Any

from grounded_seg.coco.schema import JournalLine
from grounded_seg.errors import ImageAccessError, InputError, UsageError
from grounded_seg.files import write_text
from grounded_seg.pipeline.load import FoundModels
from grounded_seg.records import Address
from grounded_seg.runs.manifest_types import ReadManifest
from grounded_seg.setting_types import check_types
from grounded_seg.settings import RunSettings
from grounded_seg.text.documents import json_in

_WHY_NEEDED = "a run that is resumed or merged needs it; put it back, or run again with --overwrite"


@dataclass
class Counts:
    """Counts the images and instances in the journal, and the seconds since this run began or was resumed."""

    is_resumed: bool = False
    n_done: int = 0
    n_skipped: int = 0
    n_out_of_reach: int = 0
    """Of those skipped: their files couldn't be read then, though they may now."""
    n_instances: int = 0
    n_empty_masks: int = 0
    """Detections dropped because their mask came out empty or too small."""
    n_unusable_boxes: int = 0
    """Likewise, because their box isn't finite, has no area, or lies outside the image."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Of each stage, and `total`. Reading and writing run beside the models, on threads whose seconds add up."""

    @property
    def n_images(self) -> int:
        """Images done and skipped."""
        return self.n_done + self.n_skipped

    @property
    def exit_code(self) -> int:
        """0 when every image was done, 1 when some or all were skipped."""
        return int(self.n_skipped > 0)

    def add_line(self, line: JournalLine) -> None:
        """Count what a line of the journal says."""
        if line["status"] == "skipped":
            self.n_skipped += 1
            self.n_out_of_reach += line["error"] == ImageAccessError.__name__
        else:
            self.n_done += 1
            self.n_instances += len(line["instances"])

    def add_seconds(self, seconds: Mapping[str, float]) -> None:
        """Add the seconds of some stages."""
        for stage, more in seconds.items():
            self.seconds[stage] = self.seconds.get(stage, 0.0) + more

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the seconds of what is done in the block."""
        started = time.perf_counter()
        yield
        self.add_seconds({stage: time.perf_counter() - started})

    def as_json(self) -> dict[str, Any]:
        """Give the counts as `run.json` has them; what was dropped before a run was resumed isn't known."""
        return {
            "images": self.n_images,
            "done": self.n_done,
            "skipped": self.n_skipped,
            "out_of_reach": self.n_out_of_reach,
            "instances": self.n_instances,
            "empty_masks": None if self.is_resumed else self.n_empty_masks,
            "unusable_boxes": None if self.is_resumed else self.n_unusable_boxes,
        }


def hashed_name(name: str) -> bytes:
    """Give what a name adds to the hash of a list."""
    return os.fsencode(name) + b"\0"


@dataclass(frozen=True)
class ImageNames:
    """Which images a run is about."""

    root: str
    """The folder that their names are relative to, absolute, or its address."""
    count: int
    sha256: str
    """Of all names in their order, each followed by a zero byte: the same for the same list only."""

    @classmethod
    def of(cls, root: Path | Address | str, names: Sequence[str]) -> "ImageNames":
        """Count and hash the names of images below a root."""
        digest = hashlib.sha256()
        for name in names:
            digest.update(hashed_name(name))
        return cls(str(root), len(names), digest.hexdigest())


@dataclass(frozen=True)
class ShardRecord:
    """Which part of a list of images a run is about."""

    number: int
    """From 1 to `count`."""
    count: int
    whole: ImageNames
    """The list that was cut, of which the run's own images are a part."""


@dataclass(frozen=True)
class Started:
    """When the first image of a run was next, or of one that was resumed; for its rate while it runs."""

    time: str
    """In ISO 8601."""
    images: int
    """Lines in the journal then."""

    @classmethod
    def now(cls, n_lines: int) -> "Started":
        """Note the time."""
        return cls(datetime.now(UTC).isoformat(timespec="milliseconds"), n_lines)


@dataclass(frozen=True)
class DataSetAsked:
    """The data set that an `eval` asks about."""

    ground_truth: str
    """The COCO file, as it was given."""
    sha256: str
    """Of what is asked about each image: its id, size, prompts and true boxes."""
    absent: int | None
    """Classes that an image hasn't that it is asked about; None for all."""


@dataclass(frozen=True)
class Manifest:
    """All that is needed to tell how results came about, and to get them again."""

    prompts: Mapping[str, str]
    """The class of each prompt, in the order asked."""
    paths: tuple[str, ...]
    """Files, folders and lists, as they were given."""
    images: ImageNames
    settings: RunSettings
    models: FoundModels | Mapping[str, Any] | None
    """What ran; None before the models are found."""
    images_at_once: int
    """The batch size, or less where the device's memory was too small for it."""
    counts: Mapping[str, int | None] | None = None
    """See `Counts.as_json`. None until the run is finished, as for what follows."""
    seconds: Mapping[str, float] | None = None
    """See `Counts.seconds`."""
    exit_code: int | None = None
    evaluation: DataSetAsked | None = None
    """None for a `run`."""
    shard: ShardRecord | None = None
    """None for a run over all of its images."""
    started: Started | None = None
    rules: Mapping[str, Mapping[str, Any]] | None = None
    """What a file of classes says about a prompt beside its class, by its keys; None for none."""

    def as_json(self) -> dict[str, Any]:
        """Give the manifest as it reads back."""
        plain: dict[str, Any] = json.loads(self._text())
        return plain

    def write(self, path: Path) -> None:
        """Write the manifest as JSON, whole or not at all."""
        write_text(path, f"{self._text()}\n")

    def _text(self) -> str:
        content = asdict(self)
        for key in ("evaluation", "shard", "started", "rules"):
            if content[key] is None:
                del content[key]
        models = content["models"] or {}
        if (calibration := models.pop("calibration", None)) is not None:
            # Its hash stands for the maps.
            models["calibration"] = {key: calibration[key] for key in ("path", "name", "sha256")}
        return json.dumps(content, indent=2, ensure_ascii=False, default=_plain)


def read_manifest(path: Path) -> dict[str, Any]:
    """Read a run's manifest; what is there has the type that it is written with.

    Raises:
        InputError: If it isn't there, can't be read, or holds something of another type.
    """
    try:
        manifest = json_in(path)
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror}); {_WHY_NEEDED}") from error
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}); {_WHY_NEEDED}") from error
    if not isinstance(manifest, dict):
        raise InputError(f"{path} is no manifest of a run; {_WHY_NEEDED}")
    try:
        check_types(manifest, ReadManifest)
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}); {_WHY_NEEDED}") from error
    return manifest


def is_without_images(manifest: Mapping[str, Any]) -> bool:
    """Tell whether a run has no images, so that no line is ever in its journal: a shard that was left empty."""
    images = manifest.get("images")
    return isinstance(images, Mapping) and images.get("count") == 0


def refuse_evaluation(manifest: Mapping[str, Any], folder: Path) -> None:
    """Refuse the folder that an `eval` wrote where one of a `run` is needed."""
    if manifest.get("evaluation") is not None:
        raise UsageError(
            f"{folder} holds the predictions of an eval, not a run; name another folder, or score these predictions "
            "with eval --resume"
        )


def refuse_run(manifest: Mapping[str, Any], folder: Path) -> None:
    """Refuse the folder that a `run` wrote where one of an `eval` is needed."""
    if manifest.get("evaluation") is None:
        raise UsageError(
            f"{folder} holds a run, not the predictions of an eval; score it with --predictions, or name another folder"
        )


def _plain(value: object) -> Any:
    """Bring what JSON doesn't know into a form that it does."""
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, frozenset):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} has no place in a manifest")
