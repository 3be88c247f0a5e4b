# %% [markdown]
"""
# Prepare data

Nobody brags about this part, and most tuned models are won or lost in it. A trainer takes any rows. It does not know
that a row is broken, that the exam was in the textbook, or that the labels are wrong. You will know.

**You will be able to**

- write chat rows, check them, and turn somebody's messy export into rows that can be trained on;
- find copies in disguise between two splits, and measure what they do to a score;
- say what wrong labels cost, and how far two people agree who follow the same rule.
"""

# %% [markdown] tags=badges

# %% [markdown] tags=card

# %% tags=setup

# %% [markdown]
"""
## A row is a chat
Three turns, each with a *role* and a *content*. Both are text, the list of names too: it is JSON inside a string.
`system` says what is wanted, `user` asks, `assistant` answers; the answer is what the model learns to write. Hosted
providers take this form too, one row per line of a file. Here is one of ours, and three that were written just now:
"""

# %%
from helpers import data

train, validation = data.load("train"), data.load("validation")
train[0]

# %% tags=NBVAL_CHECK_OUTPUT
mine = [
    data.recipe("Toast Soldiers", ["2 slices white bread", "1 egg, boiled soft"], ["white bread", "egg"]),
    data.recipe("Hot Cocoa", ["1 c. milk", "2 tsp. cocoa powder"], ["milk", "cocoa powder"]),
    data.recipe("Bean Dip", ["1 can black beans", "juice of 1 lime"], ["black beans", "lime juice"]),
]
data.check(mine)

# %% [markdown]
"""
An empty list: nothing to complain about. A check that has never complained is not to be trusted, though. Give it
something to find.
"""

# %%
broken = [
    {"prompt": "Tea\n- 1 tea bag", "completion": '["tea"]'},
    {"messages": [{"role": "human", "content": "Tea\n- 1 tea bag"}, {"role": "assistant", "content": '["tea"]'}]},
    {"messages": [{"role": "user", "content": "Tea\n- 1 tea bag"}]},
    data.recipe("Bean Dip", ["1 can black beans"], ["black beans", "Black beans"]),
    mine[1], data.recipe("Hot Cocoa", data.lines(mine[1]), ["milk"]),
]  # fmt: skip
print(*data.check(broken), sep="\n")

# %% [markdown]
"""
Each complaint names the row, the field, what is wrong and what to do. Look at the last one: two rows ask the same and
answer differently. Each is fine alone. Together they teach the model to guess.

And if you do not look? `fine_tune` does. It takes all rows or none:
"""

# %% tags=raises-exception
from helpers import training

training.fine_tune(mine + broken)

# %% [markdown]
"""
A file can be wrong as a whole. Here is what a colleague has sent: "our recipes, exported from the labelling tool". It
is a table, and "read it with what made it" means the `csv` module.
"""

# %%
import csv

export = data.FOLDER / "offered" / "export.csv"
print(*data.check(export), sep="\n")
with export.open(encoding="utf-8", newline="") as file:
    records = list(csv.DictReader(file))
for record in records:
    print(record["input"].split("\n")[0], "→", repr(record["output"]))

# %% [markdown]
"""
## Your turn: repair an export
These are **Alpaca** columns, an old and common form: instruction, input, output. Write `to_chat(records)`: it gives rows that pass `data.check`. See what you are up against: names between semicolons,
stray spaces, a name twice, recipes that come twice, and some that nobody labelled.
"""

# %% tags=exercise
def to_chat(records):
    ...

# %% [markdown] tags=hint
"""
<details><summary>Hint 1: the row</summary>

`title, *lines = record["input"].split("\\n- ")`, and `data.recipe(title, lines, names)` does the rest.
</details>
<details><summary>Hint 2: the names</summary>

`record["output"].split(";")`, then `.strip()` each and drop what is empty. For a name that comes twice, compare in
lower case: the keys of a dictionary keep their order and come once.
</details>
<details><summary>Hint 3: which records go</summary>

No names: no row. A question that you have seen: no second row. With two different answers the honest way is to look
and decide; here, keep the first.
</details>
"""

# %% tags=solution
def to_chat(records):
    rows = {}
    for record in records:
        title, *lines = record["input"].split("\n- ")
        names = dict.fromkeys(name.strip().lower() for name in record["output"].split(";"))
        names = [name for name in names if name]
        if names:
            rows.setdefault(record["input"], data.recipe(title, lines, names))
    return list(rows.values())

# %% tags=check
from helpers import exercises

exercises.check("06-1", to_chat)

# %% [markdown]
"""
## What do the rows cost?
Machines and providers count tokens. A provider bills both columns below, once per epoch; only the completion is
learned. The longest row decides how much memory a training needs, so look at it before you rent a GPU for it.
"""

# %%
from helpers import models

tokenizer = models.load_tokenizer()
data.count_tokens(train, tokenizer)

# %% [markdown]
"""
## Split first, and so that it stays
Set validation rows aside *before* you tune anything. A shuffle does it once. But next week you will have more rows,
shuffle again, and yesterday's training rows are today's exam. Here each row's *hash* decides where it goes.
"""

# %% tags=NBVAL_CHECK_OUTPUT
part, held_out = data.split(train, (0.8, 0.2))
part_later, held_out_later = data.split(train + mine, (0.8, 0.2))
all(row in held_out_later for row in held_out), all(row in part_later for row in part)

# %% [markdown]
"""
New rows came, and no old row moved.

## A copy in disguise
Copies of validation rows must not stand in training. Equal ones are easy to find. Real ones are not equal: people
re-post recipes under another title, or double the batch. Mails are forwarded, code gets its variables renamed. Let us
be the re-poster, and build a **leaky** training file: ten honest rows, and copies of fifteen validation recipes. Fifteen
other validation recipes, `fresh`, are copied nowhere.
"""

# %%
import re

def disguise(row):
    lines = [re.sub(r"\d+", lambda number: str(int(number[0]) + 1), line) for line in data.lines(row)]
    return data.recipe(f"Our {data.title(row)}", lines, data.answer(row))

leaked, fresh = validation[30:45], validation[60:75]
leaky = train[:10] + [disguise(row) for row in leaked]
print(data.prompt(leaked[0])[-1]["content"], data.prompt(leaky[10])[-1]["content"], sep="\n\n")

# %% [markdown]
"""
Anybody sees that these two are the same. Do our detectors? `check` compares whole questions, `near_duplicates` the *sets
of lines* of two recipes. First the plain copies, then the disguised ones, twice:
"""

# %% tags=NBVAL_CHECK_OUTPUT
plain = data.check(train[:10] + leaked, others=leaked)
len(plain), len(data.check(leaky, others=leaked)), len(data.near_duplicates(leaky + leaked))

# %% [markdown]
"""
All plain copies are found, and next to none of the disguised ones: almost every line holds a number, and every number
has changed. This file would pass. So train on it, and measure on both sets.
"""

# %%
from helpers import evaluation

run = training.fine_tune(leaky, epochs=3)
tuned = evaluation.prompted(models.load_model(run.folder), tokenizer, max_new_tokens=128)
on_leaked = evaluation.evaluate(tuned, leaked, "leaked rows", key={"run": run.folder.name})
on_fresh = evaluation.evaluate(tuned, fresh, "fresh rows", key={"run": run.folder.name})
evaluation.Table(on_leaked.summary() + on_fresh.summary())

# %% [markdown]
"""
One model, one metric, two scores. Only the lower one tells about the *next* recipe; a validation set with copies in it
would have shown you the other. But wait: fifteen recipes each, wide intervals. Were the leaked ones just easier?

To find out, the experiment was done both ways round, with three seeds each: copies of the first set in training, then
copies of the second. Every set was scored when it had leaked and when it had not.
"""

# %% tags=recorded
import json

from helpers import plots

colours = {"first": plots.COLOURS["train"], "second": plots.COLOURS["validation"]}
figure, ax = plots.axes(height=2.4)
for leak in json.loads((data.FOLDER / "recorded" / "leakage.json").read_text(encoding="utf-8")):
    for name, f1 in leak["f1"].items():
        ax.plot(f1, int(name == leak["copied"]), "o", color=colours[name], alpha=0.7)
ax.set(yticks=(0, 1), yticklabels=("fresh", "leaked"), xlabel="F1 (colour: set of recipes)", ylim=(-0.5, 1.5))

# %% [markdown]
"""
Compare dots of one colour: same recipes, same number of rows trained on, and only the leak between them. This is the
most expensive bug in the trade. It costs nothing, raises no error, and everybody likes the number.

## Your turn: a key that sees through it
Write `key(line)`: the same for a line and its disguised copy, different for different ingredients. The check disguises
recipes of its own: other numbers, other case and spacing, another order. Then it looks for copies by your keys.
"""

# %% tags=exercise
def key(line):
    ...

# %% [markdown] tags=hint
"""
<details><summary>Hint 1</summary>What does a re-poster leave alone? The words. What changes? Numbers, case, spaces.</details>
<details><summary>Hint 2</summary><code>data.normalise(line)</code> folds case and spaces. The numbers are left to you.</details>
<details><summary>Hint 3</summary><code>re.findall("[a-z]+", line.casefold())</code> gives the words. A list cannot stand in a set: join it to text.</details>
"""

# %% tags=solution
def key(line):
    return " ".join(re.findall(r"[^\W\d_]+", line.casefold()))

# %% tags=check
exercises.check("06-2", key)

# %% [markdown]
"""
For long texts people use the same idea with overlapping runs of words, and for millions of them with hashes of those
(MinHash). For paraphrases no key helps: there you compare embeddings, or better, you know where your rows come from.

And the course's own rows? Pairs of recipes that share a third of their lines, and lines that stand in both splits, the
commonest staples aside:
"""

# %% tags=NBVAL_CHECK_OUTPUT
len(data.near_duplicates(train + validation, 0.33)), len(data.leakage(train, validation))

# %% [markdown]
"""
## Wrong labels
Now the answers. Labels come from tired people, old rules, careless exports, other models. What does it cost if some are
simply wrong? We swap answers among a share of the rows, so that each of them stands under another recipe's question.
"""

# %%
import random

def mislabel(rows, share, seed=0):
    wrong = random.Random(seed).sample(range(len(rows)), round(share * len(rows)))
    answers = {i: data.answer(rows[j]) for i, j in zip(wrong, wrong[1:] + wrong[:1], strict=True)}
    return [
        data.recipe(data.title(row), data.lines(row), answers.get(i, data.answer(row))) for i, row in enumerate(rows)
    ]

noisy = mislabel(leaky, 0.5)
len(data.check(noisy)), sum(data.answer(a) == data.answer(b) for a, b in zip(noisy, leaky, strict=True))

# %% [markdown]
"""
Half of the rows are wrong, and the check is content: it knows form, not truth. Would you see it in a quick look at the
file?

## Your turn: predict
A hundred rows, all right, give a good model. With *half* of the hundred swapped, what will F1 be, between 0 and 1?

Nine trainings were recorded: three shares of wrong labels, three seeds each. Write your guess, then look: every dot is
one training.
"""

# %% tags=exercise
my_guess = ...

# %% tags=solution
my_guess = 0.4

# %% tags=check
exercises.predict("06-3", my_guess)

# %% tags=recorded
figure, ax = plots.axes(height=2.6)
for recorded in plots.recorded("rows-100") + plots.recorded("noise-"):
    share = 0.0 if recorded["name"] == "rows-100" else float(recorded["name"].split("-")[1])
    ax.plot(share, recorded["f1"], "o", color=plots.COLOURS["train"], alpha=0.7)
ax.set(xlabel="share of rows with a wrong answer", ylabel="F1", ylim=(0, 1), xlim=(-0.05, 0.55))

# %% [markdown]
"""
Is the fall steeper or flatter than you thought? Right rows all pull one way. Swapped ones pull each their own way, and
partly cancel. What they cannot cancel they make up for in hesitation: a model that is less sure what comes next.

One point live, in small: the rows of before, half of them swapped, same settings. Scored on the *fresh* recipes.
"""

# %%
noisy_run = training.fine_tune(noisy, epochs=3)
confused = evaluation.prompted(models.load_model(noisy_run.folder), tokenizer, max_new_tokens=128)
on_noise = evaluation.evaluate(confused, fresh, "half swapped", key={"run": noisy_run.folder.name})
evaluation.compare(on_noise, on_fresh)

# %% [markdown]
"""
With so few rows there is less to outvote the wrong ones. And mind what kind of error this was: *random*. If one
labeller always writes `cheese` for `cheddar cheese`, nothing cancels. The model learns that as faithfully as the rest,
and a validation set by the same hand will call it right. A mistake that everybody makes is a convention.

## How right are right labels?
Our gold answers were written by people and models under one rule, and somebody has to be the check on that. Today it is
you. Read the rule; a good one fits on a page and decides most cases.

## Your turn: label ten recipes, blind
You have not seen their answers; please do not look them up now. It takes ten minutes,
and nothing in this course teaches more about data. Below stand the rule and the recipes. Write one list for each recipe,
in this order. Where the rule does not decide, decide yourself and go on.
"""

# %%
from IPython.display import Markdown, display

ten = validation[60:80:2]
display(Markdown(data.RULE))
for number, row in enumerate(ten, 1):
    print(f"{number}. {data.title(row)}", *data.lines(row), "", sep="\n   ")

# %% tags=exercise
my_lists = ...  # [["flour", "salt"], ["onion"], …]

# %% [markdown] tags=hint
"""
<details><summary>Hint: less typing</summary>

Write one line per recipe in a triple-quoted text, names between semicolons, and cut it up afterwards:
`my_lists = [[name.strip() for name in line.split(";")] for line in text.strip().splitlines()]`
</details>
<details><summary>Hint: a line that you cannot decide</summary>Does what you would drop leave the same thing in the
shopping basket? Rule 3: drop it. Would the shop hand you something else? Rule 4: keep it.</details>
"""

# %% tags=solution
by_hand = """
chick peas; tahini; lemon juice; garlic; salt; olive oil; paprika
butter; flour; milk; cheddar cheese; worcestershire sauce; toast; turkey breast; tomato; bacon; parmesan cheese
penne; cashews; san marzano tomatoes; tomato paste; nutritional yeast; shallot; garlic; olive oil; oregano; salt; pepper; basil
chuck roast; shortening; onion soup mix; coffee; water; onions; carrots; potatoes; cornstarch
graham cracker crust; condensed milk; lemon juice; lemon rind; egg yolks; whipped cream
butter; sugar; cocoa powder; salt; espresso powder; eggs; flour; walnut
ground beef; pork; veal; bread crumbs; light cream; egg; allspice; salt; onion; butter; drippings; flour; beef stock; coffee
king oyster mushrooms; tamari; olive oil; maple syrup; liquid smoke; sourdough bread; beefsteak tomato; romaine; vegan mayo
butter; peanut butter; confectioners sugar; chocolate chips; paraffin wax
coffee with chicory; sweetened condensed milk; water; ice
"""
my_lists = [[name.strip() for name in line.split(";")] for line in by_hand.strip().splitlines()]

# %% tags=check
verdict = exercises.check("06-4", my_lists)
verdict

# %% [markdown]
"""
A *system* in this course is anything that takes questions and gives answers. So you are one. The small model of before
meets the same ten recipes (none of them had leaked). Then come your differences with the course, name by name. Ask under
each: was it me, was it them, or does the rule not say?
"""

# %% tags=check
from helpers import scoreboard

if verdict.status in ("right", "unscored"):
    you = evaluation.evaluate(lambda chats: [json.dumps(names) for names in my_lists], ten, "you")
    model = evaluation.evaluate(tuned, ten, "LoRA, 25 rows", key={"run": run.folder.name})
    scoreboard.add(model, trained_seconds=run.record["seconds"], note="ten rows that were not leaked")
    scoreboard.add(you, note="ten rows, labelled blind by one person")
    print(evaluation.compare(model, you), "\n")
    for row in you.rows:
        ours, yours = set(map(data.normalise, row["gold"])), set(row["predicted"])
        if ours != yours:
            print(f"{row['title']}: the course {sorted(ours - yours)}, you {sorted(yours - ours)}")

# %% [markdown]
"""
The third answer is the useful one. It means a new sentence in the rule, not another hour of labelling.

The course did the same with itself: a second labeller took recipes of all splits, blind. Here is the agreement on those
in train and validation. (Those in the test set stay sealed.)
"""

# %%
def second_labels(block):
    title, *lines = block.strip().splitlines()
    return title, [name for line in lines for name in line.partition("=>")[2].split(";")]

text = (data.FOLDER / "recipes" / "second_labelling.txt").read_text(encoding="utf-8")
second = dict(second_labels(block) for block in re.split(r"(?m)^# ", text)[1:])
both = [row for row in train + validation if data.title(row) in second]
agreement = evaluation.evaluate(lambda chats: [json.dumps(second[data.title(row)]) for row in both], both, "labeller two")
agreement.summary()

# %% [markdown]
"""
Read this row as a ceiling. A model that scores above it has not understood recipes better than people do: it has
learned the habits of *one* labeller. Nor can you tell two models apart that both stand near it.

**Optional, for your own work.** Write thirty rows of your task into `my_task/train.jsonl`, from thirty *different*
cases, and none of the ten you keep for evaluation. No task? Borrow
[orders in e-mails](../data/offered/README.md): `data.FOLDER / "offered" / "orders.jsonl"`; read its four rules and
ten of its rows, and say where you would have labelled otherwise. A file of rows is one `json.dumps` per line:

```python
lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
exercises.my_task("train.jsonl").write_text("".join(lines), encoding="utf-8", newline="\n")
```
Never paste JSON together by hand: the first recipe with a quotation mark (`9" pie crust`) breaks it.
"""

# %% tags=exercise
my_rows = ...  # exercises.my_task("train.jsonl")

# %% tags=solution
my_rows = data.load(data.FOLDER / "offered" / "orders.jsonl")[:30]

# %% tags=check
exercises.check("06-5", my_rows)

# %% [markdown]
"""
## Quiz and scoreboard
Your own row, if you labelled, was measured on ten recipes only: compare it with others on the same rows.
"""

# %%
exercises.quiz("06")

# %%
scoreboard.show()

# %% [markdown]
"""
## What this did not show
- How much leakage gives away in *your* case. It grows with epochs, with the model's size, and with how much there is to
  learn by heart. Ours was built to be seen: more than half of the rows were copies.
- What careful labels are worth against many. Swapped answers are the crudest kind of noise. Systematic errors are worse,
  and invisible from inside.
- Whether thirty rows are enough for you. Lesson 07 draws that curve for the recipes.

## Next
[07 Train with Hugging Face](07-train-hugging-face.ipynb) opens the black box that has trained on our rows so far.
"""

# %% [markdown] tags=sources
"""
**Sources.** Copies between splits: Lee et al., *Deduplicating Training Data Makes Language Models Better*,
arXiv 2107.06499, July 2021 (over 4 % of the validation sets of standard corpora overlapped with training); Kapoor and
Narayanan, *Leakage and the Reproducibility Crisis in ML-based Science*, arXiv 2207.07048, July 2022. Overlap of sets and
MinHash: Broder, *On the Resemblance and Containment of Documents*, 1997. Wrong labels: Rolnick et al., *Deep Learning is
Robust to Massive Label Noise*, arXiv 1705.10694, May 2017; Northcutt et al., *Pervasive Label Errors in Test Sets
Destabilize Machine Learning Benchmarks*, arXiv 2103.14749, March 2021 (at least 3.3 % on average in ten test sets).
Looked up 2026-11-22.
"""
