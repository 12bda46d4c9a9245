"""The types that a `run.json` is read with, which come from outside as any file does."""

from typing import Any, TypedDict


class _ReadImages(TypedDict, total=False):
    root: str
    count: int
    sha256: str


class _ReadCounts(TypedDict, total=False):
    images: int
    done: int
    skipped: int
    out_of_reach: int
    instances: int
    empty_masks: int | None
    unusable_boxes: int | None


class _ReadShard(TypedDict, total=False):
    number: int
    count: int
    whole: _ReadImages


class _ReadStart(TypedDict, total=False):
    time: str
    images: int


class ReadManifest(TypedDict, total=False):
    """What is read of a manifest, as far as it is there: older ones lack some."""

    prompts: dict[str, str]
    images: _ReadImages
    settings: dict[str, Any]
    models: dict[str, Any] | None
    images_at_once: int
    counts: _ReadCounts | None
    seconds: dict[str, float] | None
    exit_code: int | None
    evaluation: dict[str, Any] | None
    shard: _ReadShard | None
    started: _ReadStart | None
    rules: dict[str, dict[str, Any]] | None
    merged: list[dict[str, Any]] | None
