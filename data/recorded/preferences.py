"""Record what preferences and rewards add to a tuned model, for lesson 15: `python data/recorded/preferences.py [s]`.

Each line of `preferences.json` is one way with one seed, on the 100 validation rows. All ways go on from, or begin
with, the same hundred training rows, twice through: "SFT". They see the same 64 further recipes: "SFT, right answers"
with what people wrote for them; all others with eight drawn answers to each, as it were 512 tries: "SFT, best draws" is
shown the best of each eight, "DPO" the best and the worst, "GRPO" rewards what it draws itself. "SFT, longer" sees
no further recipe: it goes over the first hundred as long as the two before it train. `rewards` are means of
the three rewards over the greedy answers, `names` the mean number of names in one. What is missing is made, and nothing
new is begun after s seconds.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from record import SEEDS, counted, missing, read, where, write  # noqa: E402

from helpers import data, endpoint, evaluation, models, preferences, providers, runs, training  # noqa: E402

FILE = Path(__file__).with_name("preferences.json")
TRAIN, VALIDATION = data.load("train"), data.load("validation")
FIRST, NEXT = TRAIN[:100], TRAIN[100:164]
QUESTIONS = [{"prompt": data.prompt(row), "row": row} for row in NEXT]
REWARDS = (preferences.right, preferences.stands, preferences.covers)
GRPO = {
    "learning_rate": 3e-4, "num_train_epochs": 1, "num_generations": 8, "per_device_train_batch_size": 32,
    "max_completion_length": 80, "temperature": 1.0, "beta": 0.0,
}  # fmt: skip
SHORT = GRPO | {"max_steps": 8, "per_device_train_batch_size": 16}  # Unsloth draws slowly on a CPU
DPO = {"learning_rate": 3e-4, "num_train_epochs": 2, "per_device_train_batch_size": 8, "beta": 0.1}


def sft(rows, seed, epochs=2.0):
    """Supervised training."""
    return training.fine_tune(rows, epochs=epochs, seed=seed, live=False, save_strategy="no")


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


def make(name: str, seed: int):
    """The run of a way."""
    start = sft(FIRST, seed)
    match name.split(", ", 1):
        case ["SFT"]:
            return start
        case ["SFT", "right answers"]:
            return sft(FIRST + NEXT, seed)
        case ["SFT", "longer"]:
            return sft(FIRST, seed, epochs=2 * len(FIRST + NEXT) / len(FIRST))
        case ["SFT", "best draws"]:
            return sft(FIRST + best_draws(start, seed), seed)
        case ["DPO"]:
            pairs = preferences.pairs(NEXT, drawn(start, seed), preferences.right)
            return preferences.learn(preferences.dpo_trainer, start, pairs, seed=seed, live=False, **DPO)
        case ["GRPO", "short"]:
            reward = preferences.reward_func(preferences.right)
            return preferences.learn(
                preferences.grpo_trainer, start, QUESTIONS, seed=seed, live=False, reward_funcs=reward, **SHORT
            )
        case ["GRPO", "Unsloth, short"]:
            return preferences.unsloth_grpo(start, QUESTIONS, seed=seed, **SHORT)
        case ["GRPO", rewarded]:
            reward = preferences.reward_func(getattr(preferences, rewarded))
            return preferences.learn(
                preferences.grpo_trainer, start, QUESTIONS, seed=seed, live=False, reward_funcs=reward, **GRPO
            )


WAYS = (
    "SFT", "SFT, right answers", "SFT, longer", "DPO", "SFT, best draws", "GRPO, stands", "GRPO, right", "GRPO, covers",
)  # fmt: skip


def plan() -> list[dict]:
    """Every record; what takes long and shows only that a door leads to the same place has one seed."""
    once = ("GRPO, short", "GRPO, Unsloth, short", "hosted SFT", "hosted DPO", "hosted GRPO")
    seeds = {seed: [*WAYS, *once] if seed == SEEDS[0] else WAYS for seed in SEEDS}
    return [{"name": way, "seed": seed} for seed, ways in seeds.items() for way in ways]


# --- the same through the hosted API ---------------------------------------------------------------

GRADER = """import json

def grade(sample, item):
    try:
        names = set(json.loads(sample["output_text"]))
    except Exception:
        return 0.0
    hits = len(names & set(item["answer"]))
    return 2 * hits / max(1, len(names) + len(item["answer"]))
"""


def through_api() -> Iterator[tuple[str, evaluation.Report, list[dict], float]]:
    """The three ways of the hosted API, with the settings from above: their names, reports, histories, seconds."""
    start = sft(FIRST, 0)  # the job trains the same, so these are its draws, too
    pairs = preferences.pairs(NEXT, drawn(start, 0), preferences.right)
    fields = {"chosen": "preferred_output", "rejected": "non_preferred_output"}
    preferred = [
        {"input": {"messages": pair["prompt"]}, **{fields[name]: pair[name] for name in fields}} for pair in pairs
    ]
    asked = [{"messages": data.prompt(row), "answer": data.answer(row)} for row in NEXT]
    grader = {"type": "python", "name": "f1", "source": GRADER}
    same = {"n_epochs": 2, "batch_size": 8}  # eight recipes in a step and four draws of each, twice: 512 draws
    faster = {"learning_rate_multiplier": 3}
    with tempfile.TemporaryDirectory() as folder, endpoint.serve(folder) as server:
        service = providers.connect("practice", server)
        client, base = service.client, service.model
        for name, rows, method in (
            ("SFT", FIRST, {"supervised": {"hyperparameters": {"n_epochs": 2}}}),
            ("DPO", preferred, {"dpo": {"hyperparameters": same | faster | {"beta": 0.1}}}),
            ("GRPO", asked, {"reinforcement": {"grader": grader, "hyperparameters": same | faster}}),
        ):
            file, kind = providers.upload(client, rows, "rows.jsonl"), next(iter(method))
            job = client.fine_tuning.jobs.create(
                model=base, training_file=file, method={"type": kind, **method}, seed=0
            )
            job = providers.follow(client, job.id)
            base = job.fine_tuned_model if name == "SFT" else base
            events = list(client.fine_tuning.jobs.list_events(job.id, limit=100))[::-1]
            history = [{"step": event.data["step"], **{
                short: event.data[long] for long, short in (("train_loss", "loss"), ("train_mean_reward", "reward"))
                if event.data.get(long) is not None
            }} for event in events if event.type == "metrics"]  # fmt: skip
            system = providers.hosted(client, job.fine_tuned_model)
            report = evaluation.evaluate(system, VALIDATION, f"hosted {name}")
            yield f"hosted {name}", report, history, job.finished_at - job.created_at


# --- records ---------------------------------------------------------------------------------------


def keep(name: str, seed: int, report: evaluation.Report, history: list[dict], seconds: float) -> None:
    """Write the record of a way with a seed."""
    told = [(row["text"], asked) for row, asked in zip(report.rows, VALIDATION, strict=True)]
    rewards = {reward.__name__: round(statistics.mean(reward(*one) for one in told), 3) for reward in REWARDS}
    write(FILE, [*read(FILE), {
        "name": name, "seed": seed, "seconds": round(seconds, 1), **counted(report), "rewards": rewards,
        "names": round(statistics.mean(row["n_predicted"] for row in report.rows), 2),
        "history": [{name: round(value, 4) for name, value in step.items()} for step in history],
        "text": told[0][0], **where(),
    }])  # fmt: skip
    print(name, seed, f"F1 {report.metrics['f1']:.3f}", rewards, flush=True)


def main(seconds: float) -> None:
    """Make the records that are missing until the time is up, writing after each."""
    for wanted in missing(FILE, plan(), seconds):
        if wanted["name"].startswith("hosted"):
            for made in through_api():
                keep(made[0], 0, *made[1:])
            continue
        run = make(**wanted)
        whole = {"folder": run.folder / "start"} if "Unsloth" in wanted["name"] else {}
        system = evaluation.prompted(models.load_model(run.folder, **whole), models.load_tokenizer(), progress=False)
        report = evaluation.evaluate(system, VALIDATION, wanted["name"])
        keep(wanted["name"], wanted["seed"], report, run.history, run.record["seconds"])


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 1e9)
