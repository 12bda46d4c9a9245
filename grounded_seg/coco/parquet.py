"""Results as tables in Parquet, beside the COCO file: one row an instance, and one row an image.

The home of pyarrow here, which is an optional extra. `docs/large_runs.md` lists the columns; both tables are written in
row groups, in memory that doesn't grow with the run, and the same lines give the same bytes.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, cast

from grounded_seg import __version__
from grounded_seg.coco.schema import CocoAnnotation, CocoImage, JournalLine
from grounded_seg.coco.write import Also, write_annotations
from grounded_seg.errors import UsageError
from grounded_seg.files import as_output_error, whole_file
from grounded_seg.geometry.masks import coco_from_run_length, run_length_from_coco

_MAX_ROWS, _MAX_BYTES = 50_000, 32 << 20
"""Rows of a row group, and bytes of their run lengths: what bounds the memory."""

_INSTANCE = (
    ("image_id", "int64"),
    ("file_name", "string"),
    ("width", "int32"),
    ("height", "int32"),
    ("annotation_id", "int64"),
    ("category_id", "int32"),
    ("category", "string"),
    ("prompt", "string"),
    ("label", "string"),
    ("score", "float64"),
    ("detector_score", "float64"),
    ("mask_score", "float64"),
    ("bbox_x", "float64"),
    ("bbox_y", "float64"),
    ("bbox_w", "float64"),
    ("bbox_h", "float64"),
    ("detector_bbox_x", "float64"),
    ("detector_bbox_y", "float64"),
    ("detector_bbox_w", "float64"),
    ("detector_bbox_h", "float64"),
    ("area", "float64"),
    ("rle_height", "int32"),
    ("rle_width", "int32"),
    ("rle_counts", "string"),
    ("leaves_box", "bool"),
    ("iscrowd", "int8"),
)
_IMAGE = (
    ("image_id", "int64"),
    ("file_name", "string"),
    ("width", "int32"),
    ("height", "int32"),
    ("status", "string"),
    ("n_instances", "int32"),
    ("reason", "string"),
    ("error", "string"),
)
_REPEATED = ["file_name", "category", "prompt", "label", "status", "error"]
"""Columns with few values, or the same one several times in a row, which are stored once."""


def check_can_write_tables() -> None:
    """Raise a `UsageError` where pyarrow isn't installed, before anything is run whose results are to be tables."""
    if find_spec("pyarrow") is None:
        raise UsageError("--results parquet needs pyarrow; install it with `pip install 'grounded-seg[parquet]'`")


def write_results(
    lines: Iterable[JournalLine],
    categories: Sequence[str],
    category_of_prompt: Mapping[str, str],
    annotations: Path,
    tables: tuple[Path, Path] | None = None,
) -> None:
    """Write the COCO file of journal lines, and tables of instances and of images unless that is None, in one pass.

    Raises:
        InputError: As for `write_annotations`.
        OutputError: If a file can't be written; none of them is there in part.
    """
    with as_output_error(annotations), ExitStack() as stack:
        also = None if tables is None else stack.enter_context(_tables(tables, categories, category_of_prompt))
        write_annotations(lines, categories, annotations, category_of_prompt, also)


@contextmanager
def _tables(
    destinations: tuple[Path, Path], categories: Sequence[str], category_of_prompt: Mapping[str, str]
) -> Iterator[Also]:
    """Open both tables; gives what adds a line to them."""
    of_instances, of_images = destinations
    with (
        whole_file(of_instances) as instances_file,
        whole_file(of_images) as images_file,
        _Table(instances_file, _INSTANCE, categories) as instances,
        _Table(images_file, _IMAGE, categories) as images,
    ):

        def add(line: JournalLine, image: CocoImage | None, annotations: Sequence[CocoAnnotation]) -> None:
            image_id = None if image is None else image["id"]
            size = (line["width"], line["height"])
            outcome = (line["status"], len(annotations), line["reason"], line["error"])
            images.add((image_id, _text(line["file_name"]), *size, *outcome))
            for one in annotations:
                category = category_of_prompt[one["attributes"]["prompt"]]
                row = _row(one, category)
                instances.add((image_id, _text(line["file_name"]), *size, *row), len(row[-3] or ""))

        yield add


def _row(one: CocoAnnotation, category: str) -> tuple[Any, ...]:
    """Give the columns of an instance that follow those of its image."""
    attributes, mask = one["attributes"], one["segmentation"]
    # A polygon, which other programs may have put into a journal, has no run lengths.
    size, counts = ((None, None), None) if isinstance(mask, list) else (mask["size"], cast(object, mask["counts"]))
    if isinstance(counts, list):
        counts = coco_from_run_length(run_length_from_coco({"size": size, "counts": counts}))["counts"]
    return (
        one["id"],
        one["category_id"],
        _text(category),
        _text(attributes["prompt"]),
        _text(attributes.get("label")),
        one.get("score"),
        attributes.get("detector_score"),
        attributes.get("mask_score"),
        *one["bbox"],
        *one.get("detector_bbox", (None,) * 4),
        one["area"],
        *size,
        counts,
        attributes.get("leaves_box", False),
        one["iscrowd"],
    )


class _Table:
    """One Parquet file, written in row groups; for a `with` statement."""

    def __init__(self, file: IO[bytes], columns: Sequence[tuple[str, str]], categories: Sequence[str]) -> None:
        import pyarrow
        from pyarrow import parquet

        about = {"version": __version__, "categories": dict(enumerate(categories, start=1))}
        fields = [pyarrow.field(name, pyarrow.type_for_alias(kind)) for name, kind in columns]
        self._pyarrow = pyarrow
        self._schema = pyarrow.schema(fields, {"grounded_seg": json.dumps(about)})
        repeated = [name for name, _ in columns if name in _REPEATED]
        self._writer = parquet.ParquetWriter(file, self._schema, compression="zstd", use_dictionary=repeated)
        self._rows: list[tuple[Any, ...]] = []
        self._n_bytes = 0

    def add(self, row: tuple[Any, ...], n_bytes: int = 0) -> None:
        """Add a row, whose longest text has so many bytes."""
        self._rows.append(row)
        self._n_bytes += n_bytes
        if len(self._rows) >= _MAX_ROWS or self._n_bytes >= _MAX_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            columns = zip(*self._rows, strict=True)
            arrays = [self._pyarrow.array(one, field.type) for one, field in zip(columns, self._schema, strict=True)]
            self._writer.write_table(self._pyarrow.Table.from_arrays(arrays, schema=self._schema), len(self._rows))
            self._rows, self._n_bytes = [], 0

    def __enter__(self) -> "_Table":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_error: object) -> None:
        # A file that is given up is closed all the same, as its writer holds the system's memory.
        if kind is None:
            self._flush()
        self._writer.close()


def _text(text: str | None) -> str | None:
    """Escape what a file name can hold and UTF-8 can't, as `run.json` does."""
    return None if text is None else text.encode("utf-8", errors="backslashreplace").decode("utf-8")
