"""Assignments: packed whole or not at all; checked without running, following or trusting anything in them."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import pickle
import shutil

import nbformat
import pytest

from helpers import __main__, assignment, baselines, data, evaluation, models, rubric, training
from helpers.runtime import CourseError

RIGHT = {"notebook": 10, "same rows": 15, "strong opponent": 20, "cited figures": 20, "adapter": 15, "verdict": 10}
RIGHT |= {"card": 10}
PARTS = ["card.json", "notebook.ipynb", "rows.jsonl", "reports/tuned.json"]
OWN = [
    data.recipe(f"Order {i}", [f"{i + 2} boxes of {first}", f"a bag of {second}, fresh"], [first, second])
    for i, (first, second) in enumerate([("apples", "rice"), ("pears", "beans"), ("plums", "nuts"), ("dates", "figs")])
]
COURSE = sorted(data.load("validation"), key=lambda row: len(str(row)))[:10]


# --- what a submission is made of ----------------------------------------------------------------


@pytest.fixture(scope="module")
def base():
    """Folder of a base model of two layers that has learned the answers to all rows of these tests by heart."""
    settings = {"method": "full", "epochs": 100, "batch_size": 14, "learning_rate": 5e-3, "save_strategy": "no"}
    settings |= {"lr_scheduler_type": "constant", "live": False}
    return training.fine_tune(COURSE + OWN, model=models.tiny_model(), **settings).folder


@pytest.fixture(scope="module")
def adapters(base, tmp_path_factory, tokenizer):
    """Two adapters for it: "good" changes nothing, "bad" makes its answers rubbish."""
    import torch

    folders = {}
    for name, strength in {"good": 0.0, "bad": 0.5}.items():
        torch.manual_seed(0)
        model = models.trainable(models.load_model(folder=base, dtype="float32"), rank=4)
        for key, weight in model.named_parameters():
            if "lora_B" in key:
                torch.nn.init.normal_(weight, std=strength) if strength else torch.nn.init.zeros_(weight)
        folders[name] = tmp_path_factory.mktemp(name)
        models.save(model, tokenizer, folders[name])
    return folders


def asked(adapter, base, rows, tokenizer) -> evaluation.Report:
    system = evaluation.prompted(models.load_model(adapter, folder=base), tokenizer, progress=False)
    return evaluation.evaluate(system, rows, "tuned")


def saying(answers, rows, name) -> evaluation.Report:
    """The report of a system that gives these lists of names."""
    texts = iter([json.dumps(names) for names in answers])
    return evaluation.evaluate(lambda chats: [next(texts) for _ in chats], rows, name)


def card_of(tuned, opponent) -> dict:
    c = evaluation.compare(tuned, opponent)
    evidence = {
        "tuned f1": round(evaluation.f1(tuned.rows), 2), "opponent f1": round(evaluation.f1(opponent.rows), 2),
        "difference": round(c.difference, 3), "low": round(c.low, 3), "high": round(c.high, 3), "n": tuned.n,
        "verdict": c.verdict,
    }  # fmt: skip
    return {
        "door": "Hugging Face", "choice": "tune" if c.verdict == "better" else "classifier",
        "because": "these rows say so in pairs, and the other side costs less to run",
        "evidence": evidence, "alternative": "a linear tagger, trained on the same rows",
        "cost": "3 minutes of training against 2 seconds", "turns": "four times as many rows that say otherwise",
    }  # fmt: skip


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    """A notebook that was run; were it run again, it would leave a file."""
    folder = tmp_path_factory.mktemp("notebook")
    trap = f"open({str(folder / 'executed')!r}, 'w')"
    cells = [nbformat.v4.new_code_cell(trap, execution_count=count) for count in (1, 2, 5)]
    path = folder / "work.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    yield path
    assert not (folder / "executed").exists()


@pytest.fixture(scope="module")
def reports(base, adapters, tokenizer):
    tagger = baselines.tagger(data.load("train"))
    return {
        **{name: asked(adapters[name], base, COURSE, tokenizer) for name in ("good", "bad")},
        "good, own": asked(adapters["good"], base, OWN, tokenizer),
        "tagger": evaluation.evaluate(tagger, COURSE, "tagger"),
        "zero-shot": saying([["salt"]] * len(COURSE), COURSE, "zero-shot"),
    }  # fmt: skip


@pytest.fixture
def pack(tmp_path, base, adapters, notebook, reports, monkeypatch):
    """Pack an honest submission, or one with changes, and return its folder."""
    monkeypatch.setenv("COURSE_MODEL", str(base))

    def packed(tuned="good", opponent="tagger", rows=COURSE, name="ada", card=None, **changes):
        tuned, opponent = (reports[report] if isinstance(report, str) else report for report in (tuned, opponent))
        honest = card_of(tuned, opponent) if tuned.rows_hash == opponent.rows_hash else {}
        arguments = {
            "card": honest | (card or {}), "notebook": notebook, "rows": rows, "tuned": tuned,
            "opponent": opponent, "adapter": adapters["bad" if tuned is reports["bad"] else "good"],
            "record": {"seconds": 170.0},
        }  # fmt: skip
        return assignment.hand_in(tmp_path / "in" / name, **arguments | changes)

    return packed


@pytest.fixture
def marks():
    """Marks and reasons of a submission, by criterion."""

    def judged(folder, **options):
        result = rubric.check(folder, **options)
        return {mark.criterion: (mark.points, mark.reason) for mark in result.marks} | {"total": result.total}

    return judged


def edit(path, change) -> None:
    """Change a JSON file in place."""
    value = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(change(value) or value), encoding="utf-8")


# --- honest work -----------------------------------------------------------------------------------


def test_an_honest_win_earns_full_marks(pack, marks):
    folder = pack(card={"choice": "tune"})
    found = marks(folder)
    assert found["total"] == 100 and {name: found[name][0] for name in RIGHT} == RIGHT
    assert "better" in found["verdict"][1] and "Not marked" in found["decision"][1]


def test_tuning_that_lost_earns_full_marks_too(pack, marks):
    found = marks(pack(tuned="bad"))
    assert found["total"] == 100 and "worse" in found["verdict"][1]


def test_rows_of_ones_own_earn_full_marks_with_two_alternatives_and_less_with_one(pack, marks, reports):
    one = saying([["apples", "rice"]] * 4, OWN, "always the first order")
    two = saying([*map(data.answer, OWN[:3]), ["water"]], OWN, "rules")
    own = {"tuned": "good, own", "opponent": two, "rows": OWN}
    assert marks(pack(**own, others=[one]))["total"] == 100
    points, reason = marks(pack(**own))["strong opponent"]
    assert points == 10 and "only one measured" in reason


def test_a_hosted_model_is_taken_on_trust_and_the_rest_counts(pack, marks):
    job = {"id": "ftjob-1", "fine_tuned_model": "ft:gpt-4.1-mini:org::1"}
    found = marks(pack(card={"door": "Azure OpenAI"}, adapter=None, record=job))
    assert found["total"] == 100 and "on trust" in found["adapter"][1] and "ftjob-1" in found["adapter"][1]
    found = marks(pack(card={"door": "Azure OpenAI"}, adapter=None))
    assert found["adapter"][0] == 0 and "fine_tuned_model" in found["adapter"][1]


def test_a_decision_is_marked_only_where_its_own_rows_contradict_it(pack, marks):
    assert marks(pack(card={"choice": "stop"}))["total"] == 100
    found = marks(pack(tuned="bad", card={"choice": "tune"}))
    assert found["total"] == 91 and "worse than the opponent" in found["decision"][1]


def test_figures_beyond_those_asked_for_may_be_cited_and_are_recomputed_too(pack, marks, reports):
    card = card_of(reports["good"], reports["tagger"])
    more = card["evidence"] | {"tuned valid_json": 1.0, "training seconds": 171, "opponent recall": 0.01}
    found = marks(pack(card={"evidence": {**more, "opponent recall": reports["tagger"].metrics["recall"]}}))
    assert found["cited figures"][0] == 20
    assert "opponent recall" in marks(pack(card={"evidence": more}))["cited figures"][1]


# --- what loses points -------------------------------------------------------------------------------


def evidence(**changes):
    return lambda card: card["evidence"].update({name.replace("_", " "): value for name, value in changes.items()})


@pytest.mark.parametrize(
    ("change", "criterion", "word"),
    [
        (evidence(tuned_f1=0.97), "cited figures", "The card says tuned f1 0.97"),
        (evidence(tuned_f1=100), "cited figures", "between 0 and 1"),
        (evidence(opponent_f1="high"), "cited figures", "opponent f1 'high'"),
        (evidence(low=float("nan")), "cited figures", "low nan"),
        (evidence(difference=True), "cited figures", "difference True"),
        (evidence(n=11), "cited figures", "n 11"),
        (evidence(accuracy=0.9), "cited figures", "called 'accuracy'"),
        (evidence(verdict="cannot tell with these rows"), "verdict", "says 'cannot tell"),
        (evidence(verdict="better, or worse"), "verdict", "says 'better, or worse'"),
        (evidence(verdict=None), "verdict", "none"),
        (lambda card: card.update(evidence=[1]), "verdict", "none"),
        (lambda card: card.update(cost="little"), "card", "cost"),
        (lambda card: card.pop("turns") and None, "card", "what would change your mind"),
        (lambda card: card.update(choice=["tune"]), "card", "choice"),
        (lambda card: card.update(door="Claude"), "card", "none of OpenAI"),
        (lambda card: [card], "card", "holds a list"),
    ],
)
def test_what_the_card_claims_wrongly_or_lacks_is_named(change, criterion, word, pack, marks):
    folder = pack()
    edit(folder / "card.json", change)
    found = marks(folder, rerun=0)
    assert found[criterion][0] < RIGHT[criterion] and word in found[criterion][1]


def test_a_figure_that_is_not_cited_loses_its_share(pack, marks):
    folder = pack()
    edit(folder / "card.json", lambda card: card["evidence"].pop("low") and None)
    points, reason = marks(folder, rerun=0)["cited figures"]
    assert points == pytest.approx(20 * 5 / 6, abs=0.1) and "Not cited: low" in reason


def test_a_figure_in_the_text_that_no_report_gives_is_pointed_out(pack, marks):
    found = marks(pack(card={"because": "the tuned model has 0.53 where the other one has 1.00, they say"}), rerun=0)
    assert found["cited figures"] == (20, "All 6 follow from the answers. In the text, but in no report: 0.53.")


def test_scores_written_into_a_report_are_not_believed(pack, marks):
    folder = pack(tuned="bad")
    edit(folder / "reports/tuned.json", lambda told: [row.update(hits=row["n_gold"]) for row in told["rows"]] and None)
    assert marks(folder)["total"] == 100  # for the card cites what the answers give


def test_answers_that_the_adapter_does_not_give_are_found_out(pack, marks, adapters):
    found = marks(pack(adapter=adapters["bad"]))
    assert found["adapter"][0] == 0 and "F1 0.00 on 10 rows; its report says 1.00" in found["adapter"][1]


def test_an_adapter_that_is_better_than_its_report_is_found_out_as_well(pack, marks, adapters):
    assert marks(pack(tuned="bad", adapter=adapters["good"]))["adapter"][0] == 0


def test_as_many_rows_are_asked_again_as_wanted(pack, marks):
    assert "on 5 rows" in marks(pack(), rerun=5)["adapter"][1]
    found = marks(pack(), rerun=0)
    assert found["total"] == 100 and "not asked again" in found["adapter"][1]


def test_other_rows_on_one_side_are_found_out(pack, marks):
    with pytest.raises(CourseError, match="opponent: 'tuned' was measured on other rows"):
        pack(opponent="good, own")
    folder = pack()
    edit(folder / "reports/opponent.json", lambda told: told.update(rows=told["rows"][:6]))
    found = marks(folder, rerun=0)
    for criterion in ("same rows", "strong opponent", "cited figures", "verdict"):
        assert found[criterion][0] == 0 and "other rows" in found[criterion][1]


def test_rows_that_were_trained_on_or_whose_answers_were_changed_are_found_out(pack, marks):
    rows = data.load("train")[:4]
    perfect = saying([data.answer(row) for row in rows], rows, "tuned")
    folder = pack(tuned=perfect, opponent=saying([["salt"]] * 4, rows, "salt"), rows=rows)
    assert "stand in the course's training rows" in marks(folder, rerun=0)["same rows"][1]
    rows = [*COURSE[:3], data.recipe(data.title(COURSE[3]), data.lines(COURSE[3]), ["water"])]
    perfect = saying([data.answer(row) for row in rows], rows, "tuned")
    folder = pack(tuned=perfect, opponent=saying([["salt"]] * 4, rows, "salt"), rows=rows)
    assert "answers of 1 of the course's rows" in marks(folder, rerun=0)["same rows"][1]


def test_one_report_handed_in_twice_is_found_out(pack, marks):
    found = marks(pack(opponent="good"), rerun=0)
    assert found["same rows"][0] == 0 and "word for word" in found["same rows"][1]


def test_a_missing_opponent_loses_what_rests_on_it_and_nothing_else(pack, marks):
    folder = pack()
    (folder / "reports/opponent.json").unlink()
    found = marks(folder)
    lost = {name for name in RIGHT if found[name][0] < RIGHT[name]}
    assert lost == {"same rows", "strong opponent", "cited figures", "verdict"}
    assert all("reports/opponent.json is missing" in found[name][1] for name in lost)


def test_a_weak_opponent_is_not_enough(pack, marks, reports):
    found = marks(pack(opponent="zero-shot"), rerun=0)
    assert found["strong opponent"][0] == 0 and "linear tagger" in found["strong opponent"][1]
    found = marks(pack(opponent="zero-shot", others=[reports["tagger"]]), rerun=0)
    assert found["strong opponent"][0] == 0 and "which you measured as well" in found["strong opponent"][1]


# --- adapters of another kind --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"peft_type": "IA3"}, "plain LoRA"),
        ({"use_dora": True}, "plain LoRA"),
        ({"alpha_pattern": {"q_proj": 9}}, "plain LoRA"),
        ({"init_lora_weights": "pissa"}, "plain LoRA"),
        ({"r": 8}, "does not fit"),
        ({"r": "16"}, "r='16'"),
        ({"r": 10**9}, "no adapter's"),
        ({"lora_alpha": None}, "no adapter's"),
    ],
)
def test_a_configuration_that_is_not_plain_lora_or_does_not_fit_is_refused(change, word, pack, marks):
    folder = pack()
    edit(folder / assignment.CONFIG, lambda config: config.update(change))
    points, reason = marks(folder)["adapter"]
    assert points == 0 and word in reason


def test_a_configuration_cannot_name_modules_to_import(pack, marks, tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    folder = pack()
    evil = {"megatron_config": {"x": 1}, "megatron_core": "evil", "auto_mapping": {"parent_library": "evil"}}
    edit(folder / assignment.CONFIG, lambda config: config.update(evil, target_modules=".*", modules_to_save=["evil"]))
    assert marks(folder)["total"] == 100 and not (tmp_path / "imported").exists()


def test_an_adapter_for_another_base_is_refused_by_its_shapes(pack, marks, tmp_path, tokenizer):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    small = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    other = models.trainable(LlamaForCausalLM(LlamaConfig(vocab_size=64, **small)), rank=4)
    models.save(other, tokenizer, tmp_path / "other")
    edit(tmp_path / "other/adapter_config.json", lambda config: config.update(base_model_name_or_path="else/Other-7B"))
    points, reason = marks(pack(adapter=tmp_path / "other"))["adapter"]
    assert points == 0 and "does not fit the base model" in reason and "else/Other-7B" in reason


# --- hostile folders -----------------------------------------------------------------------------------


class Trap:
    """Unpickled, it leaves a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def test_a_pickle_is_never_opened(pack, marks, tmp_path):
    folder = pack()
    trap = pickle.dumps(Trap(tmp_path / "unpickled"))
    for name in ("adapter/adapter_model.bin", "adapter/training_args.bin", "evil.pkl"):
        (folder / name).write_bytes(trap)
    assert marks(folder)["total"] == 100  # what nobody asked for is not looked at
    (folder / assignment.WEIGHTS).write_bytes(trap)
    points, reason = marks(folder)["adapter"]
    assert points == 0 and "Pickles are not opened" in reason and not (tmp_path / "unpickled").exists()


@pytest.mark.skipif(os.name == "nt", reason="links take rights on Windows")
@pytest.mark.parametrize("name", ["card.json", "notebook.ipynb", "reports", "reports/tuned.json", "adapter", "."])
def test_links_are_not_followed(name, pack, marks, tmp_path):
    folder = pack()
    place = folder / name
    shutil.move(place, tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere")
    found = marks(folder, rerun=0)
    assert found["total"] < 100 and any("is a link" in str(found[criterion]) for criterion in RIGHT)


def test_paths_that_a_card_or_report_names_lead_nowhere(pack, marks, tmp_path):
    (tmp_path / "secret.json").write_text('{"secret": "4711"}')
    folder = pack(card={"alternative": "../secret.json and file:///etc/passwd and one word"})
    edit(folder / "reports/tuned.json", lambda told: told.update(name="../../secret.json"))
    found = marks(folder, rerun=0)
    assert found["total"] == 100 and "4711" not in str(found)


@pytest.mark.parametrize(
    "name", ["card.json", "notebook.ipynb", "rows.jsonl", "reports/tuned.json", assignment.WEIGHTS]
)
def test_a_huge_file_is_not_read(name, pack, marks):
    folder = pack()
    os.truncate(folder / name, 2**29)  # sparse: it takes no room on disk
    found = marks(folder, rerun=0)
    assert found["total"] < 100 and any("bytes, more than" in str(found[criterion]) for criterion in RIGHT)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_does_not_hang_the_check(pack, marks):
    folder = pack()
    (folder / "card.json").unlink()
    os.mkfifo(folder / "card.json")
    assert "card.json is missing" in marks(folder, rerun=0)["card"][1]


@pytest.mark.parametrize("name", [*PARTS, assignment.CONFIG])
@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\x00", b"[" * 10**5, b'{"a": ' * 10**4, b"null", b'{"rows": 1}', b'{"cells": {}}']
)
def test_a_broken_file_costs_points_and_raises_nothing(name, content, pack, marks):
    folder = pack()
    (folder / name).write_bytes(content)
    found = marks(folder, rerun=0)
    assert found["total"] < 100 and not any("Could not be judged" in str(value) for value in found.values())


@pytest.mark.parametrize(
    "change",
    [
        {"text": 7}, {"text": "x" * 10**6}, {"title": None}, {"seconds": float("inf")}, {"prompt_tokens": -1},
        {"completion_tokens": "9" * 99}, {"seconds": True},
    ],
)  # fmt: skip
def test_an_impossible_row_of_a_report_is_refused(change, pack, marks):
    folder = pack()
    edit(folder / "reports/tuned.json", lambda told: told["rows"][3].update(change))
    assert marks(folder, rerun=0)["same rows"][0] == 0


def test_more_rows_or_names_than_can_be_scored_in_reasonable_time_are_refused(pack, marks):
    folder = pack()
    many = [data.recipe(f"Soup {i}", ["salt"], ["salt"]) for i in range(1_001)]
    long = [data.recipe("Soup", ["salt"], [f"salt {i}" for i in range(101)])]
    for rows, word in ((many, "1,001 rows"), (long, "101 names")):
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        found = marks(folder, rerun=0)["same rows"]
        assert found[0] == 0 and word in found[1]
        with pytest.raises(CourseError, match=f"rows: .*{word}"):
            pack(rows=rows)


@pytest.mark.parametrize(
    ("change", "points", "word"),
    [
        (lambda cells: cells[1].pop("execution_count") and cells[1].update(execution_count=None), 5, "1 of 3"),
        (lambda cells: [cell.update(execution_count=None) for cell in cells], 0, "3 of 3"),
        (lambda cells: cells[0].update(execution_count=9), 5, "another order"),
        (lambda cells: cells[0]["outputs"].append(
            {"output_type": "error", "ename": "KeyError", "evalue": "", "traceback": []}), 5, "ends with KeyError"),
        (lambda cells: cells.clear(), 0, "0 of 0"),
    ],
)  # fmt: skip
def test_a_notebook_that_was_not_run_to_its_end_in_order_says_so(change, points, word, pack, marks):
    folder = pack()
    edit(folder / "notebook.ipynb", lambda told: change(told["cells"]) and None)
    found = marks(folder, rerun=0)["notebook"]
    assert found[0] == points and word in found[1]


# --- handing in ------------------------------------------------------------------------------------------


def test_an_incomplete_submission_is_not_written_and_all_that_is_missing_is_named(tmp_path, reports):
    card = card_of(reports["good"], reports["tagger"]) | {"turns": "", "choice": "tuning"}
    del card["cost"], card["evidence"]["low"]
    with pytest.raises(CourseError) as caught:
        assignment.hand_in(
            tmp_path / "in", card=card, notebook=tmp_path / "none.ipynb", rows=COURSE, tuned=0.9,
            opponent=reports["good, own"], adapter=tmp_path,
        )  # fmt: skip
    for word in (
        "turns should say", "choice is 'tuning'", "cost should say", "does not cite low", "no none.ipynb",
        "tuned: this is no report", "opponent: 'tuned' was measured on other rows", "no adapter_config.json",
        "no adapter_model.safetensors", "record: say",
    ):  # fmt: skip
        assert word in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_report_that_was_recorded_without_its_answers_is_not_packed(pack, reports):
    bare = dataclasses.replace(
        reports["tagger"], rows=[{name: row[name] for name in row if name != "text"} for row in reports["tagger"].rows]
    )
    with pytest.raises(CourseError, match="opponent: .* was recorded without its answers"):
        pack(opponent=bare)


@pytest.mark.parametrize("card", [None, "tune", [], {}])
def test_a_card_of_another_kind_is_explained(card, tmp_path, reports, notebook):
    with pytest.raises(CourseError, match="card: "):
        assignment.hand_in(
            tmp_path / "in", card=card, notebook=notebook, rows=COURSE, tuned=reports["good"],
            opponent=reports["tagger"], record={"seconds": 1},
        )  # fmt: skip


def test_a_submission_replaces_an_earlier_one_and_nothing_else(pack, tmp_path):
    folder = pack()
    (folder / "old").touch()
    assert pack() == folder and not (folder / "old").exists()
    (tmp_path / "in" / "thesis").mkdir()
    (tmp_path / "in" / "thesis" / "thesis.tex").touch()
    with pytest.raises(CourseError, match="holds something else"):
        pack(name="thesis")
    assert (tmp_path / "in" / "thesis" / "thesis.tex").exists()


def test_a_run_brings_its_adapter_and_its_record(pack, adapters):
    from helpers import runs

    folder = pack(adapter=runs.Run(adapters["good"], {"seconds": 12.5, "steps": 3}), record=None)
    assert json.loads((folder / "record.json").read_text())["steps"] == 3
    assert (folder / assignment.WEIGHTS).read_bytes() == (adapters["good"] / "adapter_model.safetensors").read_bytes()


def test_numbers_of_numpy_are_packed_as_numbers(pack, marks, reports):
    import numpy as np

    card = card_of(reports["good"], reports["tagger"])
    card["evidence"] = {k: v if k == "verdict" else np.float32(v) for k, v in card["evidence"].items()}
    card["evidence"]["n"] = np.int64(10)
    assert marks(pack(card=card), rerun=0)["cited figures"][0] == 20


# --- a folder of submissions ---------------------------------------------------------------------------------


def read_csv(path):
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"))))


def test_thirty_submissions_are_judged_and_a_broken_one_stops_nobody(pack, tmp_path):
    first = pack(name="00")
    for number in range(1, 30):
        shutil.copytree(first, first.parent / f"{number:02}")
    edit(first.parent / "03/card.json", evidence(tuned_f1=0.5))
    shutil.rmtree(first.parent / "07")
    (first.parent / "07").mkdir()
    (first.parent / "11/reports/tuned.json").write_text('{"name": "\\ud800", "rows": [{}], "rows_hash": "\\ud800"}')
    (first.parent / "notes.txt").touch()
    assert rubric.main(first.parent, rerun=0) == 0
    table = read_csv(first.parent / "assessment.csv")
    assert [row["submission"] for row in table] == [f"{number:02}" for number in range(30)]
    totals = {row["submission"]: int(row["total"]) for row in table}
    assert totals.pop("07") == 0 and 0 < totals.pop("11") < totals.pop("03") < 100 and set(totals.values()) == {100}


def test_what_is_judged_is_kept_when_the_check_is_stopped(pack, monkeypatch):
    folder = pack(name="a").parent
    shutil.copytree(folder / "a", folder / "b")
    right = rubric.check

    def stopped(path, **options):
        if path.name == "b":
            raise KeyboardInterrupt
        return right(path, **options)

    monkeypatch.setattr(rubric, "check", stopped)
    with pytest.raises(KeyboardInterrupt):
        rubric.main(folder, rerun=0)
    assert [row["submission"] for row in read_csv(folder / "assessment.csv")] == ["a"]


def test_an_error_of_the_check_itself_costs_one_criterion_and_is_named(pack, monkeypatch):
    broken = rubric.Criterion("broken", 5, lambda submission: 1 / 0)
    result = rubric.check(pack(), rerun=0, rubric=(broken, *rubric.RUBRIC))
    assert result.marks[0] == rubric.Mark("broken", 0, 5, "Could not be judged: ZeroDivisionError: division by zero")
    assert result.total == round(100 * 85 / 90)


def test_an_empty_folder_is_named(tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(CourseError, match="holds no submissions"):
            rubric.main(folder)
    assert __main__.main(["assess", str(tmp_path)]) == 1


def test_the_command_shows_one_submission_or_writes_a_table(pack, tmp_path, capsys):
    folder = pack()
    assert __main__.main(["assess", str(folder), "--rerun", "0"]) == 0
    shown = capsys.readouterr().out
    assert "100 of 100  total" in shown and "15 of 15  same rows" in shown
    assert __main__.main(["assess", str(folder.parent), "--rerun", "0", "--csv", str(tmp_path / "marks.csv")]) == 0
    assert read_csv(tmp_path / "marks.csv")[0]["same rows"] == "15"


def test_a_report_shows_as_a_table_with_reasons_and_no_html_of_the_submission(pack):
    folder = pack()
    edit(folder / "card.json", evidence(**{"<script>": 1}))
    page = rubric.check(folder, rerun=0)._repr_html_()
    assert "<table>" in page and "<script>" not in page and "&lt;script&gt;" in page


# --- cells that no spreadsheet computes ------------------------------------------------------------------------

EVIL = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", " =1", "＝1"]
EVIL += ["a;=1", 'a",=1', "a\n=1", "a\t@x", "\tx", "'=1", '"=1', "a|+1", ";;=1", "= =1"]


@pytest.mark.parametrize("text", EVIL)
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_no_cell_begins_like_a_formula_wherever_a_line_is_cut(text, separator):
    one = rubric.Assessment(text, [rubric.Mark("c", 1, 1, text)])
    page = rubric.table_csv([one]).removeprefix("\ufeff")
    cut = [part for line in page.splitlines() for part in line.replace('"', "").split(separator)]
    for cell in [*cut, *(cell for row in csv.reader(io.StringIO(page, newline="")) for cell in row)]:
        assert cell.strip()[:1] not in tuple("=+-@＝＋－＠") and cell[:1] not in ("\t", "\r")


@pytest.mark.parametrize("text", ["Ada", "a - b", "interval -0.01 to +0.02", "x=1", "", "7.5", "Ünal, Ω"])
def test_harmless_cells_stay_as_they_are(text):
    assert rubric.safe_cell(text) == text


def test_a_submissions_name_reaches_the_table_without_its_formula(pack):
    folder = pack(name="=HYPERLINK(1)")
    rubric.main(folder.parent, rerun=0)
    assert read_csv(folder.parent / "assessment.csv")[0]["submission"] == "'=HYPERLINK(1)"


# --- the real model ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_real_adapter_is_asked_again_and_a_changed_one_is_found_out(notebook, tmp_path, runs_folder):
    rows = data.load("validation")[:10]
    run = training.fine_tune(data.load("train")[:60], epochs=1, live=False)
    system = evaluation.prompted(models.load_model(run.folder), models.load_tokenizer(), progress=False)
    tuned = evaluation.evaluate(system, rows, "tuned")
    opponent = evaluation.evaluate(baselines.tagger(data.load("train")), rows, "tagger")
    folder = assignment.hand_in(
        tmp_path / "in", card=card_of(tuned, opponent), notebook=notebook, rows=rows, tuned=tuned,
        opponent=opponent, adapter=run,
    )  # fmt: skip
    result = rubric.check(folder)
    assert result.total == 100 and evaluation.f1(tuned.rows) > 0.1
    other = training.fine_tune(data.load("train")[:4], epochs=1, live=False)
    shutil.copyfile(other.folder / "adapter_model.safetensors", folder / assignment.WEIGHTS)
    marks = {mark.criterion: mark for mark in rubric.check(folder).marks}
    assert marks["adapter"].points == 0 and "did not give these answers" in marks["adapter"].reason
