"""Record what preferences and rewards add to a tuned model, for lesson 15: `python data/recorded/preferences.py [s]`.

Each line of `preferences.json` is one way with one seed, on the 100 validation rows. All ways go on from, or begin
with, the same hundred training rows, twice through: "SFT". They see the same 64 further recipes: "SFT, right answers"
with what people wrote for them; all others with eight drawn answers to each, as it were 512 tries: "SFT, best draws" is
shown the best of each eight, "DPO" the best and the worst, "GRPO" rewards what it draws itself. `rewards` are means of
the three rewards over the greedy answers, `names` the mean number of names in one. What is missing is made, and nothing
new is begun after s seconds.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from record import SEEDS, figures, missing, read, where, write  # noqa: E402

from helpers import baselines, data, evaluation, models, preferences, runs, training  # noqa: E402

FILE = Path(__file__).with_name("preferences.json")
TRAIN, VALIDATION = data.load("train"), data.load("validation")
FIRST, NEXT = TRAIN[:100], TRAIN[100:164]
QUESTIONS = [{"prompt": data.prompt(row), "row": row} for row in NEXT]
REWARDS = (preferences.right, preferences.stands, preferences.covers)
GRPO = {
    "learning_rate": 3e-4, "num_train_epochs": 1, "num_generations": 8, "per_device_train_batch_size": 32,
    "max_completion_length": 80, "temperature": 1.0, "beta": 0.0,
}  # fmt: skip
DPO = {"learning_rate": 3e-4, "num_train_epochs": 2, "per_device_train_batch_size": 8, "beta": 0.1}


def sft(rows, seed):
    """Supervised training, twice through the rows."""
    return training.fine_tune(rows, epochs=2, seed=seed, live=False, save_strategy="no")


def drawn(start, seed):
    """Eight answers to each of the further recipes, by the model that all ways go on from."""

    def draw():
        model, tokenizer = models.load_model(start.folder), models.load_tokenizer()
        return {"texts": preferences.samples(model, tokenizer, NEXT, 8, temperature=1.0, seed=seed, progress=False)}

    return runs.remember("draws", draw, start=start.folder.name, seed=seed)["texts"]


def best_draws(start, seed):
    """The further recipes, each with the best of its drawn answers in place of the one that people wrote."""
    kept = []
    for row, texts in zip(NEXT, drawn(start, seed), strict=True):
        best = max(texts, key=lambda text: preferences.right(text, row))
        if evaluation.parse(best):
            kept.append(data.recipe(data.title(row), data.lines(row), evaluation.parse(best)))
    return kept


def make(way: str, seed: int):
    """The run of a way."""
    start = sft(FIRST, seed)
    match way.split(", "):
        case ["SFT"]:
            return start
        case ["SFT", "right answers"]:
            return sft(FIRST + NEXT, seed)
        case ["SFT", "best draws"]:
            return sft(FIRST + best_draws(start, seed), seed)
        case ["DPO"]:
            pairs = preferences.pairs(NEXT, drawn(start, seed), preferences.right)
            return preferences.learn(preferences.dpo_trainer, start, pairs, seed=seed, live=False, **DPO)
        case ["GRPO", "Unsloth"]:
            return preferences.unsloth_grpo(start, QUESTIONS, seed=seed, **GRPO)
        case ["GRPO", name]:
            reward = preferences.reward_func(getattr(preferences, name))
            return preferences.learn(
                preferences.grpo_trainer, start, QUESTIONS, seed=seed, live=False, reward_funcs=reward, **GRPO
            )


WAYS = ("SFT", "GRPO, right", "GRPO, stands", "DPO", "SFT, right answers", "SFT, best draws", "GRPO, covers")


def plan() -> list[dict]:
    """Every record; Unsloth's with one seed, as its steps take long."""
    return [*({"name": way, "seed": seed} for seed in SEEDS for way in WAYS), {"name": "GRPO, Unsloth", "seed": 0}]


def main(seconds: float) -> None:
    """Make the records that are missing until the time is up, writing after each."""
    for wanted in missing(FILE, plan(), seconds):
        run = make(wanted["name"], wanted["seed"])
        whole = {"folder": run.folder / "start"} if wanted["name"] == "GRPO, Unsloth" else {}
        system = evaluation.prompted(models.load_model(run.folder, **whole), models.load_tokenizer(), progress=False)
        report = evaluation.evaluate(system, VALIDATION, wanted["name"])
        told = [(row["text"], asked) for row, asked in zip(report.rows, VALIDATION, strict=True)]
        rewards = {reward.__name__: round(statistics.mean(reward(*one) for one in told), 3) for reward in REWARDS}
        write(FILE, [*read(FILE), {
            **wanted, "rows_hash": report.rows_hash, "dtype": report.dtype, "device": report.device,
            "seconds": round(run.record["seconds"], 1), **figures(report), "rewards": rewards,
            "names": round(statistics.mean(row["n_predicted"] for row in report.rows), 2),
            "history": [{name: round(value, 4) for name, value in step.items()} for step in run.history],
            "scored": [[row[name] for name in baselines.SCORED] for row in report.rows], "text": told[0][0],
            **where(),
        }])  # fmt: skip
        print(*wanted.values(), f"F1 {report.metrics['f1']:.3f}", rewards, flush=True)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 1e9)
