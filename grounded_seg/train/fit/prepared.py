"""A training with everything in its place: what is asked, what is measured, and what `run.json` says of it."""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import nn
from transformers import set_seed

from grounded_seg.detect.model.florence import FlorenceModel
from grounded_seg.device.choose import n_threads, versions
from grounded_seg.errors import UsageError
from grounded_seg.train.data.augment import augmentation_for
from grounded_seg.train.data.questions import all_prompts, all_questions, split_plan, training_plan
from grounded_seg.train.data.records import Question, TrainingData
from grounded_seg.train.data.samples import AnswerWriter, ImageStore, QuestionDataset
from grounded_seg.train.fit.arguments import arguments
from grounded_seg.train.fit.callbacks import Keeper, Rhythm, Watcher
from grounded_seg.train.fit.loop import FlorenceTrainer
from grounded_seg.train.fit.lora import make_trainable, n_trained
from grounded_seg.train.fit.save import Origin, save_trained
from grounded_seg.train.folder import LOWER_IS_BETTER, MetricsLog, TrainFolder
from grounded_seg.train.measure.metrics import Answered, figures_of, lower_is_better
from grounded_seg.train.measure.validation import Validation
from grounded_seg.train.settings import TrainSettings
from grounded_seg.weights.locate import LocatedWeights
from grounded_seg.weights.strict_loading import quiet_transformers

_VALIDATION_DRAW = 1 << 20
"""The epoch whose negatives the validation's loss has: one that no training comes to."""


def is_first_process() -> bool:
    """Tell whether this process is the one of its training that writes files; `torchrun` numbers them."""
    return int(os.environ.get("RANK", "0")) == 0


class PreparedTraining:
    """The parts of one training, put together: all but its steps."""

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
        """Plan what is asked and measured.

        Args:
            settings: All that was chosen.
            folder: Where everything is written.
            base: Where the base comes from.
            florence: The base, loaded; the training changes it.
            data: What is learnt from.
            device: Where it is trained.
            dtype: Number format of the activations.

        Raises:
            InputError: If there is nothing to ask.
            UsageError: If the best can't be chosen by the figure that the settings name.
        """
        self._settings = settings
        self._folder = folder
        self._florence = florence
        self._data = data
        self._device = device
        self._dtype = dtype
        self._base = base
        # Questions about one image stand together, which spares its encoding, but a batch shows several images.
        group = max(1, settings.batch_size // 4)
        self._plan = training_plan(data, settings, group)
        self._valid_plan = split_plan(data.valid, data, settings, group)
        images = list(dict.fromkeys(example.image for example in data.valid.examples))[: settings.eval_images]
        examples = [example for example in data.valid.examples if example.image in images]
        self._asked = all_questions(examples, all_prompts(data, settings), settings.prompt_form)
        # The figures that silence to all questions has are those that every validation will have.
        silence = [Answered(question, "") for question in self._asked]
        self._lower_is_better = LOWER_IS_BETTER | lower_is_better(settings.metrics, silence)
        self.best_metric = self._chosen_metric({"loss", *figures_of(silence, settings.metrics)})
        self.n_trained = 0

    def _chosen_metric(self, names: set[str]) -> str:
        """Take the figure that chooses the best.

        Raises:
            UsageError: If there is no such figure.
        """
        chosen = self._settings.best_metric or ("AP" if "AP" in names else "loss")
        if chosen not in names:
            raise UsageError(f"there is no figure {chosen!r} to choose the best by, only {', '.join(sorted(names))}")
        return chosen

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
            "processes": int(os.environ.get("WORLD_SIZE", "1")),
            "versions": asdict(versions()),
        }

    def run(self, *, resume: bool, on_start: Callable[[], None], watcher: Watcher) -> MetricsLog:
        """Train to the end, or on from the last checkpoint; give the figures of all steps.

        Args:
            resume: Go on.
            on_start: Called when all is checked, right before the first step and the first file.
            watcher: Told each row of figures.

        Raises:
            UsageError: If a logger or an optimizer isn't installed, the warm-up is too long, or the loss breaks down.
            OutputError: If something can't be written.
        """
        settings = self._settings
        set_seed(settings.seed)
        model = make_trainable(self._florence.network, settings)
        self.n_trained = n_trained(model)
        checkpoint = self._folder.last_checkpoint() if resume else None
        args = arguments(settings, self._folder, self._device, self._dtype)
        step = 0 if checkpoint is None else int(checkpoint.name.rpartition("-")[2])
        log = MetricsLog(self._folder.metrics, step, writes=is_first_process(), lower_is_better=self._lower_is_better)
        if checkpoint is not None and self._is_patient_no_more(log):
            return log
        images, writer = ImageStore(settings.image_size), AnswerWriter(self._florence)
        augmentation = augmentation_for(all_prompts(self._data, settings)) if settings.augment else None
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
                Keeper(log, self._folder.loss_picture, self.best_metric, self._saver(model, log), on_start, watcher),
                Rhythm(settings, validation, log, self.best_metric),
            ],
        )
        with quiet_transformers():
            trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        return log

    def _is_patient_no_more(self, log: MetricsLog) -> bool:
        """Tell whether a training that is gone on with had been stopped early, and only its report was missing."""
        patience = self._settings.patience
        return patience is not None and log.epochs_since_best(self.best_metric) >= patience

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
