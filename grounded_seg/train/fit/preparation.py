"""A training before its first step: what is asked, what is measured, and what `run.json` says of it."""

import hashlib
import math
import os
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch

from grounded_seg.detect.model.florence import FlorenceModel
from grounded_seg.device.allocator import keep_large_buffers
from grounded_seg.device.choose import n_threads, resolve_device, resolve_dtype, use_exact_float32, versions
from grounded_seg.errors import UsageError
from grounded_seg.train.data.checks import WorkProgress
from grounded_seg.train.data.data_set import read_training_data
from grounded_seg.train.data.questions import all_prompts, all_questions, split_plan, training_plan
from grounded_seg.train.data.records import Question, TrainingData
from grounded_seg.train.data.samples import (
    AnswerWriter,
    Collator,
    ImageStore,
    QuestionDataset,
    augmentation_for,
    without_long_rows,
)
from grounded_seg.train.fit.features import plan_features
from grounded_seg.train.fit.trainable import load_base, locate_base, own_card
from grounded_seg.train.folder import TrainFolder
from grounded_seg.train.measure.comparison import check_measurable, leaves_out_adapter
from grounded_seg.train.measure.metrics import LOWER_IS_BETTER, Answered, figures_of, lower_is_better
from grounded_seg.train.settings import OptimizerName, TrainSettings
from grounded_seg.weights.locate import LocatedWeights

_VALIDATION_DRAW = 1 << 20
"""The epoch whose negatives the validation's loss has: one that no training comes to."""
_MIN_VALID_IMAGES, _MIN_VALID_IMAGES_OF_LOSS = 50, 10
"""With fewer, chance chooses the best checkpoint. Measured by AP on 20: step 88 of 440 was chosen, with .695 beside the
last one's .693, and on 200 other images they had .548 and .624."""


def n_processes() -> int:
    """Number of processes of this training; `torchrun` starts one for each GPU."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first_process() -> bool:
    """Whether this process is the one of its training that writes files; `torchrun` numbers them."""
    return int(os.environ.get("RANK", "0")) == 0


class PreparedTraining:
    """All that a training's loop needs: what is asked, and what is measured."""

    def __init__(
        self,
        settings: TrainSettings,
        base: LocatedWeights,
        florence: FlorenceModel,
        data: TrainingData,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        """Plan the questions of a training of `florence`, loaded from `base`, with activations of `dtype`.

        Raises:
            InputError: If there is nothing to ask.
            UsageError: If there is no such figure as the one that the settings choose the best by, or the warm-up is as
                long as the training.
        """
        self.settings, self.base, self.florence, self.data = settings, base, florence, data
        self.device, self.dtype, self.folder = device, dtype, TrainFolder(settings.output)
        # Questions about one image stand together, which spares its encoding, but a batch shows several images.
        group = max(1, settings.batch_size // 4)
        self.plan, valid_plan = training_plan(data, settings, group), split_plan(data.valid, data, settings, group)
        self.passes_per_epoch = math.ceil(math.ceil(len(self.plan) / settings.batch_size) / n_processes())
        """Batches of each process."""
        self.steps_per_epoch = math.ceil(self.passes_per_epoch / settings.accumulation)
        self.n_steps = settings.max_steps or settings.epochs * self.steps_per_epoch
        if settings.warmup_steps >= self.n_steps:
            raise UsageError(
                f"warmup-steps is {settings.warmup_steps}, and the whole training has {self.n_steps}; give fewer, or "
                "more epochs"
            )
        prompts = all_prompts(data, settings)
        shown = set(list(dict.fromkeys(example.image for example in data.valid.examples))[: settings.eval_images])
        n_valid = len({example.image for example in data.valid.examples})
        examples = [example for example in data.valid.examples if example.image in shown]
        self.asked = all_questions(examples, prompts, settings.prompt_form)
        """What the validation's answers are generated for."""
        # The figures that silence to all questions has are those that every validation will have.
        silence = [Answered(question, "") for question in self.asked]
        names = {"loss", *figures_of(silence, settings.metrics)}
        self.best_metric = settings.best_metric or ("AP" if "AP" in names else "loss")
        """The figure that chooses the best."""
        if self.best_metric not in names:
            known = ", ".join(sorted(names))
            raise UsageError(f"there is no figure {self.best_metric!r} to choose the best by, only {known}")
        self.notes = (*data.notes, *_too_few(len(shown), n_valid, self.best_metric), *_without_adapter(settings))
        """What there is to say of the data set and the base, a line each."""
        self.lower_is_better = LOWER_IS_BETTER | lower_is_better(settings.metrics, silence)
        writer = AnswerWriter(florence)
        # The images that are kept in memory are shared out among all that read some: this process and its workers.
        n_readers = (settings.workers + 1) * int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        self.images = ImageStore(settings.image_size, settings.max_pixels, n_readers)
        augmentation = augmentation_for(prompts) if settings.augment else None
        self.features = plan_features(settings, data.train, data.valid, augmentation, florence)
        seed, encoded = settings.seed, self.features.images
        self.dataset = QuestionDataset(self.plan, writer, self.images, augmentation, seed, encoded)
        self.valid_dataset = QuestionDataset(valid_plan, writer, self.images, None, seed, encoded)
        """What the validation's loss is of, always the same questions."""
        self.valid_dataset.set_epoch(_VALIDATION_DRAW)
        self.collator = Collator(florence.pixels, florence.vocabulary.pad_id)

    def manifest(self) -> dict[str, Any]:
        """What `run.json` says from the start."""
        return {
            "settings": self.settings.option_values(),
            "base": {"id": self.base.name, "revision": self.base.revision, "sha256": self.base.sha256},
            "data": {
                "sha256": _sha256_of(self.plan.epoch(0)),
                "classes": list(self.data.classes),
                "images": {
                    name: len({one.image for one in split.examples}) for name, split in self.data.splits.items()
                },
                "questions": len(self.plan),
                "negatives": self.plan.n_negatives,
                "left_out": [str(fault) for fault in self.data.faults],
                "notes": list(self.notes),
            },
            "features": self.features.facts(),
            "device": str(self.device),
            "dtype": str(self.dtype).removeprefix("torch."),
            "allocator": keep_large_buffers() if self.device.type == "cpu" else "system",
            "threads": n_threads(),
            "processes": n_processes(),
            "versions": asdict(versions()),
        }


def prepare(
    settings: TrainSettings, *, resume: bool = False, progress: WorkProgress = lambda _what, _done, _all: None
) -> PreparedTraining:
    """Read data set and base, and check all that can be checked before the first step; nothing is written.

    Raises:
        UsageError: If settings don't go together, something isn't installed, or the output folder is in use or holds
            another training than the one to `resume`.
        InputError: If the data set can't be used; names file and line.
    """
    device = _own_device(settings)
    if device.type == "cpu":
        keep_large_buffers()
    use_exact_float32(device)
    dtype = resolve_dtype(settings.models.dtype, device)
    folder = TrainFolder(settings.output)
    if not resume and is_first_process():
        folder.check_free()
    _check_installed(settings)
    if settings.report and settings.retention is not None:
        check_measurable(settings.retention)
    data = read_training_data(settings, partial(progress, "images checked"))
    base = locate_base(settings)
    florence = load_base(base, settings, device)
    data = without_long_rows(data, florence, settings)
    prepared = PreparedTraining(settings, base, florence, data, device, dtype)
    if resume:
        folder.check_same(prepared.manifest())
    return prepared


def _own_device(settings: TrainSettings) -> torch.device:
    device = resolve_device(settings.models.device)
    if device.type != "cuda":
        return device
    if device.index:
        raise UsageError(f"training takes the first CUDA device; make it that one: CUDA_VISIBLE_DEVICES={device.index}")
    return own_card(device)


def _check_installed(settings: TrainSettings) -> None:
    for logger in sorted(map(str, settings.log_to)):
        if find_spec(logger) is None:
            raise UsageError(f"log-to names {logger}, which isn't installed; pip install {logger}")
    if settings.optimizer is OptimizerName.CAME and find_spec("pytorch_optimizer") is None:
        raise UsageError("the optimizer came needs a package: pip install 'grounded-seg[train]'")


def _too_few(n_shown: int, n_valid: int, metric: str) -> list[str]:
    """Say that chance chooses the best checkpoint, where few of the validation images are asked about."""
    if n_shown >= (_MIN_VALID_IMAGES_OF_LOSS if metric == "loss" else _MIN_VALID_IMAGES):
        return []
    images = "1 validation image is" if n_shown == 1 else f"{n_shown} validation images are"
    remedy = "raise --eval-images" if n_shown < n_valid else "add some, or give a larger share with --split"
    steadier = "" if metric == "loss" else ", or take the steadier --best-metric loss"
    return [f"{images} too few to choose the best checkpoint by {metric}, chance decides; {remedy}{steadier}"]


def _without_adapter(settings: TrainSettings) -> list[str]:
    if not leaves_out_adapter(settings):
        return []
    return [
        f"the adapter of the preset {settings.models.preset} isn't kept: the training begins with the bare detector, "
        "and the report's base is that too"
    ]


def _sha256_of(questions: Sequence[Question]) -> str:
    """Hash what is learnt, so that resuming with another data set is noticed."""
    lines = sorted(f"{one.example.image.name}\t{one.text}\t{one.answer}" for one in questions)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
