"""All that reads a file from outside, each with how a file is made for it and how it is called: one registry.

A reader gives something or raises a `GroundedSegError` of one line; anything else has escaped.
`tests/fuzz/test_readers.py` gives each 300 inputs, `make fuzz` ten thousand. Those that need torch are in
`fuzz_torch_readers.py`.
"""

import asyncio
import base64
import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import fuzz_seeds as seeds
from fuzz_inputs import byte_strings, json_texts, word_texts, yaml_texts
from hypothesis import strategies as st
from train_cases import IMAGES, coco_document, paint_images

from grounded_seg.coco.check.repair import repair_file
from grounded_seg.coco.check.validate import validate_file
from grounded_seg.coco.data_set import data_set_from, read_data_set
from grounded_seg.coco.predictions import read_predictions
from grounded_seg.detect.prompts import read_prompts
from grounded_seg.export.export import export_labels
from grounded_seg.export.settings import ExportSettings, LabelFormat
from grounded_seg.images.find import find_images
from grounded_seg.images.given import PathList, PathPattern, given_from
from grounded_seg.images.read import read_image, upright_size
from grounded_seg.images.tars import images_of_tar
from grounded_seg.review.decisions_applied import reviewed_images
from grounded_seg.review.decisions_of_run import Review
from grounded_seg.runs.journal import Journal, count_lines, read_lines
from grounded_seg.runs.manifest import read_manifest
from grounded_seg.runs.merge import merge_runs
from grounded_seg.runs.status import status_of
from grounded_seg.scoring.json_report import read_report
from grounded_seg.scoring.score_maps import read_calibration
from grounded_seg.train.recipes import settings_from
from grounded_seg.weights.files import weight_files
from grounded_seg.weights.pins import read_pins

_LABELS = "0 0.5 0.5 0.2 0.2\n1 0.1 0.1 0.1 0.1\n"


@dataclass(frozen=True)
class Reader:
    """One way in."""

    name: str
    file: str
    """Where the input is put, below the reader's folder."""
    inputs: Callable[[], st.SearchStrategy[bytes]]
    read: Callable[[Path], object]
    """Reads it, given the folder."""
    prepare: Callable[[Path], object] = lambda _folder: None
    """Makes what else is needed, once."""
    is_slow: bool = False
    """Whether one input takes tens of milliseconds."""


class JsonInputs:
    """Inputs made of good files in JSON."""

    def __init__(self, *made: Callable[[], list[str]]) -> None:
        self._made = made

    def documents(self) -> list[str]:
        """The good files."""
        return [text for one in self._made for text in one()]

    def __call__(self) -> st.SearchStrategy[bytes]:
        """Edits of them, at random."""
        return json_texts(*self.documents())


def _in_yaml(made: Callable[[], list[str]]) -> Callable[[], st.SearchStrategy[bytes]]:
    return lambda: yaml_texts(*made())


def _in_words(*texts: str) -> Callable[[], st.SearchStrategy[bytes]]:
    return lambda: word_texts(*texts)


def _in_bytes(made: Callable[[], list[bytes]]) -> Callable[[], st.SearchStrategy[bytes]]:
    return lambda: byte_strings(made())


@cache
def _truth() -> Any:
    return data_set_from(seeds.coco_document(), Path("truth.json"))


@cache
def _truth_of_run() -> Any:
    document = seeds.coco_document()
    for number, image in enumerate(document["images"]):
        image |= {"file_name": f"0{number}.png", "width": 40, "height": 30}
    document["categories"][0]["name"] = "red car"
    return data_set_from(document | {"annotations": []}, Path("truth.json"))


def _emptied(folder: Path) -> Path:
    """A folder for results that isn't there yet."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    return folder / "out"


def _repair(folder: Path) -> None:
    repair_file(folder / "in.json", folder / "fixed.json")
    validate_file(folder / "fixed.json")


def _export(folder: Path, source: str, form: LabelFormat) -> None:
    export_labels(ExportSettings(folder / source, _emptied(folder), form))


def _make_run(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.jsonl").write_text(seeds.journal()[0])
    (folder / "run.json").write_text(seeds.manifest()[0])


def _make_finished_run(folder: Path) -> None:
    _make_run(folder / "run")
    (folder / "run" / "annotations.json").write_text(seeds.coco()[0])


def _make_two_runs(folder: Path) -> None:
    _make_run(folder / "run")
    _make_run(folder / "other")
    other = folder / "other" / "results.jsonl"
    other.write_text(other.read_text().replace('"0', '"1'))


def _recover(folder: Path) -> None:
    with Journal(folder / "results.jsonl") as journal:
        for _ in journal.recovered_lines():
            pass


def _read_journal(folder: Path) -> None:
    count_lines(folder / "results.jsonl")
    for _ in read_lines(folder / "results.jsonl", is_written=True):
        pass


def _read_run(folder: Path) -> None:
    read_manifest(folder / "run.json")
    status_of([folder])


def _review(folder: Path, *, write: bool) -> None:
    with Review(folder, write=write) as review:
        for _ in reviewed_images(folder, review):
            pass


def _train_data(folder: Path, source: str = "data") -> None:
    from grounded_seg.train.data.data_set import read_training_data
    from grounded_seg.train.settings import TrainSettings

    read_training_data(TrainSettings(dataset=folder / source, output=folder / "out", split=(60, 20, 20)))


def _make_yolo(folder: Path) -> None:
    paint_images(folder / "data" / "images")
    labels = folder / "data" / "labels"
    labels.mkdir(exist_ok=True)
    for name in IMAGES:
        (labels / name).with_suffix(".txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (folder / "data" / "data.yaml").write_text(seeds.data_yaml()[0])


def _list(folder: Path) -> None:
    given = given_from(f"@{folder / 'list.txt'}")
    assert isinstance(given, PathList)
    for path in given.paths():
        # Only what the names mean: a fuzzed list may name the whole disk.
        with suppress(ValueError):
            isinstance(given_from(path), PathPattern)


def _parquet(folder: Path) -> None:
    given: Any = given_from(f"@{folder / 'list.parquet'}:path")
    for _ in given.paths():
        pass


_MAX_PIXELS = 16_000_000
"""As `--max-pixels`: an image's memory grows with the pixels that it says it has, and here stays below 500 MB."""


def _image(ending: str, folder: Path) -> None:
    upright_size(folder / f"x.{ending}")
    read_image(folder / f"x.{ending}", _MAX_PIXELS)


def _pictures(ending: str) -> st.SearchStrategy[bytes]:
    return byte_strings(seeds.pictures()[ending])


def _settings(folder: Path, name: str) -> None:
    settings_from(None, folder / name, {"dataset": folder, "output": folder / "out"})


def _make_shards(folder: Path) -> None:
    for name in ("one", "two"):
        (folder / f"{name}.safetensors").write_bytes(b"")


def _training_folder(folder: Path) -> None:
    from grounded_seg.train.folder import TrainFolder
    from grounded_seg.train.settings import TrainSettings

    own = TrainFolder(folder)
    own.seconds_so_far()
    own.is_finished(TrainSettings(dataset=folder, output=folder), 3)
    now = {"settings": {"epochs": 1, "retention": None}, "base": seeds.SAME, "data": seeds.SAME}
    own.check_same({**now, "device": "cpu", "dtype": "float32", "threads": 1, "processes": 1})


def _metrics(folder: Path) -> None:
    from grounded_seg.train.fit.metrics_log import MetricsLog

    log = MetricsLog(folder / "metrics.jsonl", 2)
    log.best("AP")
    log.best("loss")
    log.epochs_since_best("AP")


def _label_config(folder: Path) -> None:
    from grounded_seg.serve.label_config import read_label_config

    read_label_config((folder / "in.xml").read_bytes().decode("utf-8", errors="surrogateescape"))


def _request(folder: Path) -> None:
    """A request's body as `serve` reads it; errors of HTTP are answers."""
    from starlette.exceptions import HTTPException
    from starlette.requests import Request

    from grounded_seg.serve.anylabeling import prediction_from
    from grounded_seg.serve.segment_request import json_object, read_segment_request
    from grounded_seg.serve.settings import ServeSettings

    content, settings = (folder / "in.json").read_bytes(), ServeSettings(root=folder)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": content, "more_body": False}

    async def read() -> None:
        scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"content-type", b"application/json")]}
        with suppress(HTTPException):
            values = await json_object(Request(scope, receive))
            with suppress(HTTPException):
                prediction_from(values, settings)
            (await read_segment_request(Request(scope, receive), settings)).read()

    asyncio.run(read())


def _requests() -> list[str]:
    image = base64.b64encode(seeds.pictures()["png"][0]).decode()
    params = {"conf_threshold": 0.3, "iou_threshold": 0.5, "epsilon_factor": 0.001, "text_prompt": "car,ball"}
    return [
        json.dumps({"image": image, "name": "x.png", "prompts": ["car"], "score_threshold": 0.5, "format": "coco"}),
        json.dumps({"path": "in.json", "prompts": {"red car": "car"}, "iou_threshold": "0.5"}),
        json.dumps({"model": "grounded-seg", "image": image, "params": params}),
    ]


LIGHT = (
    Reader("COCO truth", "in.json", JsonInputs(seeds.coco), lambda at: read_data_set(at / "in.json")),
    Reader(
        "COCO predictions",
        "in.json",
        JsonInputs(seeds.coco_results, seeds.coco),
        lambda at: read_predictions(at / "in.json", _truth()),
    ),
    Reader(
        "journal as predictions",
        "in.jsonl",
        JsonInputs(seeds.journal),
        lambda at: read_predictions(at / "in.jsonl", _truth_of_run(), {"red car": "red car"}),
    ),
    Reader("validate", "in.json", JsonInputs(seeds.coco), lambda at: validate_file(at / "in.json")),
    Reader("validate --fix", "in.json", JsonInputs(seeds.coco), _repair),
    Reader("eval report", "in.json", JsonInputs(seeds.eval_report), lambda at: read_report(at / "in.json")),
    Reader("calibration", "in.json", JsonInputs(seeds.calibration), lambda at: read_calibration(at / "in.json")),
    Reader(
        "COCO to YOLO", "in.json", JsonInputs(seeds.coco), partial(_export, source="in.json", form=LabelFormat.YOLO)
    ),
    Reader(
        "COCO to COCO", "in.json", JsonInputs(seeds.coco), partial(_export, source="in.json", form=LabelFormat.COCO)
    ),
    Reader(
        "run to LabelMe",
        "run/run.json",
        JsonInputs(seeds.manifest),
        partial(_export, source="run", form=LabelFormat.LABELME),
        _make_finished_run,
    ),
    Reader("journal", "results.jsonl", JsonInputs(seeds.journal), _read_journal),
    Reader("journal --resume", "results.jsonl", JsonInputs(seeds.journal), _recover),
    Reader("run.json", "run.json", JsonInputs(seeds.manifest), _read_run, _make_run),
    Reader(
        "merge-runs",
        "run/results.jsonl",
        JsonInputs(seeds.journal),
        lambda at: merge_runs([at / "run", at / "other"], _emptied(at)),
        _make_two_runs,
    ),
    Reader(
        "merge-runs run.json",
        "run/run.json",
        JsonInputs(seeds.manifest),
        lambda at: merge_runs([at / "run", at / "other"], _emptied(at)),
        _make_two_runs,
    ),
    Reader("review.jsonl", "review.jsonl", JsonInputs(seeds.decisions), partial(_review, write=False), _make_run),
    Reader(
        "review.jsonl to write", "review.jsonl", JsonInputs(seeds.decisions), partial(_review, write=True), _make_run
    ),
    Reader(
        "classes.yaml",
        "in.yaml",
        lambda: yaml_texts("red car: car\nno: sign\n'a: b': c\n", "- red car\n"),
        lambda at: read_prompts(f"@{at / 'in.yaml'}"),
    ),
    Reader("settings.yaml", "in.yaml", _in_yaml(seeds.settings_yaml), partial(_settings, name="in.yaml")),
    Reader("settings.toml", "in.toml", _in_yaml(seeds.settings_toml), partial(_settings, name="in.toml")),
    Reader("settings.json", "in.json", JsonInputs(seeds.settings_json), partial(_settings, name="in.json")),
    Reader(
        "training COCO",
        "data/_annotations.coco.json",
        JsonInputs(lambda: [json.dumps(coco_document())]),
        _train_data,
        lambda at: paint_images(at / "data"),
    ),
    Reader(
        "training JSONL",
        "data/annotations.jsonl",
        JsonInputs(seeds.training_rows),
        _train_data,
        lambda at: paint_images(at / "data"),
    ),
    Reader("training data.yaml", "data/data.yaml", _in_yaml(seeds.data_yaml), _train_data, _make_yolo),
    Reader("YOLO labels", "data/labels/a.txt", _in_words(_LABELS), _train_data, _make_yolo),
    Reader("training run.json", "run.json", JsonInputs(seeds.training_manifest), _training_folder),
    Reader("metrics.jsonl", "metrics.jsonl", JsonInputs(seeds.metrics), _metrics),
    Reader("models.lock.json", "in.json", JsonInputs(seeds.pins), lambda at: read_pins(at / "in.json")),
    Reader(
        "weights index",
        "model.safetensors.index.json",
        JsonInputs(seeds.weights_index),
        lambda at: weight_files(at, ("model.safetensors",)),
        _make_shards,
    ),
    Reader(
        "run among images",
        "photos/out/results.jsonl",
        JsonInputs(seeds.journal),
        lambda at: find_images([at / "photos"]),
        lambda at: [paint_images(at / "photos" / name) for name in ("", "out/overlays")],
    ),
    Reader("list of paths", "list.txt", _in_words("a.png\nb/c.png\n", "a.png\0b.png\0"), _list),
    Reader("list in Parquet", "list.parquet", _in_bytes(seeds.parquet), _parquet),
    Reader("tar", "x.tar", _in_bytes(seeds.tars), lambda at: images_of_tar(at / "x.tar")),
    Reader("label config", "in.xml", _in_words(*seeds.label_config()), _label_config),
    Reader("request", "in.json", lambda: json_texts(*_requests()), _request),
    *(
        Reader(ending, f"x.{ending}", partial(_pictures, ending), partial(_image, ending))
        for ending in ("png", "palette.png", "apng", "jpg", "profile.jpg", "webp", "bmp", "tif", "gif", "avif", "heic")
    ),
)
"""Those that need no torch."""
