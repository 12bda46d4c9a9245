"""A column of a Parquet file as a list of images; `@FILE.parquet:COLUMN` on the command line."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from grounded_seg.errors import InputError, UsageError
from grounded_seg.images.remote.storage import RemoteFile
from grounded_seg.records import Address

_LIST = re.compile(r"(?P<file>.+\.(parquet|parq|pq))(:(?P<column>[^/]+))?", re.IGNORECASE | re.DOTALL)
_MOST_COLUMNS = 20
"""Named in a message."""


@dataclass(frozen=True)
class ParquetColumn:
    """A column that names images and folders, one a row; empty rows are left out."""

    file: Path | Address
    column: str | None
    """None is an error that names the columns."""

    def __str__(self) -> str:
        """As it stands on the command line."""
        return f"@{self.file}" + (f":{self.column}" if self.column else "")

    @property
    def words(self) -> str:
        """What it is called in a sentence."""
        return f"list {str(self.file)!r}"

    def paths(self) -> Iterator[str]:
        """Read the column row group by row group, a batch of rows at a time.

        Raises:
            UsageError: If pyarrow isn't installed.
            InputError: If the file can't be read, or has no such column of texts.
        """
        try:
            from pyarrow import ArrowException, parquet, types
        except ImportError as error:
            raise UsageError(f"{self.words} needs the package pyarrow; install grounded-seg[cloud]") from error
        try:
            with self._opened() as source, parquet.ParquetFile(source) as opened:
                schema = opened.schema_arrow
                name = self._column_of(schema.names)
                kind = schema.field(name).type
                if types.is_dictionary(kind):
                    kind = kind.value_type
                if not (types.is_string(kind) or types.is_large_string(kind)):
                    raise InputError(f"{self.words}: column {name!r} holds {kind}, not texts; {_listed(schema.names)}")
                yield from self._texts(opened, name)
        except OSError as error:
            reason = error.strerror or str(error).partition("\n")[0]
            raise InputError(f"{self.words} can't be read ({reason}); check the path") from error
        except (ArrowException, UnicodeDecodeError) as error:
            text = " ".join(str(error).split())
            raise InputError(f"{self.words} is no Parquet file that can be read ({text}); copy it again") from error

    def _opened(self) -> BinaryIO:
        return RemoteFile(self.file) if isinstance(self.file, Address) else self.file.open("rb")  # type: ignore[return-value]

    def _column_of(self, names: list[str]) -> str:
        if self.column is None:
            raise InputError(f"{self.words}: say which column, as in {self}:COLUMN; {_listed(names)}")
        if names.count(self.column) != 1:
            raise InputError(f"{self.words} has no column {self.column!r} or several; {_listed(names)}")
        return self.column

    @staticmethod
    def _texts(opened: Any, column: str) -> Iterator[str]:
        for batch in opened.iter_batches(batch_size=10_000, columns=[column]):
            for text in batch.column(0).to_pylist():
                if text:
                    yield text


def parquet_column_from(text: str) -> tuple[str, str | None] | None:
    """File and column of a text such as list.parquet:url; None if it names no Parquet file.

    >>> parquet_column_from("s3://bucket/list.parquet:url")
    ('s3://bucket/list.parquet', 'url')
    """
    found = _LIST.fullmatch(text)
    return None if found is None else (found["file"], found["column"])


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_COLUMNS} more" if len(names) > _MOST_COLUMNS else ""
    return f"the columns are {', '.join(names[:_MOST_COLUMNS])}{more}"
