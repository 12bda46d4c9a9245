"""Repair of a COCO file, each repair told by place. Nothing is guessed that the file doesn't say.

What can't be corrected is left out: an image of unknown size, an annotation without a shape or of nothing.
"""

import json
import math
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

from grounded_seg.coco.check.repair_images import id_text_or_none, repair_images
from grounded_seg.coco.check.repair_shapes import Repairs, repair_shape, write_plainly
from grounded_seg.coco.check.validate import hold_captions
from grounded_seg.coco.text import parse_file
from grounded_seg.coco.values import is_crowd, is_plain_id, number_or_none, plain_size
from grounded_seg.errors import InputError, UsageError
from grounded_seg.files import write_text
from grounded_seg.text.decoding import whole_characters

Record = dict[str, Any]
_OF_TEXT = {"byte-order-mark", "not-utf8", "not-json", "trailing-data", "duplicate-key", "not-a-number"}
"""Faults that are gone with the copy's own text."""


class _HalfNameError(ValueError):
    """A name holds half a character, and may differ from another one in nothing else."""


def repair_file(path: Path, destination: Path, images: Path | None = None) -> list[str]:
    """Write a repaired copy, whole or not at all, one record a line, and list the repairs.

    Images in the folder `images`, to which their names are relative, tell sizes that the file lacks.
    """
    if path.resolve() == destination.resolve():
        raise UsageError(f"the repaired copy would replace {path}; name another file with --fix")
    document, faults = parse_file(path)
    if not isinstance(document, Mapping):
        what = "a list, as of results" if isinstance(document, list) else "cut off or no JSON"
        raise InputError(f"{path} is {what} and can't be repaired; export it again")
    repairs = Repairs([f"{fault.place}: {fault.rule}: {fault.message}" for fault in faults if fault.rule in _OF_TEXT])
    if hold_captions(document.get("annotations")):
        raise InputError(f"{path} holds captions, no boxes and no masks, and can't be repaired; name another file")
    try:
        repaired = repair_document(document, repairs, images)
    except _HalfNameError as error:
        raise InputError(f"{path}: {error}; it can't be repaired") from error
    if not repaired["images"]:
        raise InputError(f"{path} lists no image whose name and size are known, and can't be repaired; export it again")
    lines = []
    for key, value in repaired.items():
        rows = ",\n".join(map(json.dumps, value)) if isinstance(value, list) else ""
        lines.append(f"{json.dumps(key)}: " + (f"[\n{rows}\n]" if rows else json.dumps(value)))
    write_text(destination, "{\n" + ",\n".join(lines) + "\n}\n", instead="another file with --fix")
    return repairs.lines


def repair_document(document: Mapping[str, Any], repairs: Repairs, images: Path | None = None) -> Record:
    """Give a repaired copy of a document; what was done is added to `repairs`."""
    clean: Record = _without_nan(document, "$", repairs)
    sections = {name: _records(clean, name, repairs) for name in ("images", "categories", "annotations")}
    as_named = {place: str(image.get("file_name")).replace("\\", "/") for place, image in sections["images"]}
    labels = [annotation for _, annotation in sections["annotations"]]
    corrected, unsure = repair_images(sections["images"], labels, images, repairs)
    # A path that lost its start or a size that differs may be another image's.
    pictures = {place: (as_named[place], plain_size(image)) for place, image in corrected}
    in_doubt = {id_text_or_none(image.get("id")) for place, image in corrected if place in unsure}
    image_ids, kept_images = _numbered(corrected, "file_name", pictures, repairs)
    if not sections["categories"]:
        sections["categories"] = _categories_used(sections["annotations"], repairs)
    for place, category in sections["categories"]:
        if isinstance(category.get("name"), int | float) and not isinstance(category["name"], bool):
            category["name"] = str(category["name"])
            repairs.add(place, f"its name {category['name']} became text")
        if not isinstance(category.get("name"), str) or not category["name"].strip():
            category["name"] = f"category {category.get('id')}"
            repairs.add(place, f"it got the name {category['name']!r}")
    classes = {place: category["name"] for place, category in sections["categories"]}
    category_ids, categories = _numbered(sections["categories"], "name", classes, repairs)
    # By the ids that the annotations will have: images that were left out lend theirs to no other.
    left_alone = {number for text, number in image_ids.items() if text in in_doubt}
    sizes = {image["id"]: plain_size(image) for image in kept_images}
    annotations = []
    for place, annotation in sections["annotations"]:
        known = {"image_id": image_ids, "category_id": category_ids}
        if all(_repoint(annotation, key, ids, place, repairs) for key, ids in known.items()):
            _correct_values(place, annotation, repairs)
            size = sizes[annotation["image_id"]]
            # Held against a size that may be wrong, right labels would be cut or dropped.
            if size is None or annotation["image_id"] in left_alone:
                write_plainly(place, annotation, repairs)
            elif not repair_shape(place, annotation, size, repairs):
                continue
            annotations.append(annotation)
    numbers = [annotation.get("id") for annotation in annotations]
    if not all(map(is_plain_id, numbers)) or len(set(numbers)) < len(numbers):
        repairs.add("annotations", "numbered anew from 1")
        annotations = [annotation | {"id": number} for number, annotation in enumerate(annotations, start=1)]
    return {**clean, "categories": categories, "images": kept_images, "annotations": annotations}


def _without_nan(value: Any, place: str, repairs: Repairs) -> Any:
    """Copy a value, with null for what is no number."""
    if isinstance(value, Mapping):
        keys = {key: _without_nan(str(key), f"{place}.{key!a}", repairs) for key in value}
        return {keys[key]: _without_nan(one, f"{place}.{key}", repairs) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(one, f"{place}[{number}]", repairs) for number, one in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        repairs.add(place, f"{value} became null")
        return None
    if isinstance(value, str):
        try:
            return whole_characters(value)
        except ValueError as error:
            if place.rpartition(".")[2] in ("name", "file_name"):
                raise _HalfNameError(f"{place.removeprefix('$.')}: {error}") from error
            repairs.add(place, "half a character became a question mark")
            return value.encode("utf-8", "replace").decode()
    return value


def _records(document: Mapping[str, Any], name: str, repairs: Repairs) -> list[tuple[str, Record]]:
    section = document.get(name)
    if isinstance(section, dict):
        repairs.add(name, "an object became a list of its values")
        section = list(section.values())
    if not isinstance(section, list):
        repairs.add(name, "it was no list and became an empty one")
        return []
    placed = [(f"{name}[{number}]", record) for number, record in enumerate(section)]
    for place, record in placed:
        if not isinstance(record, dict):
            repairs.add(place, "left out, it was no object")
    return [(place, record) for place, record in placed if isinstance(record, dict)]


def _categories_used(annotations: list[tuple[str, Record]], repairs: Repairs) -> list[tuple[str, Record]]:
    used: set[int] = {number for _, one in annotations if is_plain_id(number := one.get("category_id"))}
    repairs.add("categories", f"made {len(used)} of the ids that annotations name")
    return [("categories", {"id": number, "name": f"category {number}"}) for number in sorted(used)]


def _correct_values(place: str, annotation: Record, repairs: Repairs) -> None:
    crowd = annotation.get("iscrowd")
    if type(crowd) is not int or crowd not in (0, 1):
        try:
            annotation["iscrowd"] = int(is_crowd(annotation))
        except ValueError:
            annotation["iscrowd"] = int(crowd == "true")
        repairs.add(place, f"iscrowd {crowd!r} became {annotation['iscrowd']}")
    if "score" in annotation:
        old = annotation["score"]
        score = number_or_none(old)
        if score is None:
            del annotation["score"]
            repairs.add(place, f"score {old!r} was taken out")
        elif isinstance(old, str):
            annotation["score"] = score
            repairs.add(place, f"score {old!r} became a number")


def _numbered(
    records: list[tuple[str, Record]], name_key: str, meanings: Mapping[str, Hashable], repairs: Repairs
) -> tuple[dict[str, int], list[Record]]:
    """Give each record an id of its own; records of one name that stand for the same become one, others are left out.

    `meanings` says what each record stands for, by its place. Returned are the new id of each old one, and the records.
    """
    keep = all(is_plain_id(record.get("id")) for _, record in records)
    next_free = max((record["id"] for _, record in records), default=0) + 1 if keep else 1
    new_ids: dict[str, int] = {}
    first_places: dict[str, str] = {}
    by_name: dict[str, tuple[str, int]] = {}
    kept = []
    for place, record in records:
        old = record.get("id")
        text = id_text_or_none(old)
        # Of two records with one id, the annotations are the first one's.
        first_place = place if text is None else first_places.setdefault(text, place)
        owns_id = first_place == place
        annotations = "its annotations" if owns_id else f"the annotations of {old!r} stay with {first_place}"
        name = record[name_key]
        if name in by_name:
            twin_place, twin_id = by_name[name]
            if meanings[place] != meanings[twin_place]:
                with_it = f"with {annotations}" if owns_id else f"and {annotations}"
                repairs.add(place, f"left out {with_it}; {twin_place} is another {name!r}")
                continue
            if owns_id and text is not None:
                new_ids[text] = twin_id
            repairs.add(place, f"merged with the earlier {name!r}")
            continue
        if not keep or not owns_id:
            record["id"] = next_free
            next_free += 1
        if record["id"] != old or type(record["id"]) is not type(old):
            repairs.add(place, f"id {old!r} became {record['id']}" + ("" if owns_id else f", {annotations}"))
        by_name[name] = (place, record["id"])
        if owns_id and text is not None:
            new_ids[text] = record["id"]
        kept.append(record)
    return new_ids, kept


def _repoint(annotation: Record, key: str, new_ids: Mapping[str, int], place: str, repairs: Repairs) -> bool:
    """Follow a reference to its new id; False if it leads nowhere."""
    old = annotation.get(key)
    text = id_text_or_none(old)
    if text is None or text not in new_ids:
        repairs.add(place, f"left out, its {key} {old!r} is none of those kept")
        return False
    annotation[key] = new_ids[text]
    if annotation[key] != old or type(annotation[key]) is not type(old):
        repairs.add(place, f"{key} {old!r} became {annotation[key]}")
    return True
