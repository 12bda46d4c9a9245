"""One training, from a data set to an adapter and a report."""

import hashlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import set_seed

from grounded_seg.detect.florence import FlorenceModel
from grounded_seg.errors import UsageError
from grounded_seg.runtime import n_threads, out_of_memory_as_device_error, resolve_device, resolve_dtype, versions
from grounded_seg.train.arguments import arguments
from grounded_seg.train.augment import augmentation_for
from grounded_seg.train.base import load_base, locate_base
from grounded_seg.train.callbacks import Keeper, Rhythm, Watcher
from grounded_seg.train.comparison import Progress
from grounded_seg.train.curves import draw_losses
from grounded_seg.train.dataset import read_training_data
from grounded_seg.train.folder import MetricsLog, TrainFolder
from grounded_seg.train.lora import make_trainable, n_trained
from grounded_seg.train.questions import QuestionPlan, all_questions
from grounded_seg.train.records import BoxExample, Fault, Question, SplitData, TrainingData
from grounded_seg.train.report import write_report
from grounded_seg.train.row_lengths import without_long_rows
from grounded_seg.train.samples import AnswerWriter, ImageStore, QuestionDataset
from grounded_seg.train.saved import Origin, save_trained
from grounded_seg.train.settings import TrainSettings
from grounded_seg.train.trainer import FlorenceTrainer
from grounded_seg.train.validation import Validation
from grounded_seg.weights.locate import LocatedWeights
from grounded_seg.weights.strict_loading import quiet_transformers

_VALIDATION_DRAW = 1 << 20
"""The epoch whose negatives the validation's loss has: one that no training comes to."""


@dataclass(frozen=True)
class TrainReport:
    """What came out of a training."""

    folder: TrainFolder
    result: Path
    """The adapter's folder, or with full tuning the model's."""
    figures: Mapping[str, float]
    """Of the validation that was best."""
    n_steps: int
    n_trained: int
    """Numbers that were learnt."""
    faults: tuple[Fault, ...]
    """Rows of the data set that were left out."""
    seconds: float


def train(
    settings: TrainSettings,
    *,
    resume: bool = False,
    watcher: Watcher | None = None,
    progress: Progress = lambda _done, _all: None,
) -> TrainReport:
    """Train a detector on a data set, and compare it with its base.

    Args:
        settings: What, on what, and how.
        resume: Go on from the last checkpoint in `settings.output`: the losses are those of a training that was never
            interrupted.
        watcher: Told each row of figures as it is written to `metrics.jsonl`.
        progress: Told how many images of the test split each of the two compared models is done with.

    Raises:
        UsageError: If settings don't go together, or the output folder is in use or holds another training.
        InputError: If the data set can't be used; names file and line.
        WeightsError, DeviceError, OutputError: As for a run.
    """
    started = time.monotonic()
    folder = TrainFolder(settings.output)
    device = resolve_device(settings.models.device)
    if device.type == "cuda" and device.index:
        raise UsageError(f"training takes the first CUDA device; make it that one: CUDA_VISIBLE_DEVICES={device.index}")
    dtype = resolve_dtype(settings.models.dtype, device)
    if not resume:
        folder.check_free()
    data = read_training_data(settings.dataset, settings.split, settings.seed, strict=settings.strict)
    base = locate_base(settings)
    florence = load_base(base, settings, device)
    data = without_long_rows(data, florence, settings)
    training = _Training(settings, folder, base, florence, data, device, dtype)
    manifest = training.manifest()
    if resume:
        folder.check_same(manifest)
    is_first = is_first_process()
    if is_first:
        folder.write_manifest(manifest | {"status": "running"})
    with out_of_memory_as_device_error("training", "Lower --batch-size, or add --gradient-checkpointing."):
        log = training.run(resume=resume, watcher=watcher)
    best = log.best(training.best_metric) or {}
    figures = {name.removeprefix("valid_"): value for name, value in best.items() if name.startswith("valid_")}
    report = TrainReport(
        folder=folder,
        result=folder.result(settings.method),
        figures=figures,
        n_steps=int(log.rows[-1]["step"]) if log.rows else 0,
        n_trained=training.n_trained,
        faults=data.faults,
        seconds=time.monotonic() - started,
    )
    if is_first:
        draw_losses(log.rows, folder.loss_picture)
        test = write_report(settings, data, progress) if settings.report else {}
        seconds = time.monotonic() - started
        done = {"status": "done", "best": dict(best), "steps": report.n_steps, "seconds": seconds, "test": test}
        folder.write_manifest(manifest | done)
    return report


def is_first_process() -> bool:
    """Tell whether this process is the one of its training that writes files; `torchrun` numbers them."""
    return int(os.environ.get("RANK", "0")) == 0


class _Training:
    """The parts of one training, put together."""

    def __init__(
        self,
        settings: TrainSettings,
        folder: TrainFolder,
        base: LocatedWeights,
        florence: FlorenceModel,
        data: TrainingData,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self._settings = settings
        self._folder = folder
        self._florence = florence
        self._data = data
        self._device = device
        self._dtype = dtype
        self._base = base
        prompts = tuple(dict.fromkeys((*data.classes, *settings.negatives)))
        self._plan = self._planned(data.train, prompts, settings.negative_ratio)
        self._valid_plan = self._planned(data.valid, prompts, settings.negative_ratio)
        examples = data.valid.examples[: settings.eval_images]
        self._asked = all_questions(examples, prompts, settings.prompt_form)
        has_boxes = any(isinstance(one.example, BoxExample) and one.answer for one in self._asked)
        self.best_metric = settings.best_metric or ("AP" if has_boxes else "loss")
        self.n_trained = 0

    def manifest(self) -> dict[str, Any]:
        """Give what `run.json` says from the start."""
        return {
            "settings": self._settings.option_values(),
            "base": {"id": self._base.name, "revision": self._base.revision, "sha256": self._base.sha256},
            "data": {
                "sha256": _sha256_of(self._plan.epoch(0)),
                "classes": list(self._data.classes),
                "images": {name: len(split.examples) for name, split in self._data.splits.items()},
                "questions": len(self._plan),
                "negatives": self._plan.n_negatives,
                "left_out": [str(fault) for fault in self._data.faults],
                "notes": list(self._data.notes),
            },
            "device": str(self._device),
            "dtype": str(self._dtype).removeprefix("torch."),
            "threads": n_threads(),
            "versions": asdict(versions()),
        }

    def run(self, *, resume: bool, watcher: Watcher | None) -> MetricsLog:
        """Train to the end, or on from the last checkpoint."""
        settings = self._settings
        set_seed(settings.seed)
        model = make_trainable(self._florence.network, settings)
        self.n_trained = n_trained(model)
        checkpoint = self._folder.last_checkpoint() if resume else None
        args = arguments(settings, self._folder, self._device, self._dtype)
        step = 0 if checkpoint is None else int(checkpoint.name.rpartition("-")[2])
        log = MetricsLog(self._folder.metrics, step, writes=is_first_process())
        images, writer = ImageStore(settings.image_size), AnswerWriter(self._florence)
        augmentation = augmentation_for(self._data.classes) if settings.augment else None
        validation = Validation(
            self._fixed(QuestionDataset(self._valid_plan, writer, images, None, settings.seed)),
            self._asked,
            images,
            settings.metrics,
        )
        trainer = FlorenceTrainer(
            self._florence,
            model,
            settings,
            args,
            QuestionDataset(self._plan, writer, images, augmentation, settings.seed),
            validation,
            [
                Keeper(log, self.best_metric, self._saver(model, log), watcher),
                Rhythm(settings, validation, log, self.best_metric),
            ],
        )
        with quiet_transformers():
            trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        return log

    def _planned(self, split: SplitData, prompts: Sequence[str], ratio: float) -> QuestionPlan:
        settings = self._settings
        group = max(1, settings.batch_size // 4)
        return QuestionPlan(split.examples, prompts, settings.prompt_form, ratio, settings.seed, group)

    @staticmethod
    def _fixed(dataset: QuestionDataset) -> QuestionDataset:
        dataset.set_epoch(_VALIDATION_DRAW)
        return dataset

    def _saver(self, model: nn.Module, log: MetricsLog) -> Callable[[], None]:
        origin = Origin(self._settings, self._base, self._data.classes)

        def save() -> None:
            figures = {
                name.removeprefix("valid_"): value for name, value in log.rows[-1].items() if name.startswith("valid_")
            }
            save_trained(model, self._folder.result(self._settings.method), origin, figures)

        return save


def _sha256_of(questions: Sequence[Question]) -> str:
    """Hash what is learnt, so that going on with another data set is noticed."""
    lines = sorted(f"{one.example.image.name}\t{one.text}\t{one.answer}" for one in questions)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
