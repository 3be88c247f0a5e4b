"""Record what each way reaches on the capstone's tasks, for lesson 19: `python data/recorded/capstone.py [seconds]`.

Each line of `capstone.json` is one system on the 50 validation rows of one task: rules, the linear tagger, pages found
and read by patterns, prompts of the base model, and LoRA on the 120 training rows with three seeds, on the island
with the page before the question, too. `scored` holds what was counted on each row. What is missing is made, and
nothing new is begun after so many seconds.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from record import SEEDS, counted, missing, read, where, write  # noqa: E402

from helpers import baselines, capstone, evaluation, models, opponents, training  # noqa: E402

FILE = Path(__file__).with_name("capstone.json")


def paged(rows, pages) -> list[dict]:
    """Rows in which the page that is found for a question stands before it."""
    find = opponents.search(pages)
    return [
        {"messages": [
            turn | {"content": f"{find(turn['content'])}\n\n{turn['content']}"} if turn["role"] == "user" else turn
            for turn in row["messages"]
        ]}
        for row in rows
    ]  # fmt: skip


def seen_paged(system, pages):
    """A system that is shown the page, too; its rows stay those without, so that reports can be compared."""
    shown = lambda chats: system([row["messages"] for row in paged([{"messages": c} for c in chats], pages)])  # noqa: E731
    shown.dtype, shown.device = system.dtype, system.device
    return shown


def lora(task, rows, seed):
    """What 120 rows teach, and the run."""
    run = training.fine_tune(rows, epochs=4, seed=seed, live=False, save_strategy="no")
    return evaluation.prompted(models.load_model(run.folder), models.load_tokenizer(), progress=False), run


def make(task, way, seed):
    """The system of a way, and its training run if there was one."""
    if way in ("rules", "tagger", "pages read by patterns"):
        return opponents.of(task)[way], None
    if way.startswith("LoRA"):
        rows = paged(task.train, task.pages) if "pages" in way else task.train
        system, run = lora(task, rows, seed)
        return (seen_paged(system, task.pages) if "pages" in way else system), run
    tokenizer, options = models.load_tokenizer(), {"progress": False}
    if way != "zero-shot":
        similar = baselines.similar(task.train)
        options |= {"examples": lambda chat: similar(chat, 8), "constrain": baselines.json_list(tokenizer)}
    return evaluation.prompted(models.load_model(), tokenizer, **options), None


KINDS = {
    "rules": "rules", "tagger": "classifier", "pages read by patterns": "retrieve", "zero-shot": "prompt",
    "8 similar, JSON": "prompt", "LoRA": "tune", "LoRA, with pages": "tune and retrieve",
}  # fmt: skip
WAYS = {
    "lists": ("rules", "tagger", "zero-shot", "8 similar, JSON", "LoRA"),
    "island": ("pages read by patterns", "zero-shot", "8 similar, JSON", "LoRA", "LoRA, with pages"),
    "parcels": ("rules", "tagger", "zero-shot", "8 similar, JSON", "LoRA"),
}


def plan() -> list[dict]:
    """Every record: the seed is of trained systems only, the others have one."""
    return [
        {"task": task, "name": way, "seed": seed}
        for seed in SEEDS for task, ways in WAYS.items() for way in ways if way.startswith("LoRA") or not seed
    ]  # fmt: skip


def main(seconds: float) -> None:
    """Make the records that are missing until the time is up, writing after each."""
    for wanted in missing(FILE, plan(), seconds):
        task = capstone.load(wanted["task"])
        system, run = make(task, wanted["name"], wanted["seed"])
        report = evaluation.evaluate(system, task.validation, wanted["name"])
        made = {"kind": KINDS[wanted["name"]], "seconds": round(run.record["seconds"], 1) if run else 0.0}
        write(FILE, [*read(FILE), {**wanted, **made, **counted(report), **where()}])
        print(*wanted.values(), f"F1 {made['f1']:.3f}", flush=True)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 1e9)
