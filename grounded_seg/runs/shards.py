"""Shards: a list of images cut into parts that are runs of their own, and the check that parts make up the list."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from grounded_seg.engine.batches import batch_ranges
from grounded_seg.errors import InputError, UsageError
from grounded_seg.images.found import FoundImages
from grounded_seg.runs.manifest import ImageNames, ShardRecord
from grounded_seg.runs.resume import comparable, shown_values
from grounded_seg.settings import Shard

_OWN = {"shard", "number of images", "list of images", "save"}
"""What may differ between the shards of one list: pictures stay where they are."""
_MAX_NAMED = 8
"""Shards named in a message."""


def shard_range(n_images: int, batch_size: int, shard: Shard, group_starts: Sequence[int] = (0,)) -> range:
    """Give the indices of a shard's images in the whole list.

    Shards are cut where a batch begins, so that the batches of all shards are those of one run. Their numbers of
    batches differ by one at most. Where there are at least as many groups of images (such as tars) as shards, a shard
    has whole groups. A shard is empty where there are fewer batches than shards.

    >>> [shard_range(11, 2, Shard(number, 4)) for number in (1, 2, 3, 4)]
    [range(0, 2), range(2, 6), range(6, 8), range(8, 11)]
    """
    by_group = shard.count <= len(group_starts)
    n_units = len(group_starts) if by_group else sum(1 for _ in batch_ranges(n_images, batch_size, group_starts))
    first, end = ((number * n_units) // shard.count for number in (shard.number - 1, shard.number))
    if by_group:
        borders = [*group_starts, n_images]
        return range(borders[first], borders[end])
    mine = list(islice(batch_ranges(n_images, batch_size, group_starts), first, end))
    return range(mine[0].start, mine[-1].stop) if mine else range(0)


def cut(found: FoundImages, batch_size: int, shard: Shard) -> tuple[FoundImages, ShardRecord]:
    """Take a shard of the images found, under the names that they have in the whole list."""
    whole = ImageNames.of(found.absolute_root, found.file_names)
    mine = shard_range(len(found.file_names), batch_size, shard, found.group_starts)
    return found.part(mine), ShardRecord(shard.number, shard.count, whole)


def check_shards(runs: Sequence[tuple[Path, Mapping[str, Any]]]) -> None:
    """Check that runs are all the shards of one list, each once, run with the same settings and weights.

    Args:
        runs: Folder and manifest of each, in any order; at least one is a shard.

    Raises:
        UsageError: If one is no shard, is missing or there twice, or is of another list, or run otherwise; says which.
        InputError: If a manifest is damaged.
    """
    (first_run, first), *others = runs
    plain = next((run for run, manifest in runs if manifest.get("shard") is None), None)
    if plain is not None:
        shard = next(run for run, manifest in runs if manifest.get("shard") is not None)
        raise UsageError(
            f"{plain} is no shard, and {shard} is; merge all shards of a list first, then the result with other runs"
        )
    try:
        for run, manifest in runs:
            _check_is_of_list(run, manifest, first_run, first)
        _check_numbers([(run, manifest["shard"]["number"]) for run, manifest in runs], first["shard"]["count"])
        wanted = _shared(first)
        for run, manifest in others:
            own = _shared(manifest)
            differing = [name for name in sorted(own.keys() | wanted.keys()) if own.get(name) != wanted.get(name)]
            if differing:
                name = differing[0]
                here, there = shown_values(own.get(name), wanted.get(name))
                raise UsageError(
                    f"{run} and {first_run} weren't run alike: {name} is {here} and {there}; run one of them again as "
                    "the other, with --overwrite"
                )
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"the run.json of a shard is damaged ({error!r}); run that shard again") from error


def missing_shards(numbers: Sequence[int], count: int) -> list[int]:
    """Give the numbers of the shards that aren't there."""
    return sorted(set(range(1, count + 1)) - set(numbers))


def named_shards(numbers: Sequence[int], count: int) -> str:
    """Name some shards of so many.

    >>> named_shards([2], 8), named_shards([2, 3, 7], 8)
    ('shard 2/8', 'shards 2, 3, 7 of 8')
    """
    if len(numbers) == 1:
        return f"shard {numbers[0]}/{count}"
    more = f" and {len(numbers) - _MAX_NAMED} more" if len(numbers) > _MAX_NAMED else ""
    return f"shards {', '.join(map(str, numbers[:_MAX_NAMED]))}{more} of {count}"


def _check_is_of_list(run: Path, manifest: Mapping[str, Any], first_run: Path, first: Mapping[str, Any]) -> None:
    own, wanted = manifest["shard"], first["shard"]
    if own["count"] != wanted["count"]:
        raise UsageError(
            f"{run} is shard {own['number']}/{own['count']} and {first_run} is shard {wanted['number']}/"
            f"{wanted['count']}; merge shards of one and the same number of parts"
        )
    if own["whole"]["sha256"] != wanted["whole"]["sha256"]:
        raise UsageError(
            f"{run} and {first_run} are shards of different lists of images ({own['whole']['count']} and "
            f"{wanted['whole']['count']} images); run one of them again on the list of the other"
        )


def _check_numbers(numbered: Sequence[tuple[Path, int]], count: int) -> None:
    by_number = Counter(number for _, number in numbered)
    twice = [number for number, n in sorted(by_number.items()) if n > 1]
    if twice:
        runs = " and ".join(str(run) for run, number in numbered if number == twice[0])
        raise UsageError(f"shard {twice[0]}/{count} is there twice: {runs}; name each shard once")
    if missing := missing_shards(list(by_number), count):
        is_one = len(missing) == 1
        raise UsageError(
            f"{named_shards(missing, count)} {'is' if is_one else 'are'} missing; run "
            f"{'it' if is_one else 'them'} with run --shard {missing[0]}/{count}{'' if is_one else ' and so on'}, and "
            "name all shards"
        )


def _shared(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Give what has to be the same for all shards; of the device its kind."""
    shared = {name: value for name, value in comparable(manifest) if name not in _OWN}
    if isinstance(device := shared.get("models device"), str):
        shared["models device"] = device.partition(":")[0]
    return shared
