"""The check of an assignment or a capstone: marks with reasons, for one submission or for a folder of them.

Figures are recomputed from the answers, the adapter answers again, and the verdict is that of `evaluation.compare`.
Whether tuning won or lost earns nothing. The capstone's rubric is another tuple of `Criterion`.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import io
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import assignment, baselines, capstone, data, evaluation, models, runtime
from .assignment import CONFIG, HOSTED, OPPONENT, TEST, TUNED, WEIGHTS, Submission
from .decision import CHOICES
from .evaluation import Report, Table, f1
from .runtime import CourseError

VERDICTS = ("better", "worse", "cannot tell")
SLACK = 0.02  # in F1: another machine rounds otherwise; bfloat16 and float32 were 0.010 apart on 100 rows


class Lost(CourseError):
    """Raised by a judge: why points are lost, and which share of them is kept."""

    def __init__(self, reason: str, share: float = 0.0):
        super().__init__(reason)
        self.share = share


class NotCounted(Exception):
    """Raised by a judge: why this criterion does not count here."""


# --- the judges ----------------------------------------------------------------------------------


def notebook(s: Submission) -> str:
    """Saved after a run from top to bottom, without an error that is not meant."""
    code = [cell for cell in s.need("notebook.ipynb").cells if cell.cell_type == "code" and cell.source.strip()]
    counts = [cell.execution_count for cell in code if cell.execution_count is not None]
    again = "Restart, run all, save, and pack it again."
    if not counts or len(counts) < len(code):
        left = f"{len(code) - len(counts)} of {len(code)} code cells"
        raise Lost(f"In the saved copy {left} have not run. {again}", 0.5 if counts else 0.0)
    for cell in code:
        errors = [output.ename for output in cell.outputs if output.output_type == "error"]
        if errors and "raises-exception" not in cell.metadata.get("tags", []):
            raise Lost(f"A cell ends with {errors[0]:.40}. {again}", 0.5)
    if counts != sorted(counts):
        raise Lost(f"The cells were run in another order than they stand. {again}", 0.5)
    return f"{len(code)} code cells, run from top to bottom."


@functools.cache
def _answers(split: str) -> dict[str, list[str]]:
    """Question -> right answer, of the course's rows."""
    return {str(data.prompt(row)): data.answer(row) for row in data.load(split)}


def _of_the_course(rows: Sequence[dict]) -> bool:
    return all(str(data.prompt(row)) in _answers("validation") for row in rows)


def same_rows(s: Submission) -> str:
    """Both systems answered the rows handed in, which nobody trained on or changed."""
    rows, tuned, opponent = s.need("rows.jsonl", TUNED, OPPONENT)
    if seen := [data.title(row) for row in rows if str(data.prompt(row)) in _answers("train")]:
        raise Lost(f"{len(seen)} of the rows stand in the course's training rows, such as {seen[0]!r:.40}.")
    right = _answers("validation")
    if changed := [row for row in rows if right.get(str(data.prompt(row)), data.answer(row)) != data.answer(row)]:
        raise Lost(f"The right answers of {len(changed)} of the course's rows are not the course's.")
    _two_systems(tuned, opponent)
    whose = "the course's validation rows" if _of_the_course(rows) else "rows of one's own"
    return f"{tuned.n} of {whose} ({tuned.rows_hash}), the same on both sides."


def _two_systems(ours: Report, opponent: Report) -> None:
    """Lost, if one report was handed in for both sides."""
    if [row["text"] for row in ours.rows] == [row["text"] for row in opponent.rows]:
        raise Lost("Both reports hold the same answers, word for word. Was one of them saved twice?")


def _best_measured(s: Submission) -> str:
    """The opponent with its F1 in words; lost, if something better was measured as well."""
    opponent = s.need(OPPONENT)
    named = f"{opponent.name!r} reaches F1 {f1(opponent.rows):.2f}"
    for other in s.alternatives:
        if evaluation.compare(other, opponent).verdict == "better":
            raise Lost(f"{named}, and {other.name!r}, which you measured as well, {f1(other.rows):.2f}: take that.")
    return named


@functools.cache
def _tagger() -> evaluation.System:
    return baselines.tagger(data.load("train"))


def strong_opponent(s: Submission) -> str:
    """The best alternative that was measured, and no worse than a linear tagger trained on the course's rows."""
    rows, opponent = s.need("rows.jsonl", OPPONENT)
    named, measured = _best_measured(s), s.alternatives
    tagger = evaluation.evaluate(_tagger(), rows, "tagger")
    if evaluation.compare(opponent, tagger).verdict == "worse":
        raise Lost(
            f"{named}; a linear tagger, trained on the course's rows in seconds, {f1(tagger.rows):.2f}. Compare with "
            "that, or with something as good."
        )
    if _of_the_course(rows):
        return f"{named}, no worse than the course's linear tagger."
    if len(measured) < 2:
        raise Lost(f"{named}, but it is the only one measured. Hand in another to show that it is the best.", 0.5)
    return f"{named}, the best of {len(measured)} alternatives measured."


def figures(s: Submission) -> dict[str, float]:
    """Every figure that a card may cite, recomputed: those of both reports, of the comparison, of the record."""
    pair, record = s.comparison, s.parts.get("record.json", {})
    ours = "chosen" if assignment.is_capstone(s.need("card.json")) else "tuned"
    found = {f"test {name}": value for name, value in s.parts[TEST].metrics.items()} if TEST in s.parts else {}
    found |= {f"{ours} {name}": value for name, value in pair.a.metrics.items()}
    found |= {f"opponent {name}": value for name, value in pair.b.metrics.items()}
    found |= {name: getattr(pair, name) for name in ("difference", "low", "high", "detectable")} | {"n": pair.a.n}
    return found | ({"training seconds": record["seconds"]} if type(record.get("seconds")) in (int, float) else {})


def _near(cited: float, right: float) -> bool:
    """Whether a cited figure is the right one, rounded: to a hundredth up to 1, else to a fiftieth of itself."""
    return abs(cited - right) <= (0.0055 if abs(right) <= 1 else 0.02 * abs(right))


def cited_figures(s: Submission) -> str:
    """Each figure on the card is what the answers give. One wrong figure loses all points, a lacking one its share."""
    cited = {name: value for name, value in s.evidence.items() if name != "verdict"}
    right, wanted = figures(s), assignment.cited_at_least(s.need("card.json"))[:-1]
    for name, value in cited.items():
        if name not in right:
            raise Lost(f"No report gives a figure called {name!r:.40}. There are {', '.join(right)}.")
        if type(value) not in (int, float) or not _near(value, right[name]) or (name == "n" and value != right["n"]):
            percent = type(value) in (int, float) and _near(value / 100, right[name])
            hint = " Write shares between 0 and 1." if percent else ""
            raise Lost(f"The card says {name} {value!r:.20}; the answers handed in give {right[name]:.3f}.{hint}")
    if lacking := [name for name in wanted if name not in cited]:
        raise Lost(f"Not cited: {', '.join(lacking)}.", 1 - len(lacking) / len(wanted))
    told = " ".join(str(s.need("card.json").get(name)) for name in ("because", "alternative"))
    decimals = re.findall(r"(?<![\d.])0?\.\d{2,4}(?!\d)", told)  # in the text: pointed out, but they cost nothing
    strange = [text for text in decimals if not any(_near(float(text), known) for known in right.values())]
    note = f" In the text, but in no report: {', '.join(strange)}." if strange else ""
    return f"All {len(cited)} follow from the answers.{note}"


def verdict(s: Submission) -> str:
    """The verdict on the card is that of the paired comparison."""
    claimed, pair = str(s.evidence.get("verdict")).lower(), s.comparison
    said = [known for known in VERDICTS if known in claimed]
    told = str(pair).replace("\n", "; ")
    if len(said) != 1 or not pair.verdict.startswith(said[0]):
        raise Lost(f"The card says {claimed!r:.40}. The same rows, in pairs: {told}.")
    return f"{told}."


def card(s: Submission) -> str:
    """Every field of the card is there."""
    if problems := assignment.card_problems(s.need("card.json")):
        raise Lost("; ".join(problems), max(0.0, 1 - len(problems) / len(assignment.CARD)))
    return "Decision, evidence, best alternative, cost, and what would change it."


def decision(s: Submission) -> str:
    """Not marked, unless the rows contradict it."""
    choice = str(s.need("card.json").get("choice"))
    if choice.startswith("tune") and s.comparison.verdict == "worse":
        raise Lost(f"It says {choice!r:.40}, and its own rows say that the tuned model is worse than the opponent.")
    raise NotCounted(f"Not marked, as it is yours to make: {choice!r:.40}. Your evidence does not contradict it.")


# --- the adapter answers again -------------------------------------------------------------------


def adapter(s: Submission) -> str:
    """Put on the base model, the adapter gives answers as good as its report's, no better and no worse."""
    tuned, folder = s.need(TUNED), s.folder
    if s.need("card.json").get("door") in HOSTED and not (folder / CONFIG).exists():
        job, name = (s.need("record.json").get(key) for key in ("id", "fine_tuned_model"))
        if not isinstance(job, str) or not isinstance(name, str):
            raise Lost("Of a hosted model record.json has to give the job's id and its fine_tuned_model.")
        raise NotCounted(f"Taken on trust, as a hosted model cannot be run here: job {job:.60}, model {name:.80}.")
    config = plain_lora(*s.need(CONFIG, WEIGHTS), models.fetch())
    if s.rerun < 1:
        raise NotCounted("It fits the base model. It was not asked again.")
    rows = s.need("rows.jsonl")[: s.rerun]
    with tempfile.TemporaryDirectory() as copy:
        runtime.atomic_write(Path(copy, Path(CONFIG).name), json.dumps(config))
        shutil.copyfile(assignment.plain_file(folder, WEIGHTS), Path(copy, Path(WEIGHTS).name))
        model, tokenizer = models.load_model(copy), models.load_tokenizer()
        again = evaluation.evaluate(evaluation.prompted(model, tokenizer, progress=False), rows, "asked again")
    pair = evaluation.compare(again, Report("as handed in", tuned.rows[: len(rows)], again.rows_hash, "", ""))
    here, there = (f"{f1(report.rows):.2f}" for report in (pair.a, pair.b))
    told = f"Asked again, it reaches F1 {here} on {len(rows)} rows; its report says {there}."
    if abs(pair.difference) > SLACK and (pair.low > 0 or pair.high < 0):
        raise Lost(f"This adapter did not give these answers. {told}")
    return told


def plain_lora(config: Mapping[str, Any], tensors: Mapping[str, tuple[int, ...]], base: Path) -> dict[str, Any]:
    """A configuration made anew for tensors that are plain LoRA and fit the base model.

    Only rank and scaling are taken from the one handed in, for others of its fields name modules to import.

    Raises:
        Lost: the tensors are of another kind, or for another model.
    """
    rank, alpha, named = config.get("r"), config.get("lora_alpha"), str(config.get("base_model_name_or_path"))[-60:]
    odd = [n for n in ("use_dora", "alpha_pattern", "layer_replication", "alora_invocation_tokens") if config.get(n)]
    plain = config.get("peft_type") == "LORA" and config.get("init_lora_weights") in (True, False, None, "gaussian")
    if odd or not plain:
        raise Lost("Only plain LoRA is asked again; adapter_config.json has another kind or another initialisation.")
    if type(rank) is not int or not 0 < rank <= 1024 or type(alpha) not in (int, float) or not 0 < alpha <= 1e5:
        raise Lost(f"adapter_config.json: r={rank!r:.20} and lora_alpha={alpha!r:.20} are no adapter's.")
    weights = {name: shape for file in base.glob("*.safetensors") for name, shape in assignment.shapes(file).items()}
    modules = set()
    for name, shape in tensors.items():
        found = re.fullmatch(r"base_model\.model\.(.+)\.lora_([AB])\.weight", name)
        weight = weights.get(f"{found[1]}.weight") if found else None
        if not weight or shape != ((rank, weight[1]) if found[2] == "A" else (weight[0], rank)):
            raise Lost(f"It does not fit the base model at {name[-60:]} {shape}. It was trained on {named!r}, it says.")
        modules.add(found[1])
    if not modules or len(tensors) != 2 * len(modules):
        raise Lost("The adapter's tensors do not come in pairs, A and B.")
    kept = {"r": rank, "lora_alpha": alpha, "use_rslora": config.get("use_rslora") is True}
    return {"peft_type": "LORA", "task_type": "CAUSAL_LM", "target_modules": sorted(modules), **kept}


# --- of a capstone -------------------------------------------------------------------------------

DEAR = CHOICES[:-1]  # all but "stop", which stand there from what costs least


def _kinds(s: Submission) -> Mapping[str, str]:
    """Name of a report -> its kind, as the card has it."""
    kinds = s.need("card.json").get("kinds")
    return kinds if isinstance(kinds, dict) else {}


def own_rows(s: Submission) -> str:
    """Validation and test rows are the task's, none of them was trained on, and both sides answered the same."""
    named, task = ("train.jsonl", "rows.jsonl", "test.jsonl"), s.need("card.json").get("task")
    train, rows, test = s.need(*named)
    chosen, opponent = s.need(TUNED, OPPONENT)
    if task in capstone.OFFERED:
        offered = capstone.load(task)
        theirs = (offered.train, offered.validation, offered.sealed)
        for name, ours, right in zip(named, (train, rows, test), theirs, strict=True):
            if (got := data.rows_hash(ours)) != (wanted := data.rows_hash(right)):
                raise Lost(f"{name} has not the rows of {task!r:.20}: their hash is {got}, and should be {wanted}.")
    for held, others in ((rows, [train, test]), (test, [train])):
        if problems := data.check(held, task="recipe", others=others):
            raise Lost(f"Rows that were held out stand elsewhere, too: {problems[0]}.")
    _two_systems(chosen, opponent)
    return f"{chosen.n} validation rows ({chosen.rows_hash}) on both sides, {len(test)} of the test, none in training."


def best_alternative(s: Submission) -> str:
    """The opponent is the best that was measured; without tuning, no worse than the best known, or one of two kinds."""
    chosen, kinds = s.need(TUNED), _kinds(s)
    named, measured = _best_measured(s), s.alternatives
    if nameless := [report.name for report in (chosen, *measured) if kinds.get(report.name) not in DEAR]:
        raise Lost(f"The card's kinds do not say of what kind {nameless[0]!r:.40} is: one of {', '.join(DEAR)}.", 0.5)
    task = s.need("card.json").get("task")
    if task in capstone.OFFERED:
        plain = [report for report in (chosen, *measured) if not kinds[report.name].startswith("tune")]
        known = capstone.strongest(task)
        if not plain or all(evaluation.compare(report, known).verdict == "worse" for report in plain):
            best = max((f1(report.rows) for report in plain), default=0)
            raise Lost(
                f"Without tuning, your best has F1 {best:.2f}. {known.name!r} was recorded with {f1(known.rows):.2f}: "
                "measure that, or something as good."
            )
        return f"{named}; without tuning, nothing recorded for this task is better than what was measured."
    others = {kinds[report.name] for report in measured} - {kinds[chosen.name]}
    if len(others) < 2:
        raise Lost(f"{named}, but beside the chosen way only {len(others)} other kind was measured. Show two.", 0.5)
    return f"{named}, the best of {len(measured)} alternatives of {len(others)} other kinds."


def test_once(s: Submission) -> str:
    """The test was opened once, and answered by what was chosen."""
    chosen, on_test, log = s.need(TUNED, TEST, "openings.json")
    entries = log.get("openings") if isinstance(log.get("openings"), list) else []
    reasons = [str(e.get("reason")) for e in entries if isinstance(e, dict) and e.get("rows") == on_test.rows_hash]
    if on_test.name != chosen.name:
        raise Lost(f"The card rests on {chosen.name!r:.40}; on the test {on_test.name!r:.40} was measured.")
    if not reasons:
        raise Lost("The log has no opening of these test rows.")
    if len(reasons) > 1:
        told = "; ".join(f"{reason:.60}" for reason in reasons)
        raise Lost(f"It was opened {len(reasons)} times ({told}), so the last figure may have been chosen.", 0.5)
    return f"Opened once: {reasons[0]!r:.100}. F1 {f1(on_test.rows):.2f} on {on_test.n} rows."


def adapter_if_tuned(s: Submission) -> str:
    """Where tuning was chosen, the adapter answers again; where it was not, none is asked for."""
    choice = str(s.need("card.json").get("choice"))
    if not choice.startswith("tune"):
        raise NotCounted(f"None is needed for {choice!r:.20}.")
    if choice == "tune and retrieve":
        raise NotCounted("Taken on trust: its pages are not handed in, and without them it answers otherwise.")
    return adapter(s)


def own_decision(s: Submission) -> str:
    """Not marked, unless the evidence contradicts it: something that is no dearer is clearly better."""
    choice, kinds, chosen = str(s.need("card.json").get("choice")), _kinds(s), s.need(TUNED)
    if choice != "stop" and choice != kinds.get(chosen.name):
        told = f"rests on {chosen.name!r:.40}, of the kind {kinds.get(chosen.name)!r:.20}"
        raise Lost(f"It says {choice!r:.20}, and {told}.")
    no_dearer = DEAR[: DEAR.index(choice) + 1] if choice in DEAR else ()
    for other in s.alternatives:
        if kinds.get(other.name) in no_dearer and evaluation.compare(other, chosen).verdict == "better":
            raise Lost(f"It says {choice!r:.20}, and its own rows say that {other.name!r:.40} is better and no dearer.")
    raise NotCounted(f"Not marked, as it is yours to make: {choice!r:.40}. Your evidence does not contradict it.")


# --- marks ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Criterion:
    """One line of a rubric; `judge` returns the reason for full points, or raises `Lost` or `NotCounted`."""

    name: str
    points: int
    judge: Callable[[Submission], str]


RUBRIC = (
    Criterion("notebook", 10, notebook), Criterion("same rows", 15, same_rows),
    Criterion("strong opponent", 20, strong_opponent), Criterion("cited figures", 20, cited_figures),
    Criterion("adapter", 15, adapter), Criterion("verdict", 10, verdict), Criterion("card", 10, card),
    Criterion("decision", 10, decision),
)  # fmt: skip

CAPSTONE = (
    Criterion("notebook", 10, notebook), Criterion("own rows", 15, own_rows),
    Criterion("strong opponent", 20, best_alternative), Criterion("cited figures", 20, cited_figures),
    Criterion("test opened once", 15, test_once), Criterion("adapter", 15, adapter_if_tuned),
    Criterion("verdict", 10, verdict), Criterion("card", 10, card), Criterion("decision", 10, own_decision),
)  # fmt: skip


@dataclass(frozen=True)
class Mark:
    """Points out of `of`, which is 0 where a criterion does not count, and the reason."""

    criterion: str
    points: float
    of: int
    reason: str


@dataclass(frozen=True)
class Assessment:
    """A submission's marks; shows as a table in a notebook and as text elsewhere."""

    name: str
    marks: list[Mark]

    @property
    def total(self) -> int:
        """Points of 100: the share of those that count here."""
        return round(100 * sum(mark.points for mark in self.marks) / max(1, sum(mark.of for mark in self.marks)))

    def table(self) -> Table:
        """A row per criterion, and the total."""
        rows = [(m.criterion, f"{m.points:g} of {m.of}" if m.of else "not counted", m.reason) for m in self.marks]
        rows.append(("total", f"{self.total} of 100", ""))
        return Table([dict(zip(("criterion", "points", "reason"), row, strict=True)) for row in rows])

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()

    def __repr__(self) -> str:
        lines = [f"{row['points']:>11}  {row['criterion']}: {row['reason']}" for row in self.table()]
        return "\n".join([f"{self.name!r}", *lines])


def check(folder: Path | str, *, rerun: int = 100, rubric: Sequence[Criterion] | None = None) -> Assessment:
    """Judge one submission. Whatever is wrong with it costs points and is named; it never raises.

    Args:
        folder: the submission, as `assignment.hand_in` packs it.
        rerun: rows that the adapter answers again, the first ones; 0 for none.
        rubric: the criteria; by default those of a capstone where the card names a task, else the assignment's.
    """
    folder, marks = Path(folder), []
    submission = dataclasses.replace(assignment.read(folder), rerun=rerun)
    whole = assignment.is_capstone(submission.parts.get("card.json"))
    for criterion in rubric or (CAPSTONE if whole else RUBRIC):
        share, of = 1.0, criterion.points
        try:
            reason = criterion.judge(submission)
        except CourseError as error:
            share, reason = getattr(error, "share", 0.0), str(error)
        except NotCounted as error:
            of, reason = 0, str(error)
        except Exception as error:  # a broken submission must not stop those after it
            share, reason = 0.0, f"Could not be judged: {type(error).__name__}: {error}"
        marks.append(Mark(criterion.name, round(of * share, 1), of, _plain(reason)))
    return Assessment(_plain(folder.name), marks)


def _plain(text: str) -> str:
    """One line that can be printed and encoded, whatever a submission has put into it."""
    text = re.sub(r"[\x00-\x1f\x7f-\x9f]", " ", text.encode("utf-8", "replace").decode())
    return " ".join(text.split())[:500]


def check_all(folder: Path | str, **options: Any) -> Iterator[Assessment]:
    """Judge every submission in a folder, one after another, in the order of their names.

    Args:
        folder: holds a folder per submission.
        options: as for `check`.

    Raises:
        CourseError: there is none.
    """
    folder = Path(folder)
    found = sorted(path for path in folder.glob("[!.]*") if path.is_dir()) if folder.is_dir() else []
    if not found:
        raise CourseError(f"{folder} holds no submissions: it should hold a folder for each.")
    return (check(path, **options) for path in found)


def safe_cell(value: Any) -> str:
    """Text that no spreadsheet takes for a formula, wherever it cuts a line into cells.

    An apostrophe goes before =, +, - and @ (their wide forms, too) at the beginning and after what may separate
    cells or lines. After OWASP, *CSV Injection*.
    """
    text = re.sub(r"(^|[,;|\"'\t\r\n])(\s*)(?=[=+\-@＝＋－＠])", r"\1\2'", str(value))
    return f"'{text}" if text.startswith(("\t", "\r", "\n")) else text


def table_csv(assessments: Sequence[Assessment]) -> str:
    """A CSV table for the instructor: submission, total, and points and reason of each criterion."""
    page = io.StringIO()
    writer = csv.writer(page, quoting=csv.QUOTE_ALL, lineterminator="\n")
    criteria = list(dict.fromkeys(mark.criterion for one in assessments for mark in one.marks))
    writer.writerow(["submission", "total", *criteria, *(f"{name}: why" for name in criteria)])
    for one in assessments:
        marks = {mark.criterion: mark for mark in one.marks}  # assignments and capstones may lie side by side
        kept = [marks.get(name, Mark(name, 0, 0, "")) for name in criteria]
        points = [f"{mark.points:g}" if mark.of else "not counted" for mark in kept]
        writer.writerow(map(safe_cell, [one.name, one.total, *points, *(mark.reason for mark in kept)]))
    return "\ufeff" + page.getvalue()  # without this mark Excel takes UTF-8 for something else


def main(folder: Path | str, target: Path | str | None = None, rerun: int = 100) -> int:
    """The command `assess`: show one submission's marks, or write a CSV of a folder of them.

    Args:
        folder: a submission, or a folder of submissions.
        target: the CSV to write; by default `assessment.csv` in `folder`.
        rerun: as for `check`.
    """
    folder, done = Path(folder), []
    if any((folder / name).exists() for name in ("card.json", "rows.jsonl", "notebook.ipynb")):
        print(check(folder, rerun=rerun))
        return 0
    target = Path(target or folder / "assessment.csv")
    for one in check_all(folder, rerun=rerun):
        done.append(one)
        runtime.atomic_write(target, table_csv(done))  # after each, so that nothing is lost if it is stopped
        print(f"{one.total:>4} of 100  {ascii(one.name)}", flush=True)
    print(f"Reasons: {target}")
    return 0
