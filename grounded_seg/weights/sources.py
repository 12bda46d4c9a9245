"""The source of each of the three models, from the options. Nothing is read or fetched here."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from grounded_seg.errors import WeightsError
from grounded_seg.settings import ModelSettings
from grounded_seg.weights.presets import Preset, SegmenterFile, preset_by_name, preset_table

_HUB_ID = re.compile(r"([A-Za-z0-9][\w.-]*/[\w.-]+)(?:@(\w[\w./-]*))?")
"""owner/name, and optionally a branch, tag or commit."""
_HUB_FORMS = "a hub id (owner/name or owner/name@commit)"
_DEFAULT_REVISION = "main"
_NO_ADAPTER = "none"
_PARTS_OF_A_TRAINING = {"--adapter": "adapter", "ADAPTER": "adapter", "--detector": "model", "BASE": "model"}
"""Subfolders of a training's folder, which may be named instead of them, by option or argument."""
_WEIGHT_FILE_ENDINGS = (".pth", ".pt", ".bin", ".safetensors")
"""A name with such an ending is a file, though it could be a hub id."""


@dataclass(frozen=True)
class LocalSource:
    """A file or folder on this disk."""

    path: Path
    name: str
    """In a run's manifest: the path as it was given, or the preset's part."""


@dataclass(frozen=True)
class HubSource:
    """A repository on the Hugging Face hub."""

    repo_id: str
    revision: str
    """Branch, tag or commit."""

    @property
    def name(self) -> str:
        """Its name in a run's manifest, beside the commit."""
        return self.repo_id

    @property
    def url(self) -> str:
        """Its page."""
        at = "" if self.revision == _DEFAULT_REVISION else f"/tree/{self.revision}"
        return f"https://huggingface.co/{self.repo_id}{at}"

    def __str__(self) -> str:
        return self.repo_id if self.revision == _DEFAULT_REVISION else f"{self.repo_id}@{self.revision}"


@dataclass(frozen=True)
class PublishedSource:
    """A published Segment Anything file, fetched on first use."""

    file: SegmenterFile

    @property
    def name(self) -> str:
        """Its name in a run's manifest."""
        return self.file.file_name


Source: TypeAlias = LocalSource | HubSource | PublishedSource


@dataclass(frozen=True)
class ModelSources:
    """The sources of one run's weights."""

    detector: LocalSource | HubSource
    adapter: LocalSource | HubSource | None
    segmenter: Source
    is_demo: bool
    """One of the models is the demo's, which knows rendered scenes only."""


def resolve(settings: ModelSettings, *, boxes_only: bool = False) -> ModelSources:
    """The sources of a preset's models, replaced by those that the settings name.

    Another detector comes without the preset's adapter, unless an adapter is named too. With `boxes_only` the segmenter
    isn't used, and doesn't count for `is_demo`.

    Raises:
        WeightsError: If a named file or folder doesn't exist, or the preset's own are missing from the installation.
    """
    preset = preset_by_name(settings.preset)
    has_own_detector = settings.detector is None or _is_detector_of(preset, settings.detector)
    return ModelSources(
        detector=_detector(None if has_own_detector else settings.detector, preset),
        adapter=_adapter(settings.adapter, preset if has_own_detector else None),
        segmenter=_segmenter(settings.segmenter, preset),
        is_demo=preset.ships_with_project and (has_own_detector or (settings.segmenter is None and not boxes_only)),
    )


def _is_detector_of(preset: Preset, given: str) -> bool:
    if preset.ships_with_project:
        return Path(given).resolve() in [folder / preset.detector for folder in _shipped_folders(preset)]
    return given == preset.detector


def _detector(given: str | None, preset: Preset) -> LocalSource | HubSource:
    if given is not None:
        return named_source(given, "--detector")
    if preset.ships_with_project:
        return _shipped(preset, preset.detector)
    return HubSource(preset.detector, preset.revision or _DEFAULT_REVISION)


def _adapter(given: str | None, preset: Preset | None) -> LocalSource | HubSource | None:
    if given is not None:
        return None if given == _NO_ADAPTER else named_source(given, "--adapter")
    return _shipped(preset, preset.adapter) if preset and preset.adapter else None


def _segmenter(given: str | None, preset: Preset) -> Source:
    published = preset_table().segmenters
    if given is None:
        if preset.ships_with_project:
            return _shipped(preset, preset.segmenter)
        if preset.segmenter in published:
            return PublishedSource(published[preset.segmenter])
        return HubSource(preset.segmenter, preset.segmenter_revision or _DEFAULT_REVISION)
    path = _path_from(given)
    if given and os.path.exists(path):
        return LocalSource(path, given)
    if given in published:
        return PublishedSource(published[given])
    hub = hub_source(given)
    if hub is not None and not hub.repo_id.endswith(_WEIGHT_FILE_ENDINGS):
        return hub
    raise WeightsError(
        f"--segmenter {given} isn't there: give a Segment Anything file, a folder, {_HUB_FORMS}, "
        f"or one of {', '.join(published)}."
    )


def named_source(given: str, option: str) -> LocalSource | HubSource:
    """The folder or hub repository of this name, a folder first; of a training's folder, its model or adapter.

    `option` is the argument it was given as, such as "--detector"; it decides which, and a `WeightsError` names it.
    """
    # An empty name would be the working folder.
    path = _path_from(given)
    if given and os.path.isdir(path):
        part = path / _PARTS_OF_A_TRAINING.get(option, "")
        is_training = (path / "metrics.jsonl").is_file() and part.is_dir()
        return LocalSource(part if is_training else path, given)
    hub = hub_source(given)
    if os.path.exists(path) or hub is None:
        raise WeightsError(f"{option} {given} isn't a folder on this disk, and doesn't read as {_HUB_FORMS}.")
    return hub


def hub_source(given: str) -> HubSource | None:
    """The repository of `owner/name` or `owner/name@REVISION`; None for another form."""
    match = _HUB_ID.fullmatch(given)
    return HubSource(match[1], match[2] or _DEFAULT_REVISION) if match else None


def _path_from(given: str) -> Path:
    # Unlike `Path.expanduser` without an error for an unknown user.
    return Path(os.path.expanduser(given))


def _shipped(preset: Preset, part: str) -> LocalSource:
    for folder in _shipped_folders(preset):
        if os.path.isdir(folder / part):
            return LocalSource(folder / part, f"{preset.name}/{part}")
    raise WeightsError(
        f"The {preset.name} preset's {part} is missing from {_shipped_folders(preset)[-1]}: "
        f"install grounded-seg again, or restore checkpoints/{preset.name} of the checkout."
    )


def shipped_file(preset: str, name: str) -> Path:
    """A file beside a preset that comes with the project, or among the checkout's examples."""
    folders = [*_shipped_folders(preset_by_name(preset)), Path(__file__).resolve().parents[2] / "examples"]
    for folder in folders:
        if os.path.isfile(folder / name):
            return folder / name
    raise WeightsError(f"{name} is missing from {folders[0]}; install grounded-seg again")


def _shipped_folders(preset: Preset) -> list[Path]:
    """Where a preset's folder may be: in an installed package, or at the top of a checkout."""
    package = Path(__file__).resolve().parents[1]
    return [root / "checkpoints" / preset.name for root in (package, package.parent)]
