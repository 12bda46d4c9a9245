"""What was found on one image as arrays, with a row for each instance."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from grounded_seg.detect.prompts import PromptSet
from grounded_seg.geometry.boxes import array_from_boxes
from grounded_seg.records import Image, ImageResult, Instance


@dataclass(frozen=True, kw_only=True, repr=False)
class ArrayResult(ImageResult):
    """What was found on one image, and what had been asked.

    It has a length, gives its instances one by one in a loop, and `result[...]` is a result of the chosen ones: by
    index, slice, list of indices, or boolean mask, such as `result[result.scores > 0.7]`. Arrays have a row for each
    instance, in the order of `instances`: of the prompts, and from high to low score within a prompt.
    """

    asked: PromptSet
    """The prompts, and the class of each."""
    image: Image | None = field(default=None, compare=False)
    """The image that was asked about, where it was given in memory; None where it is read again from `path`."""

    def __len__(self) -> int:
        """The number of instances."""
        return len(self.instances)

    def __iter__(self) -> Iterator[Instance]:
        return iter(self.instances)

    def __getitem__(
        self,
        chosen: int | slice | Sequence[int] | Sequence[bool] | npt.NDArray[np.integer[Any]] | npt.NDArray[np.bool_],
    ) -> Self:
        """Give a result of the chosen instances, also of one.

        Raises:
            IndexError: If an index is beyond the instances, a mask isn't as long as the result, or it is neither.
        """
        if isinstance(chosen, slice):
            return replace(self, instances=self.instances[chosen])
        rows = np.asarray(chosen)
        if rows.dtype == np.bool_ and rows.shape != (len(self),):
            shape = " x ".join(map(str, rows.shape)) or "no list"
            raise IndexError(f"the mask is {shape} for {len(self)} instances; give one truth value for each")
        if (rows.size and rows.dtype.kind not in "biu") or rows.ndim > 1:
            raise IndexError(f"{chosen!r:.60} is no index; give an index, a slice, a list of indices or a boolean mask")
        indices = np.arange(len(self))[rows if rows.size else rows.astype(np.int64)]
        return replace(self, instances=tuple(self.instances[index] for index in np.atleast_1d(indices).tolist()))

    @property
    def boxes_xyxy(self) -> npt.NDArray[np.float32]:
        """The detector's boxes in pixels, (n, 4); those of `to_coco` and `to_supervision` are tight around the mask."""
        return array_from_boxes([one.box_xyxy for one in self.instances]).astype(np.float32)

    @property
    def masks(self) -> npt.NDArray[np.bool_] | None:
        """The masks, (n, height, width), decoded each time: keep them in a variable.

        None where boxes without masks were found; (0, height, width) where nothing was.
        """
        masks = [one.mask for one in self.instances if one.mask is not None]
        if len(masks) < len(self.instances):
            return None
        decoded = np.zeros((len(masks), self.size.height, self.size.width), dtype=np.bool_)
        for row, mask in enumerate(masks):
            decoded[row] = mask.to_array()
        return decoded

    @property
    def scores(self) -> npt.NDArray[np.float32]:
        """The detector's scores, (n,), in [0, 1]."""
        return np.array([one.score for one in self.instances], dtype=np.float32)

    @property
    def labels(self) -> npt.NDArray[np.str_]:
        """The detector's own words for each instance, (n,)."""
        return np.array([one.label for one in self.instances], dtype=np.str_)

    @property
    def prompts(self) -> npt.NDArray[np.str_]:
        """The prompt that each instance was found by, (n,); what was asked in all is in `asked`."""
        return np.array([one.prompt for one in self.instances], dtype=np.str_)

    @property
    def class_names(self) -> npt.NDArray[np.str_]:
        """The class of each instance, (n,): its prompt, unless the prompts were given with classes."""
        classes = self.asked.class_by_prompt
        return np.array([classes[one.prompt] for one in self.instances], dtype=np.str_)

    @property
    def class_ids(self) -> npt.NDArray[np.int64]:
        """The class of each instance as its index in `asked.classes`, (n,); `category_id` in `to_coco` is one more."""
        index = {name: number for number, name in enumerate(self.asked.classes)}
        return np.array([index[name] for name in self.class_names.tolist()], dtype=np.int64)
