"""Correct the ids of a COCO file, and what refers to them."""

from collections.abc import Hashable, Mapping
from typing import Any

from grounded_seg.coco.check.repair_shapes import Repairs
from grounded_seg.coco.values import id_text, is_plain_id

Record = dict[str, Any]


def id_text_or_none(value: Any) -> str | None:
    """Text of an id, by which references are followed; None for what can be none."""
    try:
        return id_text(value)
    except ValueError:
        return None


def numbered(
    records: list[tuple[str, Record]], name_key: str, meanings: Mapping[str, Hashable], repairs: Repairs
) -> tuple[dict[str, int], list[Record]]:
    """Give each record an id of its own; records of one name that stand for the same become one, others are left out.

    Args:
        records: Each with its place.
        name_key: The key of a record's name.
        meanings: What each record stands for, by its place.
        repairs: Told what was done.

    Returns:
        The new id for each old one, and the records.
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


def repoint(annotation: Record, key: str, new_ids: Mapping[str, int], place: str, repairs: Repairs) -> bool:
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


def number_annotations(annotations: list[Record], repairs: Repairs) -> None:
    """Number annotations anew where an id is missing, double or no whole number from 1."""
    numbers = [annotation.get("id") for annotation in annotations]
    if all(is_plain_id(number) for number in numbers) and len(set(numbers)) == len(numbers):
        return
    repairs.add("annotations", "numbered anew from 1")
    for number, annotation in enumerate(annotations, start=1):
        annotation["id"] = number
