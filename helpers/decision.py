"""A learner's own case in, a reasoned recommendation out: which way to go, why, what is not known, what would turn it.

The rules of thumb are this course's judgement, set down so that they can be argued with: each is a constant or
one branch of `_decide`. None of them replaces a measurement.
"""

from __future__ import annotations

import dataclasses
import difflib
import html
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from . import runtime
from .runtime import CourseError

CHOICES = ("rules", "classifier", "prompt", "retrieve", "tune", "tune and retrieve", "stop")
FACTS = ("none", "stable", "changing")
ROWS_TO_TUNE = 100  # the course's own task moved far with as many; fewer rows make a gamble of it
ROWS_PER_LABEL = 20  # labelled rows per label with which a plain classifier begins to be of use
ROWS_AN_HOUR = 20  # what one person labels with care
HOURS_TO_TUNE = 8  # rows checked, a run or three, evaluation; labelling comes on top
ROWS_TO_MEASURE = 30  # fewer evaluation rows only tell large differences
OFTEN = 1_000  # requests a month, below which a bill or a wait is no reason to train anything
TOO_FAST = 0.05  # seconds; no language model of use answers in less
CERTAIN = 0.995  # from here on only something that can be proved will do

LABELS = {  # how a field is called where people read it
    "task": "what goes in, what comes out",
    "labelled_rows": "rows with right answers",
    "evaluation_rows": "other rows, kept for measuring",
    "closed_labels": "labels, if answers are one of a set",
    "facts": "answers rest on facts in documents",
    "strict_form": "form or style must be exact",
    "needed": "score that is needed",
    "rules_reached": "score that rules reached",
    "prompt_reached": "score that the best prompt reached",
    "retrieval_reached": "score with retrieved passages",
    "too_dear_or_slow": "the prompt costs or takes too much",
    "requests_per_month": "requests a month",
    "max_seconds": "seconds within which an answer must come",
    "must_stay_private": "data must not leave the house",
    "hours": "hours that you have",
    "checkable": "somebody can tell right from wrong",
    "harm_unchecked": "a wrong answer can hurt, and nobody looks before",
}


@dataclass(frozen=True)
class Case:
    """A use case. `None` means *not known yet*, which is an answer, too: it comes back as missing evidence.

    Scores are shares between 0 and 1, all by the same measure on the same rows.
    """

    task: str = ""
    labelled_rows: int = 0
    evaluation_rows: int = 0
    closed_labels: int = 0  # 0: answers are not out of a closed set
    facts: str = "none"  # one of FACTS
    strict_form: bool = False
    needed: float = 0.9
    rules_reached: float | None = None
    prompt_reached: float | None = None
    retrieval_reached: float | None = None
    too_dear_or_slow: bool = False
    requests_per_month: int | None = None
    max_seconds: float | None = None
    must_stay_private: bool = False
    hours: float = 40.0
    checkable: bool = True
    harm_unchecked: bool = False


@dataclass(frozen=True)
class Recommendation:
    """One of `CHOICES`, the reasons read off the case, the evidence missing, and what would change it."""

    choice: str
    reasons: tuple[str, ...]
    missing: tuple[str, ...]
    changes: tuple[tuple[str, str], ...]  # what would have to be otherwise, and the choice then

    def _parts(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        yield "because", self.reasons
        yield "not known yet", self.missing or ("nothing that this guide asks for",)
        yield (
            "it would change",
            tuple(f"{what}: {choice}" for what, choice in self.changes)
            or ("by none of the single changes that this guide tries",),
        )

    def __repr__(self) -> str:
        parts = [f"{name}:\n" + "\n".join(f"  - {line}" for line in lines) for name, lines in self._parts()]
        return "\n".join([f"recommended: {self.choice}", *parts])

    def _repr_html_(self) -> str:
        cell = "style='text-align:left;vertical-align:top;padding:.2em .7em'"
        rows = "".join(
            f"<tr><th {cell}>{name}</th><td {cell}>{'<br>'.join(map(html.escape, lines))}</td></tr>"
            for name, lines in self._parts()
        )
        head = f"<tr><th {cell}>recommended</th><td {cell}><b>{html.escape(self.choice)}</b></td></tr>"
        return f"<table><tbody>{head}{rows}</tbody></table>"


# --- a case is checked ---------------------------------------------------------------------------


def as_case(case: Case | Mapping[str, Any]) -> Case:
    """A checked case, from a `Case` or a dict of its fields.

    Raises:
        CourseError: the case is empty, a value is impossible, or two of them contradict each other.
    """
    if isinstance(case, Case):
        values = dataclasses.asdict(case)
    elif isinstance(case, Mapping):
        values = dict(case)
    else:
        raise CourseError(f"A case is a decision.Case or a dict of its fields, not {type(case).__name__}.")
    known = [field.name for field in dataclasses.fields(Case)]
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, 1, 0.4)
            raise CourseError(
                f"A case has no field {name!r}. " + (f"Is it {near[0]!r}?" if near else f"It has {known}.")
            )
    if not isinstance(values.get("task", ""), str):
        raise CourseError(f"task is {values['task']!r}: say in words what goes in and what comes out.")
    if not values.get("task", "").strip():
        raise CourseError(
            "The case is empty: its task says nothing. Begin there, in one line: what goes in, and what comes out?"
        )
    checked = Case(**values)
    for name in known[1:]:
        _check_value(name, getattr(checked, name))
    for problem, holds in _contradictions(checked):
        if holds:
            raise CourseError(problem)
    return checked


def _check_value(name: str, value: Any) -> None:
    kind = {field.name: str(field.type) for field in dataclasses.fields(Case)}[name]
    what = f"{name} ({LABELS[name]}) is {value!r}"
    if kind == "str":
        if value not in FACTS:
            raise CourseError(f"{what}: choose one of {', '.join(map(repr, FACTS))}.")
        return
    if value is None and "None" in kind:
        return
    if kind == "bool":
        if not isinstance(value, bool):
            raise CourseError(f"{what}: write True or False.")
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise CourseError(f"{what}: write a number" + (" or None, if it is not known." if "None" in kind else "."))
    if value < 0:
        raise CourseError(f"{what}: it cannot be below zero.")
    if "int" in kind and value != int(value):
        raise CourseError(f"{what}: it is a count, so write a whole number.")
    if (name == "needed" or name.endswith("_reached")) and value > 1:
        raise CourseError(f"{what}: scores are shares between 0 and 1, so 90 percent is 0.9.")


def _contradictions(case: Case) -> Iterator[tuple[str, bool]]:
    yield (
        "needed is 0: then every answer will do, and there is nothing to decide. Which score do you need?",
        not (case.needed),
    )
    yield (
        "requests_per_month is 0: nobody asks, so nothing has to be built. Write None if you do not know yet.",
        case.requests_per_month == 0,
    )
    yield "max_seconds is 0: nothing answers at once. Write None if any wait will do.", case.max_seconds == 0
    yield (
        "closed_labels is 1: an answer that is always the same needs no system. Count the labels again, or write 0.",
        case.closed_labels == 1,
    )
    yield (
        "retrieval_reached has a score, but facts is 'none': from which documents was it retrieved? Set facts to "
        "'stable' or 'changing', or retrieval_reached to None.",
        case.retrieval_reached is not None and case.facts == "none",
    )
    scored = any(s is not None for s in (case.rules_reached, case.prompt_reached, case.retrieval_reached))
    yield (
        "Somebody scored this, but checkable is False: if nobody can tell right from wrong, what was counted? "
        "Set checkable to True, or the scores to None.",
        scored and not case.checkable,
    )
    yield (
        "There are rows with right answers, but checkable is False: who said that they are right? Change one of them.",
        bool(case.labelled_rows or case.evaluation_rows) and not case.checkable,
    )


# --- a case is decided ---------------------------------------------------------------------------


def _decide(case: Case) -> tuple[str, list[str]]:
    """The choice and its reasons; the first branch that holds."""

    def share(score: float) -> str:
        return f"{score:.2f}"

    reach = case.labelled_rows + max(0.0, case.hours - HOURS_TO_TUNE) * ROWS_AN_HOUR
    often = case.requests_per_month is None or case.requests_per_month >= OFTEN
    if not case.checkable:
        return "stop", ["Nobody can tell a right answer from a wrong one, so no way could be shown to work."]
    if case.harm_unchecked:
        return "stop", [
            "A wrong answer can hurt somebody, and nobody looks before it does. No score makes up for that."
        ]
    if case.rules_reached is not None and case.rules_reached >= case.needed:
        return "rules", [
            f"Rules reached {share(case.rules_reached)}, and {share(case.needed)} is needed: they cost nothing per "
            "request, and they can be read and repaired."
        ]
    if case.needed >= CERTAIN:
        return "stop", [
            f"{share(case.needed)} is needed. Every learned system errs now and then: only rules can be right always, "
            "and these have not got there."
        ]
    closed = case.closed_labels >= 2 and case.facts == "none"
    if case.max_seconds is not None and case.max_seconds < TOO_FAST and not closed:
        return "stop", [f"An answer within {case.max_seconds:g} s is out of reach for a language model, tuned or not."]
    good = case.prompt_reached is not None and case.prompt_reached >= case.needed
    hurry = case.max_seconds is not None and case.max_seconds < TOO_FAST
    if closed and (hurry or not good or case.too_dear_or_slow):
        wanted = ROWS_PER_LABEL * case.closed_labels
        if reach >= wanted:
            return "classifier", [
                f"Answers are one of {case.closed_labels} labels: a small classifier learns that from about {wanted:,} "
                "rows, and answers in milliseconds."
            ]
        if hurry:
            return "stop", [
                f"Within {case.max_seconds:g} s only a classifier could answer; it needs about {wanted:,} rows."
            ]
    if case.facts != "none":
        return _with_facts(case, reach, share)
    if case.prompt_reached is None:
        return "prompt", [
            "No prompt has been measured. It is the cheapest thing to try, and the opponent of all others."
        ]
    if good and not (case.too_dear_or_slow and often):
        reasons = [f"The best prompt reached {share(case.prompt_reached)}, and {share(case.needed)} is needed."]
        if case.too_dear_or_slow:
            reasons.append(f"It costs or takes too much, but fewer than {OFTEN:,} requests a month repay no training.")
        return "prompt", reasons
    short = (
        f"The prompt is good enough at {share(case.prompt_reached)}, but costs or takes too much at this volume."
        if good
        else f"The best prompt reached {share(case.prompt_reached)}, and {share(case.needed)} is needed."
    )
    return ("tune", [short, *_means(case, reach)]) if reach >= ROWS_TO_TUNE else ("stop", [short, *_means(case, reach)])


def _with_facts(case: Case, reach: float, share: Any) -> tuple[str, list[str]]:
    """The branch of cases whose answers stand in documents."""
    where = "stand in documents" if case.facts == "stable" else "stand in documents and change"
    reasons = [f"The answers {where}: bring the passage along with the question, and tune no facts into weights."]
    if case.retrieval_reached is None:
        return "retrieve", reasons
    if case.retrieval_reached >= case.needed:
        return "retrieve", [*reasons, f"With passages it reached {share(case.retrieval_reached)}, which is enough."]
    reasons.append(f"With passages it reached {share(case.retrieval_reached)}, and {share(case.needed)} is needed.")
    if case.strict_form and reach >= ROWS_TO_TUNE:
        return "tune and retrieve", [
            *reasons, "Passages bring the facts, tuning the exact form or style.", *_means(case, reach)
        ]  # fmt: skip
    reasons.append("First find out whether the right passage is missing or is read wrongly (lesson 04).")
    return "retrieve", reasons


def _means(case: Case, reach: float) -> list[str]:
    """What the learner has in hand for a tuning."""
    if case.labelled_rows >= ROWS_TO_TUNE:
        return [f"{case.labelled_rows:,} rows with right answers are there."]
    if reach >= ROWS_TO_TUNE:
        return [
            f"{case.labelled_rows:,} rows are few, but {case.hours:g} hours are enough to label up to about "
            f"{ROWS_TO_TUNE:,} and still train and evaluate."
        ]
    return [
        f"{case.labelled_rows:,} rows are there, and {case.hours:g} hours are not enough to get to about "
        f"{ROWS_TO_TUNE:,}: no way that you have leads to what you need."
    ]


def _missing(case: Case, choice: str) -> Iterator[str]:
    """Evidence that the case lacks, cheapest first."""
    if choice == "stop" and (not case.checkable or case.harm_unchecked):
        yield "Who could check answers, and when: before they reach anybody?"
        return
    if case.rules_reached is None:
        yield "What do rules reach? An hour with regular expressions or a list of words tells."
    if case.prompt_reached is None and case.facts == "none":
        yield "What does the best prompt reach? Lesson 03 measures it."
    if case.facts != "none" and case.retrieval_reached is None:
        yield "What do retrieved passages reach? Lesson 04 measures retriever and reader apart."
    if case.evaluation_rows < ROWS_TO_MEASURE:
        told = f"{case.evaluation_rows} rows" if case.evaluation_rows else "No rows"
        yield f"{told} to measure on: keep {ROWS_TO_MEASURE} or more that no prompt and no training ever sees."
    if choice.startswith("tune") and case.labelled_rows < ROWS_TO_TUNE:
        yield f"About {ROWS_TO_TUNE - case.labelled_rows} more rows with right answers, and who labels them."
    if case.requests_per_month is None:
        yield "How many requests a month? Lesson 05 computes from when on a training pays."
    if case.must_stay_private and choice not in ("rules", "stop"):
        yield "Were the scores made with a model that may see this data? A hosted one may not."
    if choice.startswith("tune"):
        yield "Is there a model that you may tune, run, and go on running? Hosted offers end (lesson 10)."


def _probes(case: Case) -> Iterator[tuple[str, dict[str, Any]]]:
    """Single changes of a case, each in words and as fields."""
    for name, who in (("rules_reached", "rules"), ("prompt_reached", "the best prompt")):
        score = getattr(case, name)
        if case.checkable and (score is None or score < case.needed):
            yield f"if {who} reached {case.needed:.2f}", {name: case.needed}
    if case.checkable and case.prompt_reached is None:
        yield f"if the best prompt reached only {case.needed / 2:.2f}", {"prompt_reached": case.needed / 2}
    if case.prompt_reached is not None and case.prompt_reached < case.needed and case.prompt_reached > 0:
        yield f"if {case.prompt_reached:.2f} were enough", {"needed": case.prompt_reached}
    if case.facts == "none":
        yield "if the answers rested on facts that change", {"facts": "changing"}
    else:
        yield "if the answers rested on no documents", {"facts": "none", "retrieval_reached": None}
        if case.checkable and (case.retrieval_reached is None or case.retrieval_reached >= case.needed):
            yield (
                "if passages reached too little and the form had to be exact",
                {"retrieval_reached": case.needed / 2, "strict_form": True},
            )
    yield "if answers were one of four labels", {"closed_labels": 4}
    if case.closed_labels:
        yield "if answers were free text", {"closed_labels": 0}
    if not case.too_dear_or_slow:
        yield "if the prompt cost or took too much", {"too_dear_or_slow": True}
    if case.requests_per_month is None or case.requests_per_month >= OFTEN:
        yield f"with fewer than {OFTEN:,} requests a month", {"requests_per_month": OFTEN // 10}
    else:
        yield f"with {100 * OFTEN:,} requests a month", {"requests_per_month": 100 * OFTEN}
    if case.labelled_rows >= ROWS_TO_TUNE or case.hours > HOURS_TO_TUNE:
        yield "with no rows and no time to label any", {"labelled_rows": 0, "hours": 0.0}
    if case.labelled_rows < 10 * ROWS_TO_TUNE and case.checkable:
        yield f"with {10 * ROWS_TO_TUNE:,} labelled rows", {"labelled_rows": 10 * ROWS_TO_TUNE}
    if not case.checkable:
        yield "if somebody could tell right from wrong", {"checkable": True}
    if case.harm_unchecked:
        yield "if a person looked at each answer first", {"harm_unchecked": False}
    else:
        yield "if a wrong answer could hurt, unseen", {"harm_unchecked": True}


def recommend(case: Case | Mapping[str, Any]) -> Recommendation:
    """A reasoned recommendation for a case.

    Args:
        case: a `Case`, or a dict of its fields; what is not given is not known.

    Returns:
        The choice with its reasons, the evidence missing, and every single change (out of about a dozen that are
        tried) which would turn the choice.

    Raises:
        CourseError: the case is empty, impossible or contradicts itself.
    """
    case = as_case(case)
    choice, reasons = _decide(case)
    changes = []
    for words, fields in _probes(case):
        try:
            other, _ = _decide(as_case(dataclasses.replace(case, **fields)))
        except CourseError:  # such a case cannot be
            continue
        if other != choice:
            changes.append((words, other))
    return Recommendation(choice, tuple(reasons), tuple(_missing(case, choice)), tuple(changes))


# --- six worked cases ----------------------------------------------------------------------------


@dataclass(frozen=True)
class WorkedCase:
    """A case of the course: its rows, what was tried on it, and the set of choices that can be defended."""

    name: str
    story: str
    rows: tuple[dict[str, str], ...]
    case: Case
    defensible: dict[str, str]  # choice -> how one would argue for it

    def __repr__(self) -> str:
        return f"WorkedCase({self.name!r}, {len(self.rows)} rows)"


def worked_cases() -> dict[str, WorkedCase]:
    """The six cases of `data/cases/`, by name, in the order of their files.

    Raises:
        CourseError: a file is missing or says something impossible.
    """
    folder, found = runtime.ROOT / "data" / "cases", {}
    for path in sorted(folder.glob("*.json")):
        try:
            read = json.loads(path.read_text(encoding="utf-8"))
            worked = WorkedCase(
                read["name"], read["story"], tuple(read["rows"]), as_case(read["case"]), read["defensible"]
            )
        except (ValueError, KeyError, TypeError) as error:
            raise CourseError(f"data/cases/{path.name} is damaged ({error}): bring it back with git.") from None
        found[worked.name] = worked
    if not found:
        raise CourseError("data/cases holds no case: bring the folder back with git.")
    return found
