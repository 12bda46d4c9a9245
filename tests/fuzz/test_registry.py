"""No reader is forgotten: each function that opens a file is known here, with the reader that tries it or a reason."""

import ast
from collections.abc import Iterator

from fuzz_readers import LIGHT
from paths import ROOT

PACKAGE = ROOT / "grounded_seg"
OPENING = {
    *("read_bytes", "read_text", "read_content", "load_file", "safe_open", "from_pretrained", "from_file"),
    *("load_peft_weights", "ParquetFile", "TarFile", "fromstring", "FileIO", "imread", "load_model"),
    *("json_in", "limited_bytes"),
}
"""Calls that read a file, whatever they are called on; beside them `open` to read, and `load` of these modules."""
LOADING = ("torch", "json", "tomllib")


def opens(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name == "load":
        return isinstance(call.func, ast.Attribute) and getattr(call.func.value, "id", "") in (
            "torch",
            "json",
            "tomllib",
        )
    if name != "open":
        return name in OPENING
    modes = [one.value for one in call.args if isinstance(one, ast.Constant) and isinstance(one.value, str)]
    return not modes or modes[0].startswith("r")


def functions_that_open() -> Iterator[str]:
    for path in sorted(PACKAGE.rglob("*.py")):
        module = path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", ".")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and any(
                isinstance(one, ast.Call) and opens(one) for one in ast.walk(node)
            ):
                yield f"{module}.{node.name}"


TRIED = {
    "COCO truth": ("coco.sections.records_of", "text.decoding.read_content", "text.decoding.read_text"),
    "COCO predictions": ("coco.text.read_json",),
    "validate": ("coco.text.parse_file",),
    "journal as predictions": ("coco.predictions._journal_lines",),
    "journal": ("runs.journal.count_lines", "runs.journal.read_lines"),
    "journal --resume": ("runs.journal._open", "runs.journal.recovered_lines", "runs.journal.__init__"),
    "run.json": ("runs.manifest.read_manifest", "text.documents.json_in", "text.documents.limited_bytes"),
    "calibration": ("scoring.score_maps.read_calibration",),
    "run to LabelMe": ("export.export._images_root",),
    "review.jsonl": ("review.decisions_file._opened", "review.decisions_file._texts"),
    "classes.yaml": ("detect.class_file.read_classes",),
    "settings.yaml": ("train.recipes._read",),
    "list of paths": ("images.given._opened",),
    "list in Parquet": ("images.parquet_list._opened", "images.parquet_list.paths"),
    "tar": ("images.tars._files_in", "images.tars._opened"),
    "png": ("images.formats.open_image", "images.formats._start_of"),
    "run among images": ("images.find._has_keys",),
    "label config": ("serve.label_config.read_label_config",),
    "training COCO": ("train.data.coco.lines_of", "train.data.coco.with_line"),
    "training JSONL": ("train.data.jsonl.read_jsonl",),
    "training data.yaml": ("train.data.data_yaml.read_data_yaml",),
    "YOLO labels": ("train.data.yolo._read_image",),
    "training run.json": tuple(f"train.folder.{name}" for name in ("check_same", "is_finished", "seconds_so_far")),
    "metrics.jsonl": ("train.fit.metrics_log.__init__",),
    "trainer_state.json": ("train.fit.checkpoints.last_checkpoint",),
    "random state": ("train.fit.checkpoints.load_random_state",),
    "models.lock.json": ("weights.pins.read_pins",),
    "weights index": ("weights.files.weight_files",),
    "pickled weights": ("weights.strict_loading._unpickle",),
    "safetensors": ("weights.strict_loading.read_tensor_file",),
    "adapter record": ("detect.model.record._facts",),
    "adapter configuration": ("weights.config_records.config_in",),
    "tokenizer": ("detect.model.vocabulary.load_tokenizer",),
    "detector configuration": ("weights.strict_loading.load_strictly",),
    "older configuration": ("detect.first_layout.layout.check_convertible",),
}
"""By reader of `fuzz_readers.py`, the functions that it tries."""

NOT_TRIED = {
    "cli.streams._on_nothing": "the null device",
    "cli.streams.discard": "the same",
    "device.hardware.memory_bytes": "the system's own",
    "device.hardware.nvidia_driver": "the same",
    "device.memory.check_address_space": "the same",
    "diagnosis.known_answer._stored_answer": "comes with the program",
    "weights.presets.preset_table": "the same",
    "web.pages._file": "the same",
    "review.page.static_page.write_static_page": "the same",
    "engine.batch_worker._finished_with_files": "written a moment before, by this program",
    "engine.ray_worker._sees": "the same",
    "export.coco.close": "the same",
    "export.labelstudio._append": "the same",
    "train.fit.checkpoints.save_trained": "the same",
    "export.export._chunks": "bytes are copied, whatever they are",
    "runs.upload._size_and_md5": "bytes are hashed, whatever they are",
    "weights.files.sha256_of_file": "the same",
    "weights.transfer.has_digest": "the same",
    "weights.transfer._open": "bytes of the network, whose hash is compared",
    "weights.hub._asked_once": "the network, whose faults tests/weights tries",
    "serve.allowed_hosts.fetched_from": "the same",
    "weights.transfer._find_part": "a note of this program; any fault starts the download again",
    "weights.take_along._option_of": "a folder that was fetched, whose hashes were compared",
    "files._claimed": "the hidden file of one that is written",
    "files._sync_folder": "a folder is opened to be synced",
    "images.contents._local_range": "the bytes of a picture, which `png` and its like try",
    "review.page.journal_index._reopened": "the same journal as `runs.journal`, whose lines are read the same way",
    "train.fit.checkpoints.load_checkpoint": "the same ways as `random state` and `safetensors`",
    "train.data.yolo_images._listed": "lines of text, as of YOLO labels",
}
"""Functions that read what isn't tried, and why."""


def test_each_function_that_opens_a_file_is_known() -> None:
    known = {name for names in TRIED.values() for name in names} | NOT_TRIED.keys()
    found = set(functions_that_open())
    assert found - known == set(), "name the reader of tests/fuzz_readers.py that tries it, or why none does"
    assert known - found == set(), "gone, or renamed"


def test_each_reader_is_there() -> None:
    from fuzz_torch_readers import TORCH

    names = [one.name for one in (*LIGHT, *TORCH)]
    assert len(names) == len(set(names))
    assert TRIED.keys() - set(names) == set()
