"""Repairs of images' names and sizes. A size that is wrong costs no label: it is corrected, or the labels stay."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from grounded_seg.coco.check.repair_shapes import Repairs
from grounded_seg.coco.check.shapes import all_within, by_image, group_of, look_swapped, turned
from grounded_seg.coco.check.validate import has_portable_name
from grounded_seg.coco.image_files import file_of
from grounded_seg.coco.objects import object_of
from grounded_seg.coco.values import Notes, id_text, number_or_none, plain_size
from grounded_seg.errors import ImageError
from grounded_seg.images.read import upright_size
from grounded_seg.records import ImageSize

_Placed = tuple[str, dict[str, Any]]


def repair_images(
    images: Sequence[_Placed], annotations: Sequence[Mapping[str, Any]], folder: Path | None, repairs: Repairs
) -> tuple[list[_Placed], set[str]]:
    """Correct names and sizes; what can't be corrected is left out.

    Given are the images kept, and the places of those whose size is in doubt: their labels must stay as they are.
    """
    # Run-length masks say their images' sizes: height and width.
    hints = {
        id_text_or_none(annotation.get("image_id")): size
        for annotation in annotations
        if isinstance(mask := annotation.get("segmentation"), dict)
        and isinstance(size := mask.get("size"), list)
        and len(size) == 2
    }
    named = [item for item in images if _correct_name(*item, repairs)]
    pictures = {place: size for place, image in named if (size := _picture_size(image, folder)) is not None}
    labels = by_image(annotations)
    of_image = {place: labels.get(group_of(image.get("id")), []) for place, image in named}
    corrected = [
        item for item in named if _correct_size(*item, hints, pictures.get(item[0]), of_image[item[0]], repairs)
    ]
    is_turned = _turned_everywhere(corrected, of_image, pictures)
    unsure = {
        place for place, image in corrected if not _is_sure(place, image, of_image[place], pictures, is_turned, repairs)
    }
    return corrected, unsure


def _picture_size(image: Mapping[str, Any], folder: Path | None) -> ImageSize | None:
    path = None if folder is None else file_of(folder, image["file_name"])
    with suppress(ImageError):
        return None if path is None else upright_size(path)
    return None


def _turned_everywhere(
    images: Sequence[_Placed], labels: Mapping[str, Sequence[Mapping[str, Any]]], pictures: Mapping[str, ImageSize]
) -> bool:
    """Whether labels prove that a size with swapped sides is wrong, for an image at least, and deny it for none."""
    n_proofs = 0
    for place, image in images:
        size = plain_size(image)
        if size is None or place not in pictures or turned(size) != pictures[place] or size == pictures[place]:
            continue
        if not all_within(labels[place], pictures[place]):
            return False
        n_proofs += not all_within(labels[place], size)
    return n_proofs > 0


def _is_sure(
    place: str,
    image: dict[str, Any],
    labels: Sequence[Mapping[str, Any]],
    pictures: Mapping[str, ImageSize],
    is_turned: bool,
    repairs: Repairs,
) -> bool:
    """Correct a size that the picture and the labels prove wrong; False where it stays in doubt."""
    size, picture = plain_size(image), pictures.get(place)
    if size is None or size == picture:
        return True
    said = f"{size.width} x {size.height}"
    if picture is None:
        if not look_swapped(labels, size):
            return True
        repairs.add(place, f"its labels stay as they are: its size {said} looks swapped; name its folder with --images")
        return False
    found = f"{picture.width} x {picture.height}"
    if turned(size) == picture and (is_turned or not labels):
        image["width"], image["height"] = picture.width, picture.height
        repairs.add(place, f"its size {said} became {found}, as the image is upright")
        return True
    repairs.add(place, f"its size {said} and its labels stay as they are, though the image is {found} px upright")
    return False


def _correct_name(place: str, image: dict[str, Any], repairs: Repairs) -> bool:
    """Make an image's name a path below a folder; False if it must be left out."""
    name = image.get("file_name")
    if not isinstance(name, str) or not name:
        repairs.add(place, "left out with its annotations, it has no file_name")
        return False
    if has_portable_name(image):
        return True
    path = PureWindowsPath(name) if "\\" in name or PureWindowsPath(name).drive else PurePosixPath(name)
    kept = (part.replace("\0", "") for part in path.parts if part not in (path.anchor, ".."))
    parts = [part for part in kept if part]
    if not parts:
        repairs.add(place, f"left out with its annotations, its file_name {name!r} names no file")
        return False
    image["file_name"] = "/".join(parts)
    repairs.add(place, f"file_name {name!r} became {image['file_name']!r}")
    return True


def _correct_size(
    place: str,
    image: dict[str, Any],
    hints: Mapping[str | None, list[Any]],
    picture: ImageSize | None,
    labels: Sequence[Mapping[str, Any]],
    repairs: Repairs,
) -> bool:
    """Make an image's size two whole numbers; False if it isn't known, and the image must be left out.

    Without any, it stays if its labels need none: the commands read it so.
    """
    if plain_size(image) is not None:
        return True
    was = dict(image)
    sides: list[float | None] = [number_or_none(image.get(side)) for side in ("width", "height")]
    hint = hints.get(id_text_or_none(image.get("id")))
    if picture is not None:
        sides = [picture.width, picture.height]
    if None in sides and hint is not None:
        sides = [number_or_none(side) for side in reversed(hint)]
    image["width"], image["height"] = (side if side is None else int(side) for side in sides)
    if plain_size(image) is None:
        if any(was.get(side) is None for side in ("width", "height")) and all(map(_needs_no_size, labels)):
            image.clear()
            image.update(was)
            repairs.add(place, "it and its labels stay, its size is not known; name its folder with --images")
            return True
        repairs.add(place, "left out with its annotations, its size is not known; name its folder with --images")
        return False
    repairs.add(place, f"its size became {image['width']} x {image['height']}")
    return True


def _needs_no_size(annotation: Mapping[str, Any]) -> bool:
    """Whether the commands read an annotation on an image whose size isn't known."""
    try:
        object_of(annotation, None, "", Notes())
    except ValueError:
        return False
    return True


def id_text_or_none(value: Any) -> str | None:
    """Text of an id; None for what is no id."""
    try:
        return id_text(value)
    except ValueError:
        return None
