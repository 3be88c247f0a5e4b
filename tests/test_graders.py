"""Graders: what is refused, how texts are scored, what a formula may say, and what Python cannot get out of."""

from __future__ import annotations

import json
import math
import socket
import subprocess
import sys
import textwrap
import threading
import time
import typing

import pydantic
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai.types import graders as kinds
from openai.types.fine_tuning.alpha import GraderRunResponse

from helpers import runtime
from helpers.endpoint import graders, wire
from helpers.endpoint.graders import GraderError

# No clocks in here: a busy machine is no failure.
quick = settings(deadline=None, database=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
SOON = 10  # seconds: what is meant takes less than one, what must not happen would take hours
CHECK = {"type": "string_check", "name": "same", "operation": "eq"}
CHECK |= {"input": "{{ sample.output_text }}", "reference": "{{ item.reference_answer }}"}
SIMILAR = {key: value for key, value in CHECK.items() if key != "operation"}
SIMILAR |= {"type": "text_similarity", "evaluation_metric": "rouge_l"}
ONE = {"type": "python", "name": "one", "source": "def grade(sample, item):\n    return 1.0"}
MULTI = {"type": "multi", "name": "both", "graders": {"same": CHECK, "one": ONE}, "calculate_output": "same + one"}
VALID = [CHECK, SIMILAR, ONE, MULTI]


def python(body: str, before: str = "") -> dict:
    return {**ONE, "source": f"{before}\ndef grade(sample, item):\n{textwrap.indent(body, '    ')}"}


def formula(text: str, **sources: float) -> dict:
    """A multi grader over Python graders that return the given numbers."""
    parts = {name: python(f"return {value!r}") for name, value in (sources or {"a": 1.0}).items()}
    return {**MULTI, "graders": parts, "calculate_output": text}


def flags(result: dict) -> set[str]:
    return {name for name, value in result["metadata"]["errors"].items() if value is True}


def refused(grader: object, param: str = "grader") -> GraderError:
    with pytest.raises(GraderError) as caught:
        graders.check(grader, param)
    assert caught.value.message == str(caught.value) and caught.value.message
    return caught.value


# --- is it a grader? -------------------------------------------------------------------------------


@pytest.mark.parametrize("grader", VALID, ids=lambda grader: grader["type"])
def test_a_grader_of_each_kind_is_accepted_and_so_it_is_without_a_name(grader):
    graders.check(grader)
    graders.check({key: value for key, value in grader.items() if key != "name"})


def test_what_only_evals_or_the_real_services_containers_need_is_accepted():
    graders.check({**SIMILAR, "pass_threshold": 0.9})
    graders.check({**SIMILAR, "pass_threshold": 1})
    graders.check({**ONE, "image_tag": "2025-05-08"})


def test_fields_and_their_values_are_those_of_the_openai_package():
    models = dict(string_check=kinds.StringCheckGrader, text_similarity=kinds.TextSimilarityGrader)
    models |= dict(python=kinds.PythonGrader, multi=kinds.MultiGrader)
    assert models.keys() == graders.REQUIRED.keys()
    for kind, model in models.items():
        required = {name for name, field in model.model_fields.items() if field.is_required()}
        assert required == {"type", "name"} | graders.REQUIRED[kind].keys()
        assert model.model_fields.keys() <= {"type", "name"} | graders.REQUIRED[kind].keys() | {"image_tag"}
    operations = kinds.StringCheckGrader.model_fields["operation"].annotation
    assert set(typing.get_args(operations)) == set(graders.OPERATIONS)
    metrics = kinds.TextSimilarityGrader.model_fields["evaluation_metric"].annotation
    assert set(typing.get_args(metrics)) == set(graders.METRICS) | set(graders.MISSING)


@pytest.mark.parametrize(
    "grader, param, word",
    [
        (None, "grader", "object"),
        ([CHECK], "grader", "object"),
        ({}, "grader.type", "string_check"),
        ({**CHECK, "type": "exact"}, "grader.type", "exact"),
        ({**CHECK, "type": ["python"]}, "grader.type", "string_check"),
        ({**CHECK, "type": "score_model", "model": "m"}, "grader.type", "judges"),
        ({"type": "label_model"}, "grader.type", "judges"),
        ({**CHECK, "operation": "contains"}, "grader.operation", "ilike"),
        ({**CHECK, "operation": None}, "grader.operation", "string"),
        ({**CHECK, "input": 1}, "grader.input", "string"),
        ({**CHECK, "input": 10**400}, "grader.input", "string"),
        ({**CHECK, "weight": 1}, "grader.weight", "unknown"),
        ({**CHECK, "pass_threshold": 0.5}, "grader.pass_threshold", "unknown"),
        ({"type": "string_check", "input": "", "operation": "eq"}, "grader.reference", "missing"),
        ({**SIMILAR, "evaluation_metric": "cosine"}, "grader.evaluation_metric", "embedding"),
        ({**SIMILAR, "evaluation_metric": "meteor"}, "grader.evaluation_metric", "thesaurus"),
        ({**SIMILAR, "evaluation_metric": "rouge_6"}, "grader.evaluation_metric", "rouge_5"),
        ({**SIMILAR, "pass_threshold": True}, "grader.pass_threshold", "number"),
        ({**CHECK, "input": "{{ sample.output_text"}, "grader.input", "close"),
        ({**CHECK, "input": "{{ output_text }}"}, "grader.input", "item.name"),
        ({**CHECK, "input": "{{ item }}"}, "grader.input", "item.name"),
        ({**CHECK, "input": "{{}}"}, "grader.input", "item.name"),
        ({**CHECK, "reference": "{{ item.a[-1] }}"}, "grader.reference", "item.name"),
        ({**CHECK, "reference": "{{ item.a.b() }}"}, "grader.reference", "item.name"),
        ({**CHECK, "reference": "{{ sample.text }}"}, "grader.reference", "output_text"),
        ({**ONE, "source": "def grade(sample, item) return 1"}, "grader.source", "line 1"),
        ({**ONE, "source": "def score(sample, item): return 1"}, "grader.source", "defines no"),
        ({**ONE, "source": "class A:\n  def grade(sample, item): return 1"}, "grader.source", "defines no"),
        ({**ONE, "source": "def grade(sample): return 1"}, "grader.source", "two arguments"),
        ({**ONE, "source": "def grade(sample, item, *, k): return 1"}, "grader.source", "two arguments"),
        ({**ONE, "source": ONE["source"] + "\n#" + "é" * 128_000}, "grader.source", "256,000"),
        ({**ONE, "source": "\0"}, "grader.source", "not Python"),
        ({**ONE, "source": "(" * 10_000}, "grader.source", "not Python"),
        ({**ONE, "source": ONE["source"] + "\nx = " + "-" * 10_000 + "1"}, "grader.source", "not Python"),
        ({**MULTI, "graders": {}}, "grader.graders", "empty"),
        ({**MULTI, "graders": [CHECK]}, "grader.graders", "object"),
        ({**MULTI, "graders": {"a b": CHECK}}, "grader.graders.a b", "name"),
        ({**MULTI, "graders": {"valid": {**CHECK, "operation": "is"}}}, "grader.graders.valid.operation", "ilike"),
        ({**MULTI, "graders": {"inner": MULTI}}, "grader.graders.inner.type", "another multi"),
        ({**MULTI, "graders": {"inner": {"type": "score_model"}}}, "grader.graders.inner.type", "judges"),
        ({**MULTI, "calculate_output": "same + other"}, "grader.calculate_output", "'other'"),
    ],
)
def test_a_wrong_grader_is_refused_with_its_place_and_what_to_do(grader, param, word):
    error = refused(grader)
    assert error.param == param and word in error.message
    assert refused(grader, "method.reinforcement.grader").param == param.replace(
        "grader", "method.reinforcement.grader", 1
    )
    with pytest.raises(GraderError):
        graders.run(grader, {}, "")


# --- the answer ------------------------------------------------------------------------------------


def aliases(model: type) -> set[str]:
    return {field.alias or name for name, field in model.model_fields.items()}


@pytest.mark.parametrize("grader", VALID, ids=lambda grader: grader["type"])
def test_the_result_has_exactly_the_fields_of_the_openai_package(grader):
    result = graders.run(grader, {"reference_answer": "x"}, "x")
    model = GraderRunResponse.model_validate(result)
    metadata = GraderRunResponse.model_fields["metadata"].annotation
    errors = metadata.model_fields["errors"].annotation
    assert set(result) == aliases(GraderRunResponse)
    assert set(result["metadata"]) == aliases(metadata)
    assert set(result["metadata"]["errors"]) == aliases(errors)
    assert not any(result["metadata"]["errors"].values()) and model.metadata.execution_time > 0
    assert (model.metadata.name, model.metadata.type) == (grader["name"], grader["type"])
    assert model.reward == graders.reward(grader, {"reference_answer": "x"}, "x") == (2 if grader is MULTI else 1)


def test_a_multi_grader_reports_each_reward_and_no_error_of_one_is_lost():
    result = graders.run(MULTI, {"reference_answer": "x"}, "y")
    assert result["sub_rewards"] == {"same": 0.0, "one": 1.0} and result["reward"] == 1.0
    broken = {**MULTI["graders"], "bad": python("return item['no']"), "lost": {**CHECK, "input": "{{ item.no }}"}}
    result = graders.run({**MULTI, "graders": broken}, {"reference_answer": "x"}, "x")
    assert result["sub_rewards"] == {"same": 1.0, "one": 1.0, "bad": 0.0, "lost": 0.0} and result["reward"] == 0.0
    assert flags(result) == {"python_grader_runtime_error", "invalid_variable_error"}


# --- templates -------------------------------------------------------------------------------------

ITEM = {"answer": "Salt", "names": ["salt", "oil"], "deep": {"er": [{"x": 1.5}]}, "ok": True, "none": None, "0": "zero"}


@pytest.mark.parametrize(
    "template, filled",
    [
        ("no place", "no place"),
        ("{{item.answer}}, {{  item.answer  }}", "Salt, Salt"),
        ("{{ item.names[1] }}{{ item.names.0 }}{{ item.0 }}", "oilsaltzero"),
        ("{{ item.names }}", '["salt", "oil"]'),
        ("{{ item.deep.er[0].x }} {{ item.ok }} {{ item.none }}", "1.5 true null"),
        ('{"a": {"b": "{{ item.answer }}"}}', '{"a": {"b": "Salt"}}'),
        ("{{ sample.output_json.names[0] }}", "egg"),
        ("{{ sample.choices[0].message.content }}", '{"names": ["egg"]}'),
    ],
)
def test_places_are_filled_by_dotted_paths_and_indices(template, filled):
    grader = {**CHECK, "input": template, "reference": filled}
    assert graders.run(grader, ITEM, '{"names": ["egg"]}')["reward"] == 1.0
    assert graders.run({**grader, "operation": "ne"}, ITEM, '{"names": ["egg"]}')["reward"] == 0.0


@pytest.mark.parametrize(
    "path", "item.other item.names[2] item.names.-1 item.names.x item.answer[0] item.deep.er.x".split()
)
def test_a_path_that_leads_nowhere_is_flagged_and_named(path):
    grader = {**CHECK, "input": f"{{{{ {path} }}}}"}
    result = graders.run(grader, {**ITEM, "reference_answer": "x"}, "x")
    assert flags(result) == {"invalid_variable_error"} and result["reward"] == 0.0
    with pytest.raises(GraderError, match="is not there") as caught:
        graders.render(grader["input"], ITEM, {})
    assert caught.value.param == path and path in caught.value.message


def test_a_path_into_an_answer_that_is_no_json_is_the_samples_fault():
    grader = {**CHECK, "input": "{{ sample.output_json.names }}"}
    for text in ("", "names", "[NaN]", "[" * 100_000, "9" * 5000):
        assert flags(graders.run(grader, {"reference_answer": "x"}, text)) == {"sample_parse_error"}
    assert flags(graders.run(grader, {"reference_answer": "x"}, "{}")) == {"invalid_variable_error"}


@quick
@given(st.text(st.characters(), max_size=40), st.text(max_size=10))
def test_a_value_is_filled_in_as_it_is_and_never_read_as_a_template(value, around):
    around = around.replace("{", "").replace("}", "")
    assert graders.render(around + "{{item.x}}" + around, {"x": value}, {}) == around + value + around
    assert graders.render("{{item.x}}", {"x": "{{ item.y }}"}, {}) == "{{ item.y }}"


# --- strings and similarity ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, reference, right",
    [
        ("Salt", "Salt", {"eq", "like", "ilike"}),
        ("Sea SALT", "salt", {"ne", "ilike"}),
        ("sea salt", "salt", {"ne", "like", "ilike"}),
        ("salt", "sea salt", {"ne"}),
        ("a_b", "a%b", {"ne"}),
        ("STRASSE", "straße", {"ne", "ilike"}),
    ],
)
def test_a_string_check_compares_or_looks_for_the_reference_in_the_input(text, reference, right):
    for operation in graders.OPERATIONS:
        grader = {**CHECK, "operation": operation}
        assert graders.reward(grader, {"reference_answer": reference}, text) == float(operation in right)


def similarity(metric: str, text: str, reference: str) -> float:
    grader = {**SIMILAR, "evaluation_metric": metric}
    result = graders.run(grader, {"reference_answer": reference}, text)
    assert not flags(result)
    return result["reward"]


# By rapidfuzz 3.14.6 (ratio), rouge-score 0.1.2 (F1, no stemmer) and nltk 3.10.4 (sentence_gleu; sentence_bleu with
# smoothing method 2), on the same tokens.
@pytest.mark.parametrize(
    "text, reference, expected",
    [
        (
            "fuzzy wuzzy was a bear",
            "fuzzy wuzzy had no hair",
            {
                "fuzzy_match": 0.755556, "rouge_1": 0.4, "rouge_2": 0.25, "rouge_l": 0.4, "gleu": 0.214286,
                "bleu": 0.339809,
            },
        ),
        (
            "the cat sat on the mat",
            "The cat is on the mat.",
            {
                "fuzzy_match": 0.863636, "rouge_1": 0.833333, "rouge_2": 0.6, "rouge_3": 0.25, "rouge_4": 0.0,
                "rouge_5": 0.0, "rouge_l": 0.833333, "gleu": 0.318182, "bleu": 0.361691,
            },
        ),
    ],
)  # fmt: skip
def test_scores_are_those_of_the_usual_implementations(text, reference, expected):
    for metric, score in expected.items():
        assert similarity(metric, text, reference) == pytest.approx(score, abs=1e-6), metric


TEXTS = st.lists(st.sampled_from("a the The salt oil, egg. é 12 -".split()), max_size=12).map(" ".join)
TEXTS |= st.text(max_size=40)


@quick
@given(st.sampled_from(sorted(graders.METRICS)), TEXTS, TEXTS)
def test_scores_lie_between_0_and_1_and_all_but_bleu_are_symmetric(metric, one, other):
    score = similarity(metric, one, other)
    assert 0.0 <= score <= 1.0
    if metric != "bleu":
        assert score == similarity(metric, other, one)


@quick
@given(
    st.sampled_from(sorted(graders.METRICS)),
    st.lists(st.sampled_from("salt oil egg é".split()), min_size=5, max_size=20),
)
def test_identical_texts_score_1_where_they_have_as_many_words_as_the_metric_counts(metric, words):
    assert similarity(metric, " ".join(words), " ".join(words)) == pytest.approx(1.0)


@pytest.mark.parametrize("metric", graders.METRICS)
def test_texts_that_share_nothing_score_0_and_empty_ones_do_no_harm(metric):
    assert similarity(metric, "salt oil", "egg") < (0.5 if metric == "fuzzy_match" else 1e-12)
    assert similarity(metric, "", "egg") == similarity(metric, "egg", "") == 0.0
    assert similarity(metric, "", "") == (1.0 if metric == "fuzzy_match" else 0.0)


def longest_common(one: str, other: str) -> int:
    """The textbook table, a row at a time."""
    row = [0] * (len(other) + 1)
    for left in one:
        above, row = row, [0]
        for index, right in enumerate(other):
            row.append(above[index] + 1 if left == right else max(above[index + 1], row[index]))
    return row[-1]


@quick
@given(st.text("abc", min_size=1, max_size=80), st.text("abc", max_size=80))
def test_the_longest_common_subsequence_by_bits_is_that_of_the_table(one, other):
    expected = 2 * longest_common(one, other) / (len(one) + len(other))
    assert graders.fuzzy_match(one, other) == pytest.approx(expected)


def test_a_text_that_would_take_minutes_to_compare_gets_no_grade():
    answer = "ba" * 500_000
    began = time.perf_counter()
    result = graders.run({**SIMILAR, "evaluation_metric": "fuzzy_match"}, {"reference_answer": "ab" * 500_000}, answer)
    assert flags(result) == {"other_error"} and time.perf_counter() - began < SOON


# --- formulas --------------------------------------------------------------------------------------

NUMBERS = st.sampled_from(["a", "b", "0.5", "2.0", "3e-1"])
SIGNED = st.tuples(st.sampled_from(["", "-", "+"]), NUMBERS).map("".join)
FLAT = st.lists(st.tuples(SIGNED, st.sampled_from(["+", "-", "*", "/", "^", "**"])), min_size=1, max_size=6).map(
    lambda parts: " ".join(f"{number} {sign}" for number, sign in parts) + " 2.0"
)
NESTED = st.recursive(
    FLAT,
    lambda inner: st.one_of(inner.map("abs({})".format), st.tuples(inner, inner).map("min({0[0]}, ({0[1]}))".format)),
    max_leaves=4,
)


@quick
@given(NESTED, st.floats(0.01, 4), st.floats(0.01, 4))
def test_a_formula_means_what_it_means_in_python_with_a_hat_for_power(text, a, b):
    values = {"a": a, "b": b}
    try:
        expected = eval(text.replace("^", "**"), {"abs": abs, "min": min}, values)  # our own strings
    except ArithmeticError:
        return
    if isinstance(expected, complex) or not math.isfinite(expected):
        return
    assert graders._combined(text, values) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    "text, value",
    [
        ("(a + b) / 2", 1.25),
        ("0.5 * a + 0.5 * b", 1.25),
        ("2 * a ^ 2", 8.0),
        ("-a ^ 2", -4.0),
        ("2 ^ 3 ^ 2", 512.0),
        ("min(a, b, 1) + max(a, b)", 2.5),
        ("min(a)", 2.0),
        ("floor(b) + ceil(b) + abs(-a)", 3.0),
        ("exp(0) + sqrt(a ^ 2) + log(exp(1))", 4.0),
        (" a\t", 2.0),
    ],
)
def test_a_formula_joins_the_rewards(text, value):
    assert graders.reward(formula(text, a=2.0, b=0.5), {}, "") == pytest.approx(value)


@pytest.mark.parametrize(
    "text",
    [
        "", "a +", "a b", "a; a", "c", "a.real", "().__class__", "__import__('os')", "open('x')", "(lambda: a)()",
        "lambda: a", "eval('1')", "a(1)", "min", "min()", "min(*[a])", "min(a, key=abs)", "log(a, 2)", "[a]", "a[0]",
        "{a}", "'a'", "f'{a}'", "True", "1j", "a if a else a", "a and a", "not a", "~a", "a % 2", "a // 2", "a << 9",
        "a < 2", "(a := 1)", "[x for x in a]", "await a", "max(^a)", "10" * 300, "-" * 600 + "1", "(" * 300, "1" * 2000,
        "+".join(["a"] * 400), "min(" + "a, " * 400 + "a)", "a\x00", "\ud800",
    ],
)  # fmt: skip
def test_what_is_not_arithmetic_over_the_graders_is_refused(text):
    began = time.process_time()
    assert refused(formula(text)).param == "grader.calculate_output"
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize(
    "text",
    [
        "9**9**9", "9^9^9^9", "1 / (a - 1)", "log(a - 1)", "(-a) ^ 0.5", "exp(9999)", "1e308 * 10", "1e999 - 1e999",
        "floor(1e300) ^ floor(1e300)", "sqrt(-a)", "ceil(1e999)", "0 ^ -1",
    ],
)  # fmt: skip
def test_a_formula_without_a_finite_value_is_flagged_at_once(text):
    grader = formula(text)
    graders.reward(ONE, {}, "")  # starts the sandbox
    began = time.process_time()
    result = graders.run(grader, {}, "")
    assert flags(result) == {"formula_parse_error"} and result["reward"] == 0.0
    assert time.process_time() - began < 0.5


# --- Python ----------------------------------------------------------------------------------------


def test_a_python_grader_sees_the_row_and_the_answer_and_may_use_json_and_sets():
    grader = python(
        """
        try:
            made, wanted = set(sample["output_json"]), set(item["names"])
        except KeyError:
            return 0.0
        assert sample["choices"][0]["message"]["content"] == sample["output_text"]
        return 2 * len(made & wanted) / (len(made) + len(wanted))
        """,
        before="import json, math, re\nfrom typing import Any\nfrom collections import Counter",
    )
    assert graders.reward(grader, {"names": ["salt", "oil"]}, '["salt"]') == pytest.approx(2 / 3)
    assert graders.reward(grader, {"names": ["salt", "oil"]}, "salt") == 0.0
    assert graders.reward(python("return 5"), {}, "") == 5.0  # rewards of a Python grader need not end at 1


def test_an_error_comes_with_its_line_and_message():
    result = graders.run(python("x = 1\nreturn item['lost']"), {}, "")
    details = result["metadata"]["errors"]["python_grader_runtime_error_details"]
    assert "KeyError: lost" in details and "line 4" in details and result["reward"] == 0.0


def test_no_sample_sees_what_another_left_behind_and_chance_repeats_itself(capfd):
    counting = python("seen.append(1)\nitem['names'].clear()\nprint('noise')\nreturn len(seen)", before="seen = []")
    item = {"names": ["salt"]}
    assert [graders.reward(counting, item, "") for _ in range(3)] == [1.0] * 3
    assert item == {"names": ["salt"]} and capfd.readouterr() == ("", "")
    drawn = {graders.reward(python("return random.random()", before="import random"), {}, "") for _ in range(3)}
    assert len(drawn) == 1


def test_names_of_a_source_do_not_clash_with_the_arguments():
    grader = python("return item['x'] + len(sample['output_text'])", before="sample = item = None")
    assert graders.reward(grader, {"x": 1}, "ab") == 3.0


ESCAPES = {
    "open": "return float(len(open('{there}').read()))",
    "write": "open('{file}', 'w').write('x')\nreturn 1.0",
    "path": "from pathlib import Path\nPath('{file}').write_text('x')\nreturn 1.0",
    "mkdir": "import os\nos.mkdir('{file}')\nreturn 1.0",
    "list": "import os\nreturn float(len(os.listdir('/')))",
    "system": "import os\nreturn float(os.system('touch {file}'))",
    "import": "return float(__import__('os').system('touch {file}'))",
    "importlib": "import importlib\nimportlib.import_module('subprocess')\nreturn 1.0",
    "subprocess": "import subprocess\nsubprocess.run(['touch', '{file}'])\nreturn 1.0",
    "ctypes": "import ctypes\nreturn 1.0",
    "environment": "import os\nreturn float(len(os.environ['PATH']))",
    "entropy": "import os\nreturn float(len(os.urandom(8)))",
    "socket": "import socket\nsocket.create_connection(('127.0.0.1', {port}))\nreturn 1.0",
    "url": "import urllib.request\nurllib.request.urlopen('http://127.0.0.1:{port}')\nreturn 1.0",
    "connect": "import asyncio\nasyncio.run(asyncio.open_connection('127.0.0.1', {port}))\nreturn 1.0",
    "input": "input\nreturn 1.0",
    "builtins": "__builtins__\nreturn 1.0",
    "subclasses": "return float(len(().__class__.__bases__[0].__subclasses__()))",
    "globals": "return float(len(grade.__globals__))",
    "code": "return float(len(grade.__code__.co_code))",
    "getattr": "return float(len(getattr('', '__cl' + 'ass__').__mro__))",
    "frames": "import sys\nreturn float(sys._getframe().f_back.f_lineno)",
    "eval": 'return eval(\'__import__("os").system("touch {file}")\')',
    "exec": 'exec(\'open("{file}", "w")\')\nreturn 1.0',
    "pickle": "import pickle\nreturn 1.0",
    "threads": "import threading\nreturn 1.0",
    "exit": "raise SystemExit(0)",
    "interrupt": "raise KeyboardInterrupt()",
    "loop": "while True: pass",
    "stubborn loop": "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
    "sleeping loop": "import time\nwhile True: time.sleep(1)",
    "long sum": "return float(sum(range(10**12)))",
    "combinations": "import math\nreturn float(math.comb(10**7, 5 * 10**6) % 7)",
    "squaring": "x = 10**5000\nwhile True: x *= x",
    "unknown names": "for i in range(10**6):\n    try: unknown()\n    except NameError: pass\nreturn 1.0",
    "memory": "x = []\nwhile True: x.append('a' * 10**6)",
    "list of zeros": "return float(len([0] * 10**10))",
    "long text": "return float(len('a' * 10**11))",
    "padding": "return float(len('{{:>2000000000}}'.format(1)))",
    "replacing": "return float(len(('a' * 10**6).replace('a', 'b' * 10**6)))",
    "doubling": "x = 'ab'\nfor _ in range(60): x += x\nreturn float(len(x))",
    "products": "import itertools\nreturn float(len(list(itertools.product(range(100), repeat=9))))",
    "power": "return float(9**9**9)",
    "shift": "return float(1 << 10**12)",
    "digits": "return float(len(str(10**10**6)))",
    "recursion": "return grade(sample, item)",
    "deep list": "x = []\nfor _ in range(10**6): x = [x]\nreturn x",
    "deep closures": "f = lambda: 0.0\nfor _ in range(10**5): f = (lambda g: lambda: g())(f)\nreturn f()",
    "nested source": "return float(eval('-' * 10**5 + '1'))",
    "deep json": "import json\nreturn float(len(json.loads('[' * 10**6)))",
    "printing": "while True: print('x' * 1000)",
    "one print": "print('x' * 10**7)\nreturn 1.0",
    "long error": "raise ValueError('x' * 10**7)",
    "nan": "return float('nan')",
    "infinity": "return float('-inf')",
    "huge integer": "return 10**400",
    "string": "return '1.0'",
    "boolean": "return True",
    "nothing": "pass",
    "list result": "return [1.0]",
    "complex": "return 1j",
    "pretender": "class F:\n    def __float__(self): return 1.0\nreturn F()",
    "cycle": "x = []\nx.append(x)\nreturn x",
    "function": "return grade",
}


@pytest.fixture
def impatient(monkeypatch):
    """A fifth of the time: what the table shows is that limits hold, and one test below is about the real one."""
    monkeypatch.setitem(graders.LIMITS, "max_feed_duration_secs", 0.2)


@pytest.mark.parametrize("attempt", ESCAPES)
def test_every_attempt_to_escape_ends_soon_in_an_error_and_leaves_nothing(attempt, impatient, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as door:
        door.settimeout(0)
        place, there = (tmp_path / "escaped").as_posix(), (runtime.ROOT / "README.md").as_posix()
        grader = python(ESCAPES[attempt].format(file=place, there=there, port=door.getsockname()[1]))
        graders.check(grader)
        began = time.perf_counter()
        result = graders.run(grader, {}, "x")
        assert time.perf_counter() - began < SOON
        with pytest.raises(BlockingIOError):
            door.accept()
    assert flags(result) == {"python_grader_runtime_error"} and result["reward"] == 0.0
    details = result["metadata"]["errors"]["python_grader_runtime_error_details"]
    assert details and len(details) <= 2000
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    assert graders.reward(ONE, {}, "") == 1.0  # and the next sample is graded as ever


@pytest.mark.parametrize("attempt", "memory doubling padding power shift".split() + ["list of zeros", "deep list"])
def test_memory_is_limited_by_the_sandbox_itself(attempt, monkeypatch):
    monkeypatch.setitem(graders.LIMITS, "max_feed_duration_secs", 30)  # or a slow machine meets that limit first
    told = graders.run(python(ESCAPES[attempt].format()), {}, "")["metadata"]["errors"]
    assert "MemoryError: memory limit exceeded" in told["python_grader_runtime_error_details"]


def test_the_same_holds_for_code_outside_of_the_function(impatient):
    for before in ("while True: pass", "import socket", "open('/etc/passwd')", "grade = None", "1 / 0"):
        grader = {**ONE, "source": f"{ONE['source']}\n{before}"}
        assert flags(graders.run(grader, {}, "")) == {"python_grader_runtime_error"}


def test_a_second_is_the_limit_and_sleeping_takes_none_of_it():
    began = time.perf_counter()
    assert "TimeoutError" in str(graders.run(python("while True: pass"), {}, "")["metadata"]["errors"])
    assert 0.9 < time.perf_counter() - began < SOON
    began = time.perf_counter()
    assert graders.reward(python("import time\ntime.sleep(3600)\nreturn 1.0"), {}, "") == 1.0
    assert time.perf_counter() - began < SOON


def test_a_thousand_samples_cost_far_less_than_50_ms_each():
    grader = python("return float(set(json.loads(sample['output_text'])) == set(item['names']))", before="import json")
    graders.reward(grader, {"names": []}, "[]")  # starts the sandbox
    began = time.perf_counter()
    rewards = [graders.reward(grader, {"names": ["salt"]}, '["salt"]') for _ in range(1000)]
    each = (time.perf_counter() - began) / 1000
    assert set(rewards) == {1.0}
    assert each < 0.050, f"{each * 1000:.2f} ms"  # on two cores about a tenth of one, compiling included


def test_threads_may_grade_at_the_same_time():
    right = []

    def grade(number):
        grader = python(f"return {number} + item['x']")
        right.extend(graders.reward(grader, {"x": x}, "") == number + x for x in range(50))

    threads = [threading.Thread(target=grade, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert right == [True] * 400 and not any(thread.is_alive() for thread in threads)


def test_the_sandbox_ends_with_the_process_that_used_it(alive):
    code = (
        "import psutil; from helpers.endpoint import graders;"
        f"graders.reward({ONE!r}, {{}}, ''); print([child.pid for child in psutil.Process().children()])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=runtime.ROOT, capture_output=True, text=True, check=True)
    left = json.loads(done.stdout)
    assert left
    deadline = time.monotonic() + 20
    while any(map(alive, left)):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert done.stderr == ""


def test_a_sandbox_that_does_not_start_is_the_servers_error(monkeypatch):
    monkeypatch.setattr(graders, "_pool", graders._pool.__wrapped__)
    monkeypatch.setenv("MONTY_BIN", "no-such-program")
    result = graders.run(ONE, {}, "")
    assert flags(result) == {"python_grader_server_error"} and result["reward"] == 0.0
    assert result["metadata"]["errors"]["python_grader_server_error_type"]


# --- anything else ---------------------------------------------------------------------------------

STRINGS = st.text(st.characters(), max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | STRINGS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(STRINGS, inner, max_size=4),
    max_leaves=8,
)
SOURCES = ["def grade(sample, item):\n    return " + value for value in ("item['x']", "sample['output_json']", "1/0")]
LIKELY = st.sampled_from(
    ["multi", "python", "eq", "bleu", "a + same", "{{ item.x }}", "{{ sample.output_json.x }}", *SOURCES]
)


@st.composite
def almost_graders(draw, deep: bool = True) -> object:
    """A valid grader of which some fields were changed, dropped or added."""
    grader = dict(draw(st.sampled_from(VALID)))
    if deep and grader["type"] == "multi" and draw(st.booleans()):
        grader["graders"] = {"same": draw(almost_graders(deep=False)), "a": ONE}
    for name in draw(st.lists(st.sampled_from([*grader, "more"]), max_size=2)):
        if draw(st.booleans()):
            grader[name] = draw(LIKELY | JSON)
        else:
            grader.pop(name, None)
    return grader


@settings(quick, max_examples=500)
@given(almost_graders() | JSON, st.dictionaries(st.just("x") | STRINGS, JSON) | JSON, STRINGS | JSON.map(json.dumps))
def test_no_json_makes_anything_but_a_refusal_or_a_result_that_can_be_sent(grader, item, text):
    try:
        graders.check(wire.GraderRequest(grader=grader).grader)
    except pydantic.ValidationError:
        return
    except GraderError as error:
        (error.message + error.param).encode()
        return
    result = graders.run(grader, item, text)
    json.dumps(result, allow_nan=False, ensure_ascii=False).encode()
    GraderRunResponse.model_validate(result)
    assert math.isfinite(result["reward"]) and (not flags(result) or result["reward"] == 0.0)


def test_rows_that_are_no_json_get_a_flag_and_no_exception():
    looped, deep = {}, []
    looped["x"] = looped
    for _ in range(100_000):
        deep = [deep]
    for item in (None, 1, {"x": {1}}, {"x": object()}, looped, {"x": deep}, {"x": "\ud800"}, {"x": b""}):
        for grader in ({**CHECK, "reference": "{{ item.x }}"}, python("return item['x']")):
            result = graders.run(grader, item, "x")
            assert flags(result) or item == {"x": "\ud800"}, (grader["type"], item)
            assert result["reward"] == 0.0
