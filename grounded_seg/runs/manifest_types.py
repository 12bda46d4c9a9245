"""The types that a `run.json` is read with, which come from outside as any file does."""

from typing import Any, Required, TypedDict

from grounded_seg.setting_types import ShardNumber


class _ReadImages(TypedDict, total=False):
    root: str
    count: int
    sha256: str


class _ReadWhole(TypedDict, total=False):
    root: str
    count: Required[int]
    sha256: Required[str]


class _ReadCounts(TypedDict, total=False):
    images: Required[int]
    done: int
    skipped: Required[int]
    out_of_reach: int
    instances: int
    empty_masks: int | None
    unusable_boxes: int | None


class _ReadShard(TypedDict, total=False):
    number: Required[ShardNumber]
    count: Required[ShardNumber]
    whole: Required[_ReadWhole]


class _ReadStart(TypedDict):
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
