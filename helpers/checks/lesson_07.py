"""Checks of lesson 07."""

from __future__ import annotations

import copy
import functools
import math

from .. import data, models, runs
from ..exercises import Unscored, Wrong, checker

# --- 07-1: one training step -----------------------------------------------------------------------

RATE = 0.05  # of plain SGD: unlike Adam it shows how large a gradient was


def _batches() -> list[dict]:
    """Two small batches on which the mask matters."""
    import torch

    chance = torch.Generator().manual_seed(7)
    batches = []
    for width, asked in ((12, 5), (9, 3)):
        ids = torch.randint(3, 49000, (2, width), generator=chance)
        batches.append({"input_ids": ids, "labels": torch.cat([torch.full((2, asked), -100), ids[:, asked:]], 1)})
    return batches


def _weights(model):
    import torch

    return torch.cat([weight.detach().float().flatten() for weight in model.parameters()])


def _reference(start, batches: list[dict], fault: str = ""):
    """Weights after one right step per batch, or after steps with a fault; and the losses."""
    import torch

    model, losses = copy.deepcopy(start), []
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    for batch in batches:
        labels = batch["input_ids"] if fault == "mask" else batch["labels"]
        loss = model(input_ids=batch["input_ids"], labels=labels).loss
        (-loss if fault == "sign" else loss).backward()
        optimizer.step()
        if fault != "pile":
            optimizer.zero_grad()
        losses.append(loss.item())
    return _weights(model), losses


@functools.cache
def _setting():
    """A model, two batches, its weights before, and what right and faulty steps make of them."""
    start, batches = models.tiny_model(), _batches()
    made = {fault: _reference(start, batches, fault) for fault in ("", "pile", "mask", "sign")}
    return start, batches, _weights(start), made


@checker("07-1")
def training_step(function) -> str:
    import torch

    start, batches, before, made = _setting()
    right, losses = made[""]
    model = copy.deepcopy(start)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    given = [function(model, {name: ids.clone() for name, ids in batch.items()}, optimizer) for batch in batches]
    after = _weights(model)

    def near(weights) -> bool:
        return bool((after - weights).norm() < 0.02 * (right - before).norm())

    if not torch.isfinite(after).all():
        raise Wrong("After two steps some weights are no numbers any more: is something divided by zero?")
    if torch.equal(after, before):
        gone = all(weight.grad is None or not weight.grad.any() for weight in model.parameters())
        raise Wrong(
            "The weights did not move, and there are no gradients. Was `loss.backward()` called on the model that was "
            "given, and `optimizer.step()` before the gradients were cleared?"
            if gone
            else "The gradients are there, but the weights did not move: it is `optimizer.step()` that moves them."
        )
    if near(made["pile"][0]):
        raise Wrong(
            "The first step is right, the second too far: the gradients of the first batch were still there and the "
            "new ones were added. Clear them in every step: `optimizer.zero_grad()`."
        )
    if near(made["mask"][0]):
        raise Wrong("Every token was learned, the prompt too. Give the model the batch's own labels: `model(**batch)`.")
    if near(made["sign"][0]):
        raise Wrong("It climbed: the loss rises. `backward()` goes on the loss itself; the optimizer turns the sign.")
    if not near(right):
        moved, wanted = after - before, right - before
        if float(torch.nn.functional.cosine_similarity(moved, wanted, dim=0)) > 0.9:
            raise Unscored(
                "Right direction, other step size: you clip, scale or repeat. That can be defended; know why."
            )
        raise Wrong("The weights moved, but not as one step per batch moves them: forward, backward, step, clear.")
    try:
        told = [float(getattr(loss, "detach", lambda loss=loss: loss)()) for loss in given]
    except (TypeError, ValueError):
        raise Wrong(f"The step is right. It gave back {given[0]!r:.60}: return the loss, as a number.") from None
    if max(abs(a - b) for a, b in zip(told, losses, strict=True)) > 0.01:
        raise Wrong(
            f"The step is right, but it returned {told[0]:.3f} where the loss was {losses[0]:.3f}: return the loss "
            "of this batch, measured before the step."
        )
    return "Right: forward, backward, step, clear. Every trainer you will ever meet has these four lines inside."


# --- 07-3: a recipe with three faults --------------------------------------------------------------


def _encoding_faults(function) -> list[str]:
    tokenizer, faults = models.load_tokenizer(), []
    breaks = tokenizer("\n", add_special_tokens=False)["input_ids"]
    for row in data.load("validation")[40:43]:
        given = function(copy.deepcopy(row), tokenizer)
        try:
            ids, labels = ([int(i) for i in given[name]] for name in ("input_ids", "labels"))
        except (TypeError, KeyError, ValueError, IndexError):
            raise Wrong(
                f"`my_encode` gave {given!r:.60}: return a dict with two lists of numbers, input_ids and labels."
            ) from None
        right = data.encode(row, tokenizer)
        wanted, asked = right["input_ids"], right["labels"].count(-100)
        if len(ids) != len(labels):
            raise Wrong(
                f"{len(ids)} input_ids but {len(labels)} labels: there is one label per token, -100 or the token."
            )
        if ids[: len(wanted)] == wanted and ids[len(wanted) :] in ([], breaks):
            pass  # the template itself writes a line break after the end token: learned or not, both are right
        elif ids in (wanted[:-1], wanted[:-1] + breaks):
            faults.append("the answer has no end token: add tokenizer.eos_token to it")
        else:
            raise Wrong(
                "The tokens are not the chat template's question, then the answer, then the end token. "
                f"Yours end with {tokenizer.decode(ids[-6:])!r}."
            )
        graded = labels[asked : len(wanted)]
        if any(label != -100 for label in labels[:asked]):
            faults.append("the prompt still has labels: there they are -100")
        if all(label == -100 for label in labels):
            raise Wrong("All labels are -100, so nothing is learned at all.")
        if graded[: len(wanted) - asked - 1] != wanted[asked:-1]:
            faults.append("the answer's labels are not its own tokens; do not shift them, the model does that itself")
        elif len(graded) == len(wanted) - asked and graded[-1] != wanted[-1]:
            faults.append("the end token is there, but its label is not: nobody grades whether the model stops")
    return list(dict.fromkeys(faults))


@checker("07-3")
def repaired(learning_rate, encode) -> str:
    if not callable(encode):
        raise Wrong("`my_encode` is a function of a row and a tokenizer.")
    faults = _encoding_faults(encode)
    if isinstance(learning_rate, bool) or not isinstance(learning_rate, int | float):
        faults.append(f"the learning rate is {learning_rate!r:.40}, not a number")
    elif not math.isfinite(learning_rate) or learning_rate <= 0:
        faults.append(f"a learning rate of {learning_rate} trains nothing: it is a small number above zero")
    elif learning_rate > 1e-2:
        faults.append(f"a learning rate of {learning_rate:g} is still far too high: the loss leaps")
    elif learning_rate < 3e-5:
        faults.append(f"a learning rate of {learning_rate:g} is so low that these steps would change next to nothing")
    if faults:
        raise Wrong(f"{len(faults)} left: {'; '.join(faults)}.")
    if not 2e-4 <= learning_rate <= 5e-3:
        raise Unscored(
            f"Both faults in the rows are mended. {learning_rate:g} trains too, but we saw 1e-3 work at this size: "
            "measure before you leave it."
        )
    return "All three. The first two show in the curve; the missing end never does: print one encoded row."


# --- 07-4: your own run ----------------------------------------------------------------------------


@checker("07-4")
def own_run(run) -> str:
    record = getattr(run, "record", None)
    if not isinstance(run, runs.Run) or not isinstance(record, dict):
        raise Wrong("Give the run that `training.fine_tune` returned.")
    losses = [row["loss"] for row in record.get("history") or [] if "loss" in row]
    if not losses:
        raise Wrong("This run has no losses in its history: was it trained?")
    if record.get("rows_hash") in _course_rows():
        raise Unscored("It trains. These are the course's rows, though: put your own into my_task/train.jsonl.")
    if len(losses) < 4:
        raise Unscored(f"Only {len(losses)} steps: too few to read a curve. More rows, or more epochs.")
    third = max(1, len(losses) // 3)
    first, last = sum(losses[:third]) / third, sum(losses[-third:]) / third
    if not last < first:
        raise Wrong(
            f"The loss did not fall ({first:.2f} at first, {last:.2f} at last). Look at one encoded row, then at the "
            "learning rate."
        )
    told = f"{record.get('rows', '?')} rows, loss {first:.2f} at first and {last:.2f} at last"
    return f"It learned: {told}. Whether it is any good on other rows is for lesson 08."


def _course_rows() -> set[str]:
    """Hashes of the pieces of the course's rows that this lesson trains on."""
    train = data.load("train")
    few = sorted(train, key=lambda row: len(str(row)))[:4]
    return {data.rows_hash(rows) for rows in (few, train, *(train[:n] for n in (25, 50, 100, 120)))}
