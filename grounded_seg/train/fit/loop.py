"""transformers' `Seq2SeqTrainer` on questions that share images."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.data import SequentialSampler
from transformers import (
    PrinterCallback,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    TrainerCallback,
    TrainerControl,
)
from transformers.models.florence2.modeling_florence2 import shift_tokens_right

from grounded_seg.detect.model.florence import FlorenceModel
from grounded_seg.train.data.samples import IGNORED, Collator, QuestionDataset
from grounded_seg.train.fit.lora import trains_vision
from grounded_seg.train.fit.loss import AnswerLoss
from grounded_seg.train.fit.optimizer import make_optimizer, make_schedule
from grounded_seg.train.fit.save import weights_as_output_error
from grounded_seg.train.measure.validation import Validation
from grounded_seg.train.settings import TrainSettings

Batch = Mapping[str, torch.Tensor]


class FlorenceTrainer(Seq2SeqTrainer):  # type: ignore[misc]
    """Trains a Florence-2 on questions: an image is encoded once a batch, however many questions are about it."""

    control: TrainerControl
    optimizer: torch.optim.Optimizer | None
    lr_scheduler: torch.optim.lr_scheduler.LRScheduler | None

    def __init__(
        self,
        florence: FlorenceModel,
        model: nn.Module,
        settings: TrainSettings,
        args: Seq2SeqTrainingArguments,
        train: QuestionDataset,
        validation: Validation,
        callbacks: Sequence[TrainerCallback],
    ) -> None:
        """Put everything together; nothing is trained yet.

        Args:
            florence: The base. Its network's layers are what `model` trains.
            model: From `lora.make_trainable`.
            settings: What the optimizer and its schedule follow.
            args: The library's own settings, see `arguments`.
            train: What is learnt from.
            validation: What is measured when a callback says so.
            callbacks: When that is, among others.
        """
        super().__init__(
            model=model,
            args=args,
            train_dataset=train,
            data_collator=Collator(florence.pixels, florence.vocabulary.pad_id),
            callbacks=list(callbacks),
        )
        self.remove_callback(PrinterCallback)
        # Our loss is the sum over the step's tokens divided by their number, however many passes make the step.
        self.model_accepts_loss_kwargs = True
        self._loss_shifts_labels = False
        self._florence = florence
        self._settings = settings
        self._validation = validation
        self._answer_loss = AnswerLoss(florence.vocabulary.location_ids, settings.location_spread)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Compute the mean cross-entropy of the answers' tokens over the whole step."""
        labels = inputs["labels"]
        logits = self._logits(model, inputs)
        total = self._answer_loss.to(logits.device)(logits, labels)
        n_tokens = (labels != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch
        loss = total / n_tokens
        if num_items_in_batch is not None and self.args.average_tokens_across_devices:
            # The devices' gradients are averaged, and each counted its own tokens only.
            loss = loss * self.accelerator.num_processes
        return (loss, {"logits": logits}) if return_outputs else loss

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Measure the validation's loss, and its answers where they are due."""
        model = self.model.eval()
        total, n_tokens = 0.0, 0
        with torch.no_grad():
            for batch in self._validation.batches(self.data_collator, self.args.per_device_train_batch_size):
                inputs = self._prepare_inputs(batch)
                n_here = int((inputs["labels"] != IGNORED).sum())
                total += float(self.compute_loss(model, inputs)) * n_here
                n_tokens += n_here
        figures = {"loss": total / max(1, n_tokens)} | self._validation.figures(self._florence)
        row = {f"valid_{name}": value for name, value in figures.items()}
        self.log(row)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, row)
        return row

    @weights_as_output_error()
    def _save_checkpoint(self, *args: Any, **options: Any) -> None:
        """Save what a resumed training goes on from."""
        super()._save_checkpoint(*args, **options)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Make the optimizer of the settings."""
        if self.optimizer is None:
            self.optimizer = make_optimizer(self.model if model is None else model, self._settings)
        return self.optimizer

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """Make the schedule of the settings."""
        if self.lr_scheduler is None:
            chosen = optimizer or self.create_optimizer()
            self.lr_scheduler = make_schedule(chosen, self._settings, num_training_steps)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def _logits(self, model: nn.Module, inputs: Batch) -> torch.Tensor:
        """Give the decoder's logits over the answers, (n, t, vocabulary)."""
        network = self._florence.network
        learns_to_see = trains_vision(self._settings.parts)
        if not learns_to_see:
            network.model.vision_tower.eval()
        with self.accelerator.autocast(), torch.set_grad_enabled(learns_to_see and torch.is_grad_enabled()):
            features = network.get_image_features(inputs["pixel_values"]).pooler_output
        features = features[inputs["image_index"]]
        words = network.get_input_embeddings()(inputs["input_ids"])
        text = network.config.text_config
        # The native forward would shift the labels too, but then compute the loss a second time.
        answers = shift_tokens_right(inputs["labels"], text.pad_token_id, text.decoder_start_token_id)
        mask = inputs["attention_mask"]
        logits: torch.Tensor = model(
            inputs_embeds=torch.cat([features.to(words.dtype), words], dim=1),
            attention_mask=torch.cat([mask.new_ones(features.shape[:2]), mask], dim=1),
            decoder_input_ids=answers,
            use_cache=False,
        ).logits
        return logits

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        """Take the questions in the plan's order, which is shuffled anew for each epoch."""
        return SequentialSampler(train_dataset or self.train_dataset)
