"""Addresses of images elsewhere: which are read, patterns of them, and the names that images get from them."""

import fnmatch
import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, product
from math import prod
from urllib.parse import parse_qsl, urlsplit

from grounded_seg.errors import InputError
from grounded_seg.records import Address

WEB = ("http", "https")
SCHEMES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "memory", *WEB)
"""What is read, all but the web with folders."""
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_MAGIC = re.compile(r"[*?[]")
_BRACES = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{},]+(?:,[^{},]+)+))\}")
_MOST_OF_BRACES = 1_000_000
_UNUSABLE = {"": "%", ".": "%2E", "..": "%2E%2E"}
"""Parts of a name that would leave a folder, or be lost, as part of a path."""
_SIGNING = re.compile(
    r"x-(amz|goog|oss|cos)-.*|sig.*|s[eprtv]|s(ip|po|pr|kt|ke|ks|kv|koid|ktid)|.*token|.*key.*|exp.*|policy"
)
"""Parameters of a query that sign it, and change while the image stays; in lower case."""


@dataclass(frozen=True)
class AddressPattern:
    """A pattern such as s3://BUCKET/photos/*.png or s3://BUCKET/photos/**/*.png."""

    text: str

    def __str__(self) -> str:
        """As it stands on the command line."""
        return self.text

    @property
    def fixed(self) -> Address:
        """The folder before the first part with a sign that matches names."""
        start = self.text.index("://") + 3
        first = _MAGIC.search(self.text, start)
        return Address(self.text[: max(start, self.text.rfind("/", 0, first.start() if first else None))])

    def matches(self, url: str) -> bool:
        """Whether an address below the fixed part matches: `*` and `?` within a part, `**` any number of folders."""
        start = len(self.fixed.url) + 1
        return _match(url[start:].split("/"), self.text[start:].split("/"))


@dataclass(frozen=True)
class Braces:
    """Several paths or addresses in one, such as shard-{000..099}.tar."""

    text: str

    def __str__(self) -> str:
        """As it stands on the command line."""
        return self.text

    def texts(self) -> Iterator[str]:
        """Give each text that it stands for, in order.

        Raises:
            InputError: If there are none, or too many.

        >>> list(Braces("{a,b}-{08..10}.tar").texts())
        ['a-08.tar', 'a-09.tar', 'a-10.tar', 'b-08.tar', 'b-09.tar', 'b-10.tar']
        """
        choices = [self._choices(found) for found in _BRACES.finditer(self.text)]
        if not 0 < prod(map(len, choices)) <= _MOST_OF_BRACES:
            raise self._too_many()
        between = _BRACES.sub("\0", self.text).split("\0")
        for chosen in product(*choices, [""]):
            yield "".join(chain.from_iterable(zip(between, chosen, strict=True)))

    def _choices(self, found: re.Match[str]) -> Sequence[str]:
        if found[3] is not None:
            return found[3].split(",")
        first, last = int(found[1]), int(found[2])
        if last - first >= _MOST_OF_BRACES:
            raise self._too_many()
        width = len(found[1]) if found[1].startswith("0") else 0
        return [f"{number:0{width}}" for number in range(first, last + 1)]

    def _too_many(self) -> InputError:
        return InputError(f"{self.text!r} stands for none, or for more than {_MOST_OF_BRACES} paths; check its braces")


def address_from(text: str) -> Address | None:
    """Take a text for an address; None for a path.

    Raises:
        InputError: If it is an address of a kind that isn't read, or holds credentials of a bucket.
    """
    found = _ADDRESS.match(text)
    if found is None:
        return None
    scheme, rest = found[1].lower(), text[found.end() :]
    if scheme not in SCHEMES:
        if os.path.lexists(text):
            return None
        raise InputError(
            f"{text!r} is an address that isn't read; give one of {', '.join(f'{one}://' for one in SCHEMES)}, or a "
            "path on this disk"
        )
    place = rest.partition("/")[0]
    if scheme not in WEB and "@" in place and ":" in place:
        raise InputError(
            f"an address of {scheme}:// holds a password before {place.rpartition('@')[2]!r}; take it out, and give "
            "credentials in the environment"
        )
    if not place:
        raise InputError(f"{text!r} names no {'host' if scheme in WEB else 'bucket'}; check the address")
    return Address(f"{scheme}://{rest}")


def has_braces(text: str) -> bool:
    """Whether a text stands for several."""
    return _BRACES.search(text) is not None


def pattern_from(address: Address) -> Address | AddressPattern:
    """Take an address with `*`, `?` or `[` for a pattern; in the web a question mark begins a query."""
    return AddressPattern(address.url) if address.scheme not in WEB and _MAGIC.search(address.url) else address


def common_address(folders: Iterable[str]) -> Address:
    """The address that all folders lie in, without a slash at its end; only the scheme where buckets differ.

    Raises:
        InputError: If they are of different kinds of storage.
    """
    parts: list[str] | None = None
    for folder in folders:
        scheme, _, rest = folder.partition("://")
        own = [scheme, *rest.rstrip("/").split("/")]
        parts = own if parts is None else parts[: _n_alike(parts, own)]
        if not parts:
            raise InputError(
                "the images are in different kinds of storage, such as "
                f"{folder.partition('://')[0]}://; run each kind alone, and merge them with merge-runs"
            )
    scheme, *rest_parts = parts or [""]
    return Address(f"{scheme}://{'/'.join(rest_parts)}")


def below(root: Address, name: str) -> Address:
    """The address of a name below a root."""
    return Address(f"{root.url}{'' if root.url.endswith('/') else '/'}{name}")


def safe_name(name: str) -> str:
    r"""A name that stays within a folder as a path; a key may hold parts that wouldn't.

    >>> safe_name("../a//b.jpg")
    '%2E%2E/a/%/b.jpg'
    """
    if "\0" not in name and not name.startswith(("/", ".")) and not name.endswith("/") and not _has_odd_part(name):
        return name
    return "/".join(_UNUSABLE.get(part, part) for part in name.replace("\0", "%00").split("/"))


def names_of(urls: Sequence[str], root: Address) -> tuple[list[str], dict[str, str]]:
    """Name addresses from their root, and give the address of each name that isn't root and name.

    Where several have one name but for their queries, each gets a hash of what doesn't sign it.
    """
    inside = len(below(root, "").url)
    names, elsewhere = [], {}
    is_web = root.scheme in WEB
    shared: dict[str, list[str]] = defaultdict(list)
    for url in urls:
        plain = str(Address(url)) if is_web else url
        name = safe_name(plain[inside:])
        if plain != url or name != plain[inside:]:
            shared[name].append(url)
        else:
            names.append(name)
    for name, different in shared.items():
        for url in different:
            own = name if len(set(map(_unsigned, different))) == 1 else _marked(name, _unsigned(url))
            names.append(own)
            elsewhere[own] = url
    return names, elsewhere


def _unsigned(url: str) -> str:
    parts = urlsplit(url)
    kept = sorted(
        pair for pair in parse_qsl(parts.query, keep_blank_values=True) if not _SIGNING.fullmatch(pair[0].lower())
    )
    return f"{parts.path}?{kept}"


def _marked(name: str, unsigned: str) -> str:
    """Tell a name from others by a hash before its ending."""
    folder, slash, last = name.rpartition("/")
    stem, dot, ending = last.rpartition(".")
    mark = hashlib.sha256(unsigned.encode()).hexdigest()[:8]
    return f"{folder}{slash}{stem}~{mark}.{ending}" if stem and dot else f"{name}~{mark}"


def _has_odd_part(name: str) -> bool:
    return "//" in name or "/." in name


def _n_alike(one: Sequence[str], other: Sequence[str]) -> int:
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _match(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Match parts of a name, each `**` with any number of folders."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        n_least = 0 if len(pattern) > 1 else 1
        return any(_match(parts[at:], pattern[1:]) for at in range(n_least, len(parts) + 1))
    if not parts or not fnmatch.fnmatchcase(parts[0], pattern[0]):
        return False
    return (pattern[0].startswith(".") or not parts[0].startswith(".")) and _match(parts[1:], pattern[1:])
