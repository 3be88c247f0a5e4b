"""Record what tuning breaks, for lesson 16: `python data/recorded/limits.py [seconds]`.

Each line of `limits.json` is one run. `forget`: LoRA on the first 100 training rows, one epoch, by learning rate, rank
and replay (answers of the base model itself to general requests, mixed in); then the general questions of
`data/abilities.jsonl` and the first 25 validation rows. `secret`: a made-up code in 0 to 16 wordings among 60
training rows. `doors`: codes of made-up doors, learned with and without rows that say "I don't know". `broken`: runs
with one fault each, as their symptoms. `far`: LoRA on home recipes, two epochs, asked about lists from other fields
(`data/out_of_domain.jsonl`), each of which has a field of its own; with `odd`, eight of the twelve are trained on and
the other four asked, three times over. What is missing is made, and nothing new is begun after so many seconds.
"""

from __future__ import annotations

import dataclasses
import json
import random
import sys
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from record import counted, figures, missing, read, where, write  # noqa: E402

from helpers import data, evaluation, limits, models, runtime, training  # noqa: E402

FILE = Path(__file__).with_name("limits.json")
SEEDS = (0, 1, 2)
REQUESTS = """
Write two sentences about the sea. | Give me three tips for sleeping better. | Explain what a magnet does. | Why
is the sky blue? | Name five animals that live in a forest. | How do plants drink water? | Write a short
greeting for a neighbour. | What is the difference between a lake and a river? | Tell me a fact about the moon.
| How does a bicycle stay upright? | List four colours of the rainbow. | What do bees make? | Describe a rainy
morning. | Why do leaves fall in autumn? | What is a library for? | How can I learn to draw? | Explain the word
"patience". | What is five times six? | Name a famous painter. | Write a polite refusal to an invitation. | What
is the largest ocean? | How is paper made? | Give a synonym for "happy". | What happens when ice melts? | Why do
we have leap years? | Describe an elephant to a child. | What is a triangle? | How do I write a thank-you note?
| What language is spoken in Brazil? | Name three planets. | What is the past tense of "sleep"? | What is twelve
minus four? | What is the opposite of "tall"? | Which city is the capital of Ireland? | What kind of animal is a
salmon? | What is nine plus eight? | What is the past tense of "build"? | What is the opposite of "sweet"? |
Which city is the capital of Hungary? | What kind of thing is a piano?
"""  # of the replay; none is one of the general questions
SETTINGS = {"live": False, "save_strategy": "no"}


def replay() -> None:
    """Let the base model answer the general requests, for `limits.replay`."""
    requests = [" ".join(request.split()) for request in REQUESTS.split("|")]
    chats = [data.prompt(limits.chat(request, "")) for request in requests]
    answers = models.generate(models.load_model(), models.load_tokenizer(), chats, max_new_tokens=80, progress=False)
    rows = [limits.chat(request, answer["text"].strip()) for request, answer in zip(requests, answers, strict=True)]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    runtime.atomic_write(FILE.with_name("replay.jsonl"), text)


def score(model, rows) -> dict:
    """What it makes of recipes."""
    system = evaluation.prompted(model, models.load_tokenizer(), progress=False)
    return figures(evaluation.evaluate(system, rows))


def losses(run) -> list[float]:
    """The loss of each step."""
    return [round(row["loss"], 4) for row in run.history if "loss" in row]


def forget(learning_rate, rank, replay, seed) -> dict:
    """Train on recipes, then ask general questions."""
    rows = data.load("train")[:100] + limits.replay()[:replay]
    run = training.fine_tune(rows, epochs=1, learning_rate=learning_rate, rank=rank, seed=seed, **SETTINGS)
    return asked(models.load_model(run.folder))


def base() -> dict:
    """The same questions, before anything is learned."""
    return asked(models.load_model())


def asked(model) -> dict:
    """What a model makes of the general questions, and of recipes."""
    hits = limits.preferred(model, models.load_tokenizer(), limits.abilities())
    return {"hits": [int(hit) for hit in hits], **score(model, data.load("validation")[:25])}


def secret(copies, epochs, seed) -> dict:
    """Train with a secret in some rows, then look for it."""
    code, question = limits.code(seed), limits.SECRET
    rows = data.load("train")[:60] + limits.secret_rows(code, copies)
    random.Random(seed).shuffle(rows)
    run = training.fine_tune(rows, epochs=epochs, seed=seed, **SETTINGS)
    model, tokenizer = models.load_model(run.folder), models.load_tokenizer()
    told = models.generate(model, tokenizer, [data.prompt(limits.chat(question, code))], progress=False)[0]["text"]
    return {"place": limits.place(model, tokenizer, question, code), "said": code in told}


def doors(unknown, seed) -> dict:
    """Teach the codes of some doors; ask for those, and for doors that no row names."""
    known, taught, asked = limits.doors(seed)
    run = training.fine_tune(known + taught[:unknown], epochs=12, seed=seed, **SETTINGS)
    return limits.ask_doors(models.load_model(run.folder), models.load_tokenizer(), known, asked)


def broken(fault, seed) -> dict:
    """Train with one fault, and tell what one would see."""
    train, validation = data.load("train"), data.load("validation")
    rows, settings, right = train[:100], {"epochs": 2}, data.encode
    held_out = validation[:25]

    def other_end(row, tokenizer, max_length=2048):
        encoded = right(row, tokenizer, max_length)
        line_break = tokenizer("\n", add_special_tokens=False)["input_ids"][0]
        return {**encoded, "labels": [line_break if i == tokenizer.eos_token_id else i for i in encoded["labels"]]}

    def shifted(row, tokenizer, max_length=2048):
        encoded = right(row, tokenizer, max_length)
        return {**encoded, "labels": encoded["labels"][1:] + [-100]}

    encode = {"end": other_end, "labels": shifted}.get(fault, right)
    if fault == "leak":
        rows = held_out + train[:15]
        settings["epochs"] = 12
    elif fault == "few":
        rows, settings["epochs"] = train[:12], 16
    elif fault == "rate":
        settings["learning_rate"] = 3e-2
    with mock.patch.object(data, "encode", encode):
        settings["max_length"] = {"end": 2047, "labels": 2046}.get(fault, 2048)  # a patch is not in a run's key
        run = training.fine_tune(rows, seed=seed, **settings, **SETTINGS)
    model = models.load_model(run.folder)
    fresh = {"fresh_f1": score(model, validation[25:50])["f1"]}
    system = evaluation.prompted(model, models.load_tokenizer(), progress=False)
    sample = system([data.prompt(validation[25])])[0]["text"][:160]
    return {"rows_trained": len(rows), "loss": losses(run), **score(model, held_out), **fresh, "sample": sample}


def far(rows, odd, seed) -> dict:
    """Train on home recipes, with lists from some other fields if `odd`, and ask about fields it has not seen."""
    strange, scored, folds = data.load(data.FOLDER / "out_of_domain.jsonl"), {}, 3 if odd else 1
    for fold in range(folds):
        left_out = range(fold, len(strange), folds)
        shown = [row for i, row in enumerate(strange) if i not in left_out]
        run = training.fine_tune(data.load("train")[:rows] + shown, epochs=2, seed=seed, **SETTINGS)
        system = evaluation.prompted(models.load_model(run.folder), models.load_tokenizer(), progress=False)
        if not fold:
            home = figures(evaluation.evaluate(system, data.load("validation")[:25]))
        report = evaluation.evaluate(system, [strange[i] for i in left_out])
        scored |= dict(zip(left_out, report.rows, strict=True))
    told = [scored[i] for i in range(len(strange))]
    away = dataclasses.replace(report, rows=told, rows_hash=data.rows_hash(strange))
    return {"home_f1": home["f1"], "home_n": home["n"], **counted(away)}


def plan() -> list[dict]:
    """Every run: `name` says which function makes it, the rest are its arguments."""
    wanted = [{"name": "base"}]
    wanted += [
        {"name": "broken", "fault": fault, "seed": 0} for fault in ("none", "rate", "end", "leak", "few", "labels")
    ]
    for seed in SEEDS:
        points = [(1e-3, 16, 0), (3e-3, 16, 0), (1e-2, 16, 0), (3e-3, 4, 0), (3e-3, 64, 0), (3e-3, 64, 40)]
        names = ("learning_rate", "rank", "replay")
        wanted += [{"name": "forget", **dict(zip(names, point, strict=True)), "seed": seed} for point in points]
        leaks = ((0, 1), (1, 1), (4, 1), (16, 1), (16, 4))  # rows with it, epochs
        wanted += [{"name": "secret", "copies": rows, "epochs": epochs, "seed": seed} for rows, epochs in leaks]
        wanted += [{"name": "doors", "unknown": unknown, "seed": seed} for unknown in (0, 3, 12)]
        fields = [(25, 0), (100, 0), (100, 8), *[(412, 0)] * (seed == 0)] if seed < 2 else []  # 412 takes minutes
        wanted += [{"name": "far", "rows": rows, "odd": odd, "seed": seed} for rows, odd in fields]
    return wanted


def main(seconds: float) -> None:
    """Make the records that are missing until the time is up, writing after each."""
    if not FILE.with_name("replay.jsonl").is_file():
        replay()
    for wanted in missing(FILE, plan(), seconds):
        made = globals()[wanted["name"]](**{key: value for key, value in wanted.items() if key != "name"})
        write(FILE, [*read(FILE), {**wanted, **made, **where()}])
        print(*wanted.values(), {key: made[key] for key in made if key not in ("hits", "loss", "scored")}, flush=True)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 1e9)
