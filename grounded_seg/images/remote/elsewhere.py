"""Find the images that addresses name: objects, folders of a bucket, patterns, and addresses of the web."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field

from grounded_seg.errors import InputError
from grounded_seg.images.formats import has_image_ending
from grounded_seg.images.remote.addresses import WEB, AddressPattern, below, common_address, names_of
from grounded_seg.images.remote.keys import check_bucket, is_folder, keys_below
from grounded_seg.images.tars import is_tar
from grounded_seg.records import Address

_LOG = logging.getLogger(__name__)

_RUN_FILES = ("results.jsonl", "run.json")
_RUN_PICTURES = ("overlays", "masks", "crops")


@dataclass
class Elsewhere:
    """What addresses name, put together one by one; full addresses, as text."""

    images: list[str] = field(default_factory=list)
    tars: list[str] = field(default_factory=list)
    _bases: set[str] = field(default_factory=set)
    """Folders that names may start from."""
    _checked: set[str] = field(default_factory=set)
    """Buckets of listed addresses, of which one was asked for."""

    def __bool__(self) -> bool:
        return bool(self._bases)

    def add_given(self, given: Address | AddressPattern, *, recursive: bool) -> None:
        """Add what is named directly: it has to be there.

        Raises:
            InputError: If nothing is there, or it can't be asked for or listed.
            UsageError: If the package for this kind of storage isn't installed.
        """
        if isinstance(given, AddressPattern):
            self._add_pattern(given)
        elif given.scheme not in WEB and is_folder(given):
            self._add_folder(given, recursive=recursive)
        else:
            self._add_object(given.url)

    def add_listed(self, address: Address, *, recursive: bool) -> None:
        """Add a line of a list: a folder where it ends with a slash, else an object, which may be missing.

        Raises:
            InputError: If a folder can't be listed, the credentials are refused, or there is no such bucket.
            UsageError: If the package for this kind of storage isn't installed.
        """
        if address.scheme in WEB:
            self._add_object(address.url)
            return
        if address.url.endswith("/"):
            self._add_folder(address, recursive=recursive)
            return
        scheme, _, rest = address.url.partition("://")
        bucket = f"{scheme}://{rest.partition('/')[0]}"
        if bucket not in self._checked:
            self._checked.add(bucket)
            check_bucket(address)
        self._add_object(address.url)

    def root(self) -> Address:
        """The address that names are relative to."""
        return common_address(self._bases)

    def named(self, root: Address) -> tuple[list[str], dict[str, str], dict[str, Address]]:
        """Names of the images, the addresses of those that aren't root and name, and the tars by name."""
        names, elsewhere = names_of(self.images, root)
        tar_names, tars_elsewhere = names_of(self.tars, root)
        tars = {name: below(root, name) for name in tar_names}
        return names, elsewhere, tars | {name: Address(url) for name, url in tars_elsewhere.items()}

    def _add_object(self, url: str) -> None:
        plain = str(Address(url))
        scheme, _, rest = plain.partition("://")
        self._bases.add(f"{scheme}://{rest.rpartition('/')[0]}")
        (self.tars if is_tar(plain) else self.images).append(url)

    def _add_folder(self, folder: Address, *, recursive: bool) -> None:
        self._bases.add(folder.url.rstrip("/"))
        self.images += _without_pictures(keys_below(folder, recursive=recursive))

    def _add_pattern(self, pattern: AddressPattern) -> None:
        fixed, n_found = pattern.fixed, 0
        if not fixed.url.partition("://")[2]:
            raise InputError(f"{str(pattern)!r}: a bucket's name can't be a pattern; name the bucket")
        names_tars = is_tar(pattern.text)
        is_deep = "/" in pattern.text[len(fixed.url) + 1 :]
        for url in keys_below(fixed, recursive=is_deep):
            if pattern.matches(url):
                n_found += 1
                is_one = names_tars and is_tar(url)
                if is_one or has_image_ending(url.rpartition("/")[2]):
                    self._bases.add(url.rpartition("/")[0])
                    (self.tars if is_one else self.images).append(url)
        if not n_found:
            raise InputError(f"no object matches {str(pattern)!r}; check the pattern")


def _without_pictures(urls: Iterator[str]) -> list[str]:
    """Keep the images, but for the pictures of runs that were uploaded there."""
    images, runs = [], set()
    for url in urls:
        folder, _, name = url.rpartition("/")
        if has_image_ending(name):
            images.append(url)
        elif name in _RUN_FILES:
            runs.add(folder)
    pictures = tuple(f"{folder}/{name}/" for folder in sorted(runs) for name in _RUN_PICTURES)
    kept = [url for url in images if not url.startswith(pictures)] if pictures else images
    if len(kept) < len(images):
        _LOG.info("left out %d pictures of earlier runs; to include them, name their folder", len(images) - len(kept))
    return kept
