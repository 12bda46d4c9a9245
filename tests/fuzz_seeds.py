"""Good files of every kind that is read from outside, small, and made here rather than stored."""

import io
import json
import tarfile
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageCms
import pillow_heif
import pyarrow as pa
import pyarrow.parquet as pq
from coco_cases import results, scored, truth
from paths import DATA

from grounded_seg.scoring.score_maps import ScoreMap, write_calibration
from grounded_seg.weights.pins import Pin, PinnedFile, write_pin

BOXES = (
    (1, 1, (2.0, 3.0, 10.0, 6.0)),
    (1, 2, (20.0, 15.0, 10.0, 10.0)),
    (2, 1, (3.0, 3.0, 9.0, 9.0)),
)


def coco_document() -> dict[str, Any]:
    document = truth(*BOXES, n_images=2, classes=("red", "green"))
    document["annotations"][1]["segmentation"] = {"size": [100, 100], "counts": [1520, 10, 90, 10, 8370]}
    document["annotations"][2] |= {"iscrowd": 1, "score": 0.5, "attributes": {"occluded": True}}
    document["categories"][0] |= {"supercategory": "colour"}
    return document


def coco() -> list[str]:
    return [json.dumps(coco_document(), indent=indent) for indent in (None, 1)]


def coco_results() -> list[str]:
    return [
        json.dumps(results(*((image, kind, box, 0.5) for image, kind, box in BOXES), masks=masks)) for masks in (0, 1)
    ]


def journal() -> list[str]:
    lines = (DATA / "earlier_run" / "results.jsonl").read_text().splitlines(keepends=True)
    skipped = {"file_name": "x.png", "status": "skipped", "width": None, "height": None, "instances": []}
    return ["".join(lines[:3]), lines[0] + json.dumps(skipped | {"reason": "gone", "error": "ImageError"}) + "\n"]


def manifest() -> list[str]:
    """Of a finished run over three images, and of one with all that a manifest may have."""
    content = json.loads((DATA / "earlier_run" / "run.json").read_text())
    content["images"]["count"] = 3
    content |= {"exit_code": 0, "counts": {"images": 3, "done": 3, "skipped": 0}}
    more = {
        "shard": {"number": 1, "count": 2, "whole": {"root": "photos", "count": 6, "sha256": "0" * 64}},
        "started": {"time": "2026-11-01T10:00:00+00:00", "images": 0},
        "seconds": {"total": 3.5, "load": 1.0, "read": 0.5},
        "rules": {"red car": {"class": "car", "threshold": 0.3, "not": ["toy car"]}},
        "counts": {**content["counts"], "out_of_reach": 0, "instances": 3, "empty_masks": 0, "unusable_boxes": None},
    }
    more["models"] = {**content["models"], "calibration": {"path": "calibration.json", "sha256": "0" * 64}}
    return [json.dumps(content), json.dumps(content | more)]


def decisions() -> list[str]:
    about = {"image": "00.png", "instances": [0], "boxes": [[1.0, 1.0, 3.0, 7.0]]}
    when = "2026-11-01T10:00:00.000+00:00"
    events: list[dict[str, Any]] = [
        {"id": "0" * 15 + "1", "time": when, "reviewer": "a", "what": "accept", **about},
        {"id": "0" * 15 + "2", "time": when, "what": "relabel", **about, "class": "red car"},
        {"id": "0" * 15 + "3", "time": when, "what": "threshold", "class": "red car", "score": 0.5},
        {"id": "0" * 15 + "4", "time": when, "what": "undo", "undoes": "0" * 15 + "1"},
    ]
    return ["".join(json.dumps(event) + "\n" for event in events)]


def training_rows() -> list[str]:
    rows = [
        {"image": "a.png", "prefix": "<OD>", "suffix": "red<loc_50><loc_100><loc_300><loc_300>"},
        {"image": "b.png", "prefix": "<CAPTION>", "suffix": "a green thing"},
        {"image": "c.png", "prefix": "<OD>", "suffix": ""},
    ]
    return ["".join(json.dumps(row) + "\n" for row in rows)]


def data_yaml() -> list[str]:
    return [
        "path: .\ntrain: images\nval: images\nnames:\n  0: red\n  1: green\n",
        "train: images\nval: images\nnc: 2\nnames: [red, green]\n",
    ]


def settings_yaml() -> list[str]:
    return ["recipe: quick\nepochs: 3\nlr: 1e-4\nsplit: 80/10/10\nparts: [language, head]\nnegatives: no; 1_000\n"]


def settings_toml() -> list[str]:
    return ['epochs = 3\nlr = 1e-4\nsplit = "80/10/10"\nparts = ["language", "head"]\nreport = false\n']


def settings_json() -> list[str]:
    return [json.dumps({"epochs": 3, "lr": 1e-4, "split": "80/10/10", "parts": ["language"], "report": False})]


SAME = {"id": "x", "revision": None, "sha256": "0" * 64}


def training_manifest() -> list[str]:
    content = {"settings": {"epochs": 1, "retention": None}, "base": SAME, "data": SAME, "device": "cpu"}
    return [json.dumps(content | {"dtype": "float32", "threads": 1, "processes": 1, "seconds": 3.5, "status": "done"})]


def metrics() -> list[str]:
    rows = [{"step": step, "loss": 1.5, "grad_norm": 0.1, "epoch": step / 2} for step in range(1, 4)]
    return [
        "".join(json.dumps(row) + "\n" for row in [*rows, {"step": 3, "valid_loss": 1.0, "valid_AP": 0, "epoch": 1.5}])
    ]


def eval_report() -> list[str]:
    from grounded_seg.scoring.json_report import report_of

    with tempfile.TemporaryDirectory() as folder:
        predicted = results(*((image, kind, box, 0.5) for image, kind, box in BOXES))
        return [json.dumps(report_of(scored(Path(folder), coco_document(), predicted), None, (), {}))]


def calibration() -> list[str]:
    rising = ScoreMap("isotonic", 20, (0.1, 0.5, 0.9), (0.0, 0.25, 1.0))
    weights = {"detector": {"name": "base-ft", "sha256": "0" * 64}, "adapter": None}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "calibration.json")
        write_calibration(path, rising, {"red": rising}, weights, {"n_images": 3})
        return [path.read_text()]


@cache
def _pixels() -> Any:
    return np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)


def _saved(image: PIL.Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _exif() -> PIL.Image.Exif:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    return exif


@cache
def pictures() -> dict[str, list[bytes]]:
    """Small pictures by ending, in the forms that each format has."""
    colours = PIL.Image.fromarray(_pixels())
    profile = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile("LAB")).tobytes()
    own = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile("sRGB")).tobytes()
    deep = PIL.Image.fromarray(np.arange(192, dtype=np.uint16).reshape(12, 16) * 300)
    forms = {"png": colours.convert("P"), "1": colours.convert("1"), "la": colours.convert("LA")}
    frames = {"save_all": True, "append_images": [colours.convert("L").convert("RGB")]}
    found = {
        "png": [_saved(colours, "PNG"), _saved(colours.convert("RGBA"), "PNG", exif=_exif()), _saved(deep, "PNG")],
        "palette.png": [_saved(one, "PNG") for one in forms.values()],
        "apng": [_saved(colours, "PNG", **frames)],
        "jpg": [
            _saved(colours, "JPEG", exif=_exif()),
            _saved(colours, "JPEG", progressive=True),
            _saved(colours.convert("CMYK"), "JPEG"),
        ],
        "profile.jpg": [_saved(colours, "JPEG", icc_profile=one) for one in (own, profile)],
        "webp": [_saved(colours, "WEBP"), _saved(colours, "WEBP", lossless=True), _saved(colours, "WEBP", **frames)],
        "bmp": [_saved(colours, "BMP"), _saved(colours.convert("P"), "BMP")],
        "tif": [
            *(_saved(colours, "TIFF", compression=one) for one in (None, "tiff_lzw", "tiff_deflate", "jpeg")),
            _saved(deep, "TIFF"),
        ],
        "gif": [_saved(colours, "GIF"), _saved(colours, "GIF", **frames)],
        "avif": [_saved(colours, "AVIF")],
    }
    buffer = io.BytesIO()
    pillow_heif.from_pillow(colours).save(buffer, format="HEIF")
    return {**found, "heic": [buffer.getvalue()]}


def tars() -> list[bytes]:
    found = []
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
            for name in ("a.png", f"{'x' * 120}/b.png"):
                member = tarfile.TarInfo(name)
                member.size = len(pictures()["png"][0])
                tar.addfile(member, io.BytesIO(pictures()["png"][0]))
        found.append(buffer.getvalue())
    return found


def parquet() -> list[bytes]:
    found = []
    for kind in (pa.string(), pa.dictionary(pa.int32(), pa.string())):
        buffer = io.BytesIO()
        pq.write_table(pa.table({"path": pa.array(["a.png", None, "b.png"], kind)}), buffer)
        found.append(buffer.getvalue())
    return found


def label_config() -> list[str]:
    return [
        '<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">'
        '<Label value="car" alias="auto"/><Label value="dog"/></RectangleLabels></View>'
    ]


def pins() -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "models.lock.json")
        write_pin("owner/name", "main", Pin("0" * 40, {"config.json": PinnedFile(10, "0" * 64)}), path)
        return [path.read_text()]


def weights_index() -> list[str]:
    return [json.dumps({"metadata": {"total_size": 3}, "weight_map": {"a": "one.safetensors", "b": "two.safetensors"}})]
