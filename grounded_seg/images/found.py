"""The images of a request: their names in order, where each is, and which of them form a group."""

import logging
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path

from grounded_seg.errors import InputError
from grounded_seg.images.given import shown
from grounded_seg.images.remote.addresses import below
from grounded_seg.images.tars import TarImages, images_of_tar
from grounded_seg.records import Address, DamagedTar, Location, TarMember

_LOG = logging.getLogger(__name__)

_N_THREADS = 8
"""That list tars, which mostly wait for storage."""


@dataclass(frozen=True)
class _Tar:
    """The images of a tar, in the order of their names."""

    place: Path | Address
    offsets: "array[int]"
    lengths: "array[int]"
    n_before: int
    """Characters of a name before that of the member."""


@dataclass(frozen=True)
class FoundImages:
    """The images of a request. Names only: ten million paths would not fit beside the models."""

    root: Path | Address
    """The folder given, or the common parent of several."""
    file_names: tuple[str, ...]
    """Path of each image relative to `root`, POSIX, unique, sorted by code point; never empty.

    An image of a tar has the tar's name before its own, as if the tar were a folder.
    """
    group_starts: tuple[int, ...] = (0,)
    """Index of the first image of each group: the images of one tar, or those between two tars."""
    _tars: Mapping[int, _Tar] = field(default_factory=dict)
    """By the start of their group."""
    _elsewhere: Mapping[str, str] = field(default_factory=dict)
    """Addresses of the names whose address isn't root and name."""
    _damaged: Mapping[str, str] = field(default_factory=dict)
    """Names of tars that can't be read to their end, and why."""

    def path(self, file_name: str) -> Path | Address:
        """Where the file of this name is, if it is in no tar."""
        if isinstance(self.root, Path):
            return self.root / file_name
        if file_name in self._elsewhere:
            return Address(self._elsewhere[file_name])
        return below(self.root, file_name)

    def location(self, index: int) -> Location:
        """Where the image of an index is."""
        name = self.file_names[index]
        start = self.group_starts[bisect_right(self.group_starts, index) - 1]
        tar = self._tars.get(start)
        if tar is not None:
            at = index - start
            return TarMember(tar.place, name[tar.n_before :], tar.offsets[at], tar.lengths[at])
        if name in self._damaged:
            return DamagedTar(self.path(name), self._damaged[name])
        return self.path(name)

    @property
    def absolute_root(self) -> Path | Address:
        """The root, whatever folder is the current one."""
        return self.root.absolute() if isinstance(self.root, Path) else self.root

    def part(self, indices: range) -> "FoundImages":
        """Take images that follow each other, under the same names; a group that is cut is one of its own."""
        starts = [max(start, indices.start) for start in self.group_starts if start < indices.stop]
        starts = starts[bisect_right(starts, indices.start) - 1 :] or [indices.start]
        tars = {}
        for start in starts:
            before = self.group_starts[bisect_right(self.group_starts, start) - 1]
            if before in self._tars:
                tar, skipped = self._tars[before], start - before
                moved = replace(tar, offsets=tar.offsets[skipped:], lengths=tar.lengths[skipped:])
                tars[start - indices.start] = moved
        names = self.file_names[indices.start : indices.stop]
        return replace(
            self, file_names=names, group_starts=tuple(start - indices.start for start in starts), _tars=tars
        )

    def only(self, file_names: Sequence[str]) -> "FoundImages":
        """Keep some of the names, in their order; the images of a tar together."""
        if len(file_names) == len(self.file_names):
            return self
        wanted = set(file_names)
        kept = [index for index, name in enumerate(self.file_names) if name in wanted]
        # Where a group has become empty, the one after it starts in its place.
        starts = {bisect_left(kept, start): start for start in self.group_starts}
        starts = {now: start for now, start in starts.items() if now < len(kept)}
        tars = {now: self._tars[start] for now, start in starts.items() if start in self._tars}
        return replace(self, file_names=tuple(file_names), group_starts=tuple(sorted(starts)) or (0,), _tars=tars)


def assembled(
    root: Path | Address,
    names: list[str],
    tars: Mapping[str, Path | Address],
    elsewhere: Mapping[str, str] | None = None,
) -> FoundImages:
    """List the tars, and bring all names into their order.

    Args:
        root: What names are relative to.
        names: Of images outside of tars, in any order, perhaps with repeats; it is changed.
        tars: By name.
        elsewhere: Addresses of those names whose address isn't root and name.

    Raises:
        InputError: If a tar can't be listed, no tar holds an image and one is damaged, or names of a folder and a tar
            are the same.
    """
    with ThreadPoolExecutor(_N_THREADS, thread_name_prefix="tars") as pool:
        listed = dict(zip(tars, pool.map(images_of_tar, tars.values()), strict=True))
    damaged = {name: one.damage for name, one in listed.items() if one.damage is not None}
    for name, one in listed.items():
        names += (f"{name}/{member}" for member in one.names)
    if damaged and not names:
        raise InputError(next(iter(damaged.values())))
    names += damaged
    # Sorted with its repeats, rather than as a set: half the memory for ten million names.
    names.sort()
    unique = tuple(name for name, _ in groupby(names))
    n_replaced = sum(one.n_replaced for one in listed.values())
    if n_replaced:
        _LOG.warning("%d images of tars have the name of a later one, which replaces them", n_replaced)
    by_start, starts = {}, {0}
    for name, one in listed.items():
        if one.names:
            start, end = _range_of(unique, name, one)
            by_start[start] = _Tar(one.tar, one.offsets, one.lengths, len(name) + 1)
            starts |= {start, end}
    group_starts = tuple(sorted(start for start in starts if start < len(unique) or start == 0))
    return FoundImages(root, unique, group_starts, by_start, elsewhere or {}, damaged)


def _range_of(names: Sequence[str], name: str, images: TarImages) -> tuple[int, int]:
    start, end = bisect_left(names, f"{name}/"), bisect_left(names, f"{name}0")
    if end - start != len(images.names):
        raise InputError(f"{shown(images.tar)} and a folder of its name both hold images; move one of them away")
    return start, end
