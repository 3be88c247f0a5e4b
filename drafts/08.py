# %% [markdown]
"""
# Evaluate

Lesson 07 made a model. Is it good? Good enough, and better than what else? One number answers none of these.

**You will be able to**

- say what a metric sees, what it misses, and which part of a gain is form and which is content;
- compare two systems in pairs, and say *better*, *worse* or *cannot tell with these rows*;
- read errors by kind, leave the home field on purpose, and open a sealed test once.

The model of lesson 07 is on trial. If it is not on this disk, the first long cell makes it: about three minutes more on
a bf16 CPU.
"""

# %% [markdown] tags=badges

# %% [markdown] tags=card

# %% tags=setup

# %% id=main-report
from helpers import data, evaluation, models, scoreboard, training

train, validation = data.load("train"), data.load("validation")
run, tokenizer = training.fine_tune(train, epochs=2), models.load_tokenizer()
tuned = evaluation.prompted(models.load_model(run.folder), tokenizer)
report = evaluation.evaluate(tuned, validation, "LoRA, all rows", key={"run": run.folder.name})
scoreboard.add(report, trained_seconds=run.record["seconds"], note="two epochs")
report.summary()

# %% [markdown]
"""
## What does the metric see?
Score three rows by hand before you trust the table: the best, one from the middle and the worst, picked by code. Cover
the last line of each and count three things: names that are **there**, names the answer **named**, and how many of
these are **right**. F1 is twice *right*, divided by *named* plus *there*.
"""

# %% id=three-rows
ranked = report.worst(report.n)
for row in (ranked[-1], ranked[report.n // 3], ranked[0]):
    print("there:", ", ".join(row["gold"]), "\nnamed:", row["text"][:300])
    print(f"{row['hits']} right, {row['n_predicted']} named, {row['n_gold']} there: {evaluation.f1([row]):.2f}\n")

# %% [markdown]
"""
Names must be equal, letter by letter, after folding case and spaces. And before any name counts, the *form* must be
right. Here is one perfect answer, wrapped in four ways. Which of them would you have paid?
"""

# %% id=wrappings
perfect = '["flour", "brown sugar", "eggs"]'
for text in (perfect, "Sure! " + perfect, perfect.replace('"', "'"), perfect.replace("]", ",]")):
    print(evaluation.score(text, ["flour", "brown sugar", "eggs"])["hits"], "right in", text)

# %% [markdown]
"""
A reader would pay all four; a program that calls `json.loads` pays only the first. The strict score speaks for the
program. There is a **lenient** one, too: it forgives a name that has words too many or too few. Does it speak for the
reader? Test a metric as you would test a model: with a system that you *know* to be useless. This one copies the lines
and understands nothing.
"""

# %% id=copier
import json


def copy_lines(chats):
    return [json.dumps(data.lines({"messages": chat})) for chat in chats]

copied = evaluation.evaluate(copy_lines, validation, "copy the lines")
copied.summary()

# %% [markdown]
"""
Strict, it has next to nothing. Lenient, it looks like half a product: "1 tsp. salt" contains "salt". A metric that a
copier does well on cannot measure the skill of leaving words out, which is the whole task here. Keep lenient for a
*second* question: of what strict calls wrong, how much is nearly right?

## Which part of a gain is form?
Put the base model beside the tuned one, bare and with three examples in its prompt. All get the same ten
recipes. What the tuned model says to them is known already, and a *system* is any callable: we play its answers back.
"""

# %% id=base-systems
base, few = models.load_model(), validation[:10]
bare = evaluation.prompted(base, tokenizer, max_new_tokens=64)
shown = evaluation.prompted(base, tokenizer, examples=train[:3], max_new_tokens=96, batch_size=4)
zero = evaluation.evaluate(bare, few, "zero-shot", key={"examples": 0, "max_new_tokens": 64})
shots = evaluation.evaluate(shown, few, "3-shot", key={"examples": 3, "max_new_tokens": 96})
same = evaluation.evaluate(lambda chats: [row["text"] for row in report.rows[:10]], few, "LoRA, all rows")

# %% [markdown]
"""
Now repair every answer by force: whatever stands between double quotes becomes a valid JSON list. This is about the most
that a decoder *constrained* to JSON could get out of these words. What the repair adds is **validity**. What is still
missing after it is **content**.
"""

# %% id=repair-all
import re


def f1_repaired(report, hits="hits"):
    texts = [json.dumps(re.findall(r'"([^"\n]+)"', row["text"])) for row in report.rows]
    return evaluation.f1([evaluation.score(t, r["gold"]) for t, r in zip(texts, report.rows, strict=True)], hits)

evaluation.Table([
    {"system": r.name, "as it is": f"{evaluation.f1(r.rows):.2f}", "repaired": f"{f1_repaired(r):.2f}",
     "repaired, lenient": f"{f1_repaired(r, 'lenient'):.2f}"} for r in (zero, shots, same)
])  # fmt: skip

# %% [markdown]
"""
Read the row of 3-shot from left to right: the first step is what a better parser buys, with no training. Then go down
the middle column: *that* difference is what tuning taught about names. Report both. A gain that lives in the left
column alone is a parser you did not write.

## An opponent made with care
The base model was never the real opponent. What would you do without any language model? Cut at the comma, drop the
amounts, drop a list of words.
"""

# %% id=rules-with
def words_of(line):
    line = re.split(r",| or | for | to taste", re.sub(r"\(.*?\)", "", line.lower()))[0]
    return [word.strip(".*:") for word in line.split() if not word[0].isnumeric()]

def rules_with(drop):
    def names(line):
        return re.split(r" and | & ", " ".join(word for word in words_of(line) if word not in drop))
    def rules(chats):
        recipes = [data.lines({"messages": chat}) for chat in chats]
        return [json.dumps([name for line in lines for name in names(line) if name]) for lines in recipes]
    return rules

# %% id=rules-typed
typed = "c cup cups tsp tbsp oz lb g ml can pkg clove cloves pinch of a large small fresh dried ground chopped sliced"
rules = evaluation.evaluate(rules_with(typed.split()), validation, "rules")
scoreboard.add(rules, note="words to drop typed in a minute")
rules.summary()

# %% [markdown]
"""
A minute's work. But the model has seen hundreds of labelled recipes, and these rules none. *Both sides get the same
help*, or the comparison is about effort. So let the training rows write the list: drop each word that people left out
more often than not.
"""

# %% id=rules-counted
from collections import Counter

seen, kept = Counter(), Counter()
for row in train:
    answer = set(" ".join(data.answer(row)).split())
    seen.update(words := [word for line in data.lines(row) for word in words_of(line)])
    kept.update(word for word in words if word in answer)

def seldom(share):
    return {word for word in seen if kept[word] < share * seen[word]}

counted = evaluation.evaluate(rules_with(seldom(0.5)), validation, "rules, words counted")
scoreboard.add(counted, note="words to drop counted in train")
counted.summary()

# %% [markdown]
"""
*That* is the opponent: no model, no GPU, and a time per request that rounds to nothing. (And the lenient score? It does
not even notice that the second rules are far better than the first.)

## The wrong thing first
"We tried both on a recipe, and ours won." "Ours has the higher score." Let us see what such sentences are worth. First:
how many recipes could each side choose to show? Then: the scores of four quarters of the *same* validation rows.
"""

# %% id=one-prompt-and-quarters
pairs = [(evaluation.f1([x]), evaluation.f1([y])) for x, y in zip(report.rows, counted.rows, strict=True)]
print("LoRA wins", sum(x > y for x, y in pairs), "recipes, the rules", sum(x < y for x, y in pairs))
for r in (report, counted):
    print(r.name, [round(evaluation.f1(r.rows[i : i + 25]), 2) for i in range(0, 100, 25)])

# %% [markdown]
"""
Either side can show a page of wins. And one system's score wanders from quarter to quarter, only because the recipes
differ. Measure one team's system on an easy quarter and the other's on a hard one, and you have ranked the quarters. The
helper refuses to play:
"""

# %% tags=raises-exception id=other-rows
evaluation.compare(report, shots)

# %% [markdown]
"""
## In pairs
On the *same* rows, what makes a recipe hard is hard for both, and it cancels. What is left is the difference.
"""

# %% id=compare-main
comparison = evaluation.compare(report, counted)
comparison

# %% [markdown]
"""
What does it say on your machine? *Better*, if the whole interval lies above zero; *worse*, if all of it lies below;
otherwise the honest third thing. Either way the margin is narrow, and it is the *model* that has to pay for itself: a
training, a server, and a wait where the rules have none. No statistic decides whether that is worth it.

Here is a case of each verdict. The last pair is our rules against themselves, with the bar for
dropping a word a little higher.
"""

# %% tags=NBVAL_CHECK_OUTPUT id=three-verdicts
stricter = evaluation.evaluate(rules_with(seldom(0.6)), validation, "rules, bar raised")
for a, b in ((counted, rules), (copied, rules), (stricter, counted)):
    print(f"{a.name} against {b.name}: {evaluation.compare(a, b).verdict}")

# %% [markdown]
"""
*Cannot tell* does not mean *equal*. It means: bring more rows, or do not choose by these.

## Your turn: predict
The model and the counted rules, 25 rows. How far apart must their F1 be before so few rows can tell them apart, four
times out of five? Write a difference between 0 and 1.
"""

# %% tags=exercise
my_guess = ...

# %% tags=solution
my_guess = 0.03

# %% tags=check
from helpers import exercises

exercises.predict("08-1", my_guess)

# %% id=detectable
import random


def detectable(n, draws=30):
    some = [random.Random(i).sample(range(100), n) for i in range(draws)]
    pairs = [[evaluation.subset(r, s) for r in (report, counted)] for s in some]
    return sum(evaluation.compare(*pair).detectable for pair in pairs) / draws

print({n: round(detectable(n), 3) for n in (6, 12, 25, 50, 100)})
print(f"To see one point of F1: about {100 * (detectable(100) / 0.01) ** 2:,.0f} rows")

# %% [markdown]
"""
Most people guess too low. Four times the rows halve the difference you can see: that is the price list. So before you
write evaluation rows, ask which difference would change your decision. It tells you how many to write.

## An interval by hand
Where do intervals come from? Pretend that our rows are the world, and draw others from them *with replacement*: some
come twice, some not at all. Score each draw. The middle ninety-five of each hundred scores are the interval. This is
a **bootstrap**.
"""

# %% id=bootstrap
import numpy as np

chance = np.random.default_rng(8)

def bootstrap(rows):
    draws = chance.integers(0, len(rows), (2000, len(rows)))
    return np.array([evaluation.f1([rows[i] for i in draw]) for draw in draws])

by_hand = np.percentile(bootstrap(report.rows), [2.5, 97.5])
print(by_hand.round(3), "by hand,", np.round(report.interval(), 3), "by the helper")

# %% [markdown]
"""
## Your turn: complete the pair
That was one system. Write `paired_interval(a, b)` for two reports on the same rows: the interval of F1 of `a` minus F1
of `b`, as `(low, high)`. One thing decides: how do you draw?
"""

# %% tags=exercise
def paired_interval(a, b):
    ...

# %% [markdown] tags=hint
"""
<details><summary>Hint 1</summary>What is hard cancels only if both systems are scored on the <em>same</em> draw.</details>
<details><summary>Hint 2</summary>In each of 2000 rounds: one draw of row numbers, then
<code>evaluation.f1([a.rows[i] for i in draw])</code>, the same for <code>b</code>, and their difference.</details>
<details><summary>Hint 3</summary>Collect the differences in a list, then
take <code>np.percentile</code> of it, as in the cell above. Calling <code>bootstrap</code> twice draws twice: too wide.</details>
"""

# %% tags=solution
def paired_interval(a, b):
    chance, differences = np.random.default_rng(0), []
    for draw in chance.integers(0, a.n, (2000, a.n)):
        x, y = (evaluation.f1([r.rows[i] for i in draw]) for r in (a, b))
        differences.append(x - y)
    return tuple(np.percentile(differences, [2.5, 97.5]))

# %% tags=check
exercises.check("08-2", paired_interval)

# %% [markdown]
"""
## The dice that rows do not show
The bootstrap asks: what if the *rows* had been others? It cannot ask: what if the *training* had gone otherwise? Here
two settings were trained with three seeds each, and recorded. Each dot is one training, each bar its interval over rows.
"""

# %% tags=recorded id=seeds
from helpers import plots

seeds = [{**r, "run": f"{r['name']}, seed {r['seed']}"} for r in plots.recorded("rows-100") + plots.recorded("main")]
figure = plots.intervals(seeds, "run", "f1", "low", "high")

# %% [markdown]
"""
Compare how far apart the dots of one setting lie with how long the bars are. These are two kinds of doubt, and neither
contains the other. "This *model* beats that one" needs rows. "This *setting* beats that one" (more data, a higher rank,
cleaner labels) needs several seeds as well, and every dot shown.

## Your turn: repair a comparison
The next function runs, and it is unfair in several ways. The proof is its last line: it finds a system better than
*itself*. Write `is_it_better(tuned, base, rows)` so that it is fair and returns one of the three verdicts.
"""

# %% id=unfair
def is_it_better_unfair(tuned, base, rows):
    half = len(rows) // 2
    a = evaluation.evaluate(tuned, rows[half:])
    b = evaluation.evaluate(lambda chats: [text[:40] for text in base([chat[1:] for chat in chats])], rows[:half])
    return evaluation.f1(a.rows) > evaluation.f1(b.rows)

is_it_better_unfair(rules_with(seldom(0.5)), rules_with(seldom(0.5)), validation)

# %% tags=exercise
def is_it_better(tuned, base, rows):
    ...

# %% [markdown] tags=hint
"""
<details><summary>Hint 1</summary>Ask four things of each side: which rows, which prompt, what happens to its answers, and how
is the winner declared?</details>
<details><summary>Hint 2</summary><code>chat[1:]</code> takes the instruction away from one side. <code>text[:40]</code> cuts
its answers. <code>rows[half:]</code> and <code>rows[:half]</code> are different recipes.</details>
<details><summary>Hint 3</summary>Two calls of <code>evaluation.evaluate</code> on <code>rows</code>, then
<code>evaluation.compare(a, b).verdict</code>.</details>
"""

# %% tags=solution
def is_it_better(tuned, base, rows):
    a, b = evaluation.evaluate(tuned, rows, "tuned"), evaluation.evaluate(base, rows, "base")
    return evaluation.compare(a, b).verdict

# %% tags=check
exercises.check("08-3", is_it_better)

# %% [markdown]
"""
## Read the errors
Scores say how often; only rows say *why*. Move between the two sides. What does the model know that counted words cannot
know? And where do plain rules beat it?
"""

# %% id=browse
from helpers import widgets

widgets.browse(comparison)

# %% [markdown]
"""
After ten rows you have names for what you see; then let code count *all* of them. A name with words that stand nowhere
on the recipe's lines is **invented**. A name that holds a right name and more has an **extra word**.
"""

# %% id=error-kinds
def kinds(row):
    listed, gold = re.findall(r'"([^"\n]+)"', row["text"]), [set(name.split()) for name in row["gold"]]
    page = set(re.findall(r"[^\s,;:()/]+", " ".join(row["lines"]).lower()))
    yield from ["repeated"] * (len(listed) - len(set(listed)))
    yield from ["missing"] * sum(name not in row["predicted"] for name in row["gold"])
    for words in (set(name.split()) for name in row["predicted"] if name not in row["gold"]):
        invented, extra = not words <= page, any(name < words for name in gold)
        yield "invented" if invented else "extra word" if extra else "other name"

columns = ("extra word", "missing", "invented", "repeated", "other name")
found = {r.name: Counter(kind for row in r.rows for kind in kinds(row)) for r in (report, counted, rules)}
evaluation.Table([{"system": name, **{kind: count[kind] for kind in columns}} for name, count in found.items()])

# %% [markdown]
"""
(A name with an extra word leaves the right name *missing* as well: one slip, two counts.) Each kind has its own remedy.
Extra words: more rows of that convention, or a clearer rule for the people who label. Repeats: the decoder. Invented
names: allow only words of the page. "Train it longer" is the remedy of none.

## Away from home
All rows so far are home recipes, nearly all in English. Somebody will paste something else. Twelve lists were written
for this lesson: a bar's set-up, a German and a Spanish dish, soap, a laboratory buffer, a first-aid kit, the back of a
packet. Same format, same rule.
"""

# %% id=strangers
strange = data.load(data.FOLDER / "out_of_domain.jsonl")
away = evaluation.evaluate(tuned, strange, "LoRA, all rows", key={"run": run.folder.name})
for row in away.worst(2):
    print(row["title"], "\nthere:", ", ".join(row["gold"]), "\nnamed:", row["text"][:300], "\n")

evaluation.Table([{"where": where, **r.summary()[0]} for where, r in (("home", report), ("away", away))])

# %% [markdown]
"""
No warning came with the fall: strangers get answers in the same sure voice. A score holds for the kind of row on which
it was measured, and for no other. Twelve rows are enough to see a large fall, and far too few to rank systems by.

## Open the test, once
Every choice so far was made while looking at validation: settings, prompts, when to stop. Each look leans the choices a
little towards these very rows. So others lie sealed. *Before* you open them, write down what you will ask, and ask no
more: (1) did validation promise too much? (2) what is the verdict against the counted rules?
"""

# %% id=open-test
sealed = data.open_test("lesson 08: did validation promise too much? the main run against counted rules")
final = evaluation.evaluate(tuned, sealed, "LoRA, all rows", key={"run": run.folder.name})
print(final.summary())
low, high = np.percentile(bootstrap(report.rows) - bootstrap(final.rows), [2.5, 97.5])
print(f"validation minus test: {low:+.3f} to {high:+.3f}")
print("validation promised too much" if low > 0 else "no sign that validation promised too much")
evaluation.compare(final, evaluation.evaluate(rules_with(seldom(0.5)), sealed, "rules, words counted"))

# %% [markdown]
"""
The first question crosses two sets of rows, so there are no pairs: two separate bootstraps, and a wide interval. If it
holds zero, that is the good ending and a weak one, for a small over-promise would hide in it. From here on these rows
are spent for this model. Tune on because of what you saw, and they become a second validation set.

> **Would this hold at 8B?** The *method* holds at any size: same rows, pairs, intervals, a sealed test. The *numbers*
> would not. A large model's form is nearly perfect before tuning, so its gain would be almost all content, and smaller;
> seeing it takes *more* rows than here. Out of domain it has read more kinds of text and should fall less: likely, but
> unknown here.

**Optional, for your own work.** Write the verdict on your task into `my_task/verdict.md`: which system against which
opponent, on how many rows, the difference with its interval, the verdict, and what it does not show.
"""

# %% tags=exercise
my_verdict = ...  # exercises.my_task("verdict.md").read_text(encoding="utf-8")

# %% tags=solution
my_verdict = """
Orders by e-mail: our tuned model against the parser that we already have, on the same 60 rows, same prompt, greedy.
F1 difference +0.06, 95 % interval -0.01 to +0.13. Verdict: cannot tell with these rows.
These rows detect differences of about 0.10. Next: label 120 more, or keep the parser, which costs nothing.
Not shown: e-mails in other languages, and what another training seed would give.
"""

# %% tags=check
exercises.check("08-4", my_verdict)

# %% [markdown]
"""
## Quiz and scoreboard
Look at the column *n* before you compare two rows of the board. The test's score is not on it: nobody should choose by it.
"""

# %%
exercises.quiz("08")
scoreboard.add(zero, note="base model, instruction only")
scoreboard.add(shots, note="base model, three examples")
scoreboard.show()

# %% [markdown]
"""
## What this did not show
- That the labels are right. People who label the same recipe disagree about some names, so no honest system scores one;
  lesson 06 measures it.
- That F1 is what your users pay for. A missing allergen and a missing garnish cost the same here.
- What a larger model would do with a good prompt. It stands as *not measured*.

## Next
[09 LoRA and memory](09-lora-and-memory.ipynb) opens the adapter; [14 Assignment](14-assignment.ipynb) asks for your own
comparison card.
"""

# %% [markdown] tags=sources
"""
**Sources.** Bootstrap: Efron, *Bootstrap Methods: Another Look at the Jackknife*, Annals of Statistics 7(1), 1979. Paired
bootstrap for two systems on the same rows: Koehn, *Statistical Significance Tests for Machine Translation Evaluation*,
EMNLP 2004. Detectable differences: Card et al., *With Little Power Comes Great Responsibility*, EMNLP 2020. The same for
language models: Miller, *Adding Error Bars to Evals*, arXiv 2411.00640, November 2024. Seeds: Dodge et al., *Fine-Tuning
Pretrained Language Models: Weight Initializations, Data Orders, and Early Stopping*, arXiv 2002.06305, February 2020.
Looked up 2026-11-22 (Koehn, Miller); the others cited from knowledge.
"""
