"""Rows: made, read, split, compared, encoded; and the course's own files."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys

import pytest

from helpers import data, runtime

SOUP = data.recipe("Soup", ["1 tsp. salt", "2 c. water"], ["salt", "water"])
CAKE = data.recipe("Cake", ["For the batter:", "2 eggs", "1 c. flour"], ["eggs", "flour"])
ROWS = [data.recipe(f"Dish {n}", [f"{n} eggs", "1 tsp. salt"], ["eggs", "salt"]) for n in range(1_000)]


# --- one row -------------------------------------------------------------------------------------


def test_a_recipe_becomes_a_chat_of_three_turns():
    assert [turn["role"] for turn in SOUP["messages"]] == ["system", "user", "assistant"]
    assert [turn["content"] for turn in SOUP["messages"]] == [
        data.SYSTEM, "Soup\n- 1 tsp. salt\n- 2 c. water", '["salt", "water"]'
    ]  # fmt: skip


def test_a_row_gives_back_what_it_was_made_of():
    assert (data.title(SOUP), data.lines(SOUP), data.answer(SOUP)) == (
        "Soup", ["1 tsp. salt", "2 c. water"], ["salt", "water"]
    )  # fmt: skip


def test_the_prompt_is_the_row_without_its_answer():
    assert data.prompt(SOUP) == SOUP["messages"][:2] == data.prompt(data.recipe("Soup", data.lines(SOUP)))


def test_a_few_shot_prompt_still_shows_the_last_recipe():
    shots = {"messages": [*SOUP["messages"], *CAKE["messages"][1:]]}
    assert data.title(shots) == "Cake" and data.answer(shots) == ["eggs", "flour"]
    assert len(data.prompt(shots)) == 4


def test_accents_are_written_as_they_are():
    assert data.recipe("a", ["b"], ["crème fraîche"])["messages"][2]["content"] == '["crème fraîche"]'


@pytest.mark.parametrize(
    ("raw", "name"),
    [(" Brown  Sugar ", "brown sugar"), ('"salt",', "salt"), ("cre\u0300me", "crème"), ("Straße", "strasse"),
     ("half-and-half", "half-and-half"), ("2% milk", "2% milk"), ("…", "")],
)  # fmt: skip
def test_names_are_normalised(raw, name):
    assert data.normalise(raw) == name == data.normalise(data.normalise(raw))


# --- reading -------------------------------------------------------------------------------------


def write(path, rows):
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


def test_iterate_gives_line_numbers_and_goes_on_after_a_problem(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(SOUP) + "\n{oops\n" + json.dumps(CAKE) + "\n", encoding="utf-8", newline="\n")
    (one, soup), (two, problem), (three, cake) = data.iterate(path)
    assert (one, two, three) == (1, 2, 3) and (soup, cake) == (SOUP, CAKE)
    assert isinstance(problem, data.Problem) and problem.line == 2


def test_loading_drops_no_row_and_changes_none(tmp_path):
    assert data.load(write(tmp_path / "rows.jsonl", ROWS)) == ROWS


FLAT = """
import sys, threading, time, numpy, psutil
from helpers import data

process, peak, done = psutil.Process(), 0, False
def watch():
    global peak
    while not done:
        peak = max(peak, process.memory_info().rss)
        time.sleep(0.005)

data.check([data.recipe("Soup", ["salt"], ["salt"])])
before, start = process.memory_info().rss, time.perf_counter()
threading.Thread(target=watch, daemon=True).start()
problems = data.check(sys.argv[1])
done = True
print(len(problems), time.perf_counter() - start, (peak - before) / 2**20)
"""


def check_in_a_fresh_process(path, count):
    """Problems, seconds and MiB of growth that checking a file of so many rows takes."""
    line = json.dumps(data.recipe("Dish 0", ["1/2 c. butter, softened", "2 Tbsp. sugar"], ["butter", "sugar"]))
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(line.replace("Dish 0", f"Dish {n}") + "\n" for n in range(count))
    command = [sys.executable, "-c", FLAT, path]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=runtime.ROOT)
    return map(float, done.stdout.split())


def test_two_hundred_thousand_rows_are_checked_in_flat_memory(tmp_path):
    problems, seconds, growth = check_in_a_fresh_process(tmp_path / "rows.jsonl", 200_000)
    assert problems == 0 and seconds < 60 and growth < 24  # the rows themselves would take 300


@pytest.mark.slow
def test_a_million_rows_are_checked_in_flat_memory(tmp_path):
    problems, seconds, growth = check_in_a_fresh_process(tmp_path / "rows.jsonl", 1_000_000)
    assert problems == 0 and seconds < 60 and growth < 80


def test_a_repeat_is_found_however_far_away(tmp_path):
    rows = [data.recipe(f"Dish {n}", ["salt"], ["salt"]) for n in range(20_000)]
    problems = data.check(write(tmp_path / "rows.jsonl", [*rows, rows[3]]))
    assert [(problem.line, problem.message) for problem in problems] == [(20_001, "repeats line 4")]


# --- the sealed test -----------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["test", data.FOLDER / "test.jsonl", str(data.FOLDER / "test.jsonl")])
def test_the_test_rows_cannot_be_loaded_in_passing(source):
    with pytest.raises(runtime.CourseError, match="open_test"):
        data.load(source)


def test_opening_the_test_is_logged_with_its_reason(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COURSE_RUNS", str(tmp_path))
    rows = data.open_test("first look")
    assert "0 times before" in capsys.readouterr().out
    data.open_test("  final comparison ")
    assert "1 time before" in capsys.readouterr().out
    log = [json.loads(line) for line in (tmp_path / "test_openings.jsonl").read_text("utf-8").splitlines()]
    assert [entry["reason"] for entry in log] == ["first look", "final comparison"]
    assert {entry["rows"] for entry in log} == {data.rows_hash(rows)}
    assert all(re.match(r"20\d\d-\d\d-\d\dT", entry["date"]) for entry in log)


@pytest.mark.parametrize("reason", ["", "  ", None])
def test_the_test_is_not_opened_without_a_reason(tmp_path, monkeypatch, reason):
    monkeypatch.setenv("COURSE_RUNS", str(tmp_path))
    with pytest.raises(runtime.CourseError, match="reason"):
        data.open_test(reason)
    assert not list(tmp_path.iterdir())


# --- arranging rows ------------------------------------------------------------------------------


def test_the_hash_names_rows_and_order_but_not_the_order_of_keys():
    name = data.rows_hash([SOUP, CAKE])
    assert re.fullmatch("[0-9a-f]{12}", name)
    assert name == data.rows_hash([{"messages": [dict(reversed(t.items())) for t in SOUP["messages"]]}, CAKE])
    assert name != data.rows_hash([CAKE, SOUP]) != data.rows_hash([CAKE])


def test_a_split_deals_every_row_once_and_roughly_by_the_fractions():
    parts = data.split(ROWS, (0.8, 0.1, 0.1), seed=1)
    assert sorted(map(data.title, sum(parts, []))) == sorted(map(data.title, ROWS))
    assert [abs(len(part) - expected) < 40 for part, expected in zip(parts, (800, 100, 100), strict=True)] == [True] * 3


def test_adding_rows_moves_no_other_row():
    few, many = data.split(ROWS[:500], (0.5, 0.5)), data.split(ROWS[::-1], (0.5, 0.5))
    assert all(row in part for small, part in zip(few, many, strict=True) for row in small)


def test_another_seed_deals_otherwise_and_the_same_seed_the_same():
    assert data.split(ROWS, (0.5, 0.5), 1) == data.split(ROWS, (0.5, 0.5), 1) != data.split(ROWS, (0.5, 0.5), 2)


def test_rows_that_ask_the_same_land_in_the_same_part():
    twins = [data.recipe(data.title(row), data.lines(row), ["eggs"]) for row in ROWS[:100]]
    for part in data.split([*ROWS[:100], *twins], (0.5, 0.5)):
        assert len(part) == 2 * len({data.title(row) for row in part})


@pytest.mark.parametrize("fractions", [(0.8, 0.1), (1.2, -0.2), (80, 20), 0.8])
def test_fractions_that_are_no_shares_are_refused(fractions):
    with pytest.raises(runtime.CourseError, match="sum to 1"):
        data.split(ROWS, fractions)


def test_deduplicate_keeps_the_first_of_equal_rows_and_all_that_disagree():
    other = data.recipe("Soup", data.lines(SOUP), ["water"])
    assert data.deduplicate([SOUP, CAKE, SOUP, other, CAKE]) == [SOUP, CAKE, other]


def test_near_duplicates_share_most_of_their_lines():
    close = data.recipe("Soupe", ["1 tsp. Salt", "2 c. water", "1 bay leaf"], ["salt", "water", "bay leaf"])
    assert data.near_duplicates([SOUP, CAKE, close]) == [(0, 2, pytest.approx(2 / 3))]
    assert data.near_duplicates([SOUP, CAKE, close], threshold=0.9) == []


def test_leakage_names_the_lines_that_stand_in_both(monkeypatch):
    monkeypatch.setattr(data, "STAPLES", {"2 eggs"})
    test = data.recipe("Pie", ["For the batter:", "2 eggs", "1 C. Flour", "3 apples"], ["eggs", "flour", "apples"])
    assert data.leakage([SOUP, CAKE], [test]) == ["1 c. flour"]


# --- encoding ------------------------------------------------------------------------------------


def test_only_the_answer_and_its_end_token_are_learned(tokenizer):
    row = data.encode(SOUP, tokenizer)
    learned = [token for token in row["labels"] if token != -100]
    assert tokenizer.decode(learned) == '["salt", "water"]<|im_end|>'
    assert len(row["labels"]) == len(row["input_ids"]) and row["input_ids"][-len(learned) :] == learned
    assert row["labels"][-1] == tokenizer.eos_token_id


def test_the_ids_are_the_chat_template_up_to_the_end_token(tokenizer):
    whole = tokenizer.apply_chat_template(SOUP["messages"], tokenize=False)
    assert tokenizer.decode(data.encode(SOUP, tokenizer)["input_ids"]) + "\n" == whole


def test_the_masked_part_is_what_a_model_is_prompted_with(tokenizer):
    row = data.encode(SOUP, tokenizer)
    prompt = tokenizer.apply_chat_template(
        data.prompt(SOUP), add_generation_prompt=True, tokenize=True, return_dict=False
    )  # fmt: skip
    assert row["labels"][: len(prompt)] == [-100] * len(prompt) and row["input_ids"][: len(prompt)] == prompt


def test_an_over_long_row_is_refused_not_cut(tokenizer):
    length = len(data.encode(SOUP, tokenizer)["input_ids"])
    assert len(data.encode(SOUP, tokenizer, max_length=length)["input_ids"]) == length
    with pytest.raises(data.DataError, match="never cut"):
        data.encode(SOUP, tokenizer, max_length=length - 1)


def test_tool_calls_are_refused_because_the_template_would_lose_them(tokenizer):
    with pytest.raises(data.DataError, match="template"):
        data.encode({**SOUP, "tools": [{"type": "function"}]}, tokenizer)


def test_a_dataset_has_ids_labels_and_lengths(tokenizer):
    dataset = data.to_dataset([SOUP, CAKE], tokenizer)
    assert sorted(dataset.column_names) == ["input_ids", "labels", "length"]
    assert dataset["length"][:] == [len(ids) for ids in dataset["input_ids"]]


def test_a_dataset_names_every_row_that_is_too_long(tokenizer):
    long = data.recipe("Feast", ["1 tsp. salt"] * 50, ["salt"])
    with pytest.raises(data.DataError) as error:
        data.to_dataset([SOUP, long, CAKE, long], tokenizer, max_length=100)
    assert [problem.line for problem in error.value.problems] == [2, 4]


def test_tokens_are_counted_for_prompt_and_completion(tokenizer):
    rows = [data.encode(row, tokenizer) for row in (SOUP, CAKE)]
    count = data.count_tokens([SOUP, CAKE], tokenizer)
    assert count["rows"] == 2
    assert count["prompt"] == sum(row["labels"].count(-100) for row in rows)
    assert count["prompt"] + count["completion"] == sum(len(row["input_ids"]) for row in rows)
    assert count["longest"] == max(len(row["input_ids"]) for row in rows)


def test_the_estimate_without_a_tokenizer_is_near_the_truth(tokenizer):
    rows = data.load("validation")
    count = data.count_tokens(rows, tokenizer)
    characters = sum(len(turn["content"]) for row in rows for turn in row["messages"])
    ratio = characters / data.CHARACTERS_PER_TOKEN / (count["prompt"] + count["completion"])
    assert 0.8 < ratio < 1.2


# --- the course's files --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def splits():
    """All three splits, read without opening the sealed one."""
    return {name: [row for _, row in data.iterate(name)] for name in data.SPLITS}


@pytest.mark.parametrize("name", data.SPLITS)
def test_each_split_is_valid_and_shares_no_question_with_the_others(name, tokenizer):
    others = [other for other in data.SPLITS if other != name]
    assert data.check(name, tokenizer=tokenizer, max_tokens=1024, others=others, task="recipe", min_rows=100) == []


def test_the_splits_have_their_sizes(splits):
    assert 350 <= len(splits["train"]) <= 450
    assert len(splits["validation"]) == len(splits["test"]) == 100


@pytest.mark.parametrize(("one", "other"), [("train", "validation"), ("train", "test"), ("validation", "test")])
def test_no_line_stands_in_two_splits_the_staples_aside(splits, one, other):
    assert data.leakage(splits[one], splits[other]) == []


def test_the_staples_are_few_plain_and_needed(splits):
    written = [{data.normalise(line) for row in rows for line in data.lines(row)} for rows in splits.values()]
    assert 0 < len(data.STAPLES) <= 120
    assert [line for line in data.STAPLES if len(line.split()) > 5] == []
    assert [line for line in data.STAPLES if sum(line in lines for lines in written) < 2] == []


def test_no_two_recipes_are_near_duplicates(splits):
    assert data.near_duplicates(sum(splits.values(), []), 0.5) == []


def test_no_title_stands_in_two_splits(splits):
    titles = [title for rows in splits.values() for title in {data.normalise(data.title(row)) for row in rows}]
    assert sorted({title for title in titles if titles.count(title) > 1}) == []


def words(text, singular=False):
    found = set(re.findall(r"[\w&'’%-]+", text.casefold()))
    return found | {word.removesuffix("s") for word in found if singular}


@pytest.mark.parametrize("name", data.SPLITS)
def test_every_word_of_a_label_stands_on_one_line_of_its_recipe(splits, name):
    strangers = []
    for row in splits[name]:
        for label in data.answer(row):
            squeezed = label.endswith((" juice", " zest"))  # "juice of 2 lemons" gives "lemon juice"
            if not any(words(label) <= words(line, singular=squeezed) for line in data.lines(row)):
                strangers.append((data.title(row), label))
    assert strangers == []


@pytest.mark.parametrize("name", data.SPLITS)
def test_labels_are_lower_case_names(splits, name):
    labels = [label for row in splits[name] for label in data.answer(row)]
    assert [
        label for label in labels if label != label.lower() or re.search(r"[,;:()\[\]½¼¾]|^[1-9]\d*[ /]", label)
    ] == []


def test_the_files_are_what_their_recipes_make():
    done = subprocess.run([sys.executable, data.FOLDER / "build.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", data.SPLITS)
def test_the_hashes_are_those_of_the_files(splits, name):
    entry = json.loads((data.FOLDER / "hashes.json").read_text("utf-8"))[f"{name}.jsonl"]
    content = (data.FOLDER / f"{name}.jsonl").read_bytes()
    assert entry["sha256"] == hashlib.sha256(content).hexdigest()
    assert entry["rows"] == len(splits[name])
    assert entry["lines"] == sum(len(data.lines(row)) for row in splits[name])
    assert entry["labels"] == sum(len(data.answer(row)) for row in splits[name])


def test_the_rule_is_the_one_beside_the_data():
    assert data.RULE.startswith("# ") and "Of alternatives, the first" in data.RULE


# --- data/build.py -------------------------------------------------------------------------------


@pytest.fixture
def build(tmp_path):
    """Run a copy of the script over small recipes; gives (exit status, output)."""
    for name in data.SPLITS:
        text = f"# {name.title()} Soup\n1 tsp. salt => salt\nsalt and water => salt; water\nTop: =>\n"
        (tmp_path / "recipes").mkdir(exist_ok=True)
        (tmp_path / "recipes" / f"{name}.txt").write_text(text, encoding="utf-8", newline="\n")

    def run(*arguments):
        command = [sys.executable, data.FOLDER / "build.py", "--folder", tmp_path, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
        return done.returncode, done.stdout + done.stderr

    run.folder = tmp_path
    return run


def test_build_turns_recipes_into_rows(build):
    assert build()[0] == 0
    expected = data.recipe("Train Soup", ["1 tsp. salt", "salt and water", "Top:"], ["salt", "water"])
    assert data.load(build.folder / "train.jsonl") == [expected]
    assert json.loads((build.folder / "hashes.json").read_text("utf-8"))["test.jsonl"]["rows"] == 1


def test_build_writes_the_same_bytes_again(build):
    build()
    before = {path.name: path.read_bytes() for path in build.folder.glob("*.json*")}
    assert len(before) == 4 and build()[0] == 0
    assert before == {path.name: path.read_bytes() for path in build.folder.glob("*.json*")}


def test_build_check_names_the_file_that_differs(build):
    assert build("--check")[0] == 1
    build()
    assert build("--check")[0] == 0
    path = build.folder / "train.jsonl"
    path.write_bytes(path.read_bytes().replace(b"water", b"Water"))
    changed = path.read_bytes()
    status, output = build("--check")
    assert status == 1 and "train.jsonl" in output and "test.jsonl" not in output
    assert path.read_bytes() == changed  # checking writes nothing


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 tsp. salt => salt\n", "title"),
        ("# Soup\n1 tsp. salt\n", "=>"),
        ("# Soup\n1 tsp. salt => salt; ;pepper\n", "label"),
        ("# Soup\nTop: => salt\n", "heading"),
        ("# Soup\nsea shells =>\n", "no ingredient"),
        ("# Soup\n\n# Cake\n2 eggs => eggs\n", "no ingredient"),
    ],
)
def test_build_refuses_recipes_it_cannot_read_and_writes_nothing(build, text, message):
    (build.folder / "recipes" / "validation.txt").write_text(text, encoding="utf-8", newline="\n")
    status, output = build()
    assert status == 1 and "validation.txt:" in output and message in output
    assert not list(build.folder.glob("*.json*"))


def test_build_refuses_a_recipe_that_stands_in_two_splits(build):
    (build.folder / "recipes" / "test.txt").write_bytes((build.folder / "recipes" / "train.txt").read_bytes())
    status, output = build()
    assert status == 1 and "one of the two only" in output
    assert not list(build.folder.glob("*.json*"))


def test_two_labellers_agree_where_one_saw_only_the_rule():
    sys.path.insert(0, str(data.FOLDER))
    import build

    agreement = build.agreement()
    assert agreement["recipes"] == 60 and agreement["f1"] > 0.95
