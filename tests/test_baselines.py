"""Baselines: names are found where they stand, examples come from training rows, and JSON stays JSON."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from helpers import baselines, data, evaluation, models, plots, runtime

# --- the tagger ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "cut"),
    [
        ("1 1/2 c. All-Purpose Flour, sifted", ["1", "1/2", "c", "all-purpose", "flour", ",", "sifted"]),
        ("½ cup confectioners' sugar", ["½", "cup", "confectioners'", "sugar"]),
        ("1 can 7-Up (cold)", ["1", "can", "7-up", "(", "cold", ")"]),
        ("juice of 1 lemon", ["lemon", "juice"]),
        ("Zest of half an orange", ["orange", "zest"]),
        ("", []),
        ("...", []),
    ],
)
def test_a_line_is_cut_into_words_and_marks(line, cut):
    assert baselines.words(line) == cut


def test_tags_mark_names_and_reading_them_gives_the_names_back():
    lines = ["2 red or yellow onions", "salt and black pepper", "For the sauce:", "more salt"]
    names = ["red onions", "salt", "black pepper"]
    tags = baselines.tags(lines, names)
    assert tags == [["O", "B", "O", "O", "I"], ["B", "O", "B", "I"], ["O"] * 4, ["O", "O"]]
    assert [baselines.read(baselines.words(line), iter(tag)) for line, tag in zip(lines, tags, strict=True)] == [
        ["red onions"], ["salt", "black pepper"], [], [],
    ]  # fmt: skip


def test_a_longer_name_takes_its_words_before_a_shorter_one():
    assert baselines.tags(["cream cheese and cream"], ["cream", "cream cheese"]) == [["B", "I", "O", "B"]]


def test_names_that_stand_nowhere_are_not_tagged():
    assert baselines.tags(["1 egg"], ["flour", ""]) == [["O", "O"]]


def test_nearly_all_training_names_can_be_written_as_tags():
    rows = data.load("train")
    found = [
        name for row in rows
        for line, tags in zip(data.lines(row), baselines.tags(data.lines(row), data.answer(row)), strict=True)
        for name in baselines.read(baselines.words(line), iter(tags))
    ]  # fmt: skip
    assert len(found) > 0.99 * sum(len(data.answer(row)) for row in rows)


def test_the_tagger_learns_its_convention_from_rows_and_answers_in_json():
    goods = ("flour", "sugar", "rye", "milk", "salt", "oats")
    pairs = [(a, b) for a in goods for b in goods if a < b]
    taught = [data.recipe(f"{a} {b}", [f"2 cups {a}, sifted", f"1 cup {b}"], [a, b]) for a, b in pairs]
    asked = data.recipe("Pie", ["4 cups milk, sifted", "1 cup barley"])
    answers = baselines.tagger(taught)([data.prompt(asked), [{"role": "user", "content": "?"}]])
    assert [json.loads(text) for text in answers] == [["milk", "barley"], []]


# --- similar examples --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def train():
    return data.load("train")


def test_the_most_similar_rows_come_last_and_never_the_question_itself(train):
    nearest = baselines.similar(train)
    again = nearest(data.prompt(train[7]), 3)
    assert train[7] not in again and len(again) == 3
    copy = data.recipe("A copy of it", data.lines(train[7]))
    assert nearest(copy["messages"], 3)[-1] == train[7]
    assert nearest(copy["messages"], 1) == [train[7]]
    assert nearest(copy["messages"], 0) == []
    assert len(baselines.similar(train[:7])(copy["messages"], 8)) == 7  # all there are


def test_all_examples_are_training_rows(train):
    nearest = baselines.similar(train)
    for row in data.load("validation")[:20]:
        assert all(found in train for found in nearest(data.prompt(row), 4))


def test_each_chat_is_asked_with_its_own_examples(monkeypatch, tiny, tokenizer):
    asked = []
    monkeypatch.setattr(models, "generate", lambda model, tokenizer, chats, **options: asked.extend(chats) or chats)
    rows = [data.recipe(name, ["1 egg"], [name]) for name in "ab"]
    chosen = {"examples": lambda chat: [rows["b" in chat[-1]["content"]]], "instruction": "Rule"}
    system = evaluation.prompted(tiny, tokenizer, **chosen)
    system([data.recipe(name, ["x"])["messages"] for name in "ab"])
    assert [[turn["content"] for turn in chat] for chat in asked] == [
        ["Rule", "a\n- 1 egg", '["a"]', "a\n- x"], ["Rule", "b\n- 1 egg", '["b"]', "b\n- x"],
    ]  # fmt: skip
    assert (system.dtype, system.device) == ("float32", "cpu")


# --- constrained decoding -----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("limit", [12, 40])
def test_even_random_weights_write_a_json_list_of_strings(seed, limit, tokenizer):
    model = models.tiny_model(seed)
    chats = [[{"role": "user", "content": text}] for text in ("eggs", "milk and flour", "½ jalapeño")]
    free = models.generate(model, tokenizer, chats, max_new_tokens=limit, progress=False)
    assert not any(evaluation.parse(answer["text"]) is not None for answer in free)
    held = baselines.json_list(tokenizer, limit)
    for size in (3, 1):
        answers = models.generate(
            model, tokenizer, chats, max_new_tokens=limit, batch_size=size, progress=False, constrain=held
        )
        assert all(evaluation.parse(answer["text"]) is not None for answer in answers)
        assert all(answer["finished"] and answer["completion_tokens"] <= limit for answer in answers)


@pytest.mark.parametrize("answer", [[], ["salt", "jalapeño", 'say "cheese"', "½"], ["a\\b"]])
def test_every_json_list_of_strings_is_allowed_token_by_token(answer, tokenizer):
    tokens = tokenizer(json.dumps(answer, ensure_ascii=False))["input_ids"] + [tokenizer.eos_token_id]
    allowed = baselines.json_list(tokenizer, least=0)()
    for position, token in enumerate(tokens):
        mask = allowed(tokens[:position])
        assert mask.dtype == torch.bool and mask.shape == (len(tokenizer),) and mask[token]


@pytest.mark.parametrize("text", ["Sure", "{", "[]", "[1", '["a",]', '["a"] and', "['a'", '["a\n'])
def test_what_is_no_json_list_of_strings_is_forbidden(text, tokenizer):
    tokens, allowed = tokenizer(text)["input_ids"], baselines.json_list(tokenizer)()
    for position, token in enumerate(tokens):
        if not allowed(tokens[:position])[token]:
            return
    pytest.fail(f"{text!r} was allowed")


def test_chats_do_not_share_the_state_of_a_constraint(tokenizer):
    begin, (bracket,) = baselines.json_list(tokenizer), tokenizer("[")["input_ids"]
    one, two = begin(), begin()
    one([bracket])
    assert two([])[bracket] and not one([bracket])[bracket]


def test_importing_the_baselines_is_cheap():
    code = "import sys; from helpers import baselines; print('sklearn' in sys.modules, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=runtime.ROOT, check=True)
    assert done.stdout.split() == ["False", "False"]


# --- what was recorded --------------------------------------------------------------------------------


def test_recorded_prompts_give_reports_on_the_validation_rows_that_agree_with_their_figures():
    runs = [run for run in baselines.recorded() if "report" in run]
    validation = data.rows_hash(data.load("validation"))
    assert {"zero-shot", "rule, JSON", "16 similar, JSON", "16 random, JSON"} <= {run["name"] for run in runs}
    for run in runs:
        metrics = run["report"].metrics
        assert (run["report"].n, run["report"].rows_hash) == (run["n"], validation) == (100, validation)
        for name in ("f1", "low", "high", "lenient_f1", "valid_json", "prompt_tokens", "completion_tokens"):
            assert metrics[name] == pytest.approx(run[name], abs=1e-4), (run["name"], name)
        assert run["valid_json"] == 1 or not run["json"]


def test_the_slider_of_lesson_03_redraws_the_recorded_ladder():
    import nbformat

    master = nbformat.read(runtime.ROOT / "solutions" / "03-prompting-baseline.ipynb", 4)
    cells = {cell.id: cell.source for cell in master.cells}
    by_name = {run["name"]: run for run in baselines.recorded() if run.get("seed") == 0 and "report" in run}
    space = {"by_name": by_name, "plots": plots}
    exec(cells["03-price"], space)
    exec(cells["03-widget"].rsplit("\n", 1)[0], space)
    box = eval(cells["03-widget"].rsplit("\n", 1)[1], space)
    slider, picture = box.children
    assert (slider.min, slider.max) == (1, 5) and "image/png" in box._repr_mimebundle_()
    before = picture.value
    slider.value = 5
    assert picture.value != before and bytes(picture.value).startswith(b"\x89PNG")
    title = space["picture"](5).axes[0].get_title()
    assert title.startswith("16 similar examples") and f"F1 {by_name['16 similar, JSON']['f1']:.2f}" in title
    assert space["dollars"](by_name["16 similar, JSON"]) > 3 * space["dollars"](by_name["1 similar, JSON"])


def test_a_cached_beginning_is_billed_at_its_own_price():
    import nbformat

    master = nbformat.read(runtime.ROOT / "solutions" / "03-prompting-baseline.ipynb", 4)
    space = {"by_name": {"zero-shot": {"prompt_tokens": 100}}}
    exec(next(cell.source for cell in master.cells if cell.id == "03-price"), space)
    space["PRICE"] = {"input": 0.10, "cached input": 0.01, "output": 0.50}
    run = {"chosen": "similar", "prompt_tokens": 2100, "completion_tokens": 50}
    assert space["dollars"](run) == pytest.approx(2100 * 0.10 + 50 * 0.50)
    assert space["dollars"](run | {"chosen": "random"}) == pytest.approx(100 * 0.10 + 2000 * 0.01 + 50 * 0.50)
    assert space["dollars"](run | {"chosen": "random", "prompt_tokens": 1100}) == pytest.approx(1100 * 0.10 + 50 * 0.50)
