"""A training before its first step: what is asked, what is measured, and what `run.json` says of it."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from grounded_seg.detect.model.florence import FlorenceModel
from grounded_seg.device.choose import n_threads, versions
from grounded_seg.errors import UsageError
from grounded_seg.train.data.questions import QuestionPlan, all_prompts, all_questions, split_plan, training_plan
from grounded_seg.train.data.records import Question, TrainingData
from grounded_seg.train.data.samples import AnswerWriter, Collator, ImageStore, QuestionDataset, augmentation_for
from grounded_seg.train.folder import TrainFolder
from grounded_seg.train.measure.metrics import LOWER_IS_BETTER, Answered, figures_of, lower_is_better
from grounded_seg.train.settings import TrainSettings
from grounded_seg.weights.locate import LocatedWeights

_VALIDATION_DRAW = 1 << 20
"""The epoch whose negatives the validation's loss has: one that no training comes to."""


def n_processes() -> int:
    """Number of processes of this training; `torchrun` starts one for each GPU."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first_process() -> bool:
    """Whether this process is the one of its training that writes files; `torchrun` numbers them."""
    return int(os.environ.get("RANK", "0")) == 0


@dataclass(frozen=True, eq=False)
class PreparedTraining:
    """All that a training's loop needs."""

    settings: TrainSettings
    base: LocatedWeights
    florence: FlorenceModel
    """The base; the training changes it."""
    data: TrainingData
    device: torch.device
    dtype: torch.dtype
    """Of the activations."""
    plan: QuestionPlan
    dataset: QuestionDataset
    """What is learnt from."""
    valid_dataset: QuestionDataset
    """What the validation's loss is of, always the same questions."""
    asked: Sequence[Question]
    """What the validation's answers are generated for."""
    images: ImageStore
    collator: Collator
    best_metric: str
    """The figure that chooses the best."""
    lower_is_better: frozenset[str]

    @property
    def folder(self) -> TrainFolder:
        """The training's folder."""
        return TrainFolder(self.settings.output)

    def manifest(self) -> dict[str, Any]:
        """What `run.json` says from the start."""
        return {
            "settings": self.settings.option_values(),
            "base": {"id": self.base.name, "revision": self.base.revision, "sha256": self.base.sha256},
            "data": {
                "sha256": _sha256_of(self.plan.epoch(0)),
                "classes": list(self.data.classes),
                "images": {name: len(split.examples) for name, split in self.data.splits.items()},
                "questions": len(self.plan),
                "negatives": self.plan.n_negatives,
                "left_out": [str(fault) for fault in self.data.faults],
                "notes": list(self.data.notes),
            },
            "device": str(self.device),
            "dtype": str(self.dtype).removeprefix("torch."),
            "threads": n_threads(),
            "processes": n_processes(),
            "versions": asdict(versions()),
        }


def prepare(
    settings: TrainSettings,
    base: LocatedWeights,
    florence: FlorenceModel,
    data: TrainingData,
    device: torch.device,
    dtype: torch.dtype,
) -> PreparedTraining:
    """Plan what a training asks and measures; `UsageError` if there is no such figure as chooses the best."""
    # Questions about one image stand together, which spares its encoding, but a batch shows several images.
    group = max(1, settings.batch_size // 4)
    plan, valid_plan = training_plan(data, settings, group), split_plan(data.valid, data, settings, group)
    prompts = all_prompts(data, settings)
    shown = set(list(dict.fromkeys(example.image for example in data.valid.examples))[: settings.eval_images])
    examples = [example for example in data.valid.examples if example.image in shown]
    asked = all_questions(examples, prompts, settings.prompt_form)
    # The figures that silence to all questions has are those that every validation will have.
    silence = [Answered(question, "") for question in asked]
    names = {"loss", *figures_of(silence, settings.metrics)}
    best_metric = settings.best_metric or ("AP" if "AP" in names else "loss")
    if best_metric not in names:
        raise UsageError(f"there is no figure {best_metric!r} to choose the best by, only {', '.join(sorted(names))}")
    writer = AnswerWriter(florence)
    # The images that are kept in memory are shared out among all that read some: this process and its workers.
    n_readers = (settings.workers + 1) * int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    images = ImageStore(settings.image_size, settings.max_pixels, n_readers)
    augmentation = augmentation_for(prompts) if settings.augment else None
    valid_dataset = QuestionDataset(valid_plan, writer, images, None, settings.seed)
    valid_dataset.set_epoch(_VALIDATION_DRAW)
    return PreparedTraining(
        settings=settings,
        base=base,
        florence=florence,
        data=data,
        device=device,
        dtype=dtype,
        plan=plan,
        dataset=QuestionDataset(plan, writer, images, augmentation, settings.seed),
        valid_dataset=valid_dataset,
        asked=asked,
        images=images,
        collator=Collator(florence.pixels, florence.vocabulary.pad_id),
        best_metric=best_metric,
        lower_is_better=LOWER_IS_BETTER | lower_is_better(settings.metrics, silence),
    )


def _sha256_of(questions: Sequence[Question]) -> str:
    """Hash what is learnt, so that resuming with another data set is noticed."""
    lines = sorted(f"{one.example.image.name}\t{one.text}\t{one.answer}" for one in questions)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
