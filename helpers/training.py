"""A TRL trainer made fast on small machines, and `fine_tune`, which runs it so that nothing is lost.

Rows of similar length share a batch, a batch goes through the model in parts that fit into memory, and the
model's forward and backward passes are those of `kernels`.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import random
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import data, models, plots, runs, runtime
from .runtime import CourseError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, TrainerCallback

LEARNING_RATES = {"lora": 1e-3, "full": 1e-4}  # good at 135 M parameters; at 7B start ten times lower
MAX_LENGTH = 2048
TOKENS_AT_ONCE = 768  # on a CPU more bring no speed
PLAIN = {  # what TRL's trainers are told alike, whatever they learn from
    "lr_scheduler_type": "cosine", "logging_steps": 1, "report_to": "none", "disable_tqdm": True,
    "gradient_checkpointing": False, "bf16": False, "dataloader_pin_memory": False,
}  # fmt: skip
WIDTH = 16  # batches are as wide as a multiple of this: fewer shapes, for each of which the CPU keeps a plan


# --- batches -------------------------------------------------------------------------------------


def collate(features: Sequence[dict[str, list[int]]], pad_token_id: int) -> dict[str, torch.Tensor]:
    """Pad rows on the right to the longest one, rounded up to a multiple of 16.

    No attention mask is needed: attention is causal, so no real token ever sees the padding after it,
    and padding has no label.

    Returns:
        `input_ids` and `labels`, both of shape (rows, width), dtype int64.
    """
    import torch

    width = -(-max(len(row["input_ids"]) for row in features) // WIDTH) * WIDTH
    pad = {"input_ids": pad_token_id, "labels": -100}
    return {
        name: torch.tensor([row[name] + [fill] * (width - len(row[name])) for row in features])
        for name, fill in pad.items()
    }


class LengthGroupedSampler:
    """Row indices in batches of similar length; which batch comes when is random, and seeded by epoch."""

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths, self.batch_size, self.seed, self.epoch = lengths, batch_size, seed, 0

    def __len__(self) -> int:
        return len(self.lengths)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration gives."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        chance = random.Random(f"{self.seed}-{self.epoch}")
        order = list(range(len(self.lengths)))
        chance.shuffle(order)  # ties in length fall differently each epoch
        order.sort(key=self.lengths.__getitem__)
        cut = [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)]
        short = [cut.pop()] if len(cut[-1]) < self.batch_size else []  # an odd batch stays the last
        chance.shuffle(cut)
        return iter([index for batch in cut + short for index in batch])


# --- the optimizer -------------------------------------------------------------------------------


@functools.cache
def _optimizer_class() -> type[torch.optim.Optimizer]:
    import torch

    class MasterAdamW(torch.optim.AdamW):
        """AdamW that keeps float32 copies of bfloat16 parameters, so that small updates are not lost."""

        def __init__(self, parameters, **options):
            self.trained = list(parameters)
            self.masters = [p.detach().float().clone() for p in self.trained]
            super().__init__(self.masters, fused=True, **options)  # one loop over all of them

        def zero_grad(self, set_to_none=True):
            for parameter in getattr(self, "trained", ()):
                parameter.grad = None

        @torch.no_grad()
        def step(self, closure=None):
            for parameter, master in zip(self.trained, self.masters, strict=True):
                master.grad = None if parameter.grad is None else parameter.grad.float()
            super().step()
            for parameter, master in zip(self.trained, self.masters, strict=True):
                parameter.copy_(master)
                master.grad = None

        def state_dict(self):
            return {**super().state_dict(), "masters": [master.clone() for master in self.masters]}

        @torch.no_grad()
        def load_state_dict(self, state):
            state = dict(state)
            for parameter, master, saved in zip(self.trained, self.masters, state.pop("masters"), strict=True):
                master.copy_(saved)
                parameter.copy_(saved)
            super().load_state_dict(state)

    return MasterAdamW


# --- the trainer ---------------------------------------------------------------------------------


@functools.cache
def small(kind: type) -> type:
    """One of TRL's trainers with what all of ours need: the fast passes, exact small steps, checkpoints that are whole.

    Args:
        kind: `SFTTrainer`, `DPOTrainer` or `GRPOTrainer`. The last two want token probabilities in place of a loss.
    """
    import torch
    from transformers import PrinterCallback
    from trl import SFTTrainer

    from . import kernels

    parts = kernels.PARTS if issubclass(kind, SFTTrainer) else ("layers", "tokens")

    class Small(kind):
        def __init__(self, model, **arguments):
            without_triton()
            super().__init__(model, **arguments)
            for name, parameter in self.model.named_parameters():
                if ".ref." in name:  # TRL's copy of the adapter, which peft makes in float32
                    parameter.data = parameter.data.to(self.model.dtype)
            kernels.make_fast(self.model, parts)
            self.remove_callback(PrinterCallback)  # its lines would bury the curve

        def create_optimizer(self, model=None):
            if self.optimizer is None:
                trained = [p for p in self.model.parameters() if p.requires_grad]
                exact = _optimizer_class() if trained[0].dtype == torch.bfloat16 else torch.optim.AdamW
                args = self.args
                self.optimizer = exact(
                    trained, lr=args.learning_rate, betas=(args.adam_beta1, args.adam_beta2),
                    eps=args.adam_epsilon, weight_decay=args.weight_decay,
                )  # fmt: skip
            return self.optimizer

        def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
            kept = {name: p.dtype for name, p in self.model.named_parameters()}
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            if "ref" in getattr(self.model, "peft_config", {}):  # transformers 5.17 then forgets the adapter itself
                self.model.load_adapter(resume_from_checkpoint, "default", is_trainable=True)
            for name, parameter in self.model.named_parameters():  # peft loads adapters in float32
                parameter.data = parameter.data.to(kept[name])
            kernels.make_fast(self.model, parts)  # peft has put new parameters in

        def _save_checkpoint(self, model, trial):
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            # The mark tells a whole checkpoint from one that a kill cut short.
            (Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}" / "complete").touch()

    return Small


@functools.cache
def trainer_class() -> type:
    """`CourseTrainer`, a subclass of TRL's `SFTTrainer` (made on first use: importing TRL takes seconds)."""
    import torch
    from trl import SFTTrainer

    # Of several processes on a CPU, each asks for its optimizer at "cpu:0", a place that torch.load does not know.
    torch.serialization.register_package(
        9, lambda storage: None, lambda storage, place: storage if place.startswith("cpu:") else None
    )

    class CourseTrainer(small(SFTTrainer)):
        """TRL's trainer on encoded rows, with the course's batches, loss and optimizer."""

        def __init__(self, model, *, processing_class, tokens_at_once=TOKENS_AT_ONCE, **arguments):
            self.tokens_at_once, pad = tokens_at_once, processing_class.pad_token_id
            super().__init__(
                model, processing_class=processing_class,
                data_collator=functools.partial(collate, pad_token_id=pad), **arguments,
            )  # fmt: skip
            self.model_accepts_loss_kwargs = True  # our loss divides by the labels of the whole step

        def _get_train_sampler(self, train_dataset=None):
            lengths = (train_dataset or self.train_dataset)["length"]
            step = self.args.per_device_train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
            return LengthGroupedSampler(list(lengths), step, self.args.seed)

        def training_step(self, model, inputs, num_items_in_batch=None):
            rows, width = inputs["input_ids"].shape
            size = max(1, self.tokens_at_once // width)  # the memory a step takes follows tokens, not rows
            parts = [{name: value[i : i + size] for name, value in inputs.items()} for i in range(0, rows, size)]
            total = 0
            for part in parts:  # the gradients of several processes meet once a step, with the last part
                with contextlib.nullcontext() if part is parts[-1] else self.accelerator.no_sync(model):
                    total += super().training_step(model, part, num_items_in_batch)
            return total

        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            output = model(**inputs, num_items_in_batch=num_items_in_batch)
            if num_items_in_batch is not None and self.args.average_tokens_across_devices:
                # It counts the labels of all processes, whose gradients are then averaged, not added.
                output.loss = output.loss * self.accelerator.num_processes
            return (output.loss, output) if return_outputs else output.loss

    return CourseTrainer


def _course_callback(curve: plots.LiveCurve | None, history: list[dict]) -> TrainerCallback:
    from transformers import TrainerCallback

    class CourseCallback(TrainerCallback):
        """Collects the history, draws it, and hands freed memory back to the system."""

        def on_log(self, args, state, control, logs=None, **unused):
            wanted = {name: logs[name] for name in ("loss", "eval_loss", "learning_rate") if name in (logs or {})}
            if "loss" in wanted or "eval_loss" in wanted:
                history.append({"step": state.global_step, "epoch": round(state.epoch or 0, 3), **wanted})
                if curve:
                    curve.update(history, state.global_step)

        def on_step_end(self, args, state, control, **unused):
            if args.use_cpu and runtime.free_memory() < 2**30:  # costs a tenth of the speed, so only then
                models.trim_memory()

        def on_train_end(self, args, state, control, **unused):
            if curve:
                curve.update(history, state.global_step, last=True)

    return CourseCallback()


def without_triton() -> None:
    """Let TRL's DPO and GRPO trainers run on a CPU, whose PyTorch lacks the Triton that TRL 1.15 counts on.

    The kernel gives, for hidden states (tokens, hidden) and their next tokens, log-probabilities and on request
    entropies, log of summed squares, mean logits and whether the token was the likeliest: here in plain PyTorch.
    """
    import torch
    from trl.trainer import utils

    class TokenLogProbs:
        @staticmethod
        def apply(hidden, weight, bias, labels, temperature, chunk, softcap=None, scale=1.0, outputs=()):
            logits = torch.nn.functional.linear(hidden, weight, bias).float() * scale
            if softcap is not None:
                logits = softcap * torch.tanh(logits / softcap)
            logs = torch.log_softmax(logits / temperature, -1)
            with torch.no_grad():
                extras = {
                    "log_sum_sq_probs": lambda: (2 * logs).logsumexp(-1),
                    "mean_logits": lambda: logits.mean(-1),
                    "is_top1": lambda: logits.argmax(-1) == labels,
                }
                rest = [extras[name]() if name in outputs else None for name in extras]
            entropy = -(logs.exp() * logs).sum(-1) if "entropy" in outputs else None
            return logs.gather(-1, labels[:, None])[:, 0], entropy, *rest

    if utils._ChunkedLogProbFunction is None:
        utils._ChunkedLogProbFunction = TokenLogProbs


def micro_batch_tokens(model: PreTrainedModel, longest: int, free: int | None = None) -> int:
    """Tokens, padding included, to put through the model at once so that training fits into free memory.

    A token takes about 10 hidden and 3 intermediate vectors and its attention scores per layer, and a third
    of the tokens bear labels, whose logits take two numbers per word of the vocabulary. Full fine-tuning
    takes 14 bytes per weight first (gradients, float32 copies, two moments). A third of what is left is
    planned for.

    Args:
        model: the model to train, with its adapters if it has any.
        longest: tokens of the longest row.
        free: bytes of memory that are free; by default measured now.
    """
    config, on_gpu = model.config, model.device.type == "cuda"
    if free is None:
        import torch

        free = torch.cuda.mem_get_info()[0] if on_gpu else runtime.free_memory()
    vectors = 10 * config.hidden_size + 3 * config.intermediate_size + config.num_attention_heads * longest
    per_token = (config.num_hidden_layers * vectors + config.vocab_size * 2 // 3) * model.dtype.itemsize
    free -= 14 * sum(p.numel() for p in model.parameters() if p.requires_grad)
    return max(WIDTH, min(free // 3 // per_token, 16384 if on_gpu else TOKENS_AT_ONCE))


# --- fine_tune -----------------------------------------------------------------------------------


def fine_tune(
    train_dataset: Sequence[dict],
    *,
    validation: Sequence[dict] | None = None,
    model: PreTrainedModel | None = None,
    method: str = "lora",
    epochs: float = 3,
    learning_rate: float | None = None,
    rank: int = 16,
    batch_size: int = 4,
    seed: int = 0,
    max_length: int = MAX_LENGTH,
    save_steps: int | None = None,
    callbacks: Sequence[TrainerCallback] = (),
    live: bool = True,
    **arguments: Any,
) -> runs.Run:
    """Fine-tune the course's model on chat rows, or find the run that has done so already.

    The same rows, settings, weights, code and library versions are the same run: it is not made twice.
    A run that was cut short is taken up at its last checkpoint and ends as if nothing had happened.

    Args:
        train_dataset: chat rows; all are checked first, and one bad row stops everything.
        validation: chat rows whose loss is measured at the end of each epoch.
        model: weights to start from; by default the course's base model in this machine's dtype.
        method: "lora" (adapters on all linear layers) or "full" (every weight).
        epochs: passes over the rows.
        learning_rate: peak of a cosine schedule with 5 % warm-up; by default 1e-3 (LoRA), 1e-4 (full).
        rank: LoRA rank r; alpha is 2 r.
        batch_size: rows per optimizer step.
        seed: decides the initial adapter and the order of rows.
        max_length: tokens; a longer row is an error, never cut.
        save_steps: steps between checkpoints; by default one epoch.
        callbacks: further `TrainerCallback`s.
        live: draw progress and loss curve while training.
        arguments: further fields of TRL's `SFTConfig`.

    Returns:
        A run whose `folder` holds the adapter (LoRA) or the weights (full), and whose `record` holds
        `history`, `seconds`, `tokens`, `tokens_per_second`, `micro_batch_tokens`, `peak_memory_gb`, `config`.

    Raises:
        DataError: a row must not be trained on.
        CourseError: a setting makes no sense.
    """
    if method not in LEARNING_RATES:
        raise CourseError(f"method={method!r} is unknown: choose 'lora' or 'full'.")
    learning_rate = LEARNING_RATES[method] if learning_rate is None else learning_rate
    numbers = {"epochs": epochs, "learning_rate": learning_rate, "batch_size": batch_size, "rank": rank}
    if not epochs > 0 or not learning_rate > 0 or batch_size < 1 or rank < 1:
        raise CourseError(f"{', '.join(f'{name}={it}' for name, it in numbers.items())}: all must be above zero.")
    rows = data.load(train_dataset, max_tokens=math.inf)  # encoding counts the tokens exactly
    held_out = data.load(validation, max_tokens=math.inf) if validation else None
    config = {
        "method": method, "epochs": epochs, "learning_rate": learning_rate,
        "batch_size": batch_size, "seed": seed, "max_length": max_length,
        **({"rank": rank} if method == "lora" else {}),
        **{name: value if isinstance(value, (int, float, str, bool)) else repr(value)
           for name, value in arguments.items()},
    }  # fmt: skip
    number, processes = runtime.process()
    if processes > 1:
        config["processes"] = processes
    machine = runtime.machine()
    dtype = str(model.dtype).removeprefix("torch.") if model is not None else machine.dtype
    device = str(model.device.type) if model is not None else machine.device
    run_key = runs.key(
        config=config, dtype=dtype, device=device, rows=data.rows_hash(rows), weights=models.weights_hash(model),
        validation=data.rows_hash(held_out) if held_out else None,
    )  # fmt: skip
    with runtime.lock(f"run-{run_key}-{number}"):  # of processes that train together, each has its own
        if done := runs.find(run_key):
            print(f"This run is there already (made in {done.record['seconds']:.0f} s): using it.")
            return done
        return _train(
            runs.unfinished(run_key), run_key, rows, held_out, model, config, save_steps, callbacks, live, arguments
        )


def _train(part, run_key, rows, held_out, model, config, save_steps, callbacks, live, arguments) -> runs.Run:
    import torch
    from transformers import set_seed
    from trl import SFTConfig

    tokenizer = models.load_tokenizer()
    dataset = data.to_dataset(rows, tokenizer, config["max_length"])
    evaluation = data.to_dataset(held_out, tokenizer, config["max_length"]) if held_out else None
    set_seed(config["seed"])
    model = models.trainable(model, config["rank"] if config["method"] == "lora" else None)
    plan_file = part / "plan.json"  # the micro-batch changes rounding, so a resumed run keeps its own
    plan = {"micro_batch_tokens": micro_batch_tokens(model, max(dataset["length"]))}
    first = not runtime.process()[0]  # of several processes, the one that writes and tells
    if plan_file.is_file():
        plan = json.loads(plan_file.read_text(encoding="utf-8"))
    elif first:
        runtime.atomic_write(plan_file, json.dumps(plan))
    per_epoch = math.ceil(len(rows) / config["batch_size"] / config.get("processes", 1))
    total = math.ceil(per_epoch * config["epochs"])
    options = PLAIN | {
        "output_dir": str(part), "seed": config["seed"], "data_seed": config["seed"],
        "num_train_epochs": config["epochs"], "learning_rate": config["learning_rate"],
        "warmup_steps": max(1, round(0.05 * total)), "weight_decay": 0.0,
        "per_device_train_batch_size": config["batch_size"],
        "per_device_eval_batch_size": max(1, plan["micro_batch_tokens"] // max(dataset["length"])),
        "eval_strategy": "epoch" if evaluation else "no", "prediction_loss_only": True,
        "save_strategy": "steps", "save_steps": save_steps or per_epoch, "save_total_limit": 1,
        "use_cpu": model.device.type == "cpu", "remove_unused_columns": False,
        "dataset_kwargs": {"skip_prepare_dataset": True}, "ddp_find_unused_parameters": False,
    } | arguments  # fmt: skip
    checkpoint = last_checkpoint(part)
    history: list[dict] = []
    if checkpoint:
        log = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
        history = [{name: row[name] for name in ("step", "epoch", "loss", "eval_loss") if name in row} for row in log]
        if first:
            print(f"Taking up the run at step {log[-1]['step']} of {total}.")
    curve = plots.LiveCurve(total, f"{config['method']}, {len(rows)} rows") if live and first else None
    with models.quiet():
        trainer = trainer_class()(
            model, args=SFTConfig(**options), processing_class=tokenizer, train_dataset=dataset,
            eval_dataset=evaluation, tokens_at_once=plan["micro_batch_tokens"],
            callbacks=[_course_callback(curve, history), *callbacks],
        )  # fmt: skip
        began = time.perf_counter()
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        seconds = time.perf_counter() - began
    if not first:  # the first process keeps the run for all
        trainer.accelerator.wait_for_everyone()
        return runs.find(run_key)
    models.save(trainer.model, tokenizer, part)
    together = trainer.accelerator
    trained = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    dtype, steps = str(model.dtype).removeprefix("torch."), trainer.state.global_step
    del trainer, model
    models.release_memory()
    for folder in part.glob("checkpoint-*"):
        shutil.rmtree(folder)
    tokens = round(sum(dataset["length"]) * config["epochs"])
    device = runtime.machine()
    made = runs.finish(run_key, {
        "config": config, "rows": len(rows), "rows_hash": data.rows_hash(rows), "history": history,
        "seconds": seconds, "tokens": tokens, "tokens_per_second": tokens / seconds, **plan,
        "resumed": checkpoint is not None, "peak_memory_gb": runtime.peak_memory() / 2**30,
        "trainable_parameters": trained, "dtype": dtype, "device": device.device, "cores": device.cores,
        "steps": steps, "libraries": runs.fingerprint(), "torch_threads": torch.get_num_threads(),
    })  # fmt: skip
    together.wait_for_everyone()
    return made


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint in a folder that bears the mark of being whole; those that a kill cut short are removed."""
    found = list(folder.glob("checkpoint-*"))
    good = [checkpoint for checkpoint in found if (checkpoint / "complete").is_file()]
    if not runtime.process()[0]:  # of several processes one removes, and the others know what is whole as well
        for checkpoint in found:
            if checkpoint not in good:
                shutil.rmtree(checkpoint)
    return max(good, key=lambda one: int(one.name.split("-")[1]), default=None)
