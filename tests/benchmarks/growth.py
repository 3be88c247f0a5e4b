"""How the cost of LoRA grows with rows, their length, the batch, the rank and the model; and how fast rows are checked.

`python tests/benchmarks/growth.py [name ...]` measures what is asked for, or all (twenty minutes on two cores), and
writes `growth.json` and `growth.png` beside itself. What was not asked for stays, if it is of this machine and day.
Every point is a training of its own, in a process of its own, end to end from `train()` to its return. Rows are cut out
of the course's training texts, so that they have the length that is asked for; models of other sizes are random, which
costs the same.
"""

from __future__ import annotations

import datetime
import itertools
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parent)]
import train as peers  # noqa: E402

from helpers import data, models, plots, runtime, training  # noqa: E402

FILE = Path(__file__).with_suffix(".json")
USUAL = {"rows": 48, "length": 128, "batch": 8, "rank": 16, "model": "135M"}
MODELS = {  # as in the published SmolLM2 family; the first has half the layers of the second
    "81M": {"num_hidden_layers": 15},
    "135M": {},
    "360M": {
        "hidden_size": 960, "intermediate_size": 2560, "num_hidden_layers": 32, "num_attention_heads": 15,
        "num_key_value_heads": 5, "head_dim": 64,
    },
    "1.7B": {
        "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 24, "num_attention_heads": 32,
        "num_key_value_heads": 32, "head_dim": 64,
    },
}  # fmt: skip
POINTS = {
    "rows": [{"rows": rows, "length": 64} for rows in (100, 1_000, 10_000)],
    "length": [{"length": length, "rows": 8192 // length} for length in (64, 128, 256, 512, 1024, 2048)],
    "batch": [{"batch": batch} for batch in (1, 2, 4, 8, 16, 32)],
    "rank": [{"rank": rank} for rank in (4, 16, 64, 256)],
    "model": [{"model": size, "rows": 16} for size in MODELS],
}
LABELS = {
    "rows": "rows (64 tokens each)", "length": "tokens per row", "batch": "rows per step", "rank": "rank",
    "model": "weights of the model",
}  # fmt: skip


def cut(count: int, length: int) -> list[dict]:
    """Rows of so many tokens each, template and answer included, of which a third is learned; none repeats."""
    tokenizer = models.load_tokenizer()
    text = " ".join(row["messages"][-2]["content"] for row in data.load("train"))
    ids = itertools.cycle(tokenizer(text)["input_ids"])
    bare = len(data.encode(data.recipe("", [""], [""]), tokenizer)["input_ids"])
    rows = []
    for number in range(count):
        some = list(itertools.islice(ids, max(length - bare, 16)))
        middle = 2 * len(some) // 3
        question, answer = (tokenizer.decode(part).strip() for part in (some[:middle], some[middle:]))
        row = data.recipe("", [""], [""])
        row["messages"][-2]["content"] = f"{number} {question}"
        row["messages"][-1]["content"] = answer or "none"
        rows.append(row)
    return rows


def one(point: dict) -> dict:
    """Train at this point in this process and tell how it went."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from trl import SFTConfig

    runtime.start()
    torch.manual_seed(0)
    base = None
    if MODELS[point["model"]]:
        config = AutoConfig.from_pretrained(models.fetch())
        config.update(MODELS[point["model"]])
        base = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, runtime.machine().dtype))
    model, tokenizer = models.trainable(base, point["rank"]), models.load_tokenizer()
    dataset = data.to_dataset(cut(point["rows"], point["length"]), tokenizer, training.MAX_LENGTH)
    with tempfile.TemporaryDirectory() as folder, models.quiet():
        args = SFTConfig(
            **peers.settings(folder) | {"per_device_train_batch_size": point["batch"]}, gradient_checkpointing=False,
            dataset_kwargs={"skip_prepare_dataset": True}, remove_unused_columns=False,
        )  # fmt: skip
        weights, tokens = model.num_parameters(), sum(dataset["length"])
        at_once = training.micro_batch_tokens(model, max(dataset["length"]))
        trainer = training.trainer_class()(
            model, args=args, processing_class=tokenizer, train_dataset=dataset, tokens_at_once=at_once
        )
        seconds, losses = peers.timed(trainer)
    return {
        **point, "tokens": tokens, "seconds": seconds, "tokens_per_second": tokens / seconds, "weights": weights,
        "peak_memory_gb": runtime.peak_memory() / 2**30, "losses": [losses[0], losses[-1]],
    }  # fmt: skip


def check(rows: int) -> dict:
    """Check a file of so many rows in this process."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        line = json.dumps(data.recipe("Dish 0", ["1/2 c. butter, softened", "2 Tbsp. sugar"], ["butter", "sugar"]))
        with path.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(line.replace("Dish 0", f"Dish {number}") + "\n" for number in range(rows))
        before, began = runtime.peak_memory(), time.perf_counter()
        assert not data.check(path)
        seconds = time.perf_counter() - began
    grown = (runtime.peak_memory() - before) / 2**20
    return {"rows": rows, "seconds": seconds, "rows_per_second": rows / seconds, "growth_mb": grown}


def sentence(told: dict) -> str:
    """What the README says of checking, and of the largest training."""
    checked, many = told["check"], told["rows"][-1]
    long = told["length"][-1]
    return (
        f"{checked['rows']:,} rows are checked at {checked['rows_per_second']:,.0f} rows a second while memory grows "
        f"by {checked['growth_mb']:.0f} MB; {many['rows']:,} rows of {many['length']} tokens are trained on in "
        f"{many['seconds'] / 60:.0f} minutes within {many['peak_memory_gb']:.1f} GB, rows of {long['length']:,} "
        f"tokens within {long['peak_memory_gb']:.1f} GB."
    )


def picture(told: dict) -> None:
    """Write a plot of speed and memory beside this file."""
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(2, len(POINTS), figsize=(13, 4.6), sharex="col", sharey="row", layout="constrained")
    for name, (above, below) in zip(POINTS, panels.T, strict=True):
        x = [point["weights" if name == "model" else name] for point in told[name]]
        for ax, key in ((above, "tokens_per_second"), (below, "peak_memory_gb")):
            ax.plot(x, [point[key] for point in told[name]], "o-", color=plots.COLOURS["train"])
            ax.spines[["top", "right"]].set_visible(False)
        below.set_xscale("log")
        below.set_xticks(x, [f"{point[name]:,}" if name != "model" else point[name] for point in told[name]])
        below.tick_params(axis="x", labelsize=7)
        below.minorticks_off()
        below.set_xlabel(LABELS[name])
    for row in panels:  # once all is drawn, as panels of a row share their axis
        row[0].set_ylim(0, None)
    panels[0, 0].set_ylabel("tokens per second")
    panels[1, 0].set_ylabel("peak memory, GB")
    figure.suptitle(f"LoRA on {told['machine']}, {told['date']}", fontsize=10)
    figure.savefig(FILE.with_suffix(".png"), dpi=110)


def apart(*arguments: str) -> dict:
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(arguments)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def main(wanted: list[str]) -> None:
    """Measure, and keep each name's points once they are whole."""
    if unknown := set(wanted) - {*POINTS, "check"}:
        sys.exit(f"{', '.join(sorted(unknown))}: unknown; there are {', '.join(POINTS)} and check.")
    told = json.loads(FILE.read_text(encoding="utf-8")) if FILE.is_file() else {}
    machine = runtime.machine()
    now = {"machine": f"{machine.kind}, {machine.cores} cores", "date": datetime.date.today().isoformat()}
    if wanted and told and (of := {key: told[key] for key in now}) != now:
        sys.exit(f"The other figures are of {' '.join(of.values())}: name nothing, so that all are made anew.")
    told |= now
    for name in wanted or [*POINTS, "check"]:
        if name == "check":
            told[name] = apart("--check", "1000000")
        else:
            told[name] = [apart("--one", json.dumps(USUAL | point)) for point in POINTS[name]]
        runtime.atomic_write(FILE, json.dumps(told, indent=1) + "\n")
        print(name, json.dumps(told[name]), flush=True)
    if {*POINTS, "check"} <= told.keys():
        picture(told)
        print(sentence(told))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(one(json.loads(sys.argv[2]))))
    elif sys.argv[1:2] == ["--check"]:
        print(json.dumps(check(int(sys.argv[2]))))
    else:
        main(sys.argv[1:])
