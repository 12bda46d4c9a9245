"""Image features of a training's batches: computed once an image and kept, where nothing changes them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from grounded_seg.detect.model.florence import FlorenceModel
from grounded_seg.detect.model.pixels import pixel_values
from grounded_seg.train.data.encoded_images import EncodedImages, Stamp, stamp_of
from grounded_seg.train.data.records import Question, SplitData
from grounded_seg.train.data.samples import Augmentation, ImageStore, feature_grid
from grounded_seg.train.fit.feature_store import FeatureStore
from grounded_seg.train.settings import Part, TrainSettings


@dataclass(frozen=True)
class FeaturePlan:
    """Which images' features are kept in a training."""

    images: EncodedImages
    """Those that a training doesn't change. They are encoded one at a time, kept or not, so that it changes no loss."""
    keeps: bool
    """Their features are kept once they are computed."""
    n_train: int
    """Images of the training split among them."""
    n_valid: int
    n_bytes: int
    """Of all of them, in float32."""
    why_not: str
    """Why those of the training split aren't kept, or not all of them; empty if they are."""

    def line(self) -> str:
        """What there is to say to a user."""
        size = f"{self.n_bytes / 1e6:,.0f} MB" if self.n_bytes < 1e9 else f"{self.n_bytes / 1e9:,.1f} GB"
        images = "1 image" if len(self.images) == 1 else f"{len(self.images)} images"
        if not self.keeps:
            return f"image features are computed in each step: {self.why_not}"
        if self.why_not:
            return (
                f"image features are computed in each step: {self.why_not}; those of {images} are kept, {size} at most"
            )
        return f"image features are computed once and kept, {images}, {size} at most"

    def facts(self) -> dict[str, Any]:
        """What `run.json` says."""
        counts = {"kept": len(self.images), "train": self.n_train, "valid": self.n_valid}
        return {**(counts if self.keeps else dict.fromkeys(counts, 0)), "why_not": self.why_not}


def plan_features(
    settings: TrainSettings,
    train: SplitData,
    valid: SplitData,
    augmentation: Augmentation | None,
    florence: FlorenceModel,
) -> FeaturePlan:
    """Plan which images' features are kept: those that a training doesn't change, if its vision tower doesn't learn."""
    if Part.VISION in settings.parts:
        return FeaturePlan(EncodedImages((), is_shared=False), False, 0, 0, 0, "the vision tower is trained")
    steady = [one.image for one in train.examples if augmentation is None or not augmentation.changes(one)]
    n_train, n_all = len(set(steady)), len({one.image for one in train.examples})
    why_not = "" if n_train == n_all else "images are augmented, which --no-augment turns off"
    if not settings.cache_features:
        why_not = "--no-cache-features"
    paths = (*steady, *(one.image for one in valid.examples))
    images = EncodedImages(paths, is_shared=settings.workers > 0)
    rows, columns = feature_grid(florence)
    config = florence.network.config.vision_config
    n_values = rows * columns * config.embed_dim[-1]
    if Part.PROJECTOR not in settings.parts:
        n_values = (rows * columns + 1) * config.projection_dim
    n_bytes = len(images) * n_values * torch.float32.itemsize
    n_valid = len({one.image for one in valid.examples})
    return FeaturePlan(images, settings.cache_features, n_train, n_valid, n_bytes, why_not)


class ImageFeatures:
    """The image tokens of a batch, with gradients where vision tower or projector learn.

    Images that a training doesn't change are encoded one at a time, whether their features are kept or not. Last bits
    depend on how many are encoded together, and a resumed training must find the same ones: in another order, with
    other features in memory, or without keeping any.
    """

    def __init__(
        self,
        florence: FlorenceModel,
        parts: frozenset[Part],
        images: ImageStore,
        encoded: EncodedImages,
        store: FeatureStore,
    ) -> None:
        """Keep features in `store`, and mark their images in `encoded`."""
        self._network, self._pixels, self._images = florence.network, florence.pixels, images
        self._encoded, self._store = encoded, store
        self._tower_learns = Part.VISION in parts
        self._projector_learns = self._tower_learns or Part.PROJECTOR in parts

    def train_mode(self) -> None:
        """Switch off what a vision tower that isn't trained does at random."""
        if not self._tower_learns:
            self._network.model.vision_tower.eval()

    def of_batch(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Features of the k images of a batch of `Collator`, (k, n_image_tokens, width).

        Its `pixel_values` are on the device; what else is read here is better left in CPU memory.
        """
        numbers, is_read = batch["image_number"].tolist(), batch["is_read"].tolist()
        pixels = iter(torch.split(batch["pixel_values"], 1))
        read = [next(pixels) if is_here else None for is_here in is_read]
        if all(number < 0 for number in numbers):
            return self._rest(self._frozen(batch["pixel_values"]))
        kept = [
            self._kept(number, (int(time), int(n_bytes)), values)
            for number, (time, n_bytes), values in zip(numbers, batch["image_stamp"].tolist(), read, strict=True)
        ]
        return self._rest(torch.cat(kept))

    def of_question(self, question: Question) -> torch.Tensor:
        """Features of a question's image, (1, n_image_tokens, width), in the dtype of the network's weights."""
        path = question.example.image
        number, stamp = self._encoded.number(path), stamp_of(path)
        values = None
        if not self._encoded.is_kept(number, stamp):
            values = pixel_values([self._images.read(question)], self._pixels, self._network.device)
        return self._rest(self._kept(number, stamp or (0, 0), values)).to(self._network.dtype)

    def _kept(self, number: int, stamp: Stamp, values: torch.Tensor | None) -> torch.Tensor:
        """What `_frozen` makes of one image, (1, ...): from the store, or computed and put there.

        `number` is -1 for an image that is never kept; `values` (1, 3, h, w) are None where the image wasn't read,
        because its features are kept.
        """
        if values is None or self._encoded.is_kept(number, stamp):
            return self._store.get(number).to(self._network.device, non_blocking=True)
        features = self._frozen(values).contiguous()
        if number >= 0 and self._store.put(number, features.cpu()):
            self._encoded.mark(number, stamp)
        elif number >= 0 and number not in self._store:
            # It may have been there as it was before its file changed.
            self._encoded.unmark(number)
        return features

    def _frozen(self, values: torch.Tensor) -> torch.Tensor:
        """The output of the vision tower, or of the projector if that isn't trained either, for (n, 3, h, w)."""
        with torch.set_grad_enabled(self._tower_learns and torch.is_grad_enabled()):
            features: torch.Tensor = self._network.model.vision_tower(values).last_hidden_state
            return features if self._projector_learns else self._project(features)

    def _rest(self, features: torch.Tensor) -> torch.Tensor:
        return self._project(features) if self._projector_learns else features

    def _project(self, features: torch.Tensor) -> torch.Tensor:
        projector: nn.Module = self._network.model.multi_modal_projector
        projected: torch.Tensor = projector(features)
        return projected
