"""Recipe "sft": transformers' Trainer on any causal model, whole or through a LoRA adapter.

Run: `python -m train.finetune --recipe sft` (this module only trains; finetune.py reads, scores and writes the card).

One sequence per conversation, every reply supervised, the history in full. Several conversations share a row: their
`position_ids` restart, which transformers 5 turns into block-diagonal attention, so no row is padded. Logits are computed
at supervised positions only, because the vocabulary is the widest layer by far.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import torch
import torch.nn.functional as F
from transformers import Trainer, TrainingArguments

from persona_bot.errors import UserError
from train.examples import IGNORED, Example, pack
from train.progress import KeepBest, Progress, StopOnSignal
from train.saving import keep_newest, mend, newest_good, write_folder_atomically


@dataclass(frozen=True)
class SftSettings:
    """What can be chosen; the defaults train SmolLM2-135M on Persona-Chat well."""

    epochs: float = 3.0
    learning_rate: float = 4e-4  # for LoRA; training every weight wants about a tenth
    row_length: int = 512  # ids a row
    batch_rows: int = 1  # rows a forward pass; a GPU is full at 16 or more
    accumulate: int = 4  # forward passes a step: about 2,000 ids a step
    warmup: float = 0.05  # share of all steps
    weight_decay: float = 0.01
    lora_rank: int = 32  # 0: train every weight
    lora_alpha: int = 64
    lora_dropout: float = 0.0  # dropout costs a CPU 40 % of its speed, and three epochs do not need it
    both_sides: bool = False  # learn the partner's turns too
    gradient_checkpointing: bool = False  # less memory, a third more time
    bf16: bool = True
    save_every: int = 50  # steps between checkpoints, and between validations
    patience: int = 3  # validations without a better loss before training stops
    seed: int = 42


class PackedTrainer(Trainer):
    """Trainer for packed rows, with checkpoints that are whole or not there."""

    stopped_by_signal = False

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.model_accepts_loss_kwargs = True  # the loss below is divided by the supervised tokens of the whole step

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Summed cross-entropy at the supervised positions, over their number in all forward passes of the step."""
        targets = inputs["labels"][0]  # (T,)
        keep = (targets != IGNORED).nonzero()[:, 0]
        reads = {k: v for k, v in inputs.items() if k not in ("labels", "shift_labels")}
        outputs = model(**reads, logits_to_keep=keep, use_cache=False)  # logits (1, supervised, vocabulary)
        total = F.cross_entropy(outputs.logits[0].float(), targets[keep], reduction="sum")
        if not torch.isfinite(total):
            raise UserError(
                f"The loss is no longer a finite number at step {self.state.global_step}; the last good checkpoint is kept: "
                "lower --learning-rate and --resume."
            )
        loss = total / (len(keep) if num_items_in_batch is None else num_items_in_batch)
        if num_items_in_batch is not None and self.args.average_tokens_across_devices:
            loss = loss * self.accelerator.num_processes  # gradients are averaged over processes
        return (loss, outputs) if return_outputs else loss

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """Validation needs the loss only; logits of every row together would not fit in memory."""
        with torch.no_grad(), self.compute_loss_context_manager():
            return self.compute_loss(model, self._prepare_inputs(inputs)).detach(), None, None

    def _save_checkpoint(self, model, trial):
        if not all(p.isfinite().all() for p in model.parameters() if p.requires_grad):
            raise UserError("A weight is no longer a finite number; the last good checkpoint is kept: lower --learning-rate and --resume.")
        out, name = Path(self.args.output_dir), f"checkpoint-{self.state.global_step}"

        def write(folder: Path) -> None:
            self.args.output_dir = str(folder)  # Trainer writes folder/checkpoint-N ..
            super(PackedTrainer, self)._save_checkpoint(model, trial)
            for file in (folder / name).iterdir():  # .. whose files belong one floor up
                file.rename(folder / file.name)
            (folder / name).rmdir()

        try:
            write_folder_atomically(out / name, write)
        finally:
            self.args.output_dir = str(out)
        keep_newest(out, "checkpoint-*", 2)


def collate(rows: Sequence[Sequence[Example]]) -> dict[str, torch.Tensor]:
    """Rows of examples -> one row (1, T) of ids, restarting positions and targets; T is the sum of their lengths."""
    examples = [example for row in rows for example in row]
    targets = torch.tensor([[t for e in examples for t in e.targets]])
    batch = {
        "input_ids": torch.tensor([[i for e in examples for i in e.ids]]),
        "position_ids": torch.tensor([[p for e in examples for p in range(len(e.ids))]]),
        "labels": targets,  # Trainer looks for labels, and counts shift_labels as they are
        "shift_labels": targets,
    }
    if examples[0].token_types is not None:
        batch["token_type_ids"] = torch.tensor([[t for e in examples for t in e.token_types]])
    return batch


def add_lora(model, settings: SftSettings):
    """The model with a fresh adapter on every linear layer but the output; the frozen base in bfloat16 where training is."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(settings.seed)
    config = LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model.to(torch.bfloat16) if settings.bf16 else model, config)  # the adapter itself stays float32


def training_arguments(settings: SftSettings, out: Path, validates: bool) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(out),
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=settings.warmup,
        weight_decay=settings.weight_decay,
        max_grad_norm=1.0,
        per_device_train_batch_size=settings.batch_rows,
        per_device_eval_batch_size=settings.batch_rows,
        gradient_accumulation_steps=settings.accumulate,
        gradient_checkpointing=settings.gradient_checkpointing,
        bf16=settings.bf16,
        use_cpu=not (torch.cuda.is_available() or torch.backends.mps.is_available()),
        seed=settings.seed,
        data_seed=settings.seed,
        logging_steps=5,
        logging_nan_inf_filter=False,
        eval_strategy="steps" if validates else "no",
        eval_steps=settings.save_every,
        save_strategy="steps",
        save_steps=settings.save_every,
        disable_tqdm=True,  # progress.py draws the bar
        report_to=[],
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
    )


def train_sft(
    model,
    train: Sequence[Example],
    valid: Sequence[Example],
    out: Path,
    settings: SftSettings,
    resume: bool = False,
) -> tuple[PackedTrainer, SftSettings]:
    """Trains `model` (with its adapter, if any) in place; the best validation's weights are in it at the end.

    Out of memory halves the rows of a forward pass, doubles the passes of a step and goes on from the last checkpoint.
    Returns the trainer and the settings in force. Raises UserError when the loss or a weight is no number, when the disk
    is full, or when even one row does not fit in memory.
    """
    mend(out)
    start = {name: p.detach().cpu().clone() for name, p in model.named_parameters() if p.requires_grad}
    while True:
        trainer = make_trainer(model, train, valid, out, settings)
        last = newest_good(out) if resume else None
        try:
            trainer.train(resume_from_checkpoint=str(last) if last else None)
            break
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        settings = smaller(settings)
        print(f"out of memory: now {settings.batch_rows} rows a pass and {settings.accumulate} passes a step")
        model.load_state_dict(start, strict=False)
        model.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()
        resume = True  # from what this run saved, if it did
    trainer.stopped_by_signal = any(getattr(callback, "stopped", False) for callback in trainer.callback_handler.callbacks)
    KeepBest.restore(model, out)
    return trainer, settings


def make_trainer(model, train: Sequence[Example], valid: Sequence[Example], out: Path, settings: SftSettings) -> PackedTrainer:
    return PackedTrainer(
        model=model,
        args=training_arguments(settings, out, bool(valid)),
        train_dataset=pack(train, settings.row_length),
        eval_dataset=pack(valid, settings.row_length) if valid else None,
        data_collator=collate,
        callbacks=[Progress(out, sum(e.supervised for e in train)), KeepBest(out, settings.patience), StopOnSignal()],
    )


def smaller(settings: SftSettings) -> SftSettings:
    """Half the rows a pass, twice the passes a step: the same step in less memory."""
    if settings.batch_rows == 1:
        raise UserError("One row does not fit in memory; lower --row-length, add --gradient-checkpointing, or choose a smaller base model.")
    return replace(settings, batch_rows=settings.batch_rows // 2, accumulate=settings.accumulate * 2)


def is_out_of_memory(error: RuntimeError) -> bool:
    """CUDA has a class for it; the CPU allocator of torch only says so."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error) or "not enough memory" in str(error)


def estimate(model, rows: Sequence[Sequence[Example]], settings: SftSettings) -> tuple[float, float]:
    """(seconds, GB) that training will take: the longest forward and backward pass is run and timed, its gradients dropped."""
    longest = sorted(rows, key=lambda row: -sum(len(e.ids) for e in row))[: settings.batch_rows]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    batch = {k: v.to(device) for k, v in collate(longest).items()}
    model.to(device)
    for _ in range(2):  # the first warms up
        started = time.monotonic()
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.bf16):
            keep = (batch["labels"][0] != IGNORED).nonzero()[:, 0]
            reads = {k: v for k, v in batch.items() if k not in ("labels", "shift_labels")}
            logits = model(**reads, logits_to_keep=keep, use_cache=False).logits[0]
        F.cross_entropy(logits.float(), batch["labels"][0][keep]).backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.monotonic() - started
    model.zero_grad(set_to_none=True)
    optimizer = 8 * sum(p.numel() for p in model.parameters() if p.requires_grad)  # AdamW's two moments in float32
    memory = torch.cuda.max_memory_allocated() if device.type == "cuda" else psutil.Process().memory_info().rss
    return seconds * len(rows) / settings.batch_rows * settings.epochs, (memory + optimizer) / 1e9
