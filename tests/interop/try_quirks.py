"""Give each reader every fault that `validate` names, planted in a right file, and print what it makes of it.

    python tests/interop/try_quirks.py [--tools pycocotools ultralytics ...] [--output quirks.json]

Each file is read as it is, by the reader that tools and trainers have for COCO, in the environments of `read_back.py`.
A reader that raises `stops`; one that gives other labels than the file's own `differs`: the file's own are the
annotations as they are written, those whose box is four numbers and whose references lead somewhere. Ends with exit
code 1 if a reader that an error of `grounded_seg.coco.check.rules` names neither stops nor differs.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import PIL.Image
from paths import TESTS
from planted_faults import FAULTS, good
from read_back import CACHE, HERE, environment

from grounded_seg.coco.check import rules

READERS = (
    *("pycocotools", "torchvision", "ultralytics", "supervision", "datumaro", "label-studio-sdk", "x-anylabeling"),
    "fiftyone",
)


TOOL_BY_READER = {
    rules.PYCOCOTOOLS: "pycocotools",
    rules.TORCHVISION: "torchvision",
    rules.ULTRALYTICS: "ultralytics",
    rules.YOLO_TRAINER: "ultralytics",
    rules.SUPERVISION: "supervision",
    rules.DATUMARO: "datumaro",
}
"""The tools that errors name."""
OF_FILES = {
    "byte_order_mark": "byte-order-mark",
    "comma_after_last": "not-json",
    "latin1": "not-utf8",
    "nan": "not-a-number",
    "two_documents": "trailing-data",
    "utf16": "not-utf8",
}
"""The rules that whole files break."""
MISSING = "nowhere.jpg"


def resized(width: int, height: int) -> Any:
    """Give a file whose first image is of another size than its picture."""
    document = good()
    document["images"][0].update(width=width, height=height)
    return document


def renamed() -> Any:
    """Give a file whose first image isn't there."""
    document = good()
    document["images"][0]["file_name"] = MISSING
    return document


def main() -> int:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--tools", nargs="+", default=list(READERS), choices=READERS)
    options.add_argument("--output", type=Path)
    chosen = options.parse_args()
    documents = {"right": good()}
    for rule, place, plant in FAULTS:
        name = f"{rule} {place}"
        while name in documents:
            name += "'"
        documents[name] = good()
        plant(documents[name])
    documents |= {path.stem: path.read_bytes() for path in sorted((TESTS / "data" / "broken_coco").glob("*.json"))}
    documents |= {"image-size-wrong": resized(40, 30), "image-size-swapped": resized(10, 20)}
    documents |= {"image-file-missing": renamed(), "utf16": json.dumps(good()).encode("utf-16")}
    folders = {name: write(CACHE / "quirks" / str(number), one) for number, (name, one) in enumerate(documents.items())}
    table: dict[str, dict[str, str]] = {name: {} for name in documents}
    for tool in chosen.tools:
        read = read_all(tool, folders)
        for name, document in documents.items():
            table[name][tool] = outcome(document, read[name])
    for name, row in table.items():
        print(name)
        for tool, told in row.items():
            if told != "same":
                print(f"    {tool}: {told}")
    if chosen.output:
        chosen.output.write_text(json.dumps(table, indent=1) + "\n")
    problems = wrong_claims(table)
    print(*problems, sep="\n")
    return int(bool(problems))


def wrong_claims(table: dict[str, dict[str, str]]) -> list[str]:
    """List the errors whose reader was tried and read every file with that fault as it is written."""
    problems = []
    for name, rule in rules.RULES.items():
        tool = TOOL_BY_READER.get(rule.reader, "")
        tried = [row[tool] for fault, row in table.items() if rule_of(fault) == name and tool in row]
        if rule.severity is rules.Severity.ERROR and tried and all(told == "same" for told in tried):
            problems.append(f"{name}: {rule.reader} reads it as it is written")
    return problems


def rule_of(fault: str) -> str:
    """Give the rule that a planted fault, or a file, breaks."""
    return OF_FILES.get(fault, fault.partition(" ")[0])


def write(folder: Path, document: Any) -> Path:
    """Write a file and its pictures, those whose names can be written."""
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    (folder / "annotations.json").write_bytes(text)
    for image in document["images"] if isinstance(document, dict) else good()["images"]:
        name = str(image.get("file_name", "")) if isinstance(image, dict) else ""
        if name and not {"\0", "\\", "\ud83d"} & set(name) and ".." not in name and name != MISSING:
            (images / name).parent.mkdir(parents=True, exist_ok=True)
            PIL.Image.new("RGB", (20, 10)).save(images / name)
    return folder


def read_all(tool: str, folders: dict[str, Path]) -> dict[str, Any]:
    python = Path(sys.executable) if tool in ("pycocotools", "torchvision") else environment(tool)
    jobs, output = CACHE / "quirks" / f"{tool}.jobs.json", CACHE / "quirks" / f"{tool}.json"
    jobs.write_text(json.dumps({name: str(folder) for name, folder in folders.items()}))
    told = {**os.environ, "PYTHONWARNINGS": "ignore", "PYTHONPATH": str(HERE)}
    subprocess.run([python, HERE / "read_raw.py", tool, jobs, output], env=told, check=True, stdout=subprocess.DEVNULL)
    found: dict[str, Any] = json.loads(output.read_text())
    print(f"{tool} {found['version']}", flush=True)
    return found["read"]  # type: ignore[no-any-return]


def outcome(document: Any, read: dict[str, Any]) -> str:
    if "stops" in read:
        return f"stops: {read['stops']}"
    if "misread" in read:
        return f"differs: {read['misread']}"
    if isinstance(document, bytes):
        return f"{len(read['labels'])} labels"
    own = own_labels(document)
    found = [(image, name, box) for image, name, box, _ in read["labels"]]
    if len(own) != len(found):
        return f"differs: {len(found)} labels of {len(own)}"
    for image, name, box in own:
        twin = next((one for one in found if alike(one, (image, name, box))), None)
        if twin is None:
            return f"differs: no {name} at {box} of {image}, but {found}"
        found.remove(twin)
    return "same"


def alike(one: Any, other: Any) -> bool:
    named = one[1] == other[1] and Path(one[0]).stem == Path(other[0]).stem
    return named and max(abs(a - b) for a, b in zip(one[2], other[2], strict=True)) < 1


def own_labels(document: Any) -> list[Any]:
    images = {str(one.get("id")): one.get("file_name") for one in document["images"] if isinstance(one, dict)}
    names = {str(one.get("id")): one.get("name") for one in document.get("categories", []) if isinstance(one, dict)}
    labels = []
    annotations = document["annotations"]
    for one in annotations if isinstance(annotations, list) else ():
        image, name, box = images.get(str(one.get("image_id"))), names.get(str(one.get("category_id"))), one.get("bbox")
        if image and name and isinstance(box, list) and len(box) == 4 and not one.get("iscrowd"):
            x, y, width, height = map(float, box)
            labels.append((image, name, (x, y, x + width, y + height)))
    return labels


if __name__ == "__main__":
    sys.exit(main())
