"""Graders score samples: the reward of reinforcement fine-tuning, as OpenAI's guide describes it (read 2026-11-24,
https://developers.openai.com/api/docs/guides/graders).

Kinds: `string_check`, `text_similarity`, `python`, and `multi`, which joins others by a formula. `score_model` and
`label_model` need a model that judges, the metrics `cosine` and `meteor` an embedding model and a thesaurus: these are
refused. Templates name a value of the dataset's row, `{{ item.reference_answer }}`, or of the model's answer,
`{{ sample.output_text }}`, `{{ sample.output_json.names[0] }}`.

Python runs in the sandbox `pydantic_monty`: an interpreter of a subset of Python, in a process of its own, without
files, network or environment, anew for each sample. Of the standard library it has parts of `asyncio base64 bisect
collections copy csv dataclasses datetime decimal functools hashlib itertools json math pathlib random re sys time
typing unicodedata`. It has no `yield`, no `del`, no class inheritance, no method decorators, and none of the packages
of the real service (numpy, rapidfuzz...). A sample may take a second (there: two minutes) and 64 MiB (there: 2 GB).
"""

from __future__ import annotations

import ast
import functools
import json
import math
import operator
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Sequence
from typing import Any, NoReturn

LIMITS = {"max_feed_duration_secs": 1.0, "max_memory": 64 * 2**20, "max_recursion_depth": 200, "max_suspensions": 100}
PRINTED = 64 * 2**10  # bytes that a grader may print; they are not kept
LONGEST_SOURCE = 256_000  # bytes: the real service's 256 kB
LONGEST_TEXT = 50_000  # characters of a text to compare: a pair of these takes a fraction of a second
LONGEST_FORMULA, DEEPEST_FORMULA = 1_000, 100  # characters, levels

REQUIRED: dict[str, dict[str, type]] = {
    "string_check": {"input": str, "reference": str, "operation": str},
    "text_similarity": {"input": str, "reference": str, "evaluation_metric": str},
    "python": {"source": str},
    "multi": {"graders": dict, "calculate_output": str},
}
# A threshold is for evals, a tag for the real service's containers: both unused.
OPTIONAL = {"text_similarity": {"pass_threshold": float}, "python": {"image_tag": str}}
JUDGED = ("score_model", "label_model")
MISSING = {"cosine": "an embedding model", "meteor": "a thesaurus"}
OUTPUTS = ("output_text", "output_json", "choices", "output_tools", "output_audio")  # the last two are never there
PLACE = re.compile(r"\{\{([^{}]*)\}\}")
PATH = re.compile(r"\s*((?:item|sample)\.[\w-]+(?:\.[\w-]+|\[\d+\])*)\s*")
NO_ERRORS = dict.fromkeys(
    "formula_parse_error invalid_variable_error model_grader_parse_error model_grader_refusal_error "
    "model_grader_server_error other_error python_grader_runtime_error python_grader_server_error sample_parse_error "
    "truncated_observation_error unresponsive_reward_error".split(),
    False,
) | dict.fromkeys(
    "model_grader_server_error_details python_grader_runtime_error_details python_grader_server_error_type".split()
)


class GraderError(ValueError):
    """A grader that cannot be used. `message` says why, `param` where: dotted, such as `grader.graders.a.operation`."""

    def __init__(self, message: str, param: str) -> None:
        self.message, self.param = message, param
        super().__init__(message)


class _NoGrade(Exception):
    """A sample that gets no grade; `errors` are the fields of `metadata.errors` that say why."""

    def __init__(self, **errors: bool | str) -> None:
        self.errors = errors


# --- is it a grader? -----------------------------------------------------------------------------


def check(grader: object, param: str = "grader", name: str = "grader") -> None:
    """Refuse what the real service answers with status 400, and give a name to what has none.

    Args:
        grader: what came as JSON and can be sent as such.
        param: where it stood in the request.
        name: what it is called if it does not say so itself.

    Raises:
        GraderError: names the first field that is missing, unknown, or of a wrong type or value.
    """
    if not isinstance(grader, dict):
        _refuse(param, "must be an object")
    kind = grader.get("type")
    if kind in JUDGED:
        _refuse(f"{param}.type", f"cannot be '{kind}' here: that needs a model that judges, and this endpoint has none")
    _one_of(kind, REQUIRED, f"{param}.type")
    grader.setdefault("name", name)
    types = {"type": str, "name": str} | REQUIRED[kind] | OPTIONAL.get(kind, {})
    for field in [*REQUIRED[kind], *grader]:
        where = f"{param}.{field}"
        if field not in types:
            _refuse(where, f"is unknown in a {kind} grader; known are {', '.join(types)}")
        if field not in grader:
            _refuse(where, "is missing")
        if type(grader[field]) not in ((int, float) if types[field] is float else (types[field],)):
            _refuse(where, f"must be {({str: 'a string', dict: 'an object', float: 'a number'})[types[field]]}")
    if kind == "python" and (problem := _source_problem(grader["source"])):
        _refuse(f"{param}.source", problem)
    if kind == "multi":
        _check_parts(grader, param)
    if kind in ("string_check", "text_similarity"):
        _check_template(grader["input"], f"{param}.input")
        _check_template(grader["reference"], f"{param}.reference")
    if kind == "string_check":
        _one_of(grader["operation"], OPERATIONS, f"{param}.operation")
    if kind == "text_similarity":
        metric, where = grader["evaluation_metric"], f"{param}.evaluation_metric"
        if metric in MISSING:
            _refuse(where, f"'{metric}' needs {MISSING[metric]}, which this endpoint does not have")
        _one_of(metric, METRICS, where)


def _refuse(param: str, reason: str) -> NoReturn:
    raise GraderError(f"'{param}' {reason}.", param)


def _one_of(value: object, values: Collection[str], param: str) -> None:
    if not isinstance(value, str) or value not in values:
        _refuse(param, f"must be one of {', '.join(values)}, not {value!r:.60}")


def _check_template(text: str, param: str) -> None:
    for place in PLACE.findall(text):
        if not (path := PATH.fullmatch(place)):
            _refuse(param, f"holds '{{{{{place:.60}}}}}', not of the form {{{{ item.name }}}} or {{{{ sample.name }}}}")
        space, name, *_ = re.findall(r"[\w-]+", path[1])
        if space == "sample":
            _one_of(name, OUTPUTS, param)
    if "{{" in PLACE.sub("", text):
        _refuse(param, "opens '{{' and does not close it")


@functools.lru_cache(maxsize=64)
def _source_problem(source: str) -> str | None:
    """What is wrong with a Python grader, seen without running it; None if nothing is."""
    if len(source.encode("utf-8", "surrogatepass")) > LONGEST_SOURCE:
        return f"is longer than {LONGEST_SOURCE:,} bytes"
    try:
        tree = ast.parse(source, "grader.py")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return f"is not Python: {str(error) or 'it is nested too deeply'}"
    grades = [node.args for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "grade"]
    if not grades:
        return "defines no function `grade(sample, item)`"
    if len(grades[-1].posonlyargs + grades[-1].args) != 2 or None in grades[-1].kw_defaults:
        return "defines a `grade` that does not take two arguments, sample and item"
    return None


def _check_parts(grader: dict, param: str) -> None:
    if not grader["graders"]:
        _refuse(f"{param}.graders", "is empty")
    for name, part in grader["graders"].items():
        where = f"{param}.graders.{name}"
        if not isinstance(name, str) or not name.isidentifier():
            _refuse(where, "has no name that a formula can use")
        if isinstance(part, dict) and part.get("type") == "multi":
            _refuse(f"{where}.type", "cannot be 'multi' inside another multi grader")
        check(part, where, name)
    try:
        _formula(grader["calculate_output"], frozenset(grader["graders"]))
    except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError) as error:
        _refuse(f"{param}.calculate_output", f"is no formula: {str(error) or 'it is nested too deeply'}")


# --- run it --------------------------------------------------------------------------------------


def run(grader: dict, item: dict, sample_text: str) -> dict[str, Any]:
    """Grade one sample, in the shape of `openai.types.fine_tuning.alpha.GraderRunResponse`.

    Args:
        grader: a grader that `check` accepts.
        item: the dataset's row.
        sample_text: the model's answer. `sample.output_json` is there if it is valid JSON.

    Returns:
        `reward`, a finite float: of a multi grader, its formula's value over `sub_rewards`; 0.0 with any error.
        `metadata.errors` says what went wrong: `invalid_variable_error` a template's path that is not there,
        `sample_parse_error` one into an answer that is no JSON, `python_grader_runtime_error` (with details) a source
        that failed, broke a limit or returned no number, `python_grader_server_error` a sandbox that did not start,
        `formula_parse_error` a formula without a finite value, `other_error` anything else.

    Raises:
        GraderError: as `check`; never for an item, a sample, or what a source does.
    """
    check(grader)
    began, errors = time.perf_counter(), dict(NO_ERRORS)
    several = grader["type"] == "multi"
    rewards = {}
    for name, part in (grader["graders"] if several else {"": grader}).items():
        rewards[name] = _graded(lambda part=part: _score(part, item, sample_text), errors)
    total = rewards.pop("") if not several else 0.0
    if several and not any(errors.values()):
        total = _graded(lambda: _combined(grader["calculate_output"], rewards), errors)
    return {
        "reward": total,
        "sub_rewards": rewards,
        "model_grader_token_usage_per_model": {},
        "metadata": {
            "name": grader["name"], "type": grader["type"], "errors": errors, "scores": {},
            "execution_time": time.perf_counter() - began, "sampled_model_name": None, "token_usage": None,
        },
    }  # fmt: skip


def reward(grader: dict, item: dict, sample_text: str) -> float:
    """The reward alone; arguments and errors as in `run`."""
    return run(grader, item, sample_text)["reward"]


def _graded(score: Callable[[], float], errors: dict[str, Any]) -> float:
    try:
        return score()
    except _NoGrade as problem:
        errors.update(problem.errors)
    except Exception:  # a row that is no JSON, say: one sample must not end a training
        errors["other_error"] = True
    return 0.0


def _score(grader: dict, item: dict, sample_text: str) -> float:
    """The reward of a grader that is not `multi`."""
    answer = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": sample_text}}
    sample: dict[str, Any] = {"output_text": sample_text, "choices": [answer]}
    try:
        sample["output_json"] = json.loads(sample_text, parse_constant=int)  # int("NaN") fails, as NaN is no JSON
    except (ValueError, RecursionError):
        pass  # an answer that is no JSON: only a grader that asks for it minds
    if grader["type"] == "python":
        return _run_python(grader["source"], sample, item)
    try:
        texts = [render(grader[name], item, sample) for name in ("input", "reference")]
    except GraderError as error:
        unparsed = error.param.startswith("sample.output_json") and "output_json" not in sample
        raise _NoGrade(**{"sample_parse_error" if unparsed else "invalid_variable_error": True}) from error
    if grader["type"] == "string_check":
        return float(OPERATIONS[grader["operation"]](*texts))
    if max(map(len, texts)) > LONGEST_TEXT:
        raise _NoGrade(other_error=True)
    return METRICS[grader["evaluation_metric"]](*texts)


def render(template: str, item: dict, sample: dict) -> str:
    """Fill in a template, once: braces in a value stay what they are. Values that are not strings become JSON.

    Raises:
        GraderError: for a path that leads nowhere; `param` is the path.
    """

    def value(place: re.Match) -> str:
        path = PATH.fullmatch(place[1])[1]
        space, *keys = re.findall(r"[\w-]+", path)
        found: Any = {"item": item, "sample": sample}[space]
        for key in keys:
            try:
                found = found[int(key)] if isinstance(found, list) and key.isdecimal() else dict.__getitem__(found, key)
            except (LookupError, TypeError, ValueError) as error:
                raise GraderError(f"'{path}' is not there: nothing is called '{key:.60}'.", path) from error
        return found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)

    return PLACE.sub(value, template)


@functools.cache
def _pool():
    """Processes that interpret; they wait for the next sample and end with this process."""
    import pydantic_monty

    pool = pydantic_monty.Monty(feed_duration_limit_grace=0.5)
    pool.__enter__()
    return pool


def _run_python(source: str, sample: dict, item: dict) -> float:
    """What `grade(sample, item)` returns, in a session of its own: no sample sees what another left behind."""
    import pydantic_monty

    try:
        # Nobody waits in a sandbox, and what is drawn at random is drawn the same again.
        policy = {"sleep": "zero", "random_start": {"seed": 0}}
        with _pool().checkout(limits=LIMITS, os_policy=policy) as session:
            value = session.feed_run(
                f"{source}\ngrade(_the_sample, _the_item)",
                inputs={"_the_sample": sample, "_the_item": item},
                print_callback=pydantic_monty.CollectString(max_bytes=PRINTED),
            )
    except pydantic_monty.MontyError as error:
        told = getattr(error, "display", error.__str__)()
        raise _NoGrade(python_grader_runtime_error=True, python_grader_runtime_error_details=told[-2000:]) from error
    except Exception as error:
        kind = type(error).__name__
        raise _NoGrade(python_grader_server_error=True, python_grader_server_error_type=kind) from error
    if type(value) not in (int, float) or not abs(value) <= sys.float_info.max:  # nan is not
        told = f"grade() must return a finite number, but returned a {type(value).__name__}: {value!r:.200}"
        raise _NoGrade(python_grader_runtime_error=True, python_grader_runtime_error_details=told)
    return float(value)


# --- formulas ------------------------------------------------------------------------------------

ARITHMETIC = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.Pow: operator.pow, ast.USub: operator.neg, ast.UAdd: operator.pos,
}  # fmt: skip
FUNCTIONS = {
    "min": lambda *values: min(values), "max": lambda *values: max(values), "abs": abs, "floor": math.floor,
    "ceil": math.ceil, "exp": math.exp, "sqrt": math.sqrt, "log": math.log,
}  # fmt: skip


@functools.lru_cache(maxsize=64)
def _formula(text: str, names: frozenset[str]) -> Callable[[dict[str, float]], float]:
    """A formula over `names` as a function of their values. `^` is power, as in the real service; so is `**`.

    Every step is in floating point, where a power of powers overflows instead of filling the memory.

    Raises:
        SyntaxError, ValueError, OverflowError, RecursionError, MemoryError: for what is no such formula.
    """
    if len(text) > LONGEST_FORMULA:
        raise ValueError(f"it is longer than {LONGEST_FORMULA:,} characters")

    def build(node: ast.expr, depth: int) -> Callable[[dict[str, float]], float]:
        if depth > DEEPEST_FORMULA:
            raise ValueError("it is nested too deeply")
        match node:
            case ast.Constant(value=constant) if type(constant) in (int, float):
                number = float(constant)
                return lambda values: number
            case ast.Name(id=name) if name in names:
                return lambda values: values[name]
            case ast.Name(id=name):
                raise ValueError(f"'{name:.60}' is none of its graders, {', '.join(sorted(names)):.200}")
            case ast.BinOp(left=left, op=op, right=right) if type(op) in ARITHMETIC:
                function, parts = ARITHMETIC[type(op)], [left, right]
            case ast.UnaryOp(op=op, operand=operand) if type(op) in ARITHMETIC:
                function, parts = ARITHMETIC[type(op)], [operand]
            case ast.Call(func=ast.Name(id=called), args=parts, keywords=[]) if called in FUNCTIONS:
                function = FUNCTIONS[called]
                if not parts or len(parts) > 1 and called not in ("min", "max"):
                    raise ValueError(f"'{called}' has {len(parts)} arguments")
            case _:
                raise ValueError(f"'{ast.unparse(node):.60}' is neither arithmetic nor one of {', '.join(FUNCTIONS)}")
        built = [build(part, depth + 1) for part in parts]
        return lambda values: float(function(*(part(values) for part in built)))

    return build(ast.parse(text.strip().replace("^", "**"), "formula", mode="eval").body, 0)


def _combined(text: str, rewards: dict[str, float]) -> float:
    try:
        value = _formula(text, frozenset(rewards))(rewards)
    except (ArithmeticError, ValueError, TypeError):  # TypeError: a root of a negative number, which is complex
        value = math.nan
    if not math.isfinite(value):
        raise _NoGrade(formula_parse_error=True)
    return value


# --- texts ---------------------------------------------------------------------------------------


def fuzzy_match(text: str, reference: str) -> float:
    """Normalised indel similarity, 2 LCS(a, b) / (|a| + |b|) over characters: a hundredth of rapidfuzz's `ratio`."""
    both = len(text) + len(reference)
    return 2 * _lcs(text, reference) / both if both else 1.0


def bleu(text: str, reference: str) -> float:
    """BLEU-4 of one sentence (Papineni et al. 2002, https://aclanthology.org/P02-1040): the geometric mean of the
    precisions of 1- to 4-grams, times exp(1 - |reference| / |text|) if the text is the shorter one. Above 1-grams
    one is added to matches and totals (Lin and Och 2004, https://aclanthology.org/C04-1072)."""
    made, wanted = _tokens(text), _tokens(reference)
    total = min(0.0, 1 - len(wanted) / len(made)) if made else 0.0
    for n in range(1, 5):
        known, smooth = _ngrams(made, n), int(n > 1)
        shared = (known & _ngrams(wanted, n)).total() + smooth
        if not shared:
            return 0.0
        total += math.log(shared / (known.total() + smooth)) / 4
    return math.exp(total)


def gleu(text: str, reference: str) -> float:
    """Google BLEU (Wu et al. 2016, https://arxiv.org/abs/1609.08144, section 6): the smaller one of precision and
    recall of all 1- to 4-grams together."""
    made, wanted = (sum((_ngrams(_tokens(side), n) for n in range(1, 5)), Counter()) for side in (text, reference))
    return (made & wanted).total() / max(made.total(), wanted.total(), 1)


def rouge_n(text: str, reference: str, n: int) -> float:
    """ROUGE-N (Lin 2004, https://aclanthology.org/W04-1013): F1 of the n-grams of lowercase words. Texts of fewer
    than `n` words have none, and score 0."""
    made, wanted = _ngrams(_words(text), n), _ngrams(_words(reference), n)
    return 2 * (made & wanted).total() / max(made.total() + wanted.total(), 1)


def rouge_l(text: str, reference: str) -> float:
    """ROUGE-L (Lin 2004, as above): F1 of the longest common subsequence of lowercase words."""
    made, wanted = _words(text), _words(reference)
    return 2 * _lcs(made, wanted) / max(len(made) + len(wanted), 1)


def _tokens(text: str) -> list[str]:
    return re.findall(r"\w+|[^\w\s]", text)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _ngrams(tokens: Sequence[str], n: int) -> Counter:
    return Counter(zip(*(tokens[start:] for start in range(n)), strict=False))


def _lcs(one: Sequence[Hashable], other: Sequence[Hashable]) -> int:
    """Length of the longest common subsequence, a row of the table at a time as the bits of one number (Hyyrö 2004,
    "Bit-parallel LCS-length computation revisited"): a 0 stands where the length grows."""
    places: dict[Hashable, int] = {}
    for index, part in enumerate(one):
        places[part] = places.get(part, 0) | 1 << index
    every = row = (1 << len(one)) - 1
    for part in other:
        met = row & places.get(part, 0)
        row = (row + met | row - met) & every
    return len(one) - row.bit_count()


OPERATIONS: dict[str, Callable[[str, str], bool]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "like": lambda text, reference: reference in text,
    "ilike": lambda text, reference: reference.casefold() in text.casefold(),
}
METRICS: dict[str, Callable[[str, str], float]] = {
    "fuzzy_match": fuzzy_match,
    "bleu": bleu,
    "gleu": gleu,
    **{f"rouge_{n}": functools.partial(rouge_n, n=n) for n in range(1, 6)},
    "rouge_l": rouge_l,
}
