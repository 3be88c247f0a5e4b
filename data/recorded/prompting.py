"""Record what prompts do, for lesson 03: `python data/recorded/prompting.py [seconds]`.

Each line of `prompting.json` is one prompt, asked about the 100 validation rows, and its score of each row; the
lines named `window` hold the loss of a prompt that grows beyond the model's window. What is missing is made, and
nothing new is begun after so many seconds: run it again until it says that all is there. Examples are training rows.
"""

from __future__ import annotations

import dataclasses
import json
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from record import counted, read, where, write  # noqa: E402

from helpers import baselines, data, evaluation, models, runtime  # noqa: E402

FILE = Path(__file__).with_name("prompting.json")
COUNTS, SEEDS = (1, 2, 4, 8, 16), (0, 1, 2)
WINDOW, STEP = 16_384, 1024  # tokens read, twice the window of 8,192, and tokens averaged


def plan() -> list[dict]:
    """Every prompt that is recorded: its examples, how they are chosen, the rule in it, held to JSON or not."""
    bare = {"examples": 0, "chosen": "none", "seed": 0, "rule": False, "json": False}
    held = bare | {"json": True}
    prompts = [bare, held, held | {"rule": True}, bare | {"rule": True}]
    similar = {"examples": 4, "chosen": "similar"}
    prompts += [held | similar | {"rule": True}, bare | similar]
    for n in COUNTS:  # the longest prompts last: they take minutes each
        prompts += [held | {"examples": n, "chosen": "random", "seed": seed} for seed in SEEDS]
        prompts.append(held | similar | {"examples": n})
    return prompts


def name(prompt: dict) -> str:
    """What the board calls a prompt, such as "rule, 4 similar, JSON"."""
    examples = f"{prompt['examples']} {prompt['chosen']}" if prompt["examples"] else ""
    parts = ["rule" * prompt["rule"], examples, "JSON" * prompt["json"]]
    return ", ".join(filter(None, parts if prompt["rule"] or examples else ["zero-shot", *parts]))


def system(prompt: dict, model, tokenizer) -> evaluation.System:
    """The system that a prompt describes."""
    train, count = data.load("train"), prompt["examples"]
    options = {"progress": False, "constrain": baselines.json_list(tokenizer) if prompt["json"] else None}
    options["instruction"] = data.SYSTEM + "\n\n" + data.RULE if prompt["rule"] else None
    if prompt["chosen"] == "similar":
        nearest = baselines.similar(train)
        return evaluation.prompted(model, tokenizer, examples=lambda chat: nearest(chat, count), **options)
    shown = random.Random(prompt["seed"]).sample(train, count)
    return evaluation.prompted(model, tokenizer, examples=shown, **options)


def ask(prompt: dict, model, tokenizer, until: float) -> evaluation.Report | None:
    """The report on all validation rows, or None if the time ran out; what was asked is kept."""
    rows, asked = data.load("validation"), system(prompt, model, tokenizer)
    pieces, size = [], 20 if prompt["examples"] > 4 and prompt["chosen"] == "similar" else len(rows)
    for start in range(0, len(rows), size):
        if time.monotonic() > until:
            return None
        key = {"prompting": prompt, "first": start, "size": size}  # what was asked so far is found again
        pieces.append(evaluation.evaluate(asked, rows[start : start + size], name(prompt), key=key))
    scored = [row for piece in pieces for row in piece.rows]
    return dataclasses.replace(pieces[0], rows=scored, rows_hash=data.rows_hash(rows))


def line(prompt: dict, report: evaluation.Report) -> dict:
    """A report as one record."""
    return {"name": name(prompt), **prompt, **counted(report), **where()}


def window(model, tokenizer, seed: int) -> dict:
    """Mean loss of the answers' tokens in a prompt of shuffled training rows, step by step of its length."""
    import torch

    rows, ids, labels = data.load("train"), [], []
    random.Random(seed).shuffle(rows)
    for row in rows:
        encoded = data.encode(row, tokenizer)
        ids += encoded["input_ids"]
        labels += encoded["labels"]
    ids, labels, losses = ids[:WINDOW], torch.tensor(labels[:WINDOW]), []
    with torch.inference_mode():
        hidden = model.base_model(input_ids=torch.tensor([ids], device=model.device)).last_hidden_state[0]
        for start in range(0, WINDOW, STEP):
            wanted = labels[start + 1 : start + STEP + 1].to(model.device)
            scores = model.get_output_embeddings()(hidden[start : start + len(wanted)]).float()
            losses.append(round(torch.nn.functional.cross_entropy(scores, wanted).item(), 4))
    return {
        "name": "window", "seed": seed, "step": STEP, "limit": model.config.max_position_embeddings, "loss": losses,
        "dtype": runtime.machine().dtype, **where(),
    }  # fmt: skip


def main(seconds: float) -> None:
    """Make the records that are missing until the time is up, writing after each."""
    until = time.monotonic() + seconds
    tokenizer, model = models.load_tokenizer(), models.load_model()
    for prompt in plan():
        known = read(FILE)
        if any(all(run.get(key) == value for key, value in prompt.items()) for run in known):
            continue
        report = ask(prompt, model, tokenizer, until)
        if report is None:
            print("Time is up: run it again.", flush=True)
            return
        write(FILE, [*known, line(prompt, report)])
        print(json.dumps({key: line(prompt, report)[key] for key in ("name", "seed", "f1", "valid_json")}), flush=True)
    for seed in SEEDS:
        known = read(FILE)
        if not any(run["name"] == "window" and run["seed"] == seed for run in known) and time.monotonic() < until:
            write(FILE, [*known, window(model, tokenizer, seed)])
            print("window", seed, read(FILE)[-1]["loss"], flush=True)
    print("All is there." if len(read(FILE)) == len(plan()) + len(SEEDS) else "Time is up: run it again.")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 1e9)
