"""Every reader of text from outside takes UTF-8 and marked UTF-16 alike, and refuses the rest in one line by name."""

import codecs
import json
import os
from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import PIL.Image
import pytest
from coco_cases import truth
from train_cases import read_data

from grounded_seg.coco.data_set import read_data_set
from grounded_seg.coco.predictions import read_predictions
from grounded_seg.detect.prompts import read_prompts
from grounded_seg.errors import GroundedSegError
from grounded_seg.export.export import export_labels
from grounded_seg.export.settings import ExportSettings, LabelFormat
from grounded_seg.images.given import PathList
from grounded_seg.train.recipes import settings_from

ENCODINGS = {
    "utf-8": (b"", "utf-8"),
    "utf-8 with mark": (codecs.BOM_UTF8, "utf-8"),
    "utf-16-le with mark": (codecs.BOM_UTF16_LE, "utf-16-le"),
    "utf-16-be with mark": (codecs.BOM_UTF16_BE, "utf-16-be"),
    "utf-16-le": (b"", "utf-16-le"),
    "utf-16-be": (b"", "utf-16-be"),
    "utf-32": (codecs.BOM_UTF32_LE, "utf-32-le"),
    "latin-1": (b"", "latin-1"),
}
READ = ("utf-8 with mark", "utf-16-le with mark", "utf-16-be with mark")
CLASS = "café"


def paint(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True)
    for name in names:
        PIL.Image.new("RGB", (100, 100)).save(folder / name)


def classes_file(folder: Path) -> tuple[Path, str, Callable[[], Any]]:
    path = folder / "classes.yaml"
    return path, f"red {CLASS}: {CLASS}\n", lambda: read_prompts(f"@{path}")


def settings_file(ending: str, text: str) -> Callable[[Path], tuple[Path, str, Callable[[], Any]]]:
    def prepare(folder: Path) -> tuple[Path, str, Callable[[], Any]]:
        path = folder / f"settings.{ending}"
        return path, text, lambda: settings_from(None, path, {"dataset": "x", "output": "y"})

    return prepare


def yolo(name: str) -> Callable[[Path], tuple[Path, str, Callable[[], Any]]]:
    def prepare(folder: Path) -> tuple[Path, str, Callable[[], Any]]:
        paint(folder / "images", "1.png", "2.png", f"{CLASS}.png")
        (folder / "labels").mkdir()
        texts = {
            "data.yaml": f"train: train.txt\nnames: [{CLASS}]\n",
            "train.txt": f"images/1.png\nimages/2.png\nimages/{CLASS}.png\n",
            "labels/1.txt": "0 .5 .5 .1 .1\n",
            "labels/2.txt": "0 .5 .5 .2 .2\n",
        }
        for file, text in texts.items():
            (folder / file).write_text(text, encoding="utf-8")
        return folder / name, texts[name], lambda: read_data(folder, strict=True)

    return prepare


def jsonl(folder: Path) -> tuple[Path, str, Callable[[], Any]]:
    paint(folder / "data", "1.png", "2.png", "3.png")
    path = folder / "data" / "annotations.jsonl"
    rows = (
        {"image": f"{n}.png", "prefix": "<OD>", "suffix": f"{CLASS}<loc_1><loc_2><loc_30><loc_40>"} for n in (1, 2, 3)
    )
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return path, text, lambda: read_data(path.parent, strict=True)


def coco_text() -> str:
    objects = [(image, 1, (10.0, 10.0, 20.0, 20.0)) for image in (1, 2, 3)]
    return json.dumps(truth(*objects, n_images=3, classes=(CLASS,)), ensure_ascii=False, indent=1)


def training_coco(folder: Path) -> tuple[Path, str, Callable[[], Any]]:
    paint(folder / "data", "1.png", "2.png", "3.png")
    path = folder / "data" / "_annotations.coco.json"
    return path, coco_text(), lambda: read_data(path.parent, strict=True)


def ground_truth(folder: Path) -> tuple[Path, str, Callable[[], Any]]:
    path = folder / "truth.json"
    return path, coco_text(), lambda: read_data_set(path)


def journal(folder: Path) -> tuple[Path, str, Callable[[], Any]]:
    path = folder / "results.jsonl"
    found = {"bbox": [1, 2, 3, 4], "score": 0.5, "attributes": {"prompt": CLASS}}
    row = {"file_name": f"{CLASS}.png", "status": "done", "instances": [found]}
    return path, json.dumps(row, ensure_ascii=False) + "\n", lambda: read_predictions(path, data_set_of(folder))


def results(folder: Path) -> tuple[Path, str, Callable[[], Any]]:
    path = folder / "results.json"
    row = {"image_id": 1, "category_id": 1, "prompt": CLASS, "bbox": [1, 2, 3, 4], "score": 0.5}
    return path, json.dumps([row], ensure_ascii=False), lambda: read_predictions(path, data_set_of(folder))


def exported(folder: Path) -> tuple[Path, str, Callable[[], Any]]:
    path = folder / "truth.json"

    def read() -> Any:
        output = Path(mkdtemp(dir=folder), "out")
        export_labels(ExportSettings(path, output, LabelFormat.YOLO))
        return {file.relative_to(output): file.read_bytes() for file in output.rglob("*.*")}

    return path, coco_text(), read


def list_of_images(folder: Path) -> tuple[Path, str, Callable[[], Any]]:
    path = folder / "list.txt"
    return path, f"{CLASS}/one.png\n{CLASS}/two.png\n", lambda: list(PathList(path).paths())


def data_set_of(folder: Path) -> Any:
    document = truth((1, 1, (0, 0, 9, 9)), classes=(CLASS,))
    document["images"][0]["file_name"] = f"{CLASS}.png"
    path = folder / "data set.json"
    path.write_text(json.dumps(document))
    return read_data_set(path)


READERS: dict[str, Callable[[Path], tuple[Path, str, Callable[[], Any]]]] = {
    "classes.yaml": classes_file,
    "settings in YAML": settings_file("yaml", f"negatives: [{CLASS}]\n"),
    "settings in TOML": settings_file("toml", f'negatives = ["{CLASS}"]\n'),
    "settings in JSON": settings_file("json", f'{{"negatives": ["{CLASS}"]}}'),
    "data.yaml": yolo("data.yaml"),
    "a list of YOLO's images": yolo("train.txt"),
    "labels of YOLO": yolo("labels/1.txt"),
    "JSONL": jsonl,
    "COCO of a training": training_coco,
    "COCO as ground truth": ground_truth,
    "predictions, a line each": journal,
    "predictions": results,
    "COCO to export": exported,
    "a list of images": list_of_images,
}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("reader", READERS)
def test_a_reader_takes_every_encoding_or_names_it(reader: str, encoding: str, tmp_path: Path) -> None:
    path, text, read = READERS[reader](tmp_path)
    path.write_text(text, encoding="utf-8")
    expected = read()
    mark, codec = ENCODINGS[encoding]
    path.write_bytes(mark + text.encode(codec))
    if encoding in READ or path.read_bytes() == text.encode():
        assert read() == expected
        return
    if reader == "a list of images" and encoding == "latin-1":
        # Names of files are bytes of the system, and needn't be UTF-8.
        assert [os.fsencode(name) for name in read()] == [name.encode(codec) for name in expected]
        return
    with pytest.raises(GroundedSegError) as refused:
        read()
    message = str(refused.value)
    assert refused.value.exit_code in (2, 3)
    assert message.isprintable()
    assert str(path) in message
    named = {"latin-1": " not UTF-8", "utf-32": "UTF-32"}.get(encoding, "UTF-16 without a byte order mark")
    assert named in message
    assert "as UTF-8" in message
