"""The images that a data set lists, from a folder: all there, and as large as the data set says."""

import os
from pathlib import Path

from grounded_seg.coco.data_set import DataSet, DataSetImage
from grounded_seg.errors import InputError
from grounded_seg.images.read import read_image
from grounded_seg.records import Image


def check_all_there(data_set: DataSet, folder: Path) -> None:
    """Look for every listed image, before any is asked about.

    Raises:
        InputError: If one is missing.
    """
    missing = [image.file_name for image in data_set.images if not os.path.isfile(folder / image.file_name)]
    if missing:
        raise InputError(
            f"{data_set.path}: {len(missing)} of {len(data_set.images)} listed images are not in {folder}, such as "
            f"{missing[0]!r}; name their folder with --images, or take them out of the file"
        )


def read_listed(image: DataSetImage, data_set: DataSet, folder: Path) -> Image:
    """Read an image.

    Raises:
        InputError: If it is missing, can't be read, or isn't of the size that the data set says.
    """
    decoded = read_image(folder / image.file_name)
    if image.size is not None and decoded.size != image.size:
        raise InputError(
            f"{data_set.path}: {image.file_name!r} is {image.size.width} x {image.size.height} px there, but upright "
            f"it is {decoded.width} x {decoded.height} px; name the data set's own images with --images"
        )
    return decoded
