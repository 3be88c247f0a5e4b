'''Percent-format text -> master notebook.    python mknb.py 07-train.py solutions/07-train-hugging-face.ipynb

Then, in the repository:   python -m helpers build 07            (stamps, executes, cleans, writes the lesson, prints lint)
Editing prose later?   run mknb again, then `python -m helpers build --no-execute 07`: outputs are kept as long as no
code cell changed. The text stays your source; never edit the notebook by hand as well.

FORMAT. A cell starts with a line `# %%` (code) or `# %% [markdown]`; then optional `tags=a,b` and `id=slug`.
Markdown bodies: a triple-quoted string (easiest) or lines commented with `# `. Code bodies: verbatim.
Cell ids come from the lesson's number + tag + first words: stable when you insert cells; `id=` fixes one by hand.
Text before the first `# %%` is ignored. setup, badges and card have EMPTY bodies: the build stamps them
(the card from data/recorded/cards.json: your lesson needs its entry there).

Tags
  badges, card    markdown, stamped, empty here        setup     first code cell, stamped, empty here
  exercise        stub; stays in the lesson            solution  only in the master, right after the stub
  check           calls the check, after the solution  hint      markdown with <details> tiers
                  (no other code cell between exercise and check; a cell that reveals a prediction is a `check` too)
  sources         markdown: dated references; the only prose besides the card where decimals and % may stand
  recorded        replots a recorded run               raises-exception   the cell is meant to fail
  NBVAL_CHECK_OUTPUT   output compared in CI: only counts, shapes, verdicts
  NBVAL_SKIP           not executed in CI (build executes it)

Lint, in short: every master has H1, badges, card, "You will be able to", setup as first code cell, a cell calling quiz(…),
a cell with scoreboard, headings "What this did not show" and "Next", a sources cell with dates. Prose has no decimals
and no percentages (use `inline code` for names like `Python 3.11`). Code cells: median <= 4 lines, 90th percentile <= 10
(blank lines not counted). 8-25 words of prose per code line. Core lessons 35-60 cells, solutions not counted. Names bound
(or changed: x[0] = …, x.a = …) in exercise/solution cells are not read by any later cell outside that exercise, unless an
ordinary cell binds them anew first. No `import *`, no !pip/%pip, no machine paths, keys, package-index addresses.

EXAMPLE (every tag once)
------------------------------------------------------------------------------------------------------------------------
# %% [markdown]
"""
# Prepare data

**You will be able to** write, check and split chat rows.
"""

# %% [markdown] tags=badges

# %% [markdown] tags=card

# %% tags=setup

# %% [markdown]
"""
## A row is a conversation
Three turns. Which one does the model learn from?
"""

# %% tags=NBVAL_CHECK_OUTPUT
from helpers import data

train = data.load("train")
len(train)

# %% [markdown]
# # Commented lines work as well: this is an H1, and
# this its text. (One "# " is taken off each line.)

# %% tags=raises-exception
data.load([{"messages": []}])

# %% tags=recorded
plots.curve(runs.recorded("07-rows"))

# %% tags=NBVAL_SKIP id=slow-part
training.fine_tune(...)

# %% tags=exercise
def share_of_lines(row):
    ...  # your code

# %% [markdown] tags=hint
"""
<details><summary>Hint 1: where to look</summary>

`data.lines(row)` …
</details>
"""

# %% tags=solution
def share_of_lines(row):
    return len(data.answer(row)) / len(data.lines(row))

# %% tags=check
exercises.check("06-share", share_of_lines)

# %% id=quiz
exercises.quiz("06")

# %%
scoreboard.show()

# %% [markdown]
"""
## What this did not show
…

## Next
…
"""

# %% [markdown] tags=sources
"""
- Hu et al., LoRA, 2021-06-17: 0.01 % of the parameters …
"""
------------------------------------------------------------------------------------------------------------------------
'''

import json
import re
import sys
from pathlib import Path

STAMPED = {"setup", "badges", "card"}
TAGS = STAMPED | set(
    "exercise solution check hint sources recorded raises-exception NBVAL_CHECK_OUTPUT NBVAL_SKIP".split()
)
MARKDOWN_ONLY = {"badges", "card", "hint", "sources"}
CODE_ONLY = TAGS - MARKDOWN_ONLY - {"recorded"}


def fail(line, text):
    sys.exit(f"{sys.argv[1]}, line {line}: {text}")


def markdown(line, body):
    text = "\n".join(body).strip("\n")
    quoted = re.fullmatch(r'\s*r?("""|\'\'\')\n?(.*?)\n?\1\s*', text, re.DOTALL)
    if quoted:
        return quoted[2].strip("\n")
    for offset, row in enumerate(text.split("\n") if text else []):
        if row.strip() and not row.startswith("#"):
            fail(line + 1 + offset, 'markdown: a triple-quoted string alone, or every line begins with "# "')
    return re.sub(r"(?m)^# ?", "", text).strip("\n")


def cells(text, number):
    parts, current = [], None
    for at, row in enumerate(text.split("\n"), 1):
        if re.match(r"# ?%%( |$|\[)", row):
            current = (at, row.split("%%", 1)[1], [])
            parts.append(current)
        elif current:
            current[2].append(row.rstrip())
    seen = set()
    for at, header, body in parts:
        kind, tags, slug = "code", [], ""
        for word in header.split():
            if word == "[markdown]":
                kind = "markdown"
            elif word.startswith("tags="):
                tags = [tag for tag in word[5:].split(",") if tag]
            elif word.startswith("id="):
                slug = word[3:]
            else:
                fail(at, f"{word!r} in the cell's header: only [markdown], tags=a,b (no spaces), id=slug")
        if wrong := [tag for tag in tags if tag not in TAGS]:
            fail(at, f"unknown tag {wrong[0]!r}; known: {', '.join(sorted(TAGS))}")
        if wrong := set(tags) & (CODE_ONLY if kind == "markdown" else MARKDOWN_ONLY):
            fail(at, f"a {kind} cell cannot be {wrong.pop()!r}")
        source = markdown(at, body) if kind == "markdown" else "\n".join(body).strip("\n")
        if source and set(tags) & STAMPED:
            fail(at, f"{tags[0]} is stamped by the build: leave its body empty")
        if not source and not set(tags) & STAMPED:
            fail(at, "an empty cell")
        if not slug:
            first = next((row for row in source.split("\n") if re.search(r"[A-Za-z0-9]", row)), "")
            first = re.sub(r"<[^>]+>|\]\([^)]*\)", " ", first)
            words = re.findall(r"[a-z0-9]+", first.lower())[:5]
            lead = [tag for tag in tags if not tag.startswith("NBVAL") and tag not in {"raises-exception", "recorded"}]
            slug = "-".join([*lead[:1], *words])[:44].strip("-") or kind
        base = name = f"{number}-{slug}"
        count = 1
        while name in seen:
            count += 1
            name = f"{base}-{count}"
        seen.add(name)
        cell = {"cell_type": kind, "id": name, "metadata": {"tags": tags} if tags else {}, "source": source}
        yield {**cell, "execution_count": None, "outputs": []} if kind == "code" else cell


def main(text_file, notebook_file):
    target = Path(notebook_file)
    number = re.match(r"\d+", target.name)
    made = list(cells(Path(text_file).read_text(encoding="utf-8"), number[0] if number else target.stem))
    kept = 0
    if target.exists():
        old = json.loads(target.read_text(encoding="utf-8"))["cells"]
        for cell in old:
            cell["source"] = "".join(cell["source"])
        before = {cell["id"]: cell for cell in old}

        def stamped(cell):
            return STAMPED & set(cell["metadata"].get("tags", []))

        def code(some):  # of all code cells but the stamped one
            return [c["source"] for c in some if c["cell_type"] == "code" and not stamped(c)]

        if code(made) == code(old):
            outputs = iter([c for c in old if c["cell_type"] == "code"])
            if len(code(made)) == len([c for c in old if c["cell_type"] == "code"]) - 1:
                for cell in made:
                    if cell["cell_type"] == "code":
                        was = next(outputs)
                        cell["outputs"], cell["execution_count"] = was["outputs"], was["execution_count"]
                        kept += 1
        for cell in made:  # keep what the build stamped
            if stamped(cell) and cell["id"] in before:
                cell["source"] = before[cell["id"]]["source"]
    for cell in made:
        cell["source"] = cell["source"].splitlines(keepends=True)
    notebook = {
        "cells": made,
        "metadata": {
            "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    target.write_text(text, encoding="utf-8", newline="\n")
    print(f"{target}: {len(made)} cells, " + ("outputs kept" if kept else "no outputs: build it"))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
