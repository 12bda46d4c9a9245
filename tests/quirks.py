"""Kinds of quirk that COCO files have, each planted into a clean data set; and what each command makes of it.

    python tests/quirks.py --write    # write the table into docs/data.md

`tests/coco/test_quirks.py` holds the page to it, and the commands to the clean data set's figures.
"""

import copy
import json
import sys
import tempfile
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import PIL.Image
from coco_cases import polygon
from paths import ROOT

from grounded_seg.coco.check.rules import Severity
from grounded_seg.coco.check.validate import validate_file
from grounded_seg.errors import InputError
from grounded_seg.evaluation.evaluate import EvaluationSettings, evaluate
from grounded_seg.export.export import export_labels
from grounded_seg.export.settings import ExportSettings, LabelFormat
from grounded_seg.geometry.masks import coco_from_run_length, mask_from_run_length, run_length_from_coco
from grounded_seg.runs.merge import merge_runs
from grounded_seg.train.data.checks import ImageSizes
from grounded_seg.train.data.coco import read_coco

PAGE = ROOT / "docs" / "data.md"
BEGIN, END = "<!-- table: python tests/quirks.py --write -->\n", "<!-- end of table -->\n"
WIDTH, HEIGHT = 40, 30
SIZE = [HEIGHT, WIDTH]
READERS = ("eval", "train", "export")
COMMANDS = (*READERS, "validate", "merge-runs")

Document = dict[str, Any]
Annotation = dict[str, Any]


@dataclass(frozen=True)
class Quirk:
    """A kind of quirk."""

    name: str
    """As the page has it."""
    plant: Callable[[Document, int], None]
    """Changes a data set, at one of its annotations."""
    prepare: Callable[[Document, int], None] = lambda _document, _index: None
    """Brings a clean data set into the form that it is compared in."""
    is_read: bool = True
    """Whether it gives the clean data set's figures, rows and labels."""
    encode: Callable[[str], bytes] = lambda text: text.encode("utf-8")
    of_annotation: bool = False
    """Whether an annotation alone has it, so that a line of a journal may have it too."""


def each(section: str, change: Callable[[dict[str, Any]], None]) -> Callable[[Document, int], None]:
    def plant(document: Document, _: int) -> None:
        for one in document[section]:
            change(one)

    return plant


def one(change: Callable[[Annotation], None]) -> Callable[[Document, int], None]:
    def plant(document: Document, index: int) -> None:
        change(document["annotations"][index])

    return plant


def put(**values: Any) -> Callable[[Document, int], None]:
    return one(lambda annotation: annotation.update(values))


def without(key: str) -> Callable[[Document, int], None]:
    return one(lambda annotation: annotation.pop(key))


def outline(annotation: Annotation) -> None:
    annotation["segmentation"] = [polygon(annotation["bbox"])]


def run_lengths(annotation: Annotation) -> None:
    x, y, width, height = annotation["bbox"]
    runs = [x * HEIGHT + y, *[height, HEIGHT - height] * width]
    runs[-1] = WIDTH * HEIGHT - sum(runs[:-1])
    mask = {"size": [HEIGHT, WIDTH], "counts": runs if runs[-1] else runs[:-1]}
    annotation["segmentation"] = coco_from_run_length(run_length_from_coco(mask))


def counted(annotation: Annotation) -> None:
    pixels = mask_from_run_length(run_length_from_coco(annotation["segmentation"])).ravel(order="F").tolist()
    runs = [len(list(same)) for _, same in groupby(pixels)]
    annotation["segmentation"] = {"size": SIZE, "counts": [0, *runs] if pixels[0] else runs}


no_mask = put(segmentation=[])


def shifted(section: str, *keys: str) -> Callable[[Document, int], None]:
    """Let the ids of a section, and what refers to them, count from 0."""

    def plant(document: Document, _: int) -> None:
        for entry in document[section]:
            entry["id"] -= 1
        for annotation in document["annotations"]:
            for key in keys:
                annotation[key] -= 1

    return plant


def named(section: str, key: str) -> Callable[[Document, int], None]:
    """Make the ids of a section words."""

    def plant(document: Document, _: int) -> None:
        for entry in document[section]:
            entry["id"] = f"no. {entry['id']}"
        for annotation in document["annotations"]:
            annotation[key] = f"no. {annotation[key]}"

    return plant


def huge(section: str, key: str) -> Callable[[Document, int], None]:
    """Make the ids of a section larger than 64 bits hold."""

    def plant(document: Document, _: int) -> None:
        for entry in document[section]:
            entry["id"] += 2**64
        for annotation in document["annotations"]:
            annotation[key] += 2**64

    return plant


def as_text(section: str, key: str) -> Callable[[Document, int], None]:
    def plant(document: Document, _: int) -> None:
        for entry in document[section]:
            entry["id"] = str(entry["id"])
        for annotation in document["annotations"]:
            annotation[key] = str(annotation[key])

    return plant


def with_root(document: Document, _: int) -> None:
    for category in document["categories"]:
        category["supercategory"] = "things"


def rooted(document: Document, _: int) -> None:
    document["categories"].insert(0, {"id": 0, "name": "things", "supercategory": "none"})


def one_class_twice(document: Document, index: int) -> None:
    first = document["categories"][0]
    number = max(category["id"] for category in document["categories"]) + 1
    document["categories"].append({**first, "id": number})
    for annotation in document["annotations"][index:]:
        if annotation["category_id"] == first["id"]:
            annotation["category_id"] = number


def empty_one(document: Document, index: int) -> None:
    annotation = document["annotations"][index]
    nothing = {**annotation, "bbox": [0, 0, 0, 0], "area": 0, "segmentation": []}
    document["annotations"].append({**nothing, "id": len(document["annotations"]) + 1})


def decomposed(document: Document, _: int) -> None:
    for image in document["images"]:
        image["file_name"] = unicodedata.normalize("NFD", image["file_name"])


def composed_classes(form: Any) -> Callable[[Document, int], None]:
    def plant(document: Document, _: int) -> None:
        for category in document["categories"]:
            category["name"] = unicodedata.normalize(form, category["name"])

    return plant


def same_image_ids(document: Document, _: int) -> None:
    document["images"].append({**document["images"][0], "file_name": "other.png"})


def captions(document: Document, _: int) -> None:
    document["annotations"] = [{"id": 1, "image_id": document["images"][0]["id"], "caption": "a thing"}]


def half_pairs(document: Document, _: int) -> None:
    for letter, category in zip("\ud83d\ud83e\ud83f", document["categories"], strict=False):
        category["name"] = f"a{letter}"


def shares(document: Document, _: int) -> None:
    for annotation in document["annotations"]:
        x, y, width, height = annotation["bbox"]
        annotation["bbox"] = [x / WIDTH, y / HEIGHT, width / WIDTH, height / HEIGHT]
        annotation["segmentation"] = []


def section(name: str, value: Any) -> Callable[[Document, int], None]:
    return lambda document, _index: document.update({name: value})


def both(*changes: Callable[[Document, int], None]) -> Callable[[Document, int], None]:
    def plant(document: Document, index: int) -> None:
        for change in changes:
            change(document, index)

    return plant


def of_image(**values: Any) -> Callable[[Document, int], None]:
    return lambda document, _index: document["images"][0].update(values)


def without_sizes(document: Document, _: int) -> None:
    for image in document["images"]:
        del image["width"], image["height"]


def marked(encoding: str, mark: bytes) -> Callable[[str], bytes]:
    return lambda text: mark + text.encode(encoding)


def text_of_box(annotation: Annotation) -> None:
    annotation["bbox"] = json.dumps(annotation["bbox"])


def text_numbers(annotation: Annotation) -> None:
    annotation["bbox"] = [str(value) for value in annotation["bbox"]]
    annotation["area"] = str(annotation["area"])
    annotation["iscrowd"] = str(annotation["iscrowd"])


def flat(annotation: Annotation) -> None:
    [annotation["segmentation"]] = annotation["segmentation"]


def text_of_mask(annotation: Annotation) -> None:
    annotation["segmentation"] = json.dumps(annotation["segmentation"])


QUIRKS = (
    Quirk("no `info`", lambda document, _: document.pop("info")),
    Quirk("a UTF-8 byte order mark", lambda *_: None, encode=marked("utf-8", b"\xef\xbb\xbf")),
    Quirk("UTF-16 with its mark", lambda *_: None, encode=marked("utf-16-le", b"\xff\xfe")),
    Quirk("UTF-16 without its mark", lambda *_: None, is_read=False, encode=marked("utf-16-le", b"")),
    Quirk("annotation ids from 0", shifted("annotations")),
    Quirk("annotation ids as text", one(lambda annotation: annotation.update(id=str(annotation["id"])))),
    Quirk("an annotation without an id", without("id")),
    Quirk("annotation ids that begin anew", each("annotations", lambda annotation: annotation.update(id=1))),
    Quirk("image ids from 0", shifted("images", "image_id")),
    Quirk("image ids as text", as_text("images", "image_id")),
    Quirk("image ids that are words", named("images", "image_id")),
    Quirk("category ids from 0", shifted("categories", "category_id")),
    Quirk("category ids as text", as_text("categories", "category_id")),
    Quirk(
        "an id as a number here, as text there",
        one(lambda annotation: annotation.update(image_id=str(annotation["image_id"]))),
    ),
    Quirk("an annotation id beyond 64 bits", put(id=2**64)),
    Quirk("an image id beyond 64 bits", huge("images", "image_id")),
    Quirk("one id of two images", same_image_ids, is_read=False),
    Quirk("an id that refers to nothing", put(category_id=99), is_read=False),
    Quirk("no `category_id`", without("category_id"), is_read=False),
    Quirk("Roboflow's root category", rooted, with_root),
    Quirk("one class twice", one_class_twice),
    Quirk(
        "blanks around class names", each("categories", lambda category: category.update(name=f" {category['name']} "))
    ),
    Quirk("class names in another form of their letters (NFC, NFD)", composed_classes("NFD"), composed_classes("NFC")),
    Quirk("half a character in class names", half_pairs, is_read=False),
    Quirk("file names in another form of their letters (NFC, NFD)", decomposed),
    Quirk("backslashes in file names", of_image(file_name="sub\\1.png"), of_image(file_name="sub/1.png")),
    Quirk("a file name that leaves the folder", of_image(file_name="../1.png"), is_read=False),
    Quirk("width and height as text", of_image(width=str(WIDTH), height=str(HEIGHT))),
    Quirk("width and height swapped", of_image(width=HEIGHT, height=WIDTH), is_read=False),
    Quirk("no `width` and `height`", without_sizes),
    Quirk("a size that isn't the image's", of_image(width=WIDTH * 10, height=HEIGHT), is_read=False),
    Quirk("`bbox` as text", one(text_of_box), of_annotation=True),
    Quirk("numbers as text", one(text_numbers), of_annotation=True),
    Quirk("no `bbox`, but a mask", without("bbox"), one(outline), of_annotation=True),
    Quirk("an `area` beyond 64 bits", put(area=2**64), put(area=float(2**64)), of_annotation=True),
    Quirk("no `area`", without("area"), of_annotation=True),
    Quirk("no `iscrowd`", without("iscrowd"), of_annotation=True),
    Quirk("`iscrowd` false", put(iscrowd=False), of_annotation=True),
    Quirk("a box of zeros, without a mask", empty_one),
    Quirk("a box with a negative width", put(bbox=[20, 5, -5, 5]), is_read=False, of_annotation=True),
    Quirk("boxes in normalized coordinates", shares, is_read=False),
    Quirk("no `segmentation`", without("segmentation"), no_mask, of_annotation=True),
    Quirk("`segmentation` null", put(segmentation=None), no_mask, of_annotation=True),
    Quirk("`segmentation` as text", one(text_of_mask), one(outline), of_annotation=True),
    Quirk("a polygon that isn't in a list", one(flat), one(outline), of_annotation=True),
    Quirk(
        "a further part of two corners",
        one(lambda annotation: annotation["segmentation"].append([1, 2, 3, 4])),
        one(outline),
        of_annotation=True,
    ),
    Quirk("run lengths as a list of counts", one(counted), one(run_lengths), of_annotation=True),
    Quirk("a polygon of two corners", put(segmentation=[[1, 2, 3, 4]]), no_mask, of_annotation=True),
    Quirk("a polygon of five numbers", put(segmentation=[[1, 2, 3, 4, 5]]), no_mask, of_annotation=True),
    Quirk("a polygon far outside the image", put(segmentation=[[0, 0, 1e9, 0, 1e9, 1e9]]), no_mask, of_annotation=True),
    Quirk(
        "runs longer than the image", put(segmentation={"size": SIZE, "counts": [0, 9999]}), no_mask, of_annotation=True
    ),
    Quirk("run lengths without `counts`", put(segmentation={"size": SIZE}), no_mask, of_annotation=True),
    Quirk(
        "a mask without a pixel",
        put(segmentation={"size": SIZE, "counts": [WIDTH * HEIGHT]}),
        no_mask,
        of_annotation=True,
    ),
    Quirk(
        "a mask of another size than the image",
        put(segmentation={"size": SIZE[::-1], "counts": [WIDTH * HEIGHT]}),
        is_read=False,
        of_annotation=True,
    ),
    Quirk("a file of captions", captions, is_read=False),
    Quirk("no categories", section("categories", []), is_read=False),
    Quirk(
        "`images` there twice",
        lambda *_: None,
        is_read=False,
        encode=lambda text: f'{text[:-1]}, "images": []}}'.encode(),
    ),
    Quirk("no `annotations`", lambda document, _: document.pop("annotations"), is_read=False),
)
"""All kinds, in the order of the page."""


@dataclass(frozen=True)
class Planted:
    """A clean data set and predictions, the same two with a quirk, and pictures."""

    clean: Path
    quirky: Path
    predictions: Path
    quirky_predictions: Path
    images: Path


def planted(folder: Path, images: Path, document: Document, index: int, quirk: Quirk) -> Planted:
    """Write both; the pictures are those of `write_pictures`."""
    clean = copy.deepcopy(document)
    quirk.prepare(clean, index)
    predictions = copy.deepcopy(clean)
    for number, annotation in enumerate(predictions["annotations"]):
        annotation["score"] = round(0.9 - number / 50, 3)
        x, y, width, height = annotation["bbox"]
        # Not quite right, so that the figures are neither 0 nor 1; but for the one that gets the quirk.
        if number % 2 and number != index:
            annotation |= {"bbox": [x, y, max(width - 3, 1), height], "segmentation": []}
    quirky = copy.deepcopy(clean)
    quirk.plant(quirky, index)
    quirky_predictions = copy.deepcopy(predictions)
    quirk.plant(quirky_predictions, index)
    paths = [folder / name for name in ("clean.json", "quirky.json", "found.json", "quirky-found.json")]
    paths[0].write_text(json.dumps(clean))
    paths[1].write_bytes(quirk.encode(json.dumps(quirky)))
    paths[2].write_text(json.dumps(predictions))
    paths[3].write_bytes(quirk.encode(json.dumps(quirky_predictions)))
    return Planted(*paths, images)


def write_pictures(folder: Path) -> Path:
    """The pictures that data sets here may name."""
    for name in ("1.png", "2.png", "3é.png", "other.png", "sub/1.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.new("RGB", (WIDTH, HEIGHT), "gray").save(folder / name)
    return folder


def clean_document(boxes: Sequence[tuple[int, int, tuple[int, int, int, int]]], forms: Sequence[str]) -> Document:
    """A data set of three images and two classes; objects are (image, class, box), their masks of these forms."""
    names = ("1.png", "2.png", "3é.png")
    document: Document = {
        "info": {"description": "clean"},
        "licenses": [],
        "categories": [{"id": 1, "name": "ball"}, {"id": 2, "name": "pêche"}],
        "images": [
            {"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT} for number, name in enumerate(names, 1)
        ],
        "annotations": [],
    }
    for number, ((image, category, box), form) in enumerate(zip(boxes, forms, strict=True), start=1):
        annotation = {
            "id": number,
            "image_id": image,
            "category_id": category,
            "bbox": list(box),
            "area": box[2] * box[3],
            "iscrowd": 0,
            "segmentation": [],
        }
        if form == "polygon":
            outline(annotation)
        elif form == "run lengths":
            run_lengths(annotation)
        document["annotations"].append(annotation)
    return document


def evaluated(files: Planted, path: Path, predictions: Path | None = None) -> Any:
    settings = EvaluationSettings(path, predictions or files.predictions, 0.3, images=files.images)
    return evaluate(settings, lambda *_: None)


def trained(files: Planted, path: Path) -> tuple[Any, tuple[str, ...]]:
    """Rows of `train`, and notes."""
    beside = files.images / path.name
    beside.write_bytes(path.read_bytes())
    split, data_set = read_coco(beside, ImageSizes())
    return split, data_set.notes


def exported(files: Planted, path: Path, output: Path, kind: LabelFormat) -> Any:
    return export_labels(ExportSettings(path, output, kind, images=files.images))


def _notes(command: str, folder: Path, files: Planted, path: Path) -> set[str] | None:
    """Notes of a command that reads COCO; None where a row is left out."""
    if command == "eval":
        return set(evaluated(files, path).notes)
    if command == "train":
        split, notes = trained(files, path)
        return None if split.faults else set(notes)
    report = exported(files, path, folder / "out", LabelFormat.COCO)
    return {*report.notes, *report.losses.counts}


def _merged(folder: Path, annotations: list[Annotation]) -> set[str]:
    """Notes of `merge-runs` on a run of these annotations and one of none."""
    runs = [_run(folder / f"run-{number}", of, f"{number}.png") for number, of in enumerate((annotations, []))]
    notes: list[str] = []
    merge_runs(runs, folder / "merged", note=notes.append)
    return set(notes)


def _run(folder: Path, annotations: list[Annotation], file_name: str) -> Path:
    """The folder of a finished run with one image."""
    folder.mkdir()
    instances = [
        {key: value for key, value in one.items() if key not in ("id", "image_id", "category_id")}
        | {"score": 0.5, "detector_bbox": [1, 1, 2, 2], "attributes": {"prompt": "ball"}}
        for one in annotations
    ]
    line = {"file_name": file_name, "status": "done", "width": WIDTH, "height": HEIGHT}
    line |= {"instances": instances, "reason": None, "error": None}
    (folder / "results.jsonl").write_text(json.dumps(line) + "\n")
    manifest = {"prompts": {"ball": "ball"}, "images": {"root": str(folder), "count": 1}, "exit_code": 0}
    (folder / "run.json").write_text(json.dumps(manifest))
    return folder


def rows() -> Iterator[tuple[str, Mapping[str, str]]]:
    """Each quirk's name with what each command makes of it, in a word."""
    document = clean_document([(1, 1, (2, 3, 10, 8)), (1, 2, (20, 10, 12, 15)), (2, 1, (5, 5, 9, 9))], ["polygon"] * 3)
    nothing = Quirk("", lambda *_: None)
    with tempfile.TemporaryDirectory() as name:
        files = planted(Path(name), write_pictures(Path(name) / "images"), document, 0, nothing)
        before = {command: _notes(command, Path(name), files, files.clean) for command in READERS}
        rank = _rank(files.clean, files.images)
        clean_merged = _merged(Path(name), document["annotations"][:1])
    for quirk in QUIRKS:
        cells = {}
        for command in COMMANDS:
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                files = planted(folder, write_pictures(folder / "images"), document, 0, quirk)
                if command == "validate":
                    cells[command] = _severity(rank, _rank(files.quirky, files.images))
                elif command == "merge-runs":
                    cells[command] = (
                        _word(partial(_merged, folder, _first(files)), clean_merged) if quirk.of_annotation else "-"
                    )
                else:
                    cells[command] = _word(
                        partial(_notes, command, folder, files, files.quirky), before[command] or set()
                    )
        yield quirk.name, cells


def _first(files: Planted) -> list[Annotation]:
    first: list[Annotation] = json.loads(files.quirky.read_text())["annotations"][:1]
    return first


def _word(notes_of: Callable[[], set[str] | None], before: set[str]) -> str:
    try:
        notes = notes_of()
    except InputError:
        return "refused"
    if notes is None:
        return "left out"
    return "note" if notes - before else "fine"


def _severity(before: tuple[int, int], after: tuple[int, int]) -> str:
    if after[0] > before[0]:
        return "error"
    return "warning" if after[1] > before[1] else "fine"


def _rank(path: Path, images: Path) -> tuple[int, int]:
    """How many errors and warnings `validate` finds."""
    found = [fault.severity for fault in validate_file(path, images)]
    return found.count(Severity.ERROR), found.count(Severity.WARNING)


def table() -> str:
    """The table of the page."""
    lines = [f"| | {' | '.join(f'`{command}`' for command in COMMANDS)} |", "|---" * (len(COMMANDS) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(cells.values())} |" for name, cells in rows()]
    return "".join(f"{line}\n" for line in lines)


def table_of_page() -> str:
    """What stands between the marks."""
    return PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0].strip("\n") + "\n"


if __name__ == "__main__":
    made = table()
    print(made, end="")
    if "--write" in sys.argv:
        head, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
        PAGE.write_text(f"{head}{BEGIN}\n{made}\n{END}{rest.partition(END)[2]}", encoding="utf-8")
