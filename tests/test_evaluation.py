"""Metrics, intervals, verdicts; decoding that does not depend on the batch; the board."""

from __future__ import annotations

import json

import pytest

from helpers import data, evaluation, models, plots, scoreboard
from helpers.runtime import CourseError


def rows(count: int = 20) -> list[dict]:
    return data.load("validation")[:count]


def gold(chats_rows):
    """A system that knows the answers to these rows."""
    known = {json.dumps(data.prompt(row)): row["messages"][-1]["content"] for row in chats_rows}
    return lambda chats: [known[json.dumps(chat)] for chat in chats]


# --- one answer ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('["salt", "Pepper "]', ["salt", "pepper"]), ("[]", []), ('["salt", "salt"]', ["salt"]),
        ('{"a": 1}', None), ('["salt", 1]', None), ('"salt"', None), ("salt, pepper", None), ('["salt"', None),
        ('Sure! ["salt"]', None), ("", None), ("[" * 100_000, None), ('```json\n["salt"]\n```', None),
    ],
)  # fmt: skip
def test_only_a_json_array_of_strings_names_anything(text, names):
    assert evaluation.parse(text) == names


@pytest.mark.parametrize(
    ("answer", "hits", "lenient", "exact"),
    [
        (["brown sugar", "eggs"], 2, 2, True), (["eggs", "brown sugar"], 2, 2, True), (["sugar", "eggs"], 1, 2, False),
        (["dark brown sugar"], 0, 1, False), (["sugar", "brown"], 0, 1, False), ([], 0, 0, False),
        (["brown sugar", "sugar", "eggs"], 2, 2, False), (["eggs", "sugar", "brown sugar"], 2, 2, False),
    ],
)  # fmt: skip
def test_strict_counts_equal_names_lenient_counts_contained_ones_each_once(answer, hits, lenient, exact):
    scored = evaluation.score(json.dumps(answer), ["brown sugar", "eggs"])
    assert (scored["hits"], scored["lenient"], scored["exact"]) == (hits, lenient, exact)


def test_an_empty_answer_to_an_unreadable_reply_is_not_exact():
    assert not evaluation.score("nothing", [])["exact"]
    assert evaluation.score("[]", [])["exact"]


# --- a report ------------------------------------------------------------------------------------


def test_the_gold_answers_score_one_everywhere():
    metrics = evaluation.evaluate(gold(rows()), rows(), "gold").metrics
    assert all(metrics[name] == 1 for name in ("precision", "recall", "f1", "lenient_f1", "exact", "valid_json", "low"))


def test_f1_is_the_harmonic_mean_of_precision_and_recall():
    report = evaluation.evaluate(lambda chats: ['["salt", "sugar", "butter", "flour"]'] * len(chats), rows(50))
    m = report.metrics
    assert 0 < m["f1"] < 1
    assert m["f1"] == pytest.approx(2 * m["precision"] * m["recall"] / (m["precision"] + m["recall"]))
    assert m["low"] < m["f1"] < m["high"]


def test_the_interval_narrows_with_more_rows():
    def half_right(chats):
        answers = gold(rows(100))(chats)
        return [text if i % 2 else "[]" for i, text in enumerate(answers)]

    wide, narrow = (evaluation.evaluate(half_right, rows(n)).interval() for n in (10, 100))
    assert narrow[1] - narrow[0] < (wide[1] - wide[0]) / 2


def test_a_system_that_loses_an_answer_is_refused():
    with pytest.raises(CourseError, match="19 answers to 20 questions"):
        evaluation.evaluate(lambda chats: ["[]"] * (len(chats) - 1), rows(), "forgetful")


@pytest.mark.parametrize("answer", [None, ["salt"], 3, {"answer": "[]"}])
def test_what_is_no_answer_is_refused_by_the_number_of_its_question(answer):
    with pytest.raises(CourseError, match="The cook answered question 3 with.*json.dumps"):
        evaluation.evaluate(lambda chats: ["[]", "[]", answer], rows(3), "The cook")


@pytest.mark.parametrize("gold", ['{"date": "13 April"}', '"yes"', "13 April", "42", '["salt", 1]'])
def test_rows_that_cannot_be_scored_are_refused_before_anything_is_asked(gold):
    def never(chats):
        raise AssertionError("asked")

    mine = [{"messages": [{"role": "user", "content": "When?"}, {"role": "assistant", "content": gold}]}]
    with pytest.raises(data.DataError, match="rows:1: messages"):
        evaluation.evaluate(never, mine)


def test_rows_may_be_named_as_a_file_or_a_split(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows(3)), encoding="utf-8")
    assert evaluation.evaluate(gold(rows(3)), path).n == evaluation.evaluate(gold(rows(3)), str(path)).n == 3
    assert evaluation.evaluate(lambda chats: ["[]"] * len(chats), "validation").n == 100


def test_a_single_chat_in_place_of_a_list_of_chats_is_explained(tiny, tokenizer):
    chat = [{"role": "user", "content": "salt?"}]
    for ask in (lambda: models.generate(tiny, tokenizer, chat), lambda: evaluation.prompted(tiny, tokenizer)(chat)):
        with pytest.raises(CourseError, match=r"put \[ \] around"):
            ask()


def test_rows_of_a_report_that_was_recorded_without_answers_cannot_be_browsed():
    bare = evaluation.evaluate(gold(rows(3)), rows(3), "then")
    bare.rows[:] = [{name: value for name, value in row.items() if name != "text"} for row in bare.rows]
    with pytest.raises(CourseError, match="'then' was recorded without its answers"):
        evaluation.compare(evaluation.evaluate(gold(rows(3)), rows(3)), bare).wins()


def test_a_report_with_a_key_is_made_once_and_found_again(runs_folder):
    calls = []

    def system(chats):
        calls.append(len(chats))
        return ["[]"] * len(chats)

    first = evaluation.evaluate(system, rows(), "empty", key={"system": "empty"})
    second = evaluation.evaluate(system, rows(), "empty", key={"system": "empty"})
    assert calls == [20] and first == second
    evaluation.evaluate(system, rows(10), "empty", key={"system": "empty"})
    assert calls == [20, 10]


def test_the_worst_row_is_the_one_with_the_lowest_score():
    report = evaluation.evaluate(lambda chats: ["nope", *gold(rows())(chats)[1:]], rows())
    assert report.worst()[0]["title"] == data.title(rows()[0])


# --- two reports ---------------------------------------------------------------------------------


def some_wrong(count):
    def system(chats):
        answers = gold(rows(100))(chats)
        return [json.dumps(["wrong", *json.loads(a)[1:]]) if i < count else a for i, a in enumerate(answers)]

    return system


def test_the_three_verdicts():
    good, bad, same = (evaluation.evaluate(some_wrong(n), rows(60), str(n)) for n in (0, 40, 1))
    assert evaluation.compare(good, bad).verdict == "better"
    assert evaluation.compare(bad, good).verdict == "worse"
    assert evaluation.compare(good, same).verdict == "cannot tell with these rows"
    assert evaluation.compare(good, good).difference == 0


def test_the_smallest_detectable_difference_falls_with_the_root_of_the_rows():
    detectable = [
        evaluation.compare(*(evaluation.evaluate(some_wrong(k), rows(n), str(k)) for k in (0, n // 3))).detectable
        for n in (24, 96)
    ]
    assert detectable[1] == pytest.approx(detectable[0] / 2, rel=0.35)


def test_other_rows_cannot_be_compared():
    a, b = evaluation.evaluate(gold(rows()), rows(), "a"), evaluation.evaluate(gold(rows()), rows(19), "b")
    with pytest.raises(CourseError, match="different rows"):
        evaluation.compare(a, b)


def test_wins_and_losses_show_the_widest_margins_first():
    good, bad = evaluation.evaluate(gold(rows()), rows(), "good"), evaluation.evaluate(some_wrong(5), rows(), "bad")
    comparison = evaluation.compare(good, bad)
    assert len(comparison.wins(10)) == 5 and not comparison.losses(10)
    assert "good" in comparison.wins(1)[0] and comparison.wins(1)[0]["gold"]


# --- decoding ------------------------------------------------------------------------------------


def test_batched_answers_are_those_of_one_by_one_in_fp32(lively, tokenizer):
    chats = [data.prompt(row) for row in rows(9)]
    together, alone, threes = (
        [a["text"] for a in models.generate(lively, tokenizer, chats, max_new_tokens=12, batch_size=b, progress=False)]
        for b in (9, 1, 3)
    )
    assert together == alone == threes and len(set(together)) == 9


def test_greedy_decoding_is_that_of_transformers(lively, tokenizer):
    import torch

    chat = data.prompt(rows(1)[0])
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False, return_tensors="pt")
    with torch.inference_mode():
        theirs = lively.generate(ids, max_new_tokens=10, do_sample=False, attention_mask=torch.ones_like(ids))
    ours = models.generate(lively, tokenizer, [chat], max_new_tokens=10, progress=False)[0]
    assert ours["text"] == tokenizer.decode(theirs[0, ids.shape[1] :], skip_special_tokens=True)
    assert ours["prompt_tokens"] == ids.shape[1] and ours["completion_tokens"] == 10 and not ours["finished"]


def test_no_chats_give_no_answers(tiny, tokenizer):
    assert models.generate(tiny, tokenizer, [], progress=False) == []


# --- the board -----------------------------------------------------------------------------------


def test_the_board_replaces_the_same_system_and_keeps_other_rows_apart(runs_folder):
    scoreboard.add(evaluation.evaluate(gold(rows()), rows(), "gold"))
    scoreboard.add(evaluation.evaluate(gold(rows()), rows(), "gold"), note="again")
    assert [(row["system"], row["note"]) for row in scoreboard.rows()] == [("gold", "again")]
    scoreboard.add(evaluation.evaluate(gold(rows()), rows(10), "gold"))
    assert [row["n"] for row in scoreboard.rows()] == [20, 10]
    assert len(scoreboard.show(n=10)) == 1


def test_a_recorded_run_joins_the_board_with_its_date(runs_folder):
    recorded = plots.recorded("full")[0]
    scoreboard.add_recorded(recorded, "full, all rows")
    (row,) = scoreboard.rows()
    assert row["f1"] == recorded["f1"] and recorded["date"] in row["note"]
    assert row["rows_hash"] == data.rows_hash(data.load("validation"))
    assert {"low", "high", "valid_json", "prompt_tokens", "seconds"} <= row.keys()


def test_the_board_shows_the_best_first_with_interval_n_and_device(runs_folder):
    scoreboard.add(evaluation.evaluate(some_wrong(10), rows(), "worse"))
    scoreboard.add(evaluation.evaluate(gold(rows()), rows(), "gold"))
    table = scoreboard.show()
    assert [row["system"] for row in table] == ["gold", "worse"]
    assert {"95 % interval", "n", "on", "rows"} <= set(table[0])
    assert "<table>" in table._repr_html_() and scoreboard.picture(n=20).axes


# --- the sealed test -----------------------------------------------------------------------------


def test_the_test_rows_open_only_with_a_reason_that_is_logged(runs_folder, capsys):
    with pytest.raises(CourseError, match="open_test"):
        data.load("test")
    with pytest.raises(CourseError, match="reason"):
        data.open_test("  ")
    assert len(data.open_test("a specification")) == 100
    data.open_test("once more")
    assert "1" in capsys.readouterr().out.splitlines()[-1]


def test_a_long_name_in_a_table_may_fold_and_short_ones_and_dangerous_ones_stay_as_they_are():
    html = evaluation.Table([{"a": "from_pretrained.pretrained_model_name_or_path", "b": "n_epochs", "c": "<b>"}])
    shown = html._repr_html_()
    assert "from_<wbr>pretrained.<wbr>" in shown and "n_epochs" in shown and "<b>" not in shown
    assert shown.replace("<wbr>", "").count("from_pretrained.pretrained_model_name_or_path") == 1
