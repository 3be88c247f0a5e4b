"""What may serve, what was served, and the way back."""

from __future__ import annotations

import datetime
import hashlib
import json
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import deploy, evaluation, runs
from helpers.runtime import CourseError


def report(name: str, rights: int, n: int = 40, valid: int | None = None, seconds: float = 0.5) -> evaluation.Report:
    """A report in which `rights` of `n` rows are right, `valid` are JSON, and each took about `seconds`."""
    rows = []
    for i in range(n):
        good, ok = i < rights, i < (n if valid is None else valid)
        score = {"hits": 4 * good, "lenient": 4 * good, "n_predicted": 4 * ok, "n_gold": 4, "exact": good, "valid": ok}
        counts = {"seconds": seconds * (1 + i % 5 / 10), "prompt_tokens": 9, "completion_tokens": 9}
        rows.append({"title": str(i), "text": "[]", **score, **counts})
    return evaluation.Report(name, rows, "some-rows", "Q8_0", "cpu")


# --- the gate ----------------------------------------------------------------------------------------


def blocked_by(verdict: deploy.Verdict) -> list[str]:
    return [rule["rule"].split(":")[0] for rule in verdict.reasons if rule["so"] == "block"]


def test_a_clear_win_passes():
    verdict = deploy.gate(report("new", 35), report("old", 20))
    assert verdict.promote and blocked_by(verdict) == [] and "promote" in repr(verdict)


@pytest.mark.parametrize(
    ("candidate", "rules"),
    [
        (report("worse", 8), ["F1"]),
        (report("more invalid", 35, valid=35), ["valid JSON"]),
        (report("slower", 35, seconds=1.5), ["seconds"]),
        (report("all of it", 5, valid=20, seconds=2), ["F1", "valid JSON", "seconds"]),
    ],
    ids=lambda value: value.name if isinstance(value, evaluation.Report) else "",
)
def test_a_clear_regression_is_blocked_by_its_rule(candidate, rules):
    verdict = deploy.gate(candidate, report("old", 20))
    assert not verdict.promote and blocked_by(verdict) == rules and "blocked" in verdict._repr_html_()


def test_a_difference_that_rows_cannot_tell_blocks_unless_a_margin_lets_it_pass():
    candidate, current = report("new", 20, seconds=0.1), report("old", 20)
    assert blocked_by(deploy.gate(candidate, current)) == ["F1"]
    assert deploy.gate(candidate, current, margin=0.05).promote


def test_a_margin_lets_no_clear_loss_pass_and_no_loss_that_may_be_as_large():
    assert not deploy.gate(report("worse", 14), report("old", 20), margin=0.5).promote  # it is clear
    old = report("old", 20)
    swapped = evaluation.Report("luck", old.rows[10:30] + old.rows[:10] + old.rows[30:], "some-rows", "Q8_0", "cpu")
    assert evaluation.compare(swapped, old).verdict.startswith("cannot tell")
    assert blocked_by(deploy.gate(swapped, old, margin=0.05)) == ["F1"]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 40), st.integers(0, 40), st.floats(0.1, 3))
def test_a_model_is_never_promoted_over_itself_and_two_models_never_over_each_other(a, b, seconds):
    one, other = report("one", a, seconds=seconds), report("other", b)
    assert not deploy.gate(one, one).promote
    assert not (deploy.gate(one, other).promote and deploy.gate(other, one).promote)


def test_a_gate_with_other_rows_or_senseless_settings_is_refused():
    with pytest.raises(CourseError, match="different rows"):
        deploy.gate(report("new", 3, n=4), evaluation.Report("old", report("x", 3).rows, "other", "Q8_0", "cpu"))
    for wrong in ({"margin": 0}, {"margin": 5}, {"slower": 0.5}):
        with pytest.raises(CourseError, match="a margin lies between"):
            deploy.gate(report("new", 3), report("old", 3), **wrong)


# --- the log -----------------------------------------------------------------------------------------

SECRET = "my aunt's secret recipe"
CHATS = [[{"role": "user", "content": f"{SECRET} {i}"}] for i in range(12)]


def answering(chats):
    return [{"text": "no JSON" if chat[0]["content"].endswith("3") else '["salt"]', "finished": True,
             "prompt_tokens": 5, "completion_tokens": 3} for chat in chats]  # fmt: skip


def test_every_request_leaves_one_line_and_the_answers_are_as_without_a_log(tmp_path):
    began = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=1)
    asked = deploy.logged(answering, tmp_path / "log.jsonl", "v1")(CHATS)
    lines = deploy.read_log(tmp_path / "log.jsonl")
    assert [row["text"] for row in asked] == [row["text"] for row in answering(CHATS)]
    assert len(lines) == 12 and sum(not line["valid"] for line in lines) == 1
    assert all(line["version"] == "v1" and line["seconds"] >= 0 and line["completion_tokens"] == 3 for line in lines)
    assert all(began <= datetime.datetime.fromisoformat(line["time"]) for line in lines)
    assert sorted(row["seconds"] for row in asked) == sorted(line["seconds"] for line in lines)


def test_the_log_has_neither_question_nor_answer(tmp_path):
    deploy.logged(answering, tmp_path / "log.jsonl", "v1")(CHATS)
    text = (tmp_path / "log.jsonl").read_text(encoding="utf-8")
    assert SECRET not in text and "salt" not in text


def test_a_request_that_fails_is_logged_and_the_error_goes_on_to_the_caller(tmp_path):
    def failing(chats):
        raise TimeoutError(SECRET)

    with pytest.raises(TimeoutError):
        deploy.logged(failing, tmp_path / "log.jsonl", "v2", parallel=1)(CHATS[:1])
    (line,) = deploy.read_log(tmp_path / "log.jsonl")
    assert line["error"] == "TimeoutError" and not line["valid"] and SECRET not in json.dumps(line)


def test_seconds_are_the_wait_for_one_answer_and_not_a_share_of_the_whole(tmp_path):
    import time

    def slow(chats):
        time.sleep(0.2)
        return ["[]"] * len(chats)

    answers = deploy.logged(slow, tmp_path / "log.jsonl", "v1", parallel=2)(CHATS)  # 1.2 seconds for all
    assert all(0.2 <= answer["seconds"] < 1 for answer in answers)


def test_lines_of_many_threads_do_not_mix_and_a_torn_one_is_passed_over(tmp_path, capsys):
    log = tmp_path / "log.jsonl"
    ask = deploy.logged(answering, log, "v1", parallel=8)
    threads = [threading.Thread(target=ask, args=(CHATS,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with log.open("a", encoding="utf-8") as file:
        file.write('{"time": "2026-')
    assert len(deploy.read_log(log)) == 8 * 12 and "Line 97" in capsys.readouterr().out
    assert deploy.read_log(tmp_path / "none.jsonl") == []


# --- releases ----------------------------------------------------------------------------------------

YES, NO = (deploy.Verdict(promote, evaluation.Table()) for promote in (True, False))


@pytest.fixture
def registry(tmp_path):
    """A registry whose files v1, v2 and v3 lie beside it; v1 serves."""
    for version in ("v1", "v2", "v3"):
        (tmp_path / version).write_text(version)
    deploy.promote(tmp_path / "registry.json", "v1", tmp_path / "v1")
    return tmp_path / "registry.json"


def served(registry):
    return deploy.serving(registry)["version"]


def test_what_was_promoted_serves_and_rolled_back_the_one_before_it(registry):
    assert deploy.promote(registry, "v2", registry.with_name("v2"), YES)["version"] == "v2" == served(registry)
    assert deploy.roll_back(registry)["version"] == "v1" == served(registry)
    deploy.promote(registry, "v3", registry.with_name("v3"), YES)
    assert deploy.roll_back(registry)["version"] == "v1"  # not v2, which was taken back before
    assert [bool(one["rolled_back"]) for one in deploy.releases(registry)] == [False, True, True]


def test_what_must_not_serve_is_refused_and_changes_nothing(registry):
    before = registry.read_bytes()
    for version, file, verdict, word in (
        ("v2", "v2", NO, "blocked"), ("v2", "v2", None, "no gate"), ("v1", "v2", YES, "never used twice"),
        ("v2", "none", YES, "does not exist"), ("v2", "v2", True, "what `deploy.gate` returns"),
    ):  # fmt: skip
        with pytest.raises(CourseError, match=word):
            deploy.promote(registry, version, registry.with_name(file), verdict)
    with pytest.raises(CourseError, match="no earlier release"):
        deploy.roll_back(registry)
    assert registry.read_bytes() == before


def test_a_first_release_needs_no_verdict_but_takes_no_other(tmp_path):
    (tmp_path / "v1").write_bytes(b"weights")
    for verdict, word in ((False, "deploy.gate"), (NO, "blocked")):
        with pytest.raises(CourseError, match=word):
            deploy.promote(tmp_path / "registry.json", "v1", tmp_path / "v1", verdict)
    assert deploy.promote(tmp_path / "registry.json", "v1", tmp_path / "v1")["version"] == "v1"


def test_a_version_that_was_rolled_back_is_not_used_again(registry):
    deploy.promote(registry, "v2", registry.with_name("v2"), YES)
    deploy.roll_back(registry)
    with pytest.raises(CourseError, match="never used twice"):
        deploy.promote(registry, "v2", registry.with_name("v3"), YES)


@pytest.mark.parametrize("harm", ["gone", "changed"])
def test_there_is_no_way_back_to_a_file_that_is_gone_or_changed(registry, harm):
    deploy.promote(registry, "v2", registry.with_name("v2"), YES)
    first = registry.with_name("v1")
    first.unlink() if harm == "gone" else first.write_text("other weights")
    with pytest.raises(CourseError, match="v1.* is gone or changed.*v2 goes on"):
        deploy.roll_back(registry)
    assert served(registry) == "v2"


def test_a_write_that_fails_leaves_the_registry_as_it_was(registry, monkeypatch):
    def power_cut(*unused):
        raise OSError("power cut")

    monkeypatch.setattr(deploy.runtime.os, "replace", power_cut)
    with pytest.raises(OSError, match="power cut"):
        deploy.promote(registry, "v2", registry.with_name("v2"), YES)
    monkeypatch.undo()
    assert served(registry) == "v1" and not list(registry.parent.glob(".registry*"))


def test_an_empty_registry_serves_nothing(tmp_path):
    assert deploy.serving(tmp_path / "none.json") is None and deploy.releases(tmp_path / "none.json") == []


# --- the card ----------------------------------------------------------------------------------------


def test_every_number_of_a_card_is_the_runs_or_the_reports_own(tmp_path):
    import yaml

    (tmp_path / "model.gguf").write_bytes(b"x" * 3_000_000)
    record = {"config": {"method": "lora", "rank": 11}, "rows": 77, "rows_hash": "abc123", "seconds": 41.4,
              "tokens": 12345}  # fmt: skip
    tuned, tagger = report("tuned, served", 20), report("tagger", 35)
    card = deploy.model_card(runs.Run(tmp_path, record), tuned, tmp_path / "model.gguf", [tagger])
    head, body = card.removeprefix("---\n").split("\n---\n", 1)
    assert yaml.safe_load(head)["license"] == "apache-2.0"
    for told in (
        "77 rows",
        "`abc123`",
        "41 s",
        "12,345 tokens",
        "| rank | 11 |",
        "3 MB",
        "| tuned, served | {f1:.2f} | {low:.2f} to {high:.2f} | 100% | 40 |".format_map(tuned.metrics),
        f"| tagger | {tagger.metrics['f1']:.2f} |",
        "tuned, served against tagger: **worse**",
        hashlib.sha256(b"x" * 3_000_000).hexdigest(),
        f"{tuned.metrics['seconds']:.2f} s a request",
        f"rows `{tuned.rows_hash}`",
    ):
        assert told in body, told
