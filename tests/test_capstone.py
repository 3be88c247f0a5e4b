"""The capstone's tasks and their right answers, the test that is opened once, serving what is no model, the rubric."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import nbformat
import pytest

from helpers import assignment, authoring, capstone, data, evaluation, opponents, providers, rubric, serving
from helpers.runtime import CourseError

ROOT = authoring.ROOT


# --- rows ----------------------------------------------------------------------------------------


def test_the_rows_are_what_their_sources_make():
    script = [sys.executable, data.FOLDER / "capstone" / "build.py", "--check"]
    done = subprocess.run(script, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", capstone.OFFERED)
def test_a_task_has_rows_that_no_other_split_asks(name):
    task = capstone.load(name)
    assert [len(rows) for rows in (task.train, task.validation, task.sealed)] == [120, 50, 50]
    everything = task.train + task.validation + task.sealed
    assert data.check(everything, task="recipe") == []
    asked = [data.normalise(data.prompt(row)[-1]["content"].split("\n", 1)[-1]) for row in everything]
    assert len(set(asked)) == len(asked)  # nor without their dates


def test_no_answer_of_the_island_stands_in_training_with_its_question_and_every_one_on_a_page():
    task = capstone.load("island")
    for row in task.validation + task.sealed:
        question = data.title(row)
        (page,) = [p for p in task.pages if p.split("\n")[0].lower() in question.lower()]
        assert all(name in page for name in data.answer(row)), question
        assert not any(page.split("\n")[0].lower() in data.title(other).lower() for other in task.train)


def test_things_on_lists_stand_in_one_split_only():
    task = capstone.load("lists")
    splits = (task.train, task.validation, task.sealed)
    names = [{name.lstrip("0123456789 ") for row in rows for name in data.answer(row)} for rows in splits]
    assert not names[0] & names[1] and not names[0] & names[2] and not names[1] & names[2]


def test_an_unknown_task_and_a_missing_split_are_named(tmp_path):
    with pytest.raises(CourseError, match="lists, island, parcels, my_task"):
        capstone.load("list")
    with pytest.raises(CourseError, match="train.jsonl"):
        _ = capstone.Task("my_task", tmp_path).train


# --- what was recorded -----------------------------------------------------------------------------


def verdicts(name, way):
    best = capstone.strongest(name)
    return {evaluation.compare(run["report"], best).verdict for run in capstone.recorded(name) if run["name"] == way}


def test_each_task_has_another_right_answer_with_every_seed():
    assert verdicts("lists", "LoRA") == {"better"}
    assert verdicts("island", "LoRA") == verdicts("island", "LoRA, with pages") == {"worse"}
    assert "better" not in verdicts("parcels", "LoRA")
    assert [capstone.strongest(name).name for name in capstone.OFFERED] == ["tagger", "pages read by patterns", "rules"]
    for name in capstone.OFFERED:
        assert [run["seed"] for run in capstone.recorded(name) if run["name"] == "LoRA"] == [0, 1, 2]
        rows = capstone.load(name).validation
        assert {run["rows_hash"] for run in capstone.recorded(name)} == {data.rows_hash(rows)}


@pytest.mark.parametrize("name", capstone.OFFERED)
def test_opponents_reach_what_was_recorded(name):
    task, known = capstone.load(name), {run["name"]: run for run in capstone.recorded(name)}
    for way, system in opponents.of(task).items():
        report = evaluation.evaluate(system, task.validation, way)
        assert evaluation.f1(report.rows) == pytest.approx(known[way]["f1"], abs=0.02), way


def test_rules_hear_numbers_pauses_and_known_things():
    system = opponents.dictated(capstone.load("lists").train)
    for told, wanted in {
        "a dozen hot cross buns and milk": ["12 hot cross buns", "milk"],
        "half a dozen eggs oh and some brown bread": ["6 eggs", "brown bread"],
        "": [],
        "two": ["2"],
    }.items():
        (answer,) = system([[{"role": "user", "content": f"Monday\n- {told}"}]])
        assert json.loads(answer) == wanted


def test_a_question_that_no_pattern_knows_is_answered_with_nothing():
    (answer,) = opponents.retrieved(capstone.load("island").pages)([[{"role": "user", "content": "Is it nice there?"}]])
    assert answer == "[]"


# --- the test, once --------------------------------------------------------------------------------


def test_the_test_is_opened_once_for_the_same_systems_and_anew_for_others(runs_folder, capsys):
    task = capstone.load("parcels")
    with pytest.raises(CourseError, match="sealed"):
        data.load(task.folder / "test.jsonl")
    assert task.openings == []
    systems = opponents.of(task)
    first = task.test(systems, "the end", made_of=1)
    assert task.test(systems, "again", made_of=1) == first
    assert [entry["reason"] for entry in task.openings] == ["the end"]
    task.test(systems, "another model", made_of=2)
    assert [entry["reason"] for entry in task.openings] == ["the end", "another model"]
    assert capstone.load("lists").openings == []  # each task has its own count
    assert "opened 1 time before" in capsys.readouterr().out


# --- serving ---------------------------------------------------------------------------------------


def test_rules_are_served_behind_the_official_client_and_give_their_own_answers():
    import openai

    task = capstone.load("parcels")
    system = opponents.numbered([])
    chats = [data.prompt(row) for row in task.validation]
    with serving.Server(system, "parcels") as server:
        asked = providers.hosted(server.client, server.name, parallel=4, progress=False)(chats)
        assert [answer["text"] for answer in asked] == system(chats)
        wrong = openai.OpenAI(base_url=server.client.base_url, api_key="guessed", max_retries=0)
        with pytest.raises(openai.AuthenticationError, match="wrong key"):
            wrong.chat.completions.create(model="parcels", messages=chats[0])
        with pytest.raises(openai.NotFoundError):
            server.client.models.list()


def test_a_system_that_fails_fails_one_request_and_the_next_is_answered():
    import openai

    def system(chats):
        return [json.dumps([str(10 / int(chats[0][-1]["content"]))])]

    with serving.Server(system, "tens") as server:
        client = server.client.with_options(max_retries=0)
        ask = lambda text: client.chat.completions.create(model="tens", messages=[{"role": "user", "content": text}])  # noqa: E731
        with pytest.raises(openai.InternalServerError, match="ZeroDivisionError"):
            ask("0")
        assert ask("4").choices[0].message.content == '["2.5"]'


# --- the rubric --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    path = tmp_path_factory.mktemp("notebook") / "work.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1", execution_count=1)]), path)
    return path


def saying(answers, rows, name):
    """The report of a system that gives these lists of names."""
    texts = iter([json.dumps(names) for names in answers])
    return evaluation.evaluate(lambda chats: [next(texts) for _ in chats], rows, name)


KINDS = {"rules": "rules", "tagger": "classifier", "prompt": "prompt", "LoRA": "tune", "nothing": "prompt"}


def card_of(task, chosen, opponent, test, **changes):
    pair = evaluation.compare(chosen, opponent)
    evidence = {"chosen f1": evaluation.f1(chosen.rows), "opponent f1": evaluation.f1(opponent.rows), "n": chosen.n}
    evidence |= {"difference": pair.difference, "low": pair.low, "high": pair.high, "verdict": pair.verdict}
    return {
        "task": task.name, "choice": KINDS[chosen.name], "door": "none", "kinds": KINDS,
        "evidence": evidence | {"test f1": evaluation.f1(test.rows)},
        "because": "these rows say so in pairs, and it costs next to nothing to run",
        "alternative": "the linear tagger, which is the best of the others",
        "cost": "1 hour of writing against 2 seconds of training", "turns": "numbers of another form in the messages",
        "serving": "one process, 1 ms a request; the one before is started again by a restart",
    } | changes  # fmt: skip


@pytest.fixture
def pack(tmp_path, notebook, runs_folder):
    """Pack a capstone on parcels that decides for rules, or one with changes."""
    task = capstone.load("parcels")
    systems = opponents.of(task) | {"nothing": lambda chats: ['["none"]'] * len(chats)}
    reports = {name: evaluation.evaluate(system, task.validation, name) for name, system in systems.items()}

    def packed(chosen="rules", others=("tagger", "nothing"), name="ada", task=task, **changes):
        tests = task.test({chosen: systems[chosen]}, "the end", made_of=chosen)
        known = [reports[other] for other in others]
        best = max(known, key=lambda report: evaluation.f1(report.rows))
        card = card_of(task, reports[chosen], best, tests[0], **changes)
        return capstone.hand_in(
            tmp_path / "in" / name, task, card=card, notebook=notebook, chosen=reports[chosen], others=known,
            tests=tests,
        )  # fmt: skip

    return packed


def marks(folder, **options):
    result = rubric.check(folder, **options)
    return {mark.criterion: (mark.points, mark.reason) for mark in result.marks} | {"total": result.total}


def edit(path, change):
    value = json.loads(path.read_text(encoding="utf-8"))
    change(value)
    path.write_text(json.dumps(value), encoding="utf-8")


def test_rules_without_an_adapter_earn_full_marks(pack):
    found = marks(pack())
    assert found["total"] == 100
    assert "None is needed" in found["adapter"][1] and "Not marked" in found["decision"][1]
    assert "Opened once" in found["test opened once"][1]


def test_the_command_tells_a_capstone_from_an_assignment(pack, capsys):
    folder = pack()
    assert rubric.main(folder, rerun=0) == 0
    assert "test opened once" in capsys.readouterr().out
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    assert assignment.is_capstone(card) and not assignment.is_capstone({"choice": "tune"})
    other = shutil.copytree(folder, folder.parent / "bob")
    edit(other / "card.json", lambda card: card.pop("task"))
    assert rubric.main(folder.parent, rerun=0) == 0
    table = (folder.parent / "assessment.csv").read_text(encoding="utf-8-sig").splitlines()
    assert "own rows" in table[0] and "same rows" in table[0] and len(table) == 3


def cheat(**changes):
    return lambda card: card["evidence"].update({name.replace("_", " "): value for name, value in changes.items()})


@pytest.mark.parametrize(
    ("file", "change", "criterion", "word"),
    [
        ("card.json", cheat(chosen_f1=0.5), "cited figures", "chosen f1 0.5"),
        ("card.json", cheat(test_f1=0.5), "cited figures", "test f1 0.5"),
        ("card.json", lambda card: card["evidence"].pop("test f1"), "cited figures", "Not cited: test f1"),
        ("card.json", cheat(verdict="worse"), "verdict", "in pairs"),
        ("card.json", lambda card: card.pop("serving"), "card", "how it is served"),
        ("card.json", lambda card: card.update(kinds=[]), "card", "kinds should be"),
        ("card.json", lambda card: card.update(task="lists"), "own rows", "train.jsonl has not the rows of 'lists'"),
        ("card.json", lambda card: card["kinds"].pop("tagger"), "strong opponent", "of what kind 'tagger' is"),
        ("card.json", lambda card: card.update(choice="prompt"), "decision", "rests on 'rules'"),
        ("openings.json", lambda log: log.update(openings=[]), "test opened once", "no opening"),
        ("openings.json", lambda log: log.update(openings="yes"), "test opened once", "no opening"),
        ("openings.json", lambda log: log["openings"].append(log["openings"][0]), "test opened once", "2 times"),
        ("reports/test-1.json", lambda report: report.update(name="tagger"), "test opened once", "'tagger' was meas"),
        ("reports/test-1.json", lambda report: report.update(rows_hash="0"), "test opened once", "other rows"),
    ],
)  # fmt: skip
def test_what_is_wrong_costs_its_points_and_is_named(file, change, criterion, word, pack):
    folder = pack()
    edit(folder / file, change)
    found = marks(folder, rerun=0)
    assert found["total"] < 100 and word in found[criterion][1]


@pytest.mark.parametrize("file", ["train.jsonl", "test.jsonl", "openings.json", "reports/test-1.json"])
def test_what_is_missing_is_named(file, pack):
    folder = pack()
    (folder / file).unlink()
    found = marks(folder, rerun=0)
    assert found["total"] < 100 and any(file in reason for _, reason in list(found.values())[:-1])


def test_a_row_that_was_trained_on_is_found_by_its_question(pack):
    folder = pack()
    rows = (folder / "rows.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    with (folder / "train.jsonl").open("a", encoding="utf-8") as file:
        file.write(rows[3])
    assert "train.jsonl has not the rows" in marks(folder, rerun=0)["own rows"][1]
    edit(folder / "card.json", lambda card: card.update(task="my_task"))
    assert "stand elsewhere" in marks(folder, rerun=0)["own rows"][1]


def test_a_weak_opponent_loses_and_so_does_a_choice_that_its_own_rows_contradict(pack):
    found = marks(pack(chosen="nothing", others=("tagger", "rules")), rerun=0)
    assert "'rules' is better and no dearer" in found["decision"][1] or "'tagger' is" in found["decision"][1]
    found = marks(pack(chosen="nothing", others=("tagger", "rules"), name="stop", choice="stop"), rerun=0)
    assert "Not marked" in found["decision"][1]


def always_right_and_weak(task):
    """Reports of a tuned model that errs nowhere, of an opponent that hardly says anything, and the former's test."""
    good = saying(map(data.answer, task.validation), task.validation, "LoRA")
    weak = saying([["milk"]] * 50, task.validation, "nothing")
    return good, weak, [saying(map(data.answer, task.sealed), task.sealed, "LoRA")]


def test_without_a_strong_way_that_needs_no_tuning_points_are_lost(tmp_path, notebook, runs_folder):
    task = capstone.load("lists")
    good, weak, tests = always_right_and_weak(task)
    card = card_of(task, good, weak, tests[0], door="Azure OpenAI")
    job = {"id": "ftjob-1", "fine_tuned_model": "ft:1"}
    parts = {"card": card, "notebook": notebook, "chosen": good, "tests": tests, "record": job}
    found = marks(capstone.hand_in(tmp_path / "in", task, others=[weak], **parts))
    assert found["strong opponent"][0] == 0 and "'tagger' was recorded with" in found["strong opponent"][1]
    assert "on trust" in found["adapter"][1]
    tagger = evaluation.evaluate(opponents.of(task)["tagger"], task.validation, "tagger")
    parts["card"] = card_of(task, good, tagger, tests[0], door="Azure OpenAI")
    found = marks(capstone.hand_in(tmp_path / "in", task, others=[weak, tagger], **parts))
    assert found["strong opponent"][0] == 20 and "Not marked" in found["decision"][1]


def test_who_decides_to_tune_hands_in_an_adapter(tmp_path, notebook, runs_folder):
    task = capstone.load("parcels")
    good, weak, tests = always_right_and_weak(task)
    card = card_of(task, good, weak, tests[0], door="Hugging Face")
    with pytest.raises(CourseError, match="adapter: give the run"):
        capstone.hand_in(
            tmp_path / "in", task, card=card, notebook=notebook, chosen=good, others=[weak], tests=tests,
            record={"seconds": 9},
        )  # fmt: skip


def test_ones_own_task_needs_two_other_kinds(tmp_path, notebook, runs_folder, monkeypatch):
    folder = tmp_path / "my_task"
    shutil.copytree(data.FOLDER / "capstone" / "parcels", folder)
    monkeypatch.setattr(capstone, "load", lambda name: capstone.Task(name, folder))
    task = capstone.load("my_task")
    systems = opponents.of(task) | {"rules": opponents.numbered([]), "nothing": lambda chats: ['["none"]'] * len(chats)}
    reports = {name: evaluation.evaluate(system, task.validation, name) for name, system in systems.items()}
    tests = task.test({"rules": systems["rules"]}, "the end")
    parts = {"notebook": notebook, "chosen": reports["rules"], "tests": tests}
    parts["card"] = card_of(task, reports["rules"], reports["tagger"], tests[0])
    found = marks(capstone.hand_in(tmp_path / "a", task, others=[reports["tagger"]], **parts))
    assert found["strong opponent"][0] == 10 and "Show two" in found["strong opponent"][1]
    others = [reports["tagger"], reports["nothing"]]
    assert marks(capstone.hand_in(tmp_path / "b", task, others=others, **parts))["total"] == 100


def test_nothing_is_written_while_something_is_missing(tmp_path, notebook, runs_folder):
    task = capstone.load("parcels")
    report = evaluation.evaluate(opponents.numbered([]), task.validation, "rules")
    with pytest.raises(CourseError) as caught:
        capstone.hand_in(
            tmp_path / "in", task, card={"task": "parcels", "choice": "rules"}, notebook=notebook, chosen=report,
            others=[], tests=[],
        )  # fmt: skip
    for word in ("serving should say", "kinds should be", "evidence should be", "opponent: this is no report"):
        assert word in str(caught.value)
    assert not (tmp_path / "in").exists()


# --- the lesson -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_cells_run_for_the_other_two_tasks_and_decide_against_tuning(tmp_path):
    cells = [c.source for c in authoring.read(ROOT / "solutions" / "19-capstone.ipynb").cells if c.cell_type == "code"]
    script = tmp_path / "cells.py"
    script.write_text(f"""
import json
for name in ("island", "parcels"):
    space = {{}}
    for cell in json.loads({json.dumps(json.dumps(cells))}):
        exec(compile(cell.replace('task_name = "lists"', f'task_name = "{{name}}"'), "cell", "exec"), space)
    total = space["rubric"].check(space["folder"], rerun=0).total
    print("RESULT", name, space["card"]["choice"], space["run"], total, space["same"])
""", encoding="utf-8")  # fmt: skip
    environment = {**os.environ, "COURSE_RUNS": str(tmp_path / "runs"), "COURSE_ROOT": str(ROOT), "MPLBACKEND": "agg"}
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    results = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("RESULT")]
    assert results == [["island", "retrieve", "None", "100", "50"], ["parcels", "rules", "None", "100", "50"]]
