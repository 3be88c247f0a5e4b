"""DPO and GRPO on a small machine: the same probabilities, faster; draws that are each prompt's own."""

import json
import statistics

import pytest
import torch
from safetensors.torch import load_file

from helpers import data, decoding, kernels, models, preferences, runs, runtime, training

EOS = 2


@pytest.fixture
def adapted():
    """A tiny model with an adapter that does something, and the head that TRL gives it."""
    from trl.trainer.utils import add_fused_lm_head

    training.without_triton()
    base = models.tiny_model()
    add_fused_lm_head(base, temperature=0.8, outputs=("log_probs", "entropy"))
    model = models.trainable(base)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return model


@pytest.fixture
def batch():
    """Prompts padded on the left and completions on the right, as GRPO has them: with one beginning, and without."""
    torch.manual_seed(1)
    prompts, completions, width = (9, 4, 7), (3, 6, 5), 15
    ids, mask = torch.full((3, width), EOS), torch.zeros(3, width, dtype=torch.long)
    for row, (before, after) in enumerate(zip(prompts, completions, strict=True)):
        real = slice(9 - before, 9 + after)
        ids[row, real] = torch.cat([torch.tensor([11, 12, 13]), torch.randint(20, 999, (before + after - 3,))])
        mask[row, real] = 1
    labels = ids.masked_fill(mask == 0, -100)
    labels[:, :9] = -100
    return {"input_ids": ids, "attention_mask": mask, "labels": labels, "fused_lm_head": True}


def test_the_fast_passes_give_the_same_probabilities_and_gradients_whichever_side_is_padded(adapted, batch):
    def learn():
        adapted.zero_grad()
        told = adapted(**batch)
        (told.log_probs * torch.linspace(0, 1, told.log_probs.numel()).view_as(told.log_probs)).sum().backward()
        gradients = [p.grad.clone() for p in adapted.parameters() if p.requires_grad]
        return [told.log_probs.detach(), told.entropy.detach(), *gradients]

    plain = learn()
    kernels.make_fast(adapted, ("layers", "tokens"))
    torch.testing.assert_close(learn(), plain, rtol=1e-4, atol=1e-5)


def test_without_its_adapter_the_fast_model_is_the_one_it_started_from(adapted, batch):
    with torch.no_grad(), adapted.disable_adapter():
        plain = adapted(**batch).log_probs
    kernels.make_fast(adapted, ("layers", "tokens"))
    with torch.no_grad():
        tuned = adapted(**batch).log_probs
        with adapted.disable_adapter():
            torch.testing.assert_close(adapted(**batch).log_probs, plain, rtol=1e-4, atol=1e-5)
    assert (tuned - plain).abs().max() > 0.01


PROMPTS = [[5, 6, 7], [5, 6, 8, 9], [30, 31], [5, 6, 7]]


def draw(model, prompts, temperature=1.0, seed=0, size=8):
    with torch.inference_mode():
        return dict(decoding.answers(model, prompts, 12, EOS, size, None, temperature, seed))


def test_at_temperature_zero_nothing_is_left_to_chance():
    model = models.tiny_model()
    greedy = draw(model, PROMPTS, 0.0)
    assert greedy == draw(model, PROMPTS, 0.0, seed=7) == draw(model, PROMPTS, 1e-6, seed=7)


def test_an_answer_that_is_drawn_hangs_on_seed_and_place_and_not_on_its_company():
    model = models.tiny_model()
    together = draw(model, PROMPTS)
    assert together[0] != together[3]  # the same question, drawn twice
    assert draw(model, PROMPTS, size=2) == together
    assert draw(model, PROMPTS[:1])[0] == together[0]
    assert draw(model, PROMPTS, seed=1) != together


def test_tokens_are_drawn_as_often_as_the_model_finds_them_probable():
    chance, scores = decoding._Chance(0.5, seed=3, prompts=4000), torch.tensor([0.0, 1.0, -1.0])
    drawn = chance.choose(scores.expand(4000, 3), range(4000))
    shares = torch.bincount(drawn, minlength=3) / 4000
    torch.testing.assert_close(shares, (scores / 0.5).softmax(-1), atol=0.025, rtol=0)


def test_a_model_that_is_no_plain_llama_draws_by_its_own_generate(monkeypatch):
    model = models.tiny_model()
    greedy = draw(model, PROMPTS, 0.0)
    monkeypatch.setattr(decoding, "plain_llama", lambda model: False)
    assert draw(model, PROMPTS, 0.0) == greedy
    assert draw(model, PROMPTS, 1.0, size=2) != greedy
    assert draw(model, PROMPTS, 1.0, size=4) == draw(model, PROMPTS, 1.0, size=4)


def test_roll_outs_answer_with_the_adapter_as_it_is_now(adapted):
    class Trainer:
        model, processing_class = adapted, models.load_tokenizer()
        args = type("Args", (), {"max_completion_length": 10, "seed": 0})
        state = type("State", (), {"global_step": 0})
        accelerator = type("Accelerator", (), {"unwrap_model": staticmethod(lambda model: model)})

    roll, chats = preferences.rollouts(1e-6), [[{"role": "user", "content": text}] for text in ("hello", "what is it?")]
    first = roll(chats, Trainer)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    second = roll(chats, Trainer)
    assert first["prompt_ids"] == second["prompt_ids"] and first["completion_ids"] != second["completion_ids"]
    expected = draw(adapted.merge_and_unload(), second["prompt_ids"], 0.0)
    assert second["completion_ids"] == [expected[i][:10] for i in range(2)]


def test_preferences_that_were_cut_short_end_as_if_nothing_had_happened(tmp_path):
    hello = [{"role": "user", "content": "Say hello."}]
    rows = [
        {"prompt": hello, "chosen": [{"role": "assistant", "content": "Ahoy!" * n}],
         "rejected": [{"role": "assistant", "content": "Good morning."}]} for n in range(1, 13)
    ]  # fmt: skip

    def trainer(folder):
        return preferences.dpo_trainer(
            models.trainable(models.tiny_model()), rows, folder, per_device_train_batch_size=4, num_train_epochs=1,
            save_steps=1, learning_rate=1e-2, seed=1,
        )  # fmt: skip

    def losses(trained):
        return [entry["loss"] for entry in trained.state.log_history if "loss" in entry]

    whole = trainer(tmp_path)
    whole.train()
    assert losses(whole)[0] == pytest.approx(0.6931, abs=1e-3) and losses(whole)[-1] < 0.68
    for step in (2, 3):  # as a kill would leave it
        (tmp_path / f"checkpoint-{step}" / "complete").unlink()
    resumed = trainer(tmp_path)
    resumed.train(resume_from_checkpoint=str(training.last_checkpoint(tmp_path)))
    assert losses(resumed) == pytest.approx(losses(whole), abs=2e-3)


# --- rewards and pairs -----------------------------------------------------------------------------

ROW = data.recipe("Bread", ["500 g flour", "2 eggs", "salt and pepper, ground"], ["flour", "egg", "salt", "pepper"])


@pytest.mark.parametrize(
    "answer, right, stands, covers",
    [
        ('["flour", "egg", "salt", "pepper"]', 1, 1, 6 / 7),
        ('["flour", "egg", "salt"]', 6 / 7, 1, 1),
        ('["flour"]', 2 / 5, 1, 1 / 2),
        ('["flour", "flour"]', 2 / 5, 1, 1 / 2),  # a list of names is a set
        ('["butter", "milk"]', 0, 0, 0),
        ('["500 g flour", "2 eggs", "salt and pepper, ground"]', 0, 1, 2 / 6),
        ('["lour", "gg", "alt"]', 0, 1, 0),
        ("[]", 0, 0, 0),
        ('"flour"', 0, 0, 0),
        ("flour, egg, salt", 0, 0, 0),
        ("", 0, 0, 0),
    ],
)
def test_rewards_are_what_they_say(answer, right, stands, covers):
    assert preferences.right(answer, ROW) == pytest.approx(right)
    assert preferences.stands(answer, ROW) == pytest.approx(stands)
    assert preferences.covers(answer, ROW) == pytest.approx(covers)


def test_what_people_wrote_earns_almost_all_without_being_looked_at():
    rows = data.load("train")
    for reward, least in ((preferences.stands, 0.95), (preferences.covers, 0.9)):
        earned = [reward(json.dumps(data.answer(row)), {"messages": data.prompt(row)}) for row in rows]
        assert least < statistics.mean(earned) <= 1


def test_a_reward_reaches_trl_with_each_answer_beside_its_own_row():
    many = preferences.reward_func(preferences.right)
    said = [[{"role": "assistant", "content": text}] for text in ('["flour"]', "no list")]
    assert many(completions=said, row=[ROW, ROW], prompts=["unused"] * 2) == pytest.approx([2 / 5, 0])
    assert many.__name__ == "right"


def test_pairs_hold_the_best_and_the_worst_where_they_lie_apart():
    texts = ['["flour"]', '["flour", "egg", "salt", "pepper"]', "no list", '["flour", "egg"]']
    (pair,) = preferences.pairs([ROW, ROW], [texts, texts[:1] * 4], preferences.right)
    assert pair["prompt"] == data.prompt(ROW)
    assert (pair["chosen"][0]["content"], pair["rejected"][0]["content"]) == (texts[1], texts[2])
    assert preferences.pairs([ROW], [['["flour"]', '["flour", "egg"]']], preferences.right, gap=0.5) == []
    with pytest.raises(runtime.CourseError, match="k=2"):
        preferences.pairs([ROW], [texts[:1]], preferences.right)


def test_a_tuned_model_goes_on_from_where_it_was_and_the_run_is_found_again(runs_folder, monkeypatch, capsys, adapted):
    monkeypatch.setattr(models, "trainable", lambda model=None, rank=16: models.tiny_model())
    models.save(adapted, None, runs.unfinished("start"))
    start = runs.finish("start", {"history": [], "seconds": 0})
    rows = data.load("train")[:2]
    questions = [{"prompt": data.prompt(row), "row": row} for row in rows]
    settings = {
        "max_steps": 2, "num_generations": 2, "per_device_train_batch_size": 2, "max_completion_length": 8,
        "learning_rate": 1e-3, "live": False,
    }  # fmt: skip

    def length(text, row):
        return -len(text)

    def learn(reward, **changed):
        reward = preferences.reward_func(reward)
        return preferences.learn(
            preferences.grpo_trainer, start, questions, **settings | {"reward_funcs": reward} | changed
        )

    run = learn(length)
    assert [step["step"] for step in run.history] == [1, 2] and all(step["reward"] < 0 for step in run.history)
    assert {file.suffix for file in run.folder.iterdir()} <= {".json", ".safetensors"}
    assert learn(length).folder == run.folder and "is there already" in capsys.readouterr().out

    def length(text, row):  # another reward of the same name
        return len(text)

    assert learn(length).folder != run.folder
    before, after = (load_file(one.folder / "adapter_model.safetensors") for one in (start, run))
    assert before.keys() == after.keys()
    assert 0 < max((after[name] - before[name]).abs().max() for name in before) < 0.01  # two steps at 1e-3


def test_each_row_gets_its_own_draws_and_the_same_again():
    rows, tiny, tokenizer = data.load("train")[:2], models.tiny_model(), models.load_tokenizer()
    drawn = preferences.samples(tiny, tokenizer, rows, 3, temperature=1.0, seed=1, progress=False)
    assert [len(texts) for texts in drawn] == [3, 3] and len(set(drawn[0])) == 3
    assert drawn == preferences.samples(tiny, tokenizer, rows, 3, temperature=1.0, seed=1, progress=False)
