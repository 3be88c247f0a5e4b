"""Masters, lessons and the rules they keep: first on small notebooks made here, then on the real ones."""

from __future__ import annotations

import base64
import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from helpers import authoring, runtime
from helpers.runtime import CourseError

NAME = "05-tiny"
WIDGET = "application/vnd.jupyter.widget-view+json"
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
CARD = {"core": False, "builds_on": ["00-start"], "download": "98 MB, once", "money": "none", "recorded": {}}
RUN = {"minutes": 1.5, "peak_gb": 1.4, "device": "2 cores, Linux x86_64", "date": "2026-11-22"}


def notebook(*cells: tuple[str, str]) -> nbformat.NotebookNode:
    """A notebook of (tags, source); a source that begins with `#: ` is markdown."""
    made = []
    for number, (tags, source) in enumerate(cells):
        markdown = source.startswith("#: ")
        new = nbformat.v4.new_markdown_cell if markdown else nbformat.v4.new_code_cell
        made.append(new(source.removeprefix("#: "), id=f"cell-{number}"))
        if tags:
            made[-1].metadata["tags"] = tags.split()
    return nbformat.v4.new_notebook(cells=made)


def master() -> nbformat.NotebookNode:
    """A small elective that keeps every rule."""
    return notebook(
        ("", "#: # Tiny\n**You will be able to** keep all the rules, in a notebook made for one test only."),
        ("badges", "#: badges"),
        ("card", "#: card with 1.5 minutes"),
        ("setup", "import helpers"),
        (
            "",
            "#: ## An idea\nQwen2.5, GPT-3.5 and 8B are names. So are `0.5` and [a link](https://example.org/1.5).",
        ),
        ("", "rows = [1, 2, 3]"),
        (
            "",
            "#: Write a function that doubles what it is given; the check tries it on values not shown here.",
        ),
        ("exercise", "def double(value):\n    ..."),
        ("hint", "#: <details><summary>Hint</summary>Twice a value is that value plus itself.</details>"),
        ("solution", "def double(value):\n    rows = value * 2\n    return rows"),
        ("check", "assert double(2) == 4"),
        (
            "",
            "#: The rows are what they were, since nothing above depends on what was written by the learner.",
        ),
        ("", "double = len\n[double(rows) for value in rows]"),
        ("", "quiz('05')"),
        ("", "scoreboard.show()"),
        (
            "",
            "#: ## What this did not show\nWhether it would hold for a larger model.\n\n## Next\nNothing.",
        ),
        ("sources", "#: Somebody, 2026-11-22: 95 % of 0.5."),
    )


@pytest.fixture
def course(tmp_path, monkeypatch) -> Path:
    """A course with one small master, helpers that need nothing, and the address of its own folder."""
    root = tmp_path / "a course"
    for folder in ("helpers", "solutions", "lessons", "data/recorded"):
        (root / folder).mkdir(parents=True)
    (root / "helpers" / "__init__.py").touch()
    (root / "helpers" / "course.json").write_text(json.dumps(runtime.COURSE), encoding="utf-8")
    start = "def start():\n    print('started')\n"
    (root / "helpers" / "runtime.py").write_text(start, encoding="utf-8")
    cards = {"00-start": {**CARD, "builds_on": []}, NAME: CARD}
    (root / "data" / "recorded" / "cards.json").write_text(json.dumps(cards), encoding="utf-8")
    (root / "README.md").write_text(authoring.badges(NAME), encoding="utf-8")
    monkeypatch.setattr(authoring, "ROOT", root)
    return root


def save(course: Path, *cells: tuple[str, str]) -> Path:
    path = course / "solutions" / f"{NAME}.ipynb"
    nbformat.write(notebook(*cells), path)
    return path


# --- the first cell ------------------------------------------------------------------------------


def first_cell(folder: Path, before: str = "", after: str = "", **variables: str) -> str:
    """Run the first cell in a fresh Python whose own folders hold no course; returns what it printed."""
    code = "\n".join([before, authoring.SETUP.format(**runtime.COURSE), after])
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("COURSE_", "PYTHON"))}
    environment = {**kept, "PYTHONUTF8": "1", "PYTHONDONTWRITEBYTECODE": "1", **variables}
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=folder, env=environment, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


WHERE = "import helpers; print(pathlib.Path(helpers.__file__).parent.parent)"


@pytest.mark.parametrize("below", [".", "solutions", "data/recorded"])
def test_the_first_cell_finds_the_course_in_its_own_folder_and_above(course, below):
    printed = first_cell(course / below, after=WHERE)
    assert printed.split("\n")[:2] == ["started", str(course.resolve())]


def test_the_first_cell_finds_the_course_from_an_unrelated_folder(course, tmp_path):
    away = tmp_path / "away"
    away.mkdir()
    for variable in ("COURSE_ROOT", "PYTHONPATH"):
        assert str(course.resolve()) in first_cell(away, after=WHERE, **{variable: str(course)})


@pytest.mark.parametrize("form", ["package", "namespace"])
def test_the_first_cell_wins_over_a_foreign_package_named_helpers(course, tmp_path, form):
    foreign = tmp_path / "site" / "helpers"
    foreign.mkdir(parents=True)
    (foreign / "runtime.py").write_text("start = None", encoding="utf-8")
    if form == "package":
        (foreign / "__init__.py").touch()
    before = "import helpers.runtime; assert helpers.runtime.start is None"
    printed = first_cell(course / "lessons", before, WHERE, PYTHONPATH=str(foreign.parent))
    assert printed.split("\n")[:2] == ["started", str(course.resolve())]


def test_a_second_run_of_the_first_cell_keeps_the_helpers_that_are_loaded(course):
    again = "loaded = runtime\n" + authoring.SETUP.format(**runtime.COURSE) + "\nprint(loaded is runtime)"
    assert first_cell(course / "lessons", after=again).split() == ["started", "started", "True"]


def test_on_colab_the_first_cell_clones_the_pinned_version_once(course, tmp_path):
    nobody = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}

    def git(*words: str) -> None:
        who = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *who, *words], cwd=course, check=True, env={**os.environ, **nobody})

    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "-m", "one")
    git("tag", runtime.COURSE["ref"])
    (course / "helpers" / "runtime.py").write_text("raise SystemExit('not the pinned version')", encoding="utf-8")
    git("commit", "--quiet", "-am", "two")

    colab = tmp_path / "content"
    colab.mkdir()
    fork = {"COURSE_REPOSITORY": course.as_uri(), **nobody}
    clone = colab / runtime.COURSE["name"]
    assert first_cell(colab, after=WHERE, **fork).split("\n")[:2] == ["started", str(clone.resolve())]
    gone = {"COURSE_REPOSITORY": (tmp_path / "nowhere").as_uri()}
    assert first_cell(colab, after=WHERE, **gone).split("\n")[:2] == ["started", str(clone.resolve())]


def test_the_first_cell_is_short_and_ready_for_the_linter(tmp_path):
    source = authoring.SETUP.format(**runtime.COURSE)
    assert len([line for line in source.split("\n") if line.strip()]) <= 13
    path = tmp_path / "first.ipynb"
    nbformat.write(notebook(("setup", source)), path)
    config = Path(__file__).parent.parent / "pyproject.toml"
    for command in ("check", "format --check"):
        ruff = [sys.executable, "-m", "ruff", *command.split(), "--no-cache", "--config", config, path]
        done = subprocess.run(ruff, text=True, capture_output=True)
        assert done.returncode == 0, done.stdout


# --- stamps --------------------------------------------------------------------------------------


def test_badges_open_the_lesson_at_the_address_and_version_of_course_json(monkeypatch):
    fork = {"name": "x", "repository": "https://github.com/me/fork", "ref": "v9"}
    monkeypatch.setattr(authoring, "COURSE", fork)
    made = authoring.badges(NAME)
    assert "(https://mybinder.org/v2/gh/me/fork/v9?labpath=lessons/05-tiny.ipynb)" in made
    assert "(https://colab.research.google.com/github/me/fork/blob/v9/lessons/05-tiny.ipynb)" in made


def test_a_card_shows_recorded_runs_and_says_where_none_was_recorded(course):
    cards = {NAME: {**CARD, "recorded": {"plain CPU": RUN}}}
    (course / "data/recorded/cards.json").write_text(json.dumps(cards), encoding="utf-8")
    made = authoring.card(NAME)
    assert "**Elective lesson** · builds on: [00](00-start.ipynb) · download: 98 MB, once · money: none" in made
    assert "| plain CPU | 1.5 | 1.4 GB | 2 cores, Linux x86_64, 2026-11-22 |" in made
    assert "| bf16 CPU | not recorded yet | |  |" in made and "| GPU | not recorded yet | |  |" in made


def test_a_lesson_without_an_entry_in_cards_json_is_told_what_to_add(course):
    with pytest.raises(CourseError, match=r'no lesson 09-new. Add "09-new": \{"core": true'):
        authoring.card("09-new")


# --- masters to lessons --------------------------------------------------------------------------


def test_a_lesson_is_its_master_without_solutions_and_outputs():
    source = master()
    source.cells[5].outputs = [nbformat.v4.new_output("stream", text="3")]
    source.cells[5].execution_count = 4
    before = copy.deepcopy(source)
    lesson = nbformat.reads(authoring.lesson_from(source), as_version=4)
    assert source == before
    assert [cell.id for cell in lesson.cells] == [
        c.id for c in source.cells if "solution" not in c.metadata.get("tags", [])
    ]
    code = [cell for cell in lesson.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
    assert authoring.lesson_from(source) == authoring.lesson_from(before)


def test_what_editors_add_to_metadata_does_not_reach_the_lesson(tmp_path):
    plain, edited = master(), master()
    edited.metadata = {"kernelspec": {"name": "other", "display_name": "o"}, "widgets": {"state": 1}}
    for cell in edited.cells:
        cell.metadata |= {"execution": {"iopub.execute_input": "2026-11-22T10:00"}, "collapsed": False}
    texts = []
    for source in (plain, edited):
        nbformat.write(source, tmp_path / "x.ipynb")
        texts.append(authoring.lesson_from(authoring.read(tmp_path / "x.ipynb")))
    assert texts[0] == texts[1] and texts[0].endswith("}\n") and '"name": "python3"' in texts[0]


def test_a_file_that_is_no_notebook_is_named(tmp_path):
    (tmp_path / "x.ipynb").write_text("half a note", encoding="utf-8")
    with pytest.raises(CourseError, match="x.ipynb is not a valid notebook"):
        authoring.read(tmp_path / "x.ipynb")


def cleaned(*outputs: dict) -> list[dict]:
    source = notebook(("", "1"))
    source.cells[0].outputs = [nbformat.from_dict(output) for output in outputs]
    return authoring.clean(source, "/srv/runs/xyz").cells[0].outputs


def shown(text: str) -> str:
    (output,) = cleaned({"output_type": "stream", "name": "stdout", "text": text})
    return output.text


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        (f"saved in {runtime.ROOT / 'data'}", f"saved in …{os.sep}data"),
        (f"'{Path.home()}{os.sep}x'", f"'…{os.sep}x'"),
        ("run: /srv/runs/xyz/a.json, /srv/runs/xyz", "run: …/a.json, …"),
        ("/srv/runs/xyz2 and https://a.org/srv/runs/xyz", "/srv/runs/xyz2 and https://a.org/srv/runs/xyz"),
        ("/tmp/ipykernel_123/456.py:1: UserWarning", "<cell>:1: UserWarning"),
        (r"C:\Temp\ipykernel_123\456.py:1: UserWarning", "<cell>:1: UserWarning"),
        ("<object at 0x7f3a00ff>", "<object at 0x…>"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("first\rsecond\nthird\r\n", "second\nthird\n"),
        (
            "a\n 50%|████▌    | 1/2 [00:01<00:01,  1.0it/s]\r100%|█████| 2/2 [00:02<00:00,  1.0it/s]\nb",
            "a\nb",
        ),
    ],
)
def test_what_belongs_to_one_machine_or_run_leaves_the_text(raw, clean):
    assert shown(raw) == clean
    (error,) = cleaned({"output_type": "error", "ename": "E", "evalue": "", "traceback": [raw.split("\r")[0]]})
    assert "\x1b" not in error.traceback[0] and "0x7f" not in error.traceback[0]


def test_bars_leave_whether_text_or_widget():
    bar = "Map: 100%|██| 9/9 [00:00<00:00, 9.1it/s]"
    text = {"output_type": "stream", "name": "stderr", "text": f"\r{bar}\r{bar}\n"}
    live = {
        "output_type": "display_data",
        "metadata": {},
        "data": {"text/plain": bar, WIDGET: {"model_id": "1"}},
    }
    assert cleaned(text, live) == []


def test_figures_and_tables_stay_and_a_widget_leaves_the_picture_it_carries():
    def display(**data):
        return {"output_type": "display_data", "metadata": {}, "data": data, "transient": {"display_id": "1"}}

    png, svg = {"image/png": PIXEL}, {"image/svg+xml": "<svg><!-- at 0x12 --></svg>"}
    table = {"text/html": "<b>1</b>", "text/plain": "1"}
    kept = cleaned(display(**png), display(**svg), display(**table, **{WIDGET: {"model_id": "1"}}))
    assert [output["data"] for output in kept] == [
        png,
        {"image/svg+xml": "<svg><!-- at 0x… --></svg>"},
        table,
    ]
    assert not any("transient" in output for output in kept)
    assert base64.b64decode(kept[0].data["image/png"])


def test_cleaning_twice_changes_nothing_more():
    source = notebook(("", "1"))
    source.cells[0].outputs = [nbformat.v4.new_output("stream", text=f"{runtime.ROOT} at 0x12\ra\n\x1b[1mb")]
    once = authoring.clean(source)
    assert authoring.clean(copy.deepcopy(once)) == once


# --- build, verify, record -----------------------------------------------------------------------

RUNS = "import os\nfrom pathlib import Path\nruns = Path(os.environ['COURSE_RUNS'])\n"


def test_a_build_stamps_runs_cold_cleans_and_writes_master_and_lesson(course):
    path = save(
        course,
        ("", "#: # Tiny"),
        ("badges", "#: old"),
        ("card", "#: old"),
        ("setup", "old"),
        ("", RUNS + "print(list(runs.iterdir()), Path.cwd(), runs)\n(runs / 'x').touch()"),
        ("", "import sys\nfrom tqdm import tqdm\nfor i in tqdm([1, 2]): print('row', i)"),
        ("raises-exception", "1 / 0"),
        ("solution", "object()"),
        ("", "from ipywidgets import IntSlider\nIntSlider()"),
    )
    for _ in range(2):  # the second run must find the folder of runs as empty as the first
        authoring.build()
        built = authoring.read(path)
        assert "mybinder.org" in built.cells[1].source and "not recorded yet" in built.cells[2].source
        assert built.cells[3].source.endswith("runtime.start()") and built.cells[3].outputs[0].text == "started\n"
        assert built.cells[4].outputs[0].text == f"[] …{os.sep}solutions …\n"
        assert [output.text for output in built.cells[5].outputs] == ["row 1\nrow 2\n"]
        assert built.cells[6].outputs[0].ename == "ZeroDivisionError"
        assert built.cells[7].outputs[0].data["text/plain"] == "<object at 0x…>"
        assert built.cells[8].outputs == [] and built.cells[8].execution_count
        assert "widgets" not in built.metadata and not any("execution" in cell.metadata for cell in built.cells)
        assert (course / "lessons" / path.name).read_bytes() == authoring.lesson_from(built).encode()
        assert authoring.verify() == []


def test_a_build_with_a_folder_of_runs_finds_what_is_in_it(course, tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "earlier").touch()
    path = save(course, ("setup", "old"), ("", RUNS + "print([path.name for path in runs.iterdir()])"))
    authoring.build(runs=tmp_path / "runs")
    assert authoring.read(path).cells[1].outputs[0].text == "['earlier']\n"


@pytest.mark.parametrize("defect", ["other", "missing"])
def test_the_picture_for_the_readme_is_the_one_in_its_master(course, defect):
    show = f"import base64\nfrom IPython.display import Image\nImage(base64.b64decode('{PIXEL}'), format='png')"
    save(course, ("setup", "old"), ("readme-picture", show))
    authoring.build()
    file = course / authoring.PICTURE
    assert file.read_bytes() == base64.b64decode(PIXEL)
    assert authoring.verify() == []
    file.write_bytes(b"other") if defect == "other" else file.unlink()
    assert [problem.split(":")[0] for problem in authoring.verify()] == [authoring.PICTURE]


@pytest.mark.parametrize(
    ("tag", "code", "message"),
    [
        ("", "raise ValueError('bad row')", "cell cell-1: ValueError: bad row"),
        ("raises-exception", "1", "cell cell-1: was meant to raise an exception and did not"),
        ("", "import os; os._exit(1)", "cell cell-1: the kernel was stopped, or died"),
    ],
)
def test_a_cell_that_fails_stops_the_build_and_nothing_is_written(course, tag, code, message):
    path = save(course, ("", "#: # Tiny"), (tag, code), ("", "2"))
    source = nbformat.read(path, as_version=4)
    for cell in source.cells[1:]:  # as an earlier build left them
        cell.execution_count = 1
    nbformat.write(source, path)
    before = path.read_bytes()
    with pytest.raises(CourseError, match=message):
        authoring.build()
    assert path.read_bytes() == before and not any((course / "lessons").iterdir())


def test_a_name_chooses_masters_by_their_beginning_and_a_wrong_one_is_refused(course):
    path = save(course, ("", "1"))
    assert authoring.masters(["05"]) == authoring.masters([NAME]) == authoring.masters() == [path]
    with pytest.raises(CourseError, match="No master begins with '06'. There are .'05-tiny'."):
        authoring.masters(["06"])


def test_building_without_executing_keeps_the_outputs(course):
    path = save(course, ("", "1"))
    source = nbformat.read(path, as_version=4)
    source.cells[0] |= {"execution_count": 1, "outputs": [nbformat.v4.new_output("stream", text="kept")]}
    nbformat.write(source, path)
    assert authoring.main([], "no-execute") == 0
    assert authoring.read(path).cells[0].outputs[0].text == "kept"


def executed(course: Path) -> Path:
    """A built master that keeps the rules, as if all its cells had been executed."""
    path, source = course / "solutions" / f"{NAME}.ipynb", master()
    for cell in source.cells:
        if cell.cell_type == "code":
            cell.execution_count = 1
    nbformat.write(source, path)
    authoring.build(execute=False)
    return path


def test_check_passes_when_all_is_current_and_fails_with_the_reason_when_not(course, capsys):
    path = executed(course)
    capsys.readouterr()
    assert authoring.main([], "check") == 0 and "current" in capsys.readouterr().out
    path.write_text(path.read_text(encoding="utf-8").replace("An idea", "3.5 ideas"), encoding="utf-8")
    assert authoring.main([], "check") == 1
    printed = capsys.readouterr().out
    assert "lessons/05-tiny.ipynb: is not what its master gives" in printed and "'3.5' in prose" in printed


def replaced(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8", newline="\n")


@pytest.mark.parametrize(
    ("defect", "problem"),
    [
        (lambda c: (c / f"lessons/{NAME}.ipynb").unlink(), "in only one of"),
        (lambda c: (c / "lessons/06-stray.ipynb").touch(), "06-stray.ipynb: is in only one of"),
        (lambda c: replaced(c / f"lessons/{NAME}.ipynb", "An idea", "Thought"), "not what its master gives"),
        (lambda c: replaced(c / f"lessons/{NAME}.ipynb", "\n", "\r\n"), "not what its master gives"),
        (lambda c: replaced(c / f"solutions/{NAME}.ipynb", "runtime.start()", "runtime.go()"), "not current"),
        (lambda c: replaced(c / f"solutions/{NAME}.ipynb", "mybinder", "binder"), "not current"),
        (lambda c: replaced(c / "data/recorded/cards.json", "98 MB", "99 MB"), "not current"),
        (lambda c: replaced(c / f"solutions/{NAME}.ipynb", '"nbformat": ', '"nbformat":  '), "not current"),
        (lambda c: replaced(c / f"solutions/{NAME}.ipynb", '"execution_count": 1', '"execution_count": null'),
         "was not executed"),
        (lambda c: replaced(c / f"solutions/{NAME}.ipynb", '"outputs": []',
            '"outputs": [{"output_type": "error", "ename": "E", "evalue": "v", "traceback": []}]'), ": E: v"),
        (lambda c: (c / "README.md").unlink(), "lacks the badges"),
        (lambda c: replaced(c / "README.md", "lessons/05", "lessons/04"), "opens no lesson"),
    ],
)  # fmt: skip
def test_verify_finds_what_is_out_of_date(course, defect, problem):
    executed(course)
    assert authoring.verify() == []
    defect(course)
    assert any(problem in found for found in authoring.verify())


def test_a_record_measures_the_kernel_and_reaches_card_and_lesson(course, monkeypatch):
    save(course, ("card", "#: old"), ("", "import time\nblock = b'x' * 700_000_000\ntime.sleep(1.5)"))
    authoring.main([NAME], "record")
    kind = runtime.machine().kind
    entry = json.loads((course / "data/recorded/cards.json").read_text(encoding="utf-8"))[NAME]["recorded"][kind]
    assert 0.7 <= entry["peak_gb"] <= 1.2 and 0 <= entry["minutes"] <= 1 and len(entry["date"]) == 10
    row = f"| {kind} | {entry['minutes']} | {entry['peak_gb']} GB | {entry['device']}, {entry['date']} |"
    for folder in ("solutions", "lessons"):
        assert row in authoring.read(course / folder / f"{NAME}.ipynb").cells[0].source


# --- lint ----------------------------------------------------------------------------------------


def test_a_master_that_keeps_the_rules_passes():
    assert authoring.lint(master()) == []


def changed(index: int, old: str, new: str):
    def defect(source):
        assert old in source.cells[index].source
        source.cells[index].source = source.cells[index].source.replace(old, new)

    return defect


def without(index: int):
    return lambda source: source.cells.pop(index)


def added(index: int, tags: str, *sources: str):
    def defect(source):
        for number, text in enumerate(sources):
            (cell,) = notebook((tags, text)).cells
            cell.id = f"new-{number}"
            source.cells.insert(index + number, cell)

    return defect


def printing(text: str):
    def defect(source):
        source.cells[5].outputs = [nbformat.v4.new_output("stream", text=text)]

    return defect


IDEA, ROWS, LAST = 4, 5, 16  # cells of master(): prose, code, sources
KEYS = ["sk-" + "a" * 20, "hf_" + "b" * 30, "gh" + "p_" + "c" * 36, "AKIA" + "D" * 16]


@pytest.mark.parametrize(
    ("defect", "problem"),
    [
        (changed(0, "# Tiny", "Tiny"), "H1"),
        (added(0, "", "#: ## Early"), "H1"),
        (changed(0, "You will be able to", "You will"), "You will be able to"),
        *((without(index), "`setup`, `badges`, `card`") for index in (1, 2, 3)),
        (added(3, "setup", "import helpers"), "`setup`, `badges`, `card`"),
        (added(1, "", "early = 1"), "first code cell is not `setup`"),
        (changed(13, "quiz(", "print("), "no quiz"),
        (changed(14, "scoreboard.show()", "print()"), "no scoreboard"),
        (changed(15, "What this did not show", "Limits"), "What this did not show"),
        (changed(15, "## Next", "## Afterwards"), "'Next'"),
        (without(LAST), "`sources`"),
        (changed(LAST, "2026-11-22", "once"), "`sources`"),
        *((changed(IDEA, "8B", figure), f"{found!r} in prose") for figure, found in {
            "an F1 of 0.81": "0.81", "loss -1.5": "-1.5"[1:], ".75 of it": ".75", "95 % of rows": "5 %",
            "80% more": "0%", "ten percent": "percent", "95&nbsp;% of": "5&nbsp;%", "1.5x": "1.5"}.items()),
        *((printing(path), "path") for path in ("in /home/me/x", "/Users/me", r"C:\Users\me", "a\n/tmp/x")),
        (changed(ROWS, "[1, 2, 3]", "open('/root/x')"), "path"),
        *((printing(f"key={key}"), "a key") for key in KEYS),
        *((changed(ROWS, "[1, 2, 3]", repr(key)), "a key") for key in KEYS),
        (changed(IDEA, "8B", "with --index-url https://mirror.example x"), "a package index"),
        (changed(LAST, "2026", "https://py" + "pi.org/project/x 2026"), "a package index"),
        *((changed(ROWS, "rows", f"{command} install x\nrows"), "an installation")
          for command in ("!pip", "%pip", "! uv pip", "!python -m pip", "%conda")),
        (changed(ROWS, "rows", "from os import *\nrows"), "a wildcard import"),
        (printing("x" * 2_000_001), "2.0 MB"),
        (changed(ROWS, "rows", "%time\nrows"), "not plain Python"),
        (added(6, "", *["a = 1\nb = 2\nc = 3\nd = 4\ne = 5"] * 8), "median code cell has 5 lines"),
        (added(6, "", *["\n\n".join(["a = 1"] * 11)] * 2), "90th percentile of code cells has 11 lines"),
        (added(6, "", *["a = 1"] * 20), "words of prose per line of code; 8 to 25"),
        (added(6, "", "#: " + "word " * 500), "words of prose per line of code; 8 to 25"),
        (changed(2, "card with", "**Core lesson** ·"), "16 cells besides solutions and appendices; a core lesson"),
    ],
)  # fmt: skip
def test_lint_finds(defect, problem):
    source = master()
    defect(source)
    assert any(problem in found for found in authoring.lint(source)), authoring.lint(source)


def test_cells_of_an_appendix_do_not_count_against_a_core_lessons_length():
    source = master()
    changed(2, "card with", "**Core lesson** ·")(source)
    added(14, "", "#: ## Appendix: more", *["a = 1"] * 60)(source)
    assert any("16 cells besides solutions and appendices" in found for found in authoring.lint(source))


def test_lint_names_the_path_of_this_machine_wherever_the_repository_lies(monkeypatch, tmp_path):
    monkeypatch.setattr(authoring, "ROOT", Path("/srv/somewhere"))
    source = master()
    printing(f"saved in {authoring.ROOT}")(source)
    assert any("this machine's path" in found for found in authoring.lint(source))


@pytest.mark.parametrize(
    "harmless",
    [
        "2026 and 1,000 rows",
        "version 5.17.0",
        "Llama-3.1-8B",
        "\n```\nF1 0.81, 95 %\n```\n",
        "<img src='x.png' width='50%'>",
        "$1$ of 2...3",
        "install with --extra-index-url https://download.pytorch.org/whl/cpu",
        "https://example.org/home/me/80%25",
    ],
)
def test_lint_leaves_alone(harmless):
    source = master()
    changed(IDEA, "8B", harmless)(source)
    assert authoring.lint(source) == []


def test_a_core_lesson_of_the_right_size_passes():
    source = master()
    changed(2, "card with", "**Core lesson** ·")(source)
    added(6, "", *["#: One more idea, in some nine words or so.", "rows"] * 12)(source)
    assert authoring.lint(source) == []


ORDER = "do not follow one another"
STUB, WRITTEN, CHECK = ("exercise", "mine = ..."), ("solution", "mine = 1"), ("check", "print(mine)")
OTHER = ("", "free = 0")


def asks(number: int) -> tuple[str, str]:
    """The cell that checks the exercise of this number."""
    return "check", f'exercises.check("05-{number}", mine)'


@pytest.mark.parametrize(
    ("cells", "problem"),
    [
        ([STUB, WRITTEN, CHECK], ""),
        ([STUB, ("hint", "#: think"), WRITTEN, ("", "#: And?"), CHECK, CHECK], ""),
        ([STUB, WRITTEN, CHECK, STUB, WRITTEN, CHECK], ""),
        ([STUB, CHECK], ORDER),
        ([STUB, WRITTEN], ORDER),
        ([WRITTEN, CHECK], ORDER),
        ([WRITTEN, STUB, CHECK], ORDER),
        ([STUB, OTHER, WRITTEN, CHECK], ORDER),
        ([STUB, WRITTEN, OTHER, CHECK], ORDER),
        ([CHECK], ORDER),
        ([STUB, WRITTEN, asks(1), STUB, WRITTEN, asks(2)], ""),
        ([STUB, WRITTEN, asks(2), STUB, WRITTEN, asks(1)], "numbered 2, 1"),
    ],
)
def test_an_exercise_is_stub_solution_and_check_in_this_order(cells, problem):
    found = list(authoring._exercises(notebook(*cells)))
    assert any(problem in line for line in found) if problem else found == []


@pytest.mark.parametrize(
    ("later", "reads"),
    [
        (("", "print(mine)"), True),
        (("", "def show():\n    return mine"), True),
        (("", "[mine for _ in range(2)]"), True),
        (("", "class Shown:\n    value = mine"), True),
        (("", "mine += 1"), True),
        (("", "mine = mine + 1"), True),
        (("", "mine.value = 1"), True),
        (("", "print(f'{mine}')"), True),
        (("", "tool.of()"), True),
        (("exercise", "yours = mine"), True),
        (("", "mine = 2\nprint(mine)"), False),
        (("", "for mine in range(3):\n    print(mine)"), False),
        (("", "[mine for mine in range(3)]"), False),
        (("", "def show(mine):\n    return mine"), False),
        (("", "print(thing.mine, dict(mine=1))"), False),
        (("", "import tool\ntool.of()"), False),
        (("", "print(local)"), False),
    ],
)
def test_no_other_cell_reads_what_the_learner_wrote(later, reads):
    solution = ("solution", "import tool\ndef mine():\n    local = 1\n    return local")
    rest = [("solution", "yours = 1"), ("check", "yours")] if later[0] else []
    found = list(authoring._exercises(notebook(STUB, solution, CHECK, later, *rest)))
    assert any("leaves to the learner" in line for line in found) == reads, found


def test_a_name_that_an_ordinary_cell_binds_again_is_free():
    cells = [STUB, WRITTEN, CHECK, ("", "mine = 2"), ("", "print(mine)")]
    assert list(authoring._exercises(notebook(*cells))) == []
    cells = [("", "mine = 0"), STUB, WRITTEN, CHECK, ("", "print(mine)")]
    assert "exercise 1" in "".join(authoring._exercises(notebook(*cells)))


# --- the course's own notebooks ------------------------------------------------------------------


def test_masters_and_lessons_are_current():
    assert authoring.masters(), "solutions/ holds no master"
    assert authoring.verify() == []


def test_masters_keep_the_rules():
    found = {path.stem: authoring.lint(authoring.read(path)) for path in authoring.masters()}
    assert found and not any(found.values()), found


BEFORE = {  # lessons whose board is about those before them: what these leave, so that a build without them is noticed
    "04-retrieval-baseline": {"rules", "tagger", "rule, JSON", "1 similar, JSON", "zero-shot", "3-shot"},
    "06-prepare-data": {"rules", "tagger", "rule, JSON", "1 similar, JSON", "LoRA, 120 rows"},
    "08-evaluate": {"rules", "rule, JSON", "1 similar, JSON", "LoRA, 120 rows", "LoRA, 25 rows", "you"},
}


@pytest.mark.parametrize("lesson", BEFORE)
def test_a_masters_board_shows_what_the_lessons_before_it_left(lesson):
    master = authoring.read(authoring.ROOT / "solutions" / f"{lesson}.ipynb")
    outputs = [out for cell in master.cells for out in cell.get("outputs", [])]
    board = "\n".join("".join(out["data"]["text/plain"]) for out in outputs if "text/plain" in out.get("data", {}))
    assert {system for system in BEFORE[lesson] if f"system: {system}  F1" in board} == BEFORE[lesson]


def test_lessons_hold_no_solution_no_output_and_nothing_unsafe():
    for path in sorted((authoring.ROOT / "lessons").glob("*.ipynb")):
        lesson = authoring.read(path)
        assert not any("solution" in authoring._tags(cell) or cell.get("outputs") for cell in lesson.cells)
        assert list(authoring._contents(lesson)) == []
