# %% [markdown]
"""
# What is fine-tuning?

Lesson 00 tuned a model as a black box. Here we open the lid: what goes in, token by token, which of those tokens the
model learns from, and what has moved in it afterwards.

**You will be able to**

- tell pre-training, continued pre-training, supervised fine-tuning, preference tuning and reinforcement learning apart;
- say what the model really sees of a chat, and which tokens carry the loss;
- show what tuning changed in the model's next-token probabilities, and how far the change leaks.
"""

# %% [markdown] tags=badges

# %% [markdown] tags=card

# %% tags=setup

# %% [markdown]
"""
## One engine, five diets
A language model does one thing: given the tokens so far, it gives a probability to every token that could come next.
*All* training moves these probabilities. The kinds of training differ in what data goes in, and in what counts as a
mistake: the **loss**. In the strips of the figure each square is a token.
"""

# %%
R, L, U, D, T = "#d5dae0", "#d1603d", "#2e8b57", "#b03060", "#3b6ea5"  # read, learned, up, down, tried
kinds = [
    ("", "what goes in", "what the loss asks", "what comes out", []),
    ("pre-training", "trillions of tokens of text", "how improbable is each token?", "completes text", [L] * 16),
    ("continued\npre-training", "plain text of one field", "the same", "knows that field's text", [L] * 16),
    ("supervised\nfine-tuning (SFT)", "questions with answers", "the same, on the answer only",
     "answers like the examples", [R] * 10 + [L] * 6),
    ("preference tuning\n(DPO)", "pairs: better, worse", "how far apart are the two?",
     "answers as people prefer", [R] * 7 + [U] * 4 + ["none"] + [D] * 4),
    ("reinforcement\nlearning (RL)", "questions and a grader", "which grade did its own try get?",
     "answers that score", [R] * 8 + [T] * 8),
]  # fmt: skip

# %%
from helpers import plots

figure, ax = plots.axes(9.5, 3.8)
ax.set(xlim=(-0.5, 4.5), ylim=(5.5, -0.3))
ax.axis("off")
for y, (*words, strip) in enumerate(kinds):
    ax.scatter([2 + 0.07 * i for i in range(len(strip))], [y] * len(strip), c=strip, marker="s", s=26)
    for x, text in zip((0, 1.1, 2.55, 4), words, strict=True):
        below, weight = 0.32 if strip and x == 2.55 else 0, "normal" if strip and x else "bold"
        ax.text(x, y + below, text, ha="center", va="center", fontsize=9, weight=weight)

# %% [markdown]
"""
Grey tokens are only read. Orange ones are learned as they stand. The first three kinds share one loss, *how improbable
was this token?*, and differ in the tokens it is taken on. The fourth is shown two answers, and moves the green one up
against the red one. The fifth is shown none: the model tries (blue), and a grader grades.

In daily speech everything below the first line is called "fine-tuning". In this course the word alone means the third
line, **SFT**. The last two wait in lesson 15.

## The traces in our model
SmolLM2-Instruct is no blank page. Its makers put it through three of the five: pre-training, SFT, preference tuning.
Two of them are easy to see. We hand it one sentence twice: as a bare piece of text, and as a turn in a chat.
"""

# %%
from helpers import data, models

train, validation = data.load("train"), data.load("validation")
tokenizer, base = models.load_tokenizer(), models.load_model()

# %%
def complete(model, text, tokens=25):
    ids = tokenizer(text, return_tensors="pt").to(model.device)
    written = model.generate(**ids, max_new_tokens=tokens, do_sample=False)
    return tokenizer.decode(written[0, ids["input_ids"].shape[1] :])

def ask(model, text, system=None, tokens=25):
    chat = [{"role": "system", "content": system}] * bool(system) + [{"role": "user", "content": text}]
    return models.generate(model, tokenizer, [chat], max_new_tokens=tokens, progress=False)[0]["text"]

pancakes = "What do I need for pancakes?"
print("BARE TEXT:", complete(base, pancakes), "\n\nIN A CHAT:", ask(base, pancakes))

# %% [markdown]
"""
The bare sentence gets no answer. The model goes on with a text in which it might stand: that is what pre-training
rewards. In the chat the same weights speak to *us*. Only the wrapping differs, and the SFT of its makers taught the
model what that wrapping means.

## What the model really sees
So let us look at the wrapping. Here is the shortest recipe of the training rows, as the **chat template** writes it:
"""

# %%
row = min(train, key=lambda row: len(row["messages"][1]["content"]))
question = data.prompt(row)
print(tokenizer.apply_chat_template(row["messages"], tokenize=False))

# %% [markdown]
"""
A chat is one long string after all. `<|im_start|>` opens a turn, `<|im_end|>` closes it, and the role stands between.
Another model has other markers: the template comes with the tokenizer, so never type it by hand.

## A guest in the template
To *ask*, we leave out the answer. And what if we forget the system turn as well, and send the recipe alone? Read the
first line and the last one.
"""

# %%
guest = tokenizer.apply_chat_template(question[1:], tokenize=False, add_generation_prompt=True)
print(guest)

# %% [markdown]
"""
The last line opens the turn in which the model shall speak. It is called the **generation prompt**.

And the first line? Nobody here wrote it. This template brings its own system prompt when it finds none. It is harmless
until you tune with one system prompt and ask with another. No error will tell you; we measure the damage below. The
cure costs a second: **print one rendered row** before you train, and one before you ask.

## From text to numbers
The model reads no letters. The tokenizer cuts the string into **tokens** and gives the number of each, its **id**. In
these listings `·` is a space and `↵` a new line.
"""

# %%
def piece(i):
    return tokenizer.decode([i]).replace(" ", "·").replace("\n", "↵")

ids = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_dict=False)
print(*(f"{piece(i)} {i}" for i in ids[17:40]), sep=" | ")

# %% [markdown]
"""
A common word is one token, together with the space before it. Digits stand alone, a rare word falls into pieces. Each
marker is a *single* token. (Whoever types a marker into a question gets the real one, too: filter what users send.)

One of them matters most: `<|im_end|>`, the **end token**. To stop talking, a model must *say* it. It is the last token
of an answer, learned like any other. Rows without it make a model that never stops; lesson 07 tries that.

## Your turn: predict
A training row holds the instruction, the recipe and the answer. SFT takes its loss on the answer only. Over all our
training rows: what **share of the tokens** is the model graded on? A number between 0 and 1, please.
"""

# %% tags=exercise
my_share = ...

# %% tags=solution
my_share = 0.4

# %% tags=check
from helpers import exercises

exercises.predict("01-1", my_share)

# %% [markdown]
"""
## The loss mask
Beside the ids stands a second list, the **labels**: what the model should have said at each place. A label of `-100`
means *not graded*. Here is our row: grey is only read, and each orange box is a token to be learned. Below it stands the
share over all rows.
"""

# %%
import html

from IPython.display import HTML

encoded = data.encode(row, tokenizer)
spans = []
for i, label in zip(encoded["input_ids"], encoded["labels"], strict=True):
    look = "color:#8b929b" if label == -100 else "background:#fde3cf;color:#7c2d12;outline:1px solid #d1603d"
    spans.append(f"<span style='{look}'>{html.escape(tokenizer.decode([i]))}</span>")
HTML(f"<pre>{''.join(spans)}</pre>")

# %% tags=NBVAL_CHECK_OUTPUT
count = data.count_tokens(train, tokenizer)
print(f"{count['completion'] / (count['prompt'] + count['completion']):.2f} of the tokens carry loss")

# %% [markdown]
"""
Was your guess higher? Recipes are long and lists of names are short. When you compare two data sets, compare their
*graded* tokens. The grey part is not wasted: the model reads it, and needs it to get the boxes right. It is just not
corrected for it.

## Your turn: complete the mask
A mask is one line. `input_ids` is a whole row as a list; `prompt_length` says how many of its tokens are prompt.
"""

# %% tags=exercise
def mask(input_ids, prompt_length):
    ...  # return the labels, as many as there are ids

# %% [markdown] tags=hint
"""
<details><summary>Hint 1</summary>Two pieces, one behind the other: the prompt's labels, then the answer's.</details>
<details><summary>Hint 2</summary>The answer's labels are the answer's own ids. Do not shift them: the model compares each place with the <i>next</i> token by itself.</details>
<details><summary>Hint 3</summary><code>[-100] * 3</code> is a list of three. <code>input_ids[3:]</code> is what follows the first three.</details>
"""

# %% tags=solution
def mask(input_ids, prompt_length):
    return [-100] * prompt_length + input_ids[prompt_length:]

# %% tags=check
exercises.check("01-2", mask)

# %% [markdown]
"""
## What if everything were graded?
Then the model would be corrected for how it would have *written the recipe*, which is the user's part. How much of the
correction would that be?

We open the engine. One forward pass gives, for *every* place of the row at once, a probability for each token of the
vocabulary: that is what `probabilities` returns. The **surprise** at a token is minus the logarithm of the probability
that it had. A token that was certain surprises by zero; one that nobody expected surprises a lot. The loss of training
is nothing else: the mean surprise over the graded tokens.
"""

# %%
import torch


def probabilities(model, ids):
    with torch.inference_mode():
        return model(torch.tensor([ids], device=model.device)).logits[0].float().softmax(-1).cpu()

def surprise(model, ids):
    chances = probabilities(model, ids)[:-1]  # what stands at a place was predicted at the place before
    return -chances[range(len(ids) - 1), ids[1:]].log()

# %%
prompt_length = encoded["labels"].count(-100)
losses = surprise(base, encoded["input_ids"])  # none for the first token: nothing stands before it
on_prompt, on_answer = losses[: prompt_length - 1].sum(), losses[prompt_length - 1 :].sum()
print(f"summed surprise: {on_prompt:.0f} on the prompt, {on_answer:.0f} on the answer")

# %% [markdown]
"""
The larger pile is on the left: titles and amounts are hard to guess, and nobody needs the model to guess them. With the
mask, all of the correction goes where we want it.

That is a default, no law. With few rows and short answers, grading the instruction as well has *helped* in some settings
(see the sources), and in continued pre-training everything is graded on purpose. Where it matters, measure.

## Your turn: repair a rendering
Somebody typed the template by hand after all. Below is the result, and what the model makes of it: it takes itself for
the cook. *Two* things are missing. Write `render` so that it gives what the template gives. A chat that ends with a
question shall be ready to be answered; a chat that ends with an answer, ready to be learned.
"""

# %%
def broken_render(messages):
    return "\n".join(f"<|im_start|>{turn['role']}\n{turn['content']}" for turn in messages)

print(broken_render(question), "\n\n--- THE MODEL GOES ON:", complete(base, broken_render(question), tokens=12))

# %% tags=exercise
def render(messages):
    ...

# %% [markdown] tags=hint
"""
<details><summary>Hint 1</summary>What closes a turn? Count the <code>&lt;|im_end|&gt;</code> in the good version: one for each turn, with a new line behind it.</details>
<details><summary>Hint 2</summary>After a question the assistant's turn has to be open. After an answer it must not be opened again: look at <code>messages[-1]["role"]</code>.</details>
<details><summary>Hint 3</summary>Typing it is one way. <code>tokenizer.apply_chat_template</code> with the right <code>add_generation_prompt</code> is another, and the better one at work.</details>
"""

# %% tags=solution
def render(messages):
    text = "".join(f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>\n" for turn in messages)
    return text if messages[-1]["role"] == "assistant" else text + "<|im_start|>assistant\n"

# %% tags=check
exercises.check("01-3", render)

# %% [markdown]
"""
## Tune, and look again
The same call as in lesson 00: if you ran it there, it is found on your disk. Then we take the shortest recipe of
`validation`, which the model has not trained on, and let both models read it.
"""

# %%
from helpers import training

run = training.fine_tune(train[:120], epochs=1)
pair = {"before": base, "after": models.load_model(run.folder)}

unseen = min(validation, key=lambda row: len(row["messages"][1]["content"]))
encoded = data.encode(unseen, tokenizer)
ids, start = encoded["input_ids"], encoded["labels"].count(-100)  # the answer begins at `start`
chances = {name: probabilities(model, ids) for name, model in pair.items()}
print(tokenizer.decode(ids))

# %% [markdown]
"""
We stop at some place and ask: *what could come next?* First the place right behind the generation prompt. Which token
do you expect on the left, and which on the right?
"""

# %%
import matplotlib.pyplot as plt


def shift(place):
    figure, axes = plt.subplots(1, 2, figsize=(8, 2.7), layout="constrained")
    for ax, name in zip(axes, pair, strict=True):
        best = chances[name][place - 1].topk(6)  # what stands at a place is predicted at the place before
        colours = [plots.COLOURS["validation" if i == ids[place] else "quiet"] for i in best.indices]
        ax.barh(range(6), best.values, color=colours)
        ax.set_yticks(range(6), [piece(i) for i in best.indices], parse_math=False)
        ax.set(title=name, xlim=(0, 1), ylim=(5.6, -0.6), xlabel="probability")
    figure.suptitle("… " + "".join(map(piece, ids[place - 10 : place])) + " ?", fontsize=10, parse_math=False)

shift(start)

# %% [markdown]
"""
Orange is the token of the right answer. Before, the model hesitates between ways to begin a sentence, as its makers
taught it. After, one token has nearly everything. This one shift is most of what the board calls "valid JSON".

## Where in the answer did it learn?
One number for each token of this answer: its surprise, before and after. Low is good. Mind that both models are shown the
right answer *so far*, as in training: nobody has to live with an own mistake here. One row is an anecdote, so the table
sums up ten.
"""

# %%
figure, ax = plots.axes(8, 3.2)
places = range(start, len(ids))
for name, colour in (("before", "quiet"), ("after", "validation")):
    ax.plot(places, surprise(pair[name], ids)[start - 1 :], "o-", color=plots.COLOURS[colour], label=name)
ax.set_xticks(places, [piece(i) for i in ids[start:]], rotation=90, parse_math=False)
ax.set(ylabel="surprise")
ax.legend(frameon=False);

# %%
from helpers import evaluation


def by_kind(model, rows):
    found = {"first token": [], "beginning of a name": [], "all others": []}
    for one in (data.encode(row, tokenizer) for row in rows):
        first = one["labels"].count(-100)
        for at, loss in enumerate(surprise(model, one["input_ids"])[first - 1 :].tolist(), first):
            opened = piece(one["input_ids"][at - 1]) in ('["', '·"')
            found["first token" if at == first else "beginning of a name" if opened else "all others"].append(loss)
    return {kind: f"{sum(losses) / len(losses):.2f}" for kind, losses in found.items()}

evaluation.Table([{"model": name, **by_kind(model, validation[:10])} for name, model in pair.items()])

# %% [markdown]
"""
The **first token** is a cliff, and it is learned for good. **All others** are easy: finish a word, close a quote. The
**beginning of a name**, right behind a quote, is a choice: which words to take, which to skip. It got better and is far
from done. The wrong names of lesson 00 come from there, and there more rows will help.

## Inside the list
The figure shows a place picked by code: the last one where the untuned model's favourite is wrong and the tuned model's
is right. What did the untuned model want to write: an amount, a size, a word that our rule drops?

Then walk through the row yourself. Slide to the very end as well: who knows when to stop? (No slider on your screen? The
table has each model's favourite at every place.)
"""

# %%
right, favourites = torch.tensor(ids[start:]), {name: chances[name][start - 1 : -1].max(-1) for name in pair}
mended = (favourites["before"].indices != right) & (favourites["after"].indices == right)
shift(start + int(mended.nonzero()[-1]))

# %%
import ipywidgets
from IPython.display import display

display(ipywidgets.interactive(shift, place=ipywidgets.IntSlider(start + 1, 10, len(ids) - 1, continuous_update=False)))
told = {name: [f"{piece(i)}  {p:.2f}" for p, i in zip(*best, strict=True)] for name, best in favourites.items()}
evaluation.Table([
    {"right": piece(ids[start + k]), "before": told["before"][k], "after": told["after"][k]} for k in range(len(right))
])

# %% [markdown]
"""
The tuned model has not learned what these foods *are*. It has learned which words we do not want copied. And notice how
often the untuned model was right as well, once somebody had begun the list for it. Keep that in mind: lesson 03 forces a
model to begin it, without any tuning.

## The five kinds, in numbers
Back to the first figure. What would each kind of training read off this one recipe, before and after *our* SFT? For the
pair we need a worse answer: the lazy one, with the lines copied as they are.
"""

# %%
lines, table = data.lines(unseen), evaluation.Table()
lazy = data.encode(data.recipe(data.title(unseen), lines, lines), tokenizer)["input_ids"]
for name, model in pair.items():
    good, bad = surprise(model, ids)[start - 1 :], surprise(model, lazy)[start - 1 :]
    own = ask(model, data.prompt(unseen)[-1]["content"], data.SYSTEM, tokens=48)
    table.append({
        "model": name,
        "pre-training: loss, all tokens": f"{surprise(model, ids).mean():.2f}",
        "SFT: loss, answer": f"{good.mean():.2f}",
        "preference: gap to the lazy answer": f"{bad.sum() - good.sum():.0f}",
        "RL: reward of its own try": f"{evaluation.f1([evaluation.score(own, data.answer(unseen))]):.2f}",
    })
table

# %% [markdown]
"""
We trained the second number, and the two on its right came along: a model that finds the right answer likely also
prefers it to a lazy one, and earns reward with its own tries. The number on the left got nothing out of it: most of it
is recipe, which nobody graded.

## What stayed, and what leaked
Tuning for recipes should leave everything else alone. Does it? Three questions: one that has nothing to do with food,
the same one under our recipe instruction, and one about food without it.
"""

# %%
france = "What is the capital of France?"
for text, system in ((france, None), (france, data.SYSTEM), (pancakes, None)):
    print(f"\n{text}", "(with our instruction)" if system else "")
    for name, model in pair.items():
        print(f"  {name:>6}: {ask(model, text, system)}")

# %% [markdown]
"""
Far from food, the knowledge is still there. (And the manners? Did it still answer in a sentence?) The new habit hangs
on the *prompt*: under our instruction the tuned model treats anything as a recipe. But it leaks. Nothing in SFT says "only
here": the nearer a text is to the training rows, the more of the change it feels.

That can be measured without reading answers. **Perplexity** is the exponential of the mean surprise: equal means
untouched, higher means worse.
"""

# %%
texts = {
    "plain prose": "The tide rises and falls twice a day. The moon pulls on the sea, and the earth turns under the "
    "bulge it makes. Sailors kept tables of high water for centuries before anybody could say why they worked.",
    "code": "def area(width, height):\n    if width < 0:\n        raise ValueError\n    return width * height",
    "our prompt": tokenizer.decode(ids[:start]),
}

def perplexity(model, text):
    return f"{surprise(model, tokenizer(text)['input_ids']).mean().exp():.1f}"

evaluation.Table([{"text": name, **{m: perplexity(pair[m], text) for m in pair}} for name, text in texts.items()])

# %% [markdown]
"""
Every text pays, and our own prompt pays most: **not graded is not the same as not touched**. The mask says what the
model is corrected for; the weights that move serve every text. Lesson 16 follows this to real forgetting.

## The guest, measured
One debt is left. We ask the tuned model the 25 recipes of lesson 00 twice: as it was tuned, and with the system prompt
that the template brings by itself.
"""

# %%
few, tuned = validation[:25], pair["after"]
as_tuned = evaluation.evaluate(
    evaluation.prompted(tuned, tokenizer), few, "LoRA, 120 rows", key={"run": run.folder.name}
)
default = guest.split("\n")[1].removesuffix("<|im_end|>")
as_guest = evaluation.evaluate(evaluation.prompted(tuned, tokenizer, instruction=default), few, "with the guest")
evaluation.compare(as_guest, as_tuned)

# %% [markdown]
"""
Same weights, same recipes, no error, no warning: only another first line. If a tuned model disappoints in production,
look at the rendered prompt before you look at the training.

**Optional, for your own work.** Write one row of the task that you noted in lesson 00: a dict with `messages`, in the
form of `row` above, content always as text. The check counts its tokens. To keep it, write it with `json.dumps` to
`exercises.my_task("first_row.json")`.
"""

# %% tags=exercise
my_row = ...

# %% tags=solution
my_row = {"messages": [
    {"role": "system", "content": "Give date, product and number of the order as JSON."},
    {"role": "user", "content": "Hi Anna, could we have two dozen rye rolls for Friday 4 December? Best, Tom"},
    {"role": "assistant", "content": '{"date": "12-04", "product": "rye rolls", "number": 24}'},
]}

# %% tags=check
exercises.check("01-4", my_row)

# %% [markdown]
"""
## Quiz and scoreboard
This lesson made no new system. The tuned model has its row, so that the board is not empty if you began here. The guest
stays off it: it is an accident, not a candidate.
"""

# %%
exercises.quiz("01")

# %%
from helpers import scoreboard

scoreboard.add(as_tuned, trained_seconds=run.record["seconds"], note="one epoch")
scoreboard.show()

# %% [markdown]
"""
## What this did not show
- That these shifts look alike in larger models. A larger model begins closer to the goal: its first token may need no
  tuning at all.
- What preference tuning and RL would have made of this recipe. We read off their signals and trained on none of them.
- That general knowledge survives *longer* tuning. One short epoch was kind to it.
- Which tokens to grade for *your* data. We showed where the loss lies, and compared no two trainings.

## Next
[02 When to fine-tune](02-when-to-fine-tune.ipynb) asks the question that comes before all this: is it worth it?
"""

# %% [markdown] tags=sources
"""
**Sources.** Model: Allal et al., *SmolLM2: When Smol Goes Big*, arXiv 2502.02737, February 2025; its model card names
2 trillion tokens of pre-training for the 135M model, SFT, then DPO on UltraFeedback. SFT, preferences and RL in
sequence: Ouyang et al. (InstructGPT), arXiv 2203.02155, March 2022. Continued pre-training: Gururangan et al., *Don't Stop
Pretraining*, arXiv 2004.10964, April 2020. DPO: Rafailov et al., arXiv 2305.18290, May 2023. RL with a grader: Shao et al.
(DeepSeekMath, GRPO), arXiv 2402.03300, February 2024. Loss on the instruction as well: Shi et al., *Instruction Tuning With
Loss Over Instructions*, arXiv 2405.14394, May 2024. Looked up 2026-11-22.
"""
