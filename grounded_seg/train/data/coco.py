"""Examples from a COCO file with its images beside it."""

from collections.abc import Sequence
from pathlib import Path

from grounded_seg.coco.data_set import DataSet, DataSetImage, DataSetObject, read_data_set
from grounded_seg.coco.schema import xyxy_from_xywh
from grounded_seg.errors import InputError
from grounded_seg.train.data.checks import UnusableRowError, checked_box, checked_size, image_beside
from grounded_seg.train.data.json_lines import lines_of, with_line
from grounded_seg.train.data.records import BoxExample, Fault, LabelledBox, SplitData


def read_coco(path: Path) -> tuple[SplitData, DataSet]:
    """Read a file; images that can't be used, or that hold a box that can't, become faults with their line.

    An image is left out whole: without one of its objects it would teach that the object isn't there.

    Raises:
        InputError: If the file is no COCO data set, or holds what can't be understood; names the line.
    """
    spoilt: dict[int, tuple[int, InputError]] = {}

    def on_fault(place: int, image_id: int, wrong: InputError) -> None:
        spoilt[place] = image_id, wrong

    try:
        data_set = read_data_set(path, on_fault)
    except InputError as error:
        text = str(error).removeprefix(f"{path}: ")
        raise InputError(with_line(path, text) if text != str(error) else text) from error
    image_lines, object_lines = lines_of(path, "images"), lines_of(path, "annotations")
    # The reader sorts images by id, and keeps objects in the order of the file.
    place_by_id = {image_id: place for place, image_id in enumerate(data_set.image_ids.values())}
    objects: dict[int, list[tuple[int, DataSetObject | InputError]]] = {}
    for place, (image_id, wrong) in spoilt.items():
        objects.setdefault(image_id, []).append((place, wrong))
    kept_places = (place for place in range(len(object_lines)) if place not in spoilt)
    for place, one in zip(kept_places, data_set.objects, strict=True):
        objects.setdefault(one.image_id, []).append((place, one))
    examples, faults = [], []
    for image in data_set.images:
        line = image_lines[place_by_id[image.id]]
        try:
            examples.append(_example(path, image, line, objects.get(image.id, []), object_lines, data_set))
        except _FaultError as error:
            faults.append(error.fault)
    return SplitData(tuple(examples), tuple(faults)), data_set


class _FaultError(Exception):
    def __init__(self, fault: Fault) -> None:
        super().__init__(str(fault))
        self.fault = fault


def _example(
    path: Path,
    image: DataSetImage,
    line: int,
    objects: Sequence[tuple[int, DataSetObject | InputError]],
    object_lines: Sequence[int],
    data_set: DataSet,
) -> BoxExample:
    image_path = path.parent / image.file_name
    try:
        image_path = image_beside(path.parent, image.file_name)
        size = checked_size(image_path, image.size)
    except UnusableRowError as error:
        raise _FaultError(Fault(f"{path}:{line}", str(error), image_path)) from error
    boxes, unsure = [], set()
    for place, one in objects:
        try:
            if isinstance(one, InputError):
                raise UnusableRowError(str(one).removeprefix(f"{path}: annotations[{place}]: ")) from one
            label = data_set.classes[one.category_id]
            if one.is_crowd:
                unsure.add(label)
            else:
                boxes.append(LabelledBox(label, checked_box(xyxy_from_xywh(one.bbox_xywh), size), one.mask))
        except UnusableRowError as error:
            fault = Fault(f"{path}:{object_lines[place]}", f"annotations[{place}]: {error}", image_path)
            raise _FaultError(fault) from error
    kept = tuple(box for box in boxes if box.label not in unsure)
    return BoxExample(image_path, size, kept, f"{path}:{line}", frozenset(unsure))
