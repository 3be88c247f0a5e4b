# %% [markdown]
"""
# Train with Hugging Face

In lesson 00 one call did everything. Here you write that call yourself, find the same thing in the library that most
people use, and then train on all rows. After that you learn to read what a training tells you, and what it hides.

**You will be able to**

- write a training as a loop of four lines, and say what each is for;
- run the same training in TRL and in the course's faster version, and show that they agree;
- say what full fine-tuning costs beside LoRA;
- read a loss curve: overfitting, too few rows, three common faults, and the one fault that no curve shows.
"""

# %% [markdown] tags=badges

# %% [markdown] tags=card

# %% tags=setup

# %% [markdown]
"""
## A training is a loop
First the two things that go in. The **model**: our base model, frozen, with small trainable matrices of rank 16 beside
every linear layer. That is a LoRA adapter; take it as a black box until lesson 09.
"""

# %%
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, set_seed

from helpers import data, models

here = runtime.machine()
lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")

def load_base():
    return AutoModelForCausalLM.from_pretrained(models.fetch(), dtype=getattr(torch, here.dtype)).to(here.device)

def with_adapter():
    base = load_base()
    set_seed(0)  # the adapter begins with random numbers: let them be the same each time
    return get_peft_model(base, lora)

model = with_adapter()
model.print_trainable_parameters()

# %% [markdown]
"""
And the **rows**. Four very short ones, so that each experiment takes seconds. `data.encode` from lesson 01 renders the
chat template and sets the label of every prompt token to -100: *read this, do not learn it*.
"""

# %% tags=NBVAL_CHECK_OUTPUT
train, validation, tokenizer = data.load("train"), data.load("validation"), models.load_tokenizer()
few = sorted(train, key=lambda row: len(str(row)))[:4]
rows = [data.encode(row, tokenizer) for row in few]
len(rows), sum(len(row["input_ids"]) for row in rows), sum(label != -100 for row in rows for label in row["labels"])

# %% [markdown]
"""
Rows, tokens, learned tokens. Rows of a batch must be equally long, so `collate` fills the short ones up with padding,
which has no label either.

Now the loop. **Forward**: how improbable did the model find the right tokens? That mean is the loss. **Backward**: in
which direction would each weight have to move? **Step**: the optimizer moves it a little. **Clear**: forget the
gradients before the next round.
"""

# %%
import time

from helpers import training

def train_loop(model, rows, learning_rate=1e-3, steps=4, optimizer=torch.optim.AdamW):
    batch = training.collate(rows, tokenizer.pad_token_id)
    batch = {name: numbers.to(model.device) for name, numbers in batch.items()}
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer, losses = optimizer(trained, lr=learning_rate), []
    for _ in range(steps):
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses

# %%
began = time.perf_counter()
by_loop = train_loop(model, rows)
loop_seconds = time.perf_counter() - began
[round(loss, 3) for loss in by_loop]

# %% [markdown]
"""
That is all. It falls like a stone because the same four rows come again and again: this model is learning them by
heart. For real work the rows change from step to step; nothing else does.

## Your turn: complete the step
Write one step of it: take a model, a batch and an optimizer, take the step, and give back the loss as a number. The
check uses a tiny model of its own, calls you twice, and looks at where the weights went.
"""

# %% tags=exercise
def my_training_step(model, batch, optimizer):
    ...

# %% [markdown] tags=hint
"""
<details><summary>Hint 1</summary>Four lines and a return: forward, backward, step, clear.</details>
<details><summary>Hint 2</summary><code>model(**batch)</code> gives an object; its <code>loss</code> has a method <code>backward()</code>.</details>
<details><summary>Hint 3</summary>Why does the check call you twice? Gradients <i>add up</i> until somebody clears them.</details>
"""

# %% tags=solution
def my_training_step(model, batch, optimizer):
    loss = model(**batch).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()

# %% tags=check
from helpers import exercises

exercises.check("07-1", my_training_step)

# %% [markdown]
"""
## The same in TRL
A real loop also wants schedules, checkpoints, logs, several GPUs. **TRL** has them; its `SFTTrainer` is what most
tutorials show. It takes our chats as *prompt* and *completion* and learns the completion only.
"""

# %%
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

pairs = Dataset.from_list([{"prompt": data.prompt(row), "completion": row["messages"][-1:]} for row in few])
config = SFTConfig(
    output_dir=runtime.home() / "trl", max_steps=4, per_device_train_batch_size=4, seed=0, logging_steps=1,
    learning_rate=1e-3, lr_scheduler_type="constant", max_length=None, save_strategy="no", report_to="none",
    use_cpu=here.device == "cpu", bf16=False, gradient_checkpointing=False, disable_tqdm=True,
)

# %% [markdown]
"""
The first two lines of settings mirror our loop; the others matter as well. `max_length=None`, because TRL would
otherwise cut long rows without a word. `bf16=False` and `gradient_checkpointing=False`, because these defaults are
meant for large GPUs.

This release computes the loss with a GPU kernel, and stops on machines that lack it. Its parent class has a plain one:
"""

# %%
from transformers import Trainer

class PlainSFTTrainer(SFTTrainer):
    compute_loss = Trainer.compute_loss

trainer = PlainSFTTrainer(load_base(), args=config, train_dataset=pairs, processing_class=tokenizer, peft_config=lora)
trl_seconds = trainer.train().metrics["train_runtime"]
by_trl = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
del model, trainer  # give their memory back

# %% [markdown]
"""
## The same, faster
`training.fine_tune` is a subclass of that trainer. It checks the rows first, draws its curve, and makes no work twice:
the same rows and settings are found again.
"""

# %%
small = training.fine_tune(few, epochs=4, lr_scheduler_type="constant", save_strategy="no")

# %% [markdown]
"""
Three programs, one training? And how fast is each? The legend has the speeds on this machine, just measured.
"""

# %% tags=NBVAL_CHECK_OUTPUT
from helpers import plots

by_course = [entry["loss"] for entry in small.history]
tokens = 4 * sum(len(row["input_ids"]) for row in rows)
figure, ax = plots.axes()
runs_made = [("loop", by_loop, loop_seconds), ("TRL", by_trl, trl_seconds), ("course", by_course, small.record["seconds"])]
for (name, losses, seconds), marker in zip(runs_made, "osx", strict=True):
    ax.plot(range(1, 5), losses, f"{marker}-", alpha=0.7, label=f"{name}: {tokens / seconds:.0f} tokens/s")
ax.set(xlabel="step", ylabel="loss", xticks=range(1, 5))
ax.legend(frameon=False)
gap = max(abs(a - b) for other in (by_trl, by_course) for a, b in zip(by_loop, other, strict=True))
print("the same curve" if gap < 0.25 else f"curves differ by {gap:.2f}")

# %% [markdown]
"""
One curve, drawn three times. Look closely and TRL begins a hair lower. Its template writes a line break after the end
token, and that is learned too: one easy token more in the mean.

Where does the speed come from? No logits for tokens without a label, rows of similar length in a batch, a LoRA layer
whose backward pass is written out, attention as two matrix products. Each is a few lines in `helpers/training.py`. On
longer rows they gain more; on a large GPU, less.

## All rows
Now the real thing: every row, twice. A few minutes on a CPU. Get up, stretch, come back, and look at the shape.
"""

# %%
run = training.fine_tune(train, epochs=2)

# %% [markdown]
"""
First a cliff: the form of an answer is soon learned. Then a long, noisy slope. The noise is no fault: each step sees
other recipes, and some are harder. Judge the slope, never a single step. And a loss says nothing about ingredients, so
we measure.
"""

# %%
from helpers import evaluation, scoreboard

tuned = models.load_model(run.folder)
report = evaluation.evaluate(evaluation.prompted(tuned, tokenizer), validation, "LoRA, all rows", key={"run": run.folder.name})
scoreboard.add(report, trained_seconds=run.record["seconds"], note="two epochs")
report.summary()

# %% [markdown]
"""
Is that much? Only beside something else. Here is the untuned model, asked plainly, and asked with three solved recipes
in front. To save time on 25 of the 100 recipes only: mind the column *n*.
"""

# %%
del tuned
base = models.load_model()
plain = evaluation.prompted(base, tokenizer, max_new_tokens=96)
shown = evaluation.prompted(base, tokenizer, examples=train[:3], max_new_tokens=96)
zero = evaluation.evaluate(plain, validation[:25], "zero-shot", key={"prompt": "bare"})
shots = evaluation.evaluate(shown, validation[:25], "3-shot", key={"prompt": "train[:3]"})
scoreboard.add(zero, note="base model, instruction only")
scoreboard.add(shots, note="base model, three examples")
del base, plain, shown
evaluation.Table([*zero.summary(), *shots.summary()])

# %% [markdown]
"""
## Every weight: full fine-tuning
Leave the adapter out of the loop and all weights move. It is the same `train_loop`; only what is passed in differs. A
thrifty optimizer, Adafactor, keeps it small enough for any laptop.
"""

# %%
everything = load_base()
losses = train_loop(everything, rows, steps=3, optimizer=torch.optim.Adafactor)
[round(loss, 3) for loss in losses]

# %% [markdown]
"""
It learns just as well. So why bother with adapters? Count. With AdamW, a *trained* weight costs 16 bytes of memory: the
weight, its gradient, a precise copy, two running means. A frozen one costs the weight alone.
"""

# %%
def bill(name, model):
    every, size = model.num_parameters(), model.dtype.itemsize
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    memory = every * size + trained * (16 - size)
    return {"": name, "trained": f"{trained:,}", "file": f"{trained * size / 1e6:.0f} MB", "memory": f"{memory / 1e9:.1f} GB"}

costs = evaluation.Table([bill("full", everything), bill("LoRA", get_peft_model(everything, lora))])
del everything
costs

# %% [markdown]
"""
That is before any row is read. Does it buy quality? A full run with AdamW on all rows was **recorded** for you, by
`data/recorded/record.py`. It joins the board with a note that says so.
"""

# %% tags=recorded
from types import SimpleNamespace

full = plots.recorded("full")[0]
measured = {**report.metrics, **{name: full[name] for name in report.metrics if name in full}, "seconds": full["decoding_seconds"]}
row = {"n": full["n"], "rows_hash": report.rows_hash, "dtype": full["dtype"], "device": full["device"]}
scoreboard.add(
    SimpleNamespace(name="full, all rows", metrics=measured, **row),
    trained_seconds=full["seconds"], note=f"recorded {full['date']}",
)
scoreboard.show()

# %% [markdown]
"""
Compare the two intervals before you name a winner: they are measured on the same recipes, and one run each says nothing
about luck. What is certain is the bill above.

## Your turn: predict
Training on and on must help, or not? Somebody trained on only 50 rows, for eight epochs. The training loss fell all the
way. After which epoch was the loss on *validation* rows lowest? Write a number from 1 to 8.
"""

# %% tags=exercise
my_guess = ...

# %% tags=solution
my_guess = 3

# %% tags=check,recorded
overfit = plots.recorded("overfit")[0]
figure = plots.loss_curve(overfit["history"], f"{overfit['rows']} rows, recorded {overfit['date']}")
exercises.predict("07-2", my_guess)

# %% [markdown]
"""
The gap between the two is **overfitting**. Blue goes to nothing: those rows are known by heart. Orange shows what that
is worth on other rows. Where it turns, more training stops helping. Two cures: stop earlier, or bring more rows.

## How many rows?
Each dot is a recorded training with its own random seed, scored on the same recipes. The ring is yours, from above.
"""

# %% tags=recorded
known = plots.recorded("rows-") + plots.recorded("main")
figure, ax = plots.axes()
ax.semilogx([one["rows"] for one in known], [one["f1"] for one in known], "o", alpha=0.6, label="recorded, a dot per seed")
ax.semilogx(len(train), report.metrics["f1"], "o", markersize=12, fillstyle="none", color="black", label="your run, live")
ax.set(xlabel="training rows", ylabel="F1")
ax.legend(frameon=False);

# %% [markdown]
"""
Mind the scale: each step to the right *multiplies* the rows. The dots of one column differ by chance alone, so a change
smaller than that scatter is no finding. Is your ring among its dots? Then this machine tells the same story. To add
another: `training.fine_tune(train[:25], epochs=2)`, and evaluate as above.

## A fault that no curve shows
A row must end with the model's own end token, or so it is told. Two ways to break that: leave it out, or end with a
line break, as many a hand-made text file does. Then we ask how probable the end token is after a finished answer.
"""

# %%
def ending(row, last):
    return {name: numbers[:-1] + last for name, numbers in row.items()}

def ends(model):
    asked = [data.encode(row, tokenizer)["input_ids"] for row in validation[:3]]
    only_end = [{"input_ids": ids, "labels": [-100] * (len(ids) - 1) + ids[-1:]} for ids in asked]
    batch = training.collate(only_end, tokenizer.pad_token_id)
    with torch.no_grad():
        return model(**{name: numbers.to(model.device) for name, numbers in batch.items()}).loss.neg().exp().item()

# %%
line_break = tokenizer("\n", add_special_tokens=False)["input_ids"]
table = [{"trained with": "nothing (base model)", "last loss": "", "probability of the end": f"{ends(load_base()):.3f}"}]
for name, last in {"the end token": [tokenizer.eos_token_id], "no end": [], "a line break": line_break}.items():
    endless = with_adapter()
    last_loss = train_loop(endless, [ending(row, last) for row in rows])[-1]
    table.append({"trained with": name, "last loss": f"{last_loss:.3f}", "probability of the end": f"{ends(endless):.3f}"})
evaluation.Table(table)

# %% [markdown]
"""
The losses are alike: no curve would have warned you. But look right. Without any end, this model still stops, because
its makers had taught it to; a model without chat training has no such habit. Teach it *another* ending, and the habit
is gone. What does that look like?
"""

# %%
question = tokenizer.apply_chat_template(data.prompt(validation[0]), add_generation_prompt=True, return_tensors="pt", return_dict=True)
answer = endless.generate(**question.to(endless.device), max_new_tokens=60, do_sample=False)
del endless
print(tokenizer.decode(answer[0, question["input_ids"].shape[1] :]))

# %% [markdown]
"""
It cannot stop. Your users would wait, and pay, to the token limit. A template that differs between training and use
does the same kind of silent harm; lesson 01 measured it. The cure for both: print one encoded row before you train.

## Your turn: repair
A colleague's training explodes. It has three faults. Here are code and curve; the good curve is the one from above.
"""

# %%
def faulty_encode(row, tokenizer):
    question = tokenizer.apply_chat_template(data.prompt(row), add_generation_prompt=True, return_dict=False)
    answer = tokenizer(row["messages"][-1]["content"])["input_ids"]
    return {"input_ids": question + answer, "labels": question + answer}

faulty = train_loop(with_adapter(), [faulty_encode(row, tokenizer) for row in few], learning_rate=1e-1, steps=3)
figure, ax = plots.axes(height=2.2)
ax.plot(range(1, 4), faulty, "o-", color=plots.COLOURS["validation"], label="faulty")
ax.plot(range(1, 5), by_loop, "o-", color=plots.COLOURS["train"], label="good")
ax.set(xlabel="step", ylabel="loss", yscale="log", xticks=range(1, 5))
ax.legend(frameon=False);

# %% [markdown]
"""
Before anything is learned, at step 1, the two differ already: *what* is being graded? Then one of them leaps. And one
fault you will not find in the picture. Give a learning rate and an encoding that are free of all three.
"""

# %% tags=exercise
my_learning_rate = ...

def my_encode(row, tokenizer):
    ...

# %% [markdown] tags=hint
"""
<details><summary>Hint 1</summary>A first loss that differs: other tokens are graded. A leap: steps too long.</details>
<details><summary>Hint 2</summary>Which labels mean "read this, do not learn it"? Which learning rate did the good run have?</details>
<details><summary>Hint 3</summary>The answer needs <code>tokenizer.eos_token</code> at its end, and a label there too.</details>
"""

# %% tags=solution
my_learning_rate = 1e-3

def my_encode(row, tokenizer):
    question = tokenizer.apply_chat_template(data.prompt(row), add_generation_prompt=True, return_dict=False)
    answer = tokenizer(row["messages"][-1]["content"] + tokenizer.eos_token)["input_ids"]
    return {"input_ids": question + answer, "labels": [-100] * len(question) + answer}

# %% tags=check
exercises.check("07-3", my_learning_rate, my_encode)

# %% [markdown]
"""
## Which numbers, and from where?
| setting | starts here | at 7B try | who says so |
|---|---|---|---|
| learning rate, LoRA | `1e-3` | `2e-4` | QLoRA, May 2023; a small model bears more |
| learning rate, full | `1e-4` | `2e-5` | Alpaca, March 2023; LoRA wants about ten times that of full: Thinking Machines, September 2025 |
| epochs | 2 | 1 to 3 | Alpaca took 3; let the validation loss decide |
| rows per step | 4 | 16 | QLoRA, May 2023; LoRA likes smaller ones than full: Thinking Machines, September 2025 |
| rank, and where | 16, all linear layers | 16 to 64, all linear layers | QLoRA, May 2023: all layers matter more than rank |
| alpha | twice the rank | twice the rank | Biderman et al., May 2024 |
| schedule | cosine, short warm-up | the same | custom more than proof: seldom the first thing to tune |

Tune the learning rate first: by factors of three, three seeds each, on validation.

**On a GPU** run the very same cells. Model and batches go where `here.device` says; more rows fit at once, and nothing
else changes. In Colab choose *Runtime, Change runtime type* before the first cell.

**Optional, for your own work.** Put thirty rows of your task (lesson 06) into `my_task/train.jsonl` and train on them.
"""

# %% tags=exercise
my_run = ...

# %% tags=solution
mine = exercises.my_task("train.jsonl")
my_run = training.fine_tune(data.load(mine), epochs=3) if mine.is_file() else small

# %% tags=check
exercises.check("07-4", my_run)

# %% [markdown]
"""
## Appendix: the power fails
A **callback** is your code, called by the trainer at fixed moments. This one pulls the plug after step 3. The run saves
a checkpoint every second step; started again without the callback, what does it do?
"""

# %%
from transformers import TrainerCallback

class PowerCut(TrainerCallback):
    def on_step_end(self, args, state, control, **unused):
        if state.global_step == 3:
            raise RuntimeError("power cut after step 3")

settings = {"epochs": 4, "seed": 1, "save_steps": 2, "live": False}
try:
    training.fine_tune(few, callbacks=[PowerCut()], **settings)
except RuntimeError as error:
    print(error)
resumed = training.fine_tune(few, **settings)

# %% [markdown]
"""
It goes on from its last checkpoint: weights, optimizer and order of rows as they were. So a long run may be killed.

TRL also runs from a terminal, without any Python: `trl sft --model_name_or_path … --dataset_name … --use_peft`. The
names are those of `SFTConfig`.

## Quiz
"""

# %%
exercises.quiz("07")

# %% [markdown]
"""
> **Would this hold at 8B?** That the loop is the same, and that overfitting looks the same: yes. That LoRA comes close
> to full on few rows: its direction has been seen at many sizes. The size of the jump over three examples: no. A large
> model reads three examples far better than ours. And its numbers are others: start with the table's middle column.

## What this did not show
- That this is the best setting. We chose no learning rate here, so nothing was tuned on validation except by hearsay.
- That full and LoRA differ, or do not. One run each cannot tell; three seeds and a paired comparison might.
- That the loss is the goal. Two runs of equal loss may differ in F1, and the missing end token hid behind a perfect one.

## Next
[08 Evaluate](08-evaluate.ipynb): how sure are we, what is still wrong, and the one look at the test rows.
"""

# %% [markdown] tags=sources
"""
**Sources.** TRL's `SFTTrainer` documentation, version 1.15.0, 2026. LoRA: Hu et al., arXiv 2106.09685, June 2021.
QLoRA: Dettmers et al., arXiv 2305.14314, May 2023 (7B: learning rate 2e-4, 16 rows per step, rank 64, adapters on all
linear layers). Alpaca: Taori et al., Stanford, March 2023 (7B, full: 2e-5, 3 epochs). Biderman et al., *LoRA Learns
Less and Forgets Less*, arXiv 2405.09673, May 2024. Schulman and Thinking Machines Lab, *LoRA Without Regret*,
29 September 2025. Adafactor: Shazeer and Stern, arXiv 1804.04235, April 2018. Looked up 2026-11-22.
"""
