"""Record what rank, learning rate and method do, for lesson 09: `python data/recorded/lora.py [seconds]`.

Each line of `lora.json` is one run on the first 100 training rows, one epoch, and its score on the first 50 validation
rows. `sweep`: LoRA of three ranks with three learning rates. `method`: full, LoRA, rsLoRA, DoRA and LoRA on weights
rounded to NF4, each in a process of its own, with the most memory that it took. Three seeds each. What is missing is
made, and nothing new is begun after so many seconds: run it again until it says that all is there.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from record import missing, read, where, write  # noqa: E402

from helpers import runs  # noqa: E402

FILE = Path(__file__).with_name("lora.json")
RANKS, LEARNING_RATES, SEEDS = (2, 8, 32), (3e-4, 1e-3, 3e-3), (0, 1, 2)
METHODS = {"full": 1e-4, "LoRA": 1e-3, "rsLoRA": 1e-3, "DoRA": 1e-3, "QLoRA, rounded": 1e-3}  # and learning rates
RANK, ROWS, QUESTIONS = 8, 100, 50  # of the methods; of all


def score(model, questions):
    """What a model makes of the first validation rows."""
    from helpers import data, evaluation, models

    system = evaluation.prompted(model, models.load_tokenizer(), progress=False)
    metrics = evaluation.evaluate(system, data.load("validation")[:questions]).metrics
    metrics["seconds_per_request"] = metrics.pop("seconds")
    return {name: round(value, 4) for name, value in metrics.items()}


def told(run):
    """What a record says about a training."""
    names = ("seconds", "tokens_per_second", "trainable_parameters", "dtype", "rows_hash")
    return {name: run.record[name] for name in names} | {"loss": [round(row["loss"], 4) for row in run.history]}


def sweep(rank, learning_rate, seed, rows, questions):
    """Train and score LoRA."""
    from helpers import data, models, training

    settings = {"epochs": 1, "live": False, "save_strategy": "no"}
    few = data.load("train")[:rows]
    run = training.fine_tune(few, rank=rank, learning_rate=learning_rate, seed=seed, **settings)
    return told(run) | score(models.load_model(run.folder), questions)


def round_to_nf4(weight, block=64):
    """A weight matrix as it is after NF4 and back: 16 levels of a normal distribution, scaled block by block.

    Source of the levels: Dettmers et al., QLoRA, arXiv 2305.14314, section 3 and appendix E.
    """
    import torch

    quantile = torch.distributions.Normal(0.0, 1.0).icdf
    above, below = (quantile(torch.linspace(0.9677083, 0.5, count))[:-1] for count in (9, 8))
    levels = torch.cat([-below, torch.zeros(1), above.flip(0)]) / above.max()
    blocks = weight.float().reshape(-1, block)
    scale = blocks.abs().amax(1, keepdim=True).clamp(min=1e-12)
    nearest = torch.bucketize(blocks / scale, (levels[1:] + levels[:-1]) / 2)
    return (levels[nearest] * scale).view_as(weight).to(weight.dtype)


def spectrum(after, before):
    """Singular values, largest first, of what training added to two matrices, rounding to their dtype included."""
    import torch

    values = {}
    for name in ("self_attn.q_proj", "mlp.down_proj"):
        new, old = (model.get_submodule(f"model.layers.15.{name}").weight.float() for model in (after, before))
        values[name] = [float(f"{value:.4g}") for value in torch.linalg.svdvals((new - old).detach())]
    return {"spectrum": values}


def rounded(model):
    """Round the weights of all linear layers in the blocks, which QLoRA would keep in 4 bits."""
    import torch

    with torch.no_grad():
        for layer in model.model.layers.modules():
            if isinstance(layer, torch.nn.Linear):
                layer.weight.copy_(round_to_nf4(layer.weight))
    return model


def method(folder, method, learning_rate, rank, seed, rows, questions):
    """Train and score by a method; memory is looked at after the imports and after the training."""
    import peft
    import psutil
    from transformers import set_seed

    from helpers import data, models, runtime, training

    training.trainer_class()  # imports TRL
    before = psutil.Process().memory_info().rss
    model, settings = models.trainable(rank=None), {"method": "lora", "rank": rank}
    if method == "full":
        settings = {"method": "full"}
    elif method in ("rsLoRA", "DoRA"):
        switch = {"use_rslora": method == "rsLoRA", "use_dora": method == "DoRA"}
        config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", **switch)
        set_seed(seed)
        model = peft.get_peft_model(model, config, autocast_adapter_dtype=False)
        settings = {"method": "full"}  # which trains all that asks for gradients: here the adapters
    elif method == "QLoRA, rounded":
        model = rounded(model)
    settings |= {"epochs": 1, "learning_rate": learning_rate, "seed": seed, "live": False, "save_strategy": "no"}
    run = training.fine_tune(data.load("train")[:rows], model=model, **settings)
    memory = {"before_gb": round(before / 2**30, 3), "peak_gb": round(runtime.peak_memory() / 2**30, 3)}
    if method == "QLoRA, rounded":  # its adapter belongs on the rounded weights
        del model
        base = rounded(models.load_model())
        tuned = peft.PeftModel.from_pretrained(base, str(run.folder)).merge_and_unload().eval()
    else:
        tuned = models.load_model(run.folder)
    size = sum(file.stat().st_size for file in run.folder.glob("*.safetensors"))
    update = spectrum(tuned, models.load_model()) if method in ("full", "LoRA") else {}
    return told(run) | memory | {"file_mb": round(size / 1e6, 2)} | update | score(tuned, questions)


def plan() -> list[dict]:
    """Every run: `name` says which function makes it, the rest are its arguments."""
    wanted = []
    for seed in SEEDS:
        wanted += [
            {"name": "sweep", "rank": rank, "learning_rate": rate, "seed": seed}
            for rate in LEARNING_RATES for rank in RANKS
        ]  # fmt: skip
        wanted += [
            {"name": "method", "method": method, "learning_rate": rate, "rank": RANK, "seed": seed}
            for method, rate in METHODS.items()
        ]  # fmt: skip
    return wanted


def main(seconds: float) -> None:
    """Make the records that are missing until the time is up, writing after each."""
    for wanted in missing(FILE, plan(), seconds):
        arguments = {key: value for key, value in wanted.items() if key != "name"}
        arguments |= {"rows": ROWS, "questions": QUESTIONS}
        if wanted["name"] == "sweep":
            made = sweep(**arguments)
        else:
            made = runs.apart(score, told, round_to_nf4, spectrum, rounded, method, **arguments).record
        kept = {key: round(value, 4) if isinstance(value, float) else value for key, value in made.items()}
        for name in ("peak_memory_gb", *(("seconds", "tokens_per_second") if wanted["name"] == "sweep" else ())):
            kept.pop(name, None)  # of the decoding, too; and times are told of runs in a process of their own
        write(FILE, [*read(FILE), {**wanted, "rows": ROWS, "n": QUESTIONS, **kept, **where()}])
        print(*wanted.values(), kept["f1"], kept.get("peak_gb", ""), flush=True)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 1e9)
