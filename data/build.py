"""Make the course's rows from its recipes: `python data/build.py`, or `--check` that they are up to date.

A recipe is `# Title` and lines of the form `line => label; label`. Nothing stands after the arrow where a
line has no ingredient, as headings, which end with a colon. A name that comes again in a recipe is listed
once, at its first place.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from helpers import data, runtime  # noqa: E402  (both import only the standard library)


def read(path: Path) -> list[dict]:
    """Read a file of recipes to chat rows.

    Raises:
        CourseError: naming file, line and remedy.
    """
    recipes: list[tuple[int, str, list[str], list[str]]] = []
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        line, arrow, labels = map(str.strip, text.partition("=>"))
        names = [name.strip() for name in labels.split(";")] if labels else []
        wrong = ""
        if not text.strip():
            continue
        if text.startswith("# "):
            recipes.append((number, text[2:].strip(), [], []))
            continue
        if not recipes:
            wrong = "comes before the first title: write '# Title' above it"
        elif not arrow or not line:
            wrong = "has no '=>': write 'line => label; label'"
        elif line.endswith(":") and names:
            wrong = "is a heading with a label: a heading has nothing after '=>'"
        elif not all(names):
            wrong = "has an empty label: remove the ';' too many"
        if wrong:
            raise runtime.CourseError(f"{path.name}:{number}: {text!r} {wrong}.")
        recipes[-1][2].append(line)
        recipes[-1][3].extend(names)
    for number, title, _, labels in recipes:
        if not labels:
            raise runtime.CourseError(f"{path.name}:{number}: {title!r} has no ingredient: write some or delete it.")
    return [data.recipe(title, lines, list(dict.fromkeys(labels))) for _, title, lines, labels in recipes]


def build(folder: Path) -> dict[str, bytes]:
    """Contents of all files to write, by name; every row has been checked."""
    splits = {name: read(folder / "recipes" / f"{name}.txt") for name in data.SPLITS}
    files: dict[str, bytes] = {}
    hashes: dict[str, dict] = {}
    for name, rows in splits.items():
        others = [other for key, other in splits.items() if key != name]
        if problems := data.check(rows, others=others, task="recipe"):
            raise data.DataError([dataclasses.replace(problem, path=f"{name}.jsonl") for problem in problems])
        content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
        files[f"{name}.jsonl"] = content
        hashes[f"{name}.jsonl"] = {
            "sha256": hashlib.sha256(content).hexdigest(),
            "rows": len(rows),
            "lines": sum(len(data.lines(row)) for row in rows),
            "labels": sum(len(data.answer(row)) for row in rows),
        }
    return {**files, "hashes.json": (json.dumps(hashes, indent=2) + "\n").encode()}


def agreement(folder: Path = data.FOLDER) -> dict[str, float]:
    """How far the blind second labelling agrees with the first.

    Returns:
        `recipes` (count), `f1` of the names (micro-averaged, as the course scores systems), and `same` (the
        share of recipes with equal sets of names).
    """
    first = {data.title(row): row for name in data.SPLITS for row in read(folder / "recipes" / f"{name}.txt")}
    second = read(folder / "recipes" / "second_labelling.txt")
    pairs = [(set(data.answer(row)), set(data.answer(first[data.title(row)]))) for row in second]
    names = sum(len(a) + len(b) for a, b in pairs)
    return {
        "recipes": len(pairs), "f1": 2 * sum(len(a & b) for a, b in pairs) / names,
        "same": sum(a == b for a, b in pairs) / len(pairs),
    }  # fmt: skip


def main() -> int:
    """Write the files, or with `--check` compare them; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file is not up to date")
    parser.add_argument("--folder", type=Path, default=data.FOLDER, help="folder with recipes/, to write into")
    parser.add_argument("--agreement", action="store_true", help="print how two labellers agree, and stop")
    options = parser.parse_args()
    if options.agreement:
        print(agreement(options.folder))
        return 0
    try:
        files = build(options.folder)
    except (runtime.CourseError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    stale = 0
    for name, content in files.items():
        path = options.folder / name
        if path.exists() and path.read_bytes() == content:
            continue
        stale += 1
        if options.check:
            print(f"{path}: not what the recipes make. Run: python data/build.py", file=sys.stderr)
        else:
            runtime.atomic_write(path, content)
            print(f"{path}: written, {len(content.splitlines())} lines")
    return 1 if options.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
