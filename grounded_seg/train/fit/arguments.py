"""transformers' own settings of a training, from ours."""

from importlib.util import find_spec

import torch
from transformers import Seq2SeqTrainingArguments

from grounded_seg.errors import UsageError
from grounded_seg.train.folder import TrainFolder
from grounded_seg.train.settings import TrainSettings


def arguments(
    settings: TrainSettings, folder: TrainFolder, device: torch.device, dtype: torch.dtype
) -> Seq2SeqTrainingArguments:
    """Give transformers' own settings; when to validate and save is `callbacks.Rhythm`'s to say.

    Raises:
        UsageError: If a logger is asked for whose package isn't installed.
    """
    for logger in sorted(settings.log_to):
        if find_spec(logger) is None:
            raise UsageError(f"log-to names {logger}, which isn't installed; pip install {logger}")
    args = Seq2SeqTrainingArguments(
        output_dir=str(folder.checkpoints),
        num_train_epochs=settings.epochs,
        max_steps=settings.max_steps or -1,
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.accumulation,
        learning_rate=settings.lr,
        max_grad_norm=settings.max_grad_norm,
        seed=settings.seed,
        bf16=dtype is torch.bfloat16,
        fp16=dtype is torch.float16,
        use_cpu=device.type == "cpu",
        # Every step is logged: what is logged less often would have to be kept over an interruption.
        logging_strategy="steps",
        logging_steps=1,
        logging_nan_inf_filter=False,
        eval_strategy="no",
        save_strategy="no",
        save_total_limit=settings.keep,
        report_to=sorted(map(str, settings.log_to)) or "none",
        remove_unused_columns=False,
        disable_tqdm=True,
        dataloader_num_workers=settings.workers,
        dataloader_pin_memory=device.type == "cuda",
        label_names=["labels"],
    )
    # Several cards in one process would be torch's DataParallel, which copies the model for every pass: `torchrun`
    # starts a process for each instead.
    args._n_gpu = min(args.n_gpu, 1)
    return args
