"""For maintainers: stamp, execute and clean the masters in `solutions/`, make `lessons/` of them, check both.

A lesson is a byte-exact function of its master, so nobody edits lessons by hand. What all masters share
(first cell, badges, card) is written here once and stamped into their cells of that tag.
"""

from __future__ import annotations

import base64
import contextlib
import copy
import datetime
import dis
import json
import os
import re
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING

from . import runtime
from .runtime import COURSE, ROOT, CourseError

if TYPE_CHECKING:
    from nbformat import NotebookNode

PICTURE = "data/recorded/board.png"  # what README.md shows
SPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
WIDGET = "application/vnd.jupyter.widget-view+json"
ESCAPE = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\))")  # colours, cursor, links
BAR = re.compile(r"\[\d+:\d\d(?::\d\d)?[<,]")  # the clock of a tqdm bar: [00:03<00:07, 4.2it/s]
NUMBER = re.compile(  # a decimal or percentage, but not Qwen2.5, GPT-3.5 or 5.17.0
    r"(?<![A-Za-z\d.])(?<![A-Za-z]-)\d*\.\d+(?!\.?\d)|\d(?:\s|&nbsp;)*%|\bper ?cent\b"
)
UNSAFE = {
    "a machine's path": r"(?<![\w.])(?:/(?:home|Users|root|tmp|private|var/folders)/\w|[A-Z]:[\\/]+Users)",
    "a key": r"\b(?:sk-[\w-]{16,}|hf_[A-Za-z0-9]{16,}|gh[pousr]_\w{20,}|AKIA[A-Z0-9]{16})\b",
    "a package index": r"\bpypi\.|\bpythonhosted\.|index-url[ =](?!https://download\.pytorch\.org/whl/cpu\b)",
    "an installation": r"(?m)^\s*[!%]+\s*(?:\w+ -m )?(?:pip|conda|uv)\b",
    "a wildcard import": r"(?m)^\s*from\s+\S+\s+import\s*\*",
}  # fmt: skip
SETUP = """\
import os, pathlib, subprocess, sys  # noqa: E401, I001

places = [os.environ.get("COURSE_ROOT", "."), ".", *pathlib.Path.cwd().parents, *sys.path]
found = (p for p in map(pathlib.Path, places) if (p / "helpers/course.json").is_file())
course = next(found, pathlib.Path("{name}"))
if not course.exists():  # as on Colab: fetch the course
    address = os.environ.get("COURSE_REPOSITORY", "{repository}")
    subprocess.run([*"git clone -q --depth 1 --branch {ref}".split(), address, course], check=True)
sys.path.insert(0, str(course.resolve()))
for name in [name for name in sys.modules if name.split(".")[0] == "helpers"]:
    if not str(sys.modules[name].__file__).startswith(os.path.join(sys.path[0], "")):
        del sys.modules[name]  # another package of that name
from helpers import runtime  # noqa: E402

runtime.start()"""


def badges(name: str) -> str:
    """Markdown of the Binder and Colab badges that open lesson `name`, such as `00-start-here`."""
    where, ref = COURSE["repository"].removeprefix("https://github.com/"), COURSE["ref"]
    binder = f"https://mybinder.org/v2/gh/{where}/{ref}?labpath=lessons/{name}.ipynb"
    colab = f"https://colab.research.google.com/github/{where}/blob/{ref}/lessons/{name}.ipynb"
    return (
        f"[![Open in Binder](https://mybinder.org/badge_logo.svg)]({binder})\n"
        f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({colab})"
    )


def _cards(name: str) -> dict:
    """Every lesson's entry in `cards.json`; that of `name` must be there."""
    path = ROOT / "data" / "recorded" / "cards.json"
    cards = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if name not in cards:
        entry = '{"core": true, "builds_on": [], "download": "none", "money": "none", "recorded": {}}'
        raise CourseError(f'data/recorded/cards.json has no lesson {name}. Add "{name}": {entry}')
    return cards


def card(name: str) -> str:
    """Markdown of the card: core or elective, what it builds on, and what real runs of it took."""
    facts = _cards(name)[name]
    base = ", ".join(f"[{lesson[:2]}]({lesson}.ipynb)" for lesson in facts["builds_on"]) or "nothing"
    rows = ["| machine | minutes | peak memory | recorded on |", "|---|---|---|---|"]
    for kind in ("bf16 CPU", "plain CPU", "GPU"):
        run = facts["recorded"].get(kind)
        line = "{minutes} | {peak_gb} GB | {device}, {date}" if run else "not recorded yet | | "
        rows.append(f"| {kind} | {line.format(**run or {})} |")
    head = f"**{'Core' if facts['core'] else 'Elective'} lesson** · builds on: {base}"
    return "\n".join([f"{head} · download: {facts['download']} · money: {facts['money']}", "", *rows])


def stamp(notebook: NotebookNode, name: str) -> NotebookNode:
    """Write the current first cell, badges and card into the cells tagged `setup`, `badges` and `card`."""
    made = {"setup": lambda _: SETUP.format(**COURSE), "badges": badges, "card": card}
    for cell in notebook.cells:
        for tag in _tags(cell) & made.keys():
            cell.source = made[tag](name)
    return notebook


def _tags(cell: NotebookNode) -> set[str]:
    return set(cell.metadata.get("tags", []))


def _text(notebook: NotebookNode) -> str:
    """A notebook's file, without the metadata that editors and kernels add (timing, versions, widgets)."""
    import nbformat

    plain = {**notebook, "metadata": {"kernelspec": SPEC, "language_info": {"name": "python"}}, "cells": []}
    for cell in notebook.cells:
        plain["cells"].append({**cell, "metadata": {k: v for k, v in cell.metadata.items() if k == "tags"}})
    return nbformat.writes(nbformat.from_dict(plain), version=4) + "\n"


def read(path: Path | str) -> NotebookNode:
    """Read and validate a notebook."""
    import nbformat

    try:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
    except (OSError, ValueError, nbformat.ValidationError) as error:
        raise CourseError(f"{path} is not a valid notebook: {error}. Open and save it in Jupyter.") from error
    return notebook


def lesson_from(master: NotebookNode) -> str:
    """The learner's notebook, as the text of its file: the master without solutions and without outputs."""
    from nbconvert.preprocessors import ClearOutputPreprocessor, TagRemovePreprocessor

    lesson = copy.deepcopy(master)
    lesson, _ = TagRemovePreprocessor(remove_cell_tags={"solution"}).preprocess(lesson, {})
    return _text(ClearOutputPreprocessor().preprocess(lesson, {})[0])


def clean(notebook: NotebookNode, *private: Path | str) -> NotebookNode:
    """Take out of the outputs what belongs to one machine or run (`private`: more folders to hide)."""
    own = [*private, ROOT, runtime.home(), Path.home(), tempfile.gettempdir(), sys.prefix, sys.base_prefix]
    known = {str(form) for path in map(Path, own) for form in (path, path.resolve()) if len(path.parts) > 1}
    known = {text.replace("\\", slash) for text in known for slash in ("\\", "\\\\", "/")}
    folders = "|".join(map(re.escape, sorted(known, key=len, reverse=True)))

    def scrub(value, mime=""):
        if isinstance(value, dict):
            return type(value)({key: scrub(item, key) for key, item in value.items()})
        if isinstance(value, list):
            return [scrub(item, mime) for item in value]
        if not isinstance(value, str) or mime in {"image/png", "image/jpeg"}:
            return value
        value = re.sub(r"[^\s\"'<>]*ipykernel_\d+[/\\]+\d+\.py", "<cell>", ESCAPE.sub("", value))
        value = re.sub(rf"(?<![\w.])(?:{folders})(?![\w-])", "…", value)
        return re.sub(r"\bat 0x[0-9a-fA-F]+", "at 0x…", value)

    for cell in (cell for cell in notebook.cells if cell.cell_type == "code"):
        outputs, cell.outputs = [scrub(output) for output in cell.outputs], []
        for output in outputs:
            output.pop("transient", None)  # IPython's display ids
            data = output.get("data", {})
            live = data.pop(WIDGET, None)  # goes, bars among them, unless a picture or table comes along
            gone = live and not any(mime == "text/html" or mime.startswith("image/") for mime in data)
            if output.output_type == "stream":  # as it stood in the end: nothing overwritten, no bars
                lines = []
                for line in output.text.replace("\r\n", "\n").split("\n"):
                    parts = line.split("\r")
                    left = [part for part in parts if part.strip() and not BAR.search(part)]
                    if left or not any(map(BAR.search, parts)):
                        lines.append(left[-1] if left else "")
                output.text = "\n".join(lines)
                gone = not output.text.strip()
            cell.outputs += [] if gone else [output]
    return notebook


def _failures(notebook: NotebookNode) -> Iterator[str]:
    """Code cells that failed, that were meant to fail and did not, or that were not executed."""
    late = []
    for cell in (cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()):
        errors = [f"{o.ename}: {o.evalue}" for o in cell.outputs if o.output_type == "error"]
        if cell.execution_count is None:
            late.append(f"cell {cell.id}: was not executed")
        elif bool(errors) != ("raises-exception" in _tags(cell)):
            yield f"cell {cell.id}: {errors[0] if errors else 'was meant to raise an exception and did not'}"
    yield from late


def _execute(notebook: NotebookNode, path: Path, runs: Path | None = None) -> None:
    """Run all cells in place, in the master's folder, with the runs of a folder or (cold) without any."""
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, DeadKernelError

    reached, died = [], ""
    options = {"record_timing": False, "store_widget_state": False, "coalesce_streams": True}
    options["on_cell_start"] = lambda cell, cell_index: reached.append(cell.id)
    where = {"metadata": {"path": str(path.parent)}}
    inherited = {key: value for key, value in os.environ.items() if key != "MPLBACKEND"}  # figures go inline
    client = NotebookClient(notebook, timeout=None, kernel_name="python3", resources=where, **options)
    with tempfile.TemporaryDirectory(prefix="course-runs-", ignore_cleanup_errors=True) as empty:
        runs = str(Path(runs or empty).resolve())
        try:
            client.execute(env={**inherited, "COURSE_ROOT": str(ROOT), "COURSE_RUNS": runs})
        except DeadKernelError:
            died = f"cell {reached[-1]}: the kernel was stopped, or died for want of memory"
        except CellExecutionError:
            pass  # _failures tells it in one line
        clean(notebook, runs)
    if problem := died or next(_failures(notebook), None):
        raise CourseError(f"{path.name}, {problem}. Nothing was written: correct it and build again.")


def masters(names: Sequence[str] = ()) -> list[Path]:
    """Paths of all masters, or of those whose names begin with one of `names` (`07`)."""
    paths = sorted((ROOT / "solutions").glob("[0-9]*.ipynb"))
    for name in names:
        if not any(path.name.startswith(name) for path in paths):
            raise CourseError(f"No master begins with {name!r}. There are {[p.stem for p in paths]}.")
    return [path for path in paths if not names or path.name.startswith(tuple(names))]


def picture(master: NotebookNode) -> bytes | None:
    """The PNG that a master shows in its cell tagged `readme-picture`, if it has one."""
    for cell in master.cells:
        if "readme-picture" in _tags(cell):
            shown = (output.data["image/png"] for output in cell.outputs if "image/png" in output.get("data", {}))
            return next(map(base64.b64decode, shown), None)
    return None


def build(names: Sequence[str] = (), execute: bool = True, runs: Path | None = None) -> None:
    """Stamp, execute and clean masters; write each with the lesson made from it; print what lint finds.

    Args:
        names: beginnings of the masters' names; none for all.
        execute: run the cells anew; otherwise the outputs that are there are kept.
        runs: a folder of runs that the lessons find, and add to; by default each begins with an empty one.

    Raises:
        CourseError: a cell failed; neither that master nor its lesson was touched.
    """
    for path in masters(names):
        print(f"{path.stem} …", flush=True)
        master = stamp(read(path), path.stem)
        if execute:
            _execute(master, path, runs)
        runtime.atomic_write(path, _text(clean(master)))
        if shown := picture(master):
            runtime.atomic_write(ROOT / PICTURE, shown)
        runtime.atomic_write(ROOT / "lessons" / path.name, lesson_from(master))
        print("".join(f"  {problem}\n" for problem in lint(master)), end="")


def record(name: str, runs: Path | None = None) -> dict:
    """Execute a master and write minutes and peak memory (GiB, kernel and children) onto its card.

    Args:
        name: the beginning of its name.
        runs: a folder with the runs of the lessons before it; by default an empty one.
    """
    import psutil

    (path,), machine, peak, over = masters([name]), runtime.machine(), [0], threading.Event()
    cards = _cards(path.stem)

    def watch() -> None:
        while not over.wait(0.1):
            with contextlib.suppress(psutil.Error):  # a process may end while it is being read
                sizes = [process.memory_info().rss for process in psutil.Process().children(recursive=True)]
                peak.append(max(peak.pop(), sum(sizes)))

    threading.Thread(target=watch, daemon=True).start()
    begun = time.monotonic()
    master = stamp(read(path), path.stem)
    try:
        _execute(master, path, runs)
    finally:
        over.set()
    runtime.atomic_write(path, _text(clean(master)))
    device = machine.device_name if machine.kind == "GPU" else f"{machine.cores} cores, {machine.system}"
    entry = {"minutes": round((time.monotonic() - begun) / 60, 1), "peak_gb": round(peak[-1] / 2**30, 1)}
    entry |= {"device": device, "date": datetime.date.today().isoformat()}
    cards[path.stem]["recorded"][machine.kind] = entry
    text = json.dumps(cards, indent=2, ensure_ascii=False) + "\n"
    runtime.atomic_write(ROOT / "data" / "recorded" / "cards.json", text)
    build([path.name], execute=False)
    return entry


def verify() -> list[str]:
    """What is out of date: lessons against masters, stamps, outputs, the badges in README.md."""
    names, lessons = {path.name for path in masters()}, ROOT / "lessons"
    strays = sorted({path.name for path in lessons.glob("*.ipynb")} ^ names)
    problems = [f"{name}: is in only one of solutions/ and lessons/" for name in strays]
    for path in masters():
        master = read(path)
        if path.read_bytes() != _text(stamp(copy.deepcopy(master), path.stem)).encode():
            problems.append(f"solutions/{path.name}: first cell, badges, card or metadata are not current")
        if path.name not in strays and (lessons / path.name).read_bytes() != lesson_from(master).encode():
            problems.append(f"lessons/{path.name}: is not what its master gives")
        problems += [f"solutions/{path.name}, {problem}" for problem in _failures(master)]
        if (shown := picture(master)) and (not (ROOT / PICTURE).is_file() or (ROOT / PICTURE).read_bytes() != shown):
            problems.append(f"{PICTURE}: is not the picture in solutions/{path.name}")
    readme = ROOT / "README.md"
    readme = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    current = [badges(Path(name).stem) for name in sorted(names)]
    if current and current[0] not in readme:
        problems.append(f"README.md: lacks the badges of the first lesson:\n{current[0]}")
    links = re.findall(r"https://(?:mybinder\.org/v2|colab\.research\.google\.com/git)[^\s)\"]+", readme)
    dead = [link for link in links if not any(f"({link})" in badge for badge in current)]
    return problems + [f"README.md: {link} opens no lesson of this version" for link in dead]


def lint(notebook: NotebookNode) -> list[str]:
    """Where a master breaks the course's rules of form, budget, exercises or safety (see CONTRIBUTING.md)."""
    return [*_form(notebook), *_exercises(notebook), *_contents(notebook)]


def _prose(cell: NotebookNode) -> str:
    """A markdown cell without code, addresses and HTML tags."""
    text = re.sub(r"(?ms)^\s*(```|~~~).*?^\s*\1", "", cell.source)
    return re.sub(r"(`+).+?\1|\]\([^)]*\)|https?://[^\s)]+|<[^>]+>", " ", text)


def _form(notebook: NotebookNode) -> Iterator[str]:
    """Parts that are missing, and code, prose or cells beyond their budget."""
    cells = notebook.cells
    tags = [tag for cell in cells for tag in _tags(cell)]
    coded = [cell for cell in cells if cell.cell_type == "code"]
    code, text = ("\n".join(c.source for c in cells if c.cell_type == kind) for kind in ("code", "markdown"))
    own = [cell for cell in cells if not _tags(cell) & {"setup", "badges", "card", "sources"}]
    sizes = sorted(len(re.findall(r"(?m)^.*\S", c.source)) for c in own if c.cell_type == "code") or [1]
    prose = " ".join(_prose(cell) for cell in own if cell.cell_type == "markdown")
    words = len(re.findall(r"\w[\w'’-]*", prose)) / sum(sizes)
    median, long = statistics.median(sizes), sizes[-(-9 * len(sizes) // 10) - 1]
    count, core = _count(cells), re.search(r"(?m)^\*\*Core lesson", text)
    dated = any("sources" in _tags(cell) and re.search(r"\b20\d\d\b", cell.source) for cell in cells)
    for problem, holds in {
        "the first cell does not begin with an H1": not cells or not re.match(r"# \S", cells[0].source),
        "the first code cell is not `setup`": not coded or "setup" not in _tags(coded[0]),
        "not exactly one cell each of `setup`, `badges`, `card`":
            any(tags.count(tag) != 1 for tag in ("setup", "badges", "card")),
        "no 'You will be able to'": not re.search("(?i)you will be able to", text),
        "no heading 'What this did not show'": not re.search(r"(?mi)^#+ .*what this did not show", text),
        "no heading 'Next'": not re.search(r"(?m)^#+ Next\b", text),
        "no quiz": not re.search(r"quiz\w*\(", code),
        "no scoreboard": not re.search(r"\bscoreboard\.\w+\(", code),
        "no `sources` with dates": not dated,
        f"the median code cell has {median:g} lines; at most 4": median > 4,
        f"the 90th percentile of code cells has {long} lines; at most 10": long > 10,
        f"{words:.1f} words of prose per line of code; 8 to 25": not 8 <= words <= 25,
        f"{count} cells besides solutions and appendices; a core lesson has 35 to 60": core and not 35 <= count <= 60,
    }.items():  # fmt: skip
        if holds:
            yield problem


def _count(cells: list[NotebookNode]) -> int:
    """Cells, without solutions and without sections that are headed as appendices."""
    count, appendix = 0, False
    for cell in cells:
        headings = re.findall(r"(?m)^## (\w+)", cell.source) if cell.cell_type == "markdown" else []
        count += "solution" not in _tags(cell) and not (appendix and set(headings) <= {"Appendix"})
        appendix = headings[-1] == "Appendix" if headings else appendix
    return count


def _names(code: CodeType) -> tuple[set[str], set[str]]:
    """Names that a cell takes from the cells before it, and names that it binds."""
    read, bound = set(), set()
    for step in dis.get_instructions(code):
        if step.opname in {"STORE_NAME", "STORE_GLOBAL"}:
            bound.add(step.argval)
        elif step.opname in {"LOAD_NAME", "LOAD_GLOBAL"}:
            read |= {step.argval} - bound
        elif isinstance(step.argval, CodeType):  # the body of a function or comprehension
            read |= _names(step.argval)[0] - bound
    return read, bound


def _exercises(notebook: NotebookNode) -> Iterator[str]:
    """Exercises that are not stub, solution, check; and cells that read what a learner is to write."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    tags = ("exercise", "solution", "check")
    roles = "".join(next((tag[0] for tag in tags if tag in _tags(cell)), ".") for cell in cells)
    rest = re.sub("e+s+c+", lambda found: "." * len(found[0]), roles)
    asked = [
        int(n) for c in cells if "check" in _tags(c) for n in re.findall(r'(?:check|predict)\("\d\d-(\d+)"', c.source)
    ]
    if asked != sorted(asked):
        yield f"exercises are numbered {', '.join(map(str, asked))} down the page"
    number, owner = 0, {}  # exercise that wrote a name last
    for cell, role, odd, before in zip(cells, roles, rest, "." + roles, strict=False):
        if odd != ".":
            yield f"cell {cell.id}: stub, solution and check of an exercise do not follow one another"
        number += role == "e" and before != "e"
        try:
            read, bound = _names(compile(cell.source, cell.id, "exec"))
        except SyntaxError as error:
            if "raises-exception" not in _tags(cell):
                yield f"cell {cell.id}: is not plain Python: {error.msg}"
            continue
        for name in sorted(read & owner.keys()):
            if role == "." or owner[name] != number:
                yield f"cell {cell.id}: reads {name!r}, which exercise {owner[name]} leaves to the learner"
        if role in "es":
            owner |= dict.fromkeys(bound, number)
        elif role == ".":
            owner = {name: number for name, number in owner.items() if name not in bound}


def _contents(notebook: NotebookNode) -> Iterator[str]:
    """Figures in prose, and what must not be published or installed, in sources or outputs."""
    for cell in notebook.cells:
        exempt = cell.cell_type != "markdown" or _tags(cell) & {"badges", "card", "sources"}
        if not exempt and (found := NUMBER.search(_prose(cell))):
            yield f"cell {cell.id}: {found[0]!r} in prose: let a cell print it, or date it in `sources`"
        texts = [cell.source]
        for output in cell.get("outputs", []):
            texts += [output.get("text", ""), *output.get("traceback", [])]
            texts += [str(data) for mime, data in output.get("data", {}).items() if "image/" not in mime]
        for what, pattern in {**UNSAFE, "this machine's path": re.escape(str(ROOT))}.items():
            if found := re.search(pattern, "\n".join(texts)):
                yield f"cell {cell.id}: {what}: {found[0].strip()[:8]}…"
    if (size := len(_text(notebook).encode())) > 2_000_000:
        yield f"the file has {size / 1e6:.1f} MB; at most 2"


def main(names: Sequence[str] = (), how: str = "execute", runs: Path | None = None) -> int:
    """The command `build`: `how` is `execute`, `no-execute`, `record` or `check`; returns the exit code."""
    paths, problems = masters(names), []
    if how == "check":
        problems = verify() + [f"{path.name}, {found}" for path in paths for found in lint(read(path))]
        print("\n".join(problems) or "Masters and lessons are current and keep the rules.")
    elif how == "record":
        for path in paths:
            print(path.stem, record(path.name, runs))
    else:
        build(names, execute=how == "execute", runs=runs)
    return int(bool(problems))
