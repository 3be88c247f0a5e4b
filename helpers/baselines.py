"""Systems that nobody has to tune: a linear tagger, similar examples in the prompt, an answer held to JSON.

Each takes *training* rows only. Of the libraries, scikit-learn counts and llguidance keeps to a grammar.
"""

from __future__ import annotations

import functools
import itertools
import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from . import data, plots
from .evaluation import Chat, Report, System

if TYPE_CHECKING:
    import llguidance
    import torch
    from transformers import PreTrainedTokenizerBase

# --- a linear tagger -----------------------------------------------------------------------------

_JUICE = re.compile(r"\b(juice|zest|rind|peel) (?:of|from) (?:(?:\d\S*|one|two|half|an?|the|large|small) )*(\w+?)s?\b")


def words(line: str) -> list[str]:
    """A recipe line in lower case, cut into words, numbers and marks; "juice of 1 lemon" becomes "lemon juice"."""
    line = _JUICE.sub(r"\2 \1", line.lower())
    return re.findall(r"\d+[./⁄]\d+|[^\W_]+(?:['’&.-][^\W_]+)*['’]?|[^\w\s.]", line)


def tags(lines: Sequence[str], names: Sequence[str]) -> list[list[str]]:
    """Where names stand on lines: a tag for each word of `words`, B (a name begins), I (it goes on) or O (other).

    Each name is looked for once, on the first line that holds its words in their order, gaps allowed.
    """
    page = [words(line) for line in lines]
    found = [["O"] * len(line) for line in page]
    for name in sorted(map(data.normalise, names), key=lambda name: -len(name.split())):  # long ones choose first
        for line, marks in zip(page, found, strict=True):
            if name and (places := _places(words(name), line, marks)):
                for tag, place in zip("B" + "I" * len(places), places, strict=False):
                    marks[place] = tag
                break
    return found


def _places(name: list[str], line: list[str], marks: list[str]) -> list[int]:
    """Free places of a name's words on a line, in order and as close as can be; empty if they are not there."""
    best: list[int] = []
    for start in (i for i, word in enumerate(line) if word == name[0]):
        places, at = [], start
        for word in name:
            while at < len(line) and (line[at] != word or marks[at] != "O"):
                at += 1
            places.append(at)
            at += 1
        if places[-1] < len(line) and (not best or places[-1] - places[0] < best[-1] - best[0]):
            best = places
    return best


def features(line: list[str]) -> Iterator[dict[str, Any]]:
    """What the tagger sees of each word: itself, its neighbours, and what has come before it on the line."""
    padded, seen = ["", "", *line, "", ""], set()
    for i, word in enumerate(line):
        before, after = padded[i : i + 2], padded[i + 3 : i + 5]
        inside = line[:i].count("(") > line[:i].count(")")
        word = re.sub(r"\d", "0", word)
        yield {
            "word": word, "ending": word[-3:], "-1": before[1], "-2": before[0], "+1": after[0], "+2": after[1],
            "-1 word": f"{before[1]} {word}", "word +1": f"{word} {after[0]}", "inside": inside,
            "inside word": f"{inside} {word}", "letters": word[0].isalpha(), "place": min(i, 4),
            **{f"after {mark}": True for mark in seen},
        }  # fmt: skip
        if word in {",", "or", "and", "for", ":", "(", "of", "plus", "with", "*", "-"}:
            seen.add(word)


def tagger(rows: Sequence[dict], strength: float = 10.0) -> System:
    """A system that tags each word of a recipe's lines by logistic regression, and reads names off the tags.

    The regression is its `linear`, and what it took is its `trained_seconds`.

    Args:
        rows: training rows with answers.
        strength: inverse of the L2 penalty (scikit-learn's `C`), chosen on a quarter of the training rows.
    """
    from sklearn.feature_extraction import DictVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    began = time.perf_counter()
    page = [line for row in rows for line in map(words, data.lines(row))]
    marks = [tag for row in rows for line in tags(data.lines(row), data.answer(row)) for tag in line]
    linear = make_pipeline(DictVectorizer(), LogisticRegression(C=strength, max_iter=300))
    linear.fit([seen for line in page for seen in features(line)], marks)
    seconds = time.perf_counter() - began

    def system(chats: list[Chat]) -> list[str]:
        page = [[words(line) for line in data.lines({"messages": chat})] for chat in chats]
        seen = [seen for lines in page for line in lines for seen in features(line)]
        marks = iter(linear.predict(seen) if seen else ())
        return [
            json.dumps(list(dict.fromkeys(name for line in lines for name in read(line, marks))), ensure_ascii=False)
            for lines in page
        ]

    system.linear, system.trained_seconds = linear, seconds
    return system


def read(line: Sequence[str], marks: Iterator[str]) -> list[str]:
    """The names that tags (as many as there are words) mark on a line."""
    names: list[list[str]] = []
    for word, tag in zip(line, itertools.islice(marks, len(line)), strict=True):
        if tag == "B" or (tag == "I" and not names):
            names.append([word])
        elif tag == "I":
            names[-1].append(word)
    return [" ".join(name) for name in names]


# --- examples in the prompt ----------------------------------------------------------------------


def similar(rows: Sequence[dict]) -> Callable[[Chat, int], list[dict]]:
    """A function from a chat and a number to as many of `rows` that ask most alike, the most alike last.

    Alike is the cosine of TF-IDF vectors of the questions' words. A row that asks the very same is left out.

    Args:
        rows: training rows: never those that are scored.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    questions = [data.prompt(row)[-1]["content"] for row in rows]
    counter = TfidfVectorizer(sublinear_tf=True)
    known = counter.fit_transform(questions)

    def nearest(chat: Chat, count: int) -> list[dict]:
        question = chat[-1]["content"]
        likeness = (known @ counter.transform([question]).T).toarray().ravel()
        order = [i for i in likeness.argsort(kind="stable") if questions[i] != question]
        return [rows[i] for i in order[max(0, len(order) - count) :]]

    return nearest


# --- an answer that cannot help being JSON ----------------------------------------------------------

SPACING = {"whitespace_flexible": False, "item_separator": ", "}  # as json.dumps writes it
_RESERVE = 10  # tokens that end any list: the rest of a letter, quotation marks, bracket, end


def json_list(
    tokenizer: PreTrainedTokenizerBase, max_new_tokens: int = 128, least: int = 1
) -> Callable[[], Callable[[list[int]], torch.Tensor]]:
    """What `models.generate(…, constrain=…)` takes to let a model write nothing but a JSON list of strings.

    Args:
        tokenizer: the model's; a fast one of the byte-level kind.
        max_new_tokens: as given to `generate`. A grammar knows no length, so just before it the list is closed.
        least: names that the list has at least.

    Returns:
        A function that begins an answer. It gives one from the tokens answered so far to the tokens allowed
        next, a bool tensor (vocabulary,).
    """
    import llguidance
    import torch

    known = grammar_tokenizer(tokenizer)
    schema = {"type": "array", "items": {"type": "string"}, "minItems": least}
    grammar = llguidance.LLMatcher.grammar_from_json_schema(schema, overrides=SPACING)
    (bracket,), (both,), (mark,) = (tokenizer(text)["input_ids"] for text in ("]", '"]', '"'))

    def begin() -> Callable[[list[int]], torch.Tensor]:
        matcher = llguidance.LLMatcher(known, grammar)
        inside = matching(matcher, known)

        def allowed(answered: list[int]) -> torch.Tensor:
            bits = inside(answered)
            if len(answered) >= max_new_tokens - _RESERVE:  # end the answer, its list, its name, or begin an empty name
                ends = (token for token in (bracket, both) if bits[token] and _ended(matcher, token))
                last = known.eos_token if bits[known.eos_token] else next(ends, mark)
                bits = torch.arange(len(bits)) == last if bits[last] else bits
            return bits

        return allowed

    return begin


@functools.lru_cache(maxsize=4)
def grammar_tokenizer(tokenizer: PreTrainedTokenizerBase) -> llguidance.LLTokenizer:
    """A fast tokenizer of the byte-level kind, as llguidance's grammars need it."""
    import llguidance

    described = json.loads(tokenizer.backend_tokenizer.to_str()) | {"padding": None, "truncation": None}
    # A tokenizer out of a GGUF file names several decoders, and then bytes are taken for letters.
    described["decoder"] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": True}
    return llguidance.LLTokenizer(json.dumps(described), eos_token=tokenizer.eos_token_id)


def matching(matcher: llguidance.LLMatcher, known: llguidance.LLTokenizer) -> Callable[[list[int]], torch.Tensor]:
    """The function from the tokens answered so far to those that the grammar allows next, bool (vocabulary,)."""
    import numpy as np
    import torch

    taken = 0

    def allowed(answered: list[int]) -> torch.Tensor:
        nonlocal taken
        matcher.consume_tokens(answered[taken:])
        taken = len(answered)
        bits = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), np.uint8), bitorder="little")
        return torch.from_numpy(bits[: known.vocab_size].astype(bool))

    return allowed


def _ended(matcher: Any, token: int) -> bool:
    """Whether the list is whole after one more token (a bracket may also be a letter of a name)."""
    ahead = matcher.deep_copy()
    return ahead.consume_token(token) and ahead.is_accepting()


# --- prompts that were recorded ---------------------------------------------------------------------

SCORED = ("hits", "lenient", "n_predicted", "n_gold", "valid", "exact", "prompt_tokens", "completion_tokens")


def recorded(name: str = "prompting") -> list[dict[str, Any]]:
    """The records of `data/recorded/prompting.json` (made by `prompting.py` there), each with a `report` to compare.

    The report's rows hold what was counted on each validation row, without texts.
    """
    runs = plots.recorded("", name)
    for run in (run for run in runs if "scored" in run):
        rows = [dict(zip(SCORED, row, strict=True)) | {"seconds": run["seconds_per_request"]} for row in run["scored"]]
        run["report"] = Report(run["name"], rows, run["rows_hash"], run["dtype"], run["device"])
    return runs
