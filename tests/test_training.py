"""The trainer: its optimizer, its batches, its runs that survive a kill."""

from __future__ import annotations

import copy
import json

import pytest
import torch

from helpers import data, models, runs, training
from helpers.runtime import CourseError

QUIET = {"live": False}


def rows(count: int, start: int = 0) -> list[dict]:
    return data.load("train")[start : start + count]


def test_the_optimizer_does_not_lose_updates_that_bfloat16_cannot_hold():
    parameter = torch.nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    optimizer = training._optimizer_class()([parameter], lr=1e-4, weight_decay=0.0)
    for _ in range(100):  # each step is far below the spacing of bfloat16 at one
        parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        optimizer.zero_grad()
    assert optimizer.masters[0].mean().item() == pytest.approx(0.99, abs=1e-3)
    assert parameter[0].item() < 1 and parameter.grad is None


def test_the_optimizers_state_is_restored_to_the_bit():
    def steps(optimizer, parameter, count):
        for _ in range(count):
            parameter.grad = (parameter.detach() * 0.5 + 0.1).clone()
            optimizer.step()

    make = lambda: torch.nn.Parameter(torch.linspace(-1, 1, 8, dtype=torch.bfloat16))  # noqa: E731
    one, two = make(), make()
    first = training._optimizer_class()([one], lr=1e-2)
    steps(first, one, 5)
    second = training._optimizer_class()([two], lr=1e-2)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    steps(first, one, 5), steps(second, two, 5)
    assert torch.equal(first.masters[0], second.masters[0]) and torch.equal(one, two)


# --- batches -------------------------------------------------------------------------------------


def test_padding_has_no_label_though_its_token_is_the_end_token(tokenizer):
    batch = training.collate([data.encode(row, tokenizer) for row in rows(4)], tokenizer.pad_token_id)
    assert batch["input_ids"].shape == batch["labels"].shape
    for ids, labels, row in zip(batch["input_ids"], batch["labels"], rows(4), strict=True):
        length = len(data.encode(row, tokenizer)["input_ids"])
        assert (labels[length:] == -100).all()
        assert ids[length - 1] == labels[length - 1] == tokenizer.eos_token_id


def test_every_row_comes_once_an_epoch_and_batches_hold_rows_of_like_length():
    lengths = [(37 * i) % 101 + 5 for i in range(50)]
    sampler = training.LengthGroupedSampler(lengths, 8, seed=1)
    first = list(sampler)
    assert sorted(first) == list(range(50)) and list(sampler) == first
    spread = [max(b) - min(b) for b in ([lengths[i] for i in first[k : k + 8]] for k in range(0, 48, 8))]
    assert max(spread) <= 25
    sampler.set_epoch(1)
    assert sorted(sampler) == list(range(50)) and list(sampler) != first


def test_the_micro_batch_follows_memory():
    tiny = models.tiny_model()
    assert training.micro_batch_tokens(tiny, 100, free=0) == training.WIDTH
    sizes = [training.micro_batch_tokens(tiny, 100, free=k * 2**20) for k in range(100, 1000, 100)]
    assert sizes == sorted(sizes) and sizes[0] < sizes[-1] == 768
    lora = models.trainable(models.tiny_model())  # far fewer weights to keep gradients and moments for
    assert training.micro_batch_tokens(lora, 100, free=200 * 2**20) > training.micro_batch_tokens(
        tiny, 100, free=200 * 2**20
    )


def test_a_step_in_small_parts_learns_what_a_step_in_one_learns(tmp_path, monkeypatch):
    losses = []
    for tokens in (100, 5000):
        monkeypatch.setenv("COURSE_RUNS", str(tmp_path / str(tokens)))
        monkeypatch.setattr(training, "micro_batch_tokens", lambda *unused, tokens=tokens: tokens)
        run = training.fine_tune(rows(16), model=models.tiny_model(), epochs=2, batch_size=8, **QUIET)
        losses.append([row["loss"] for row in run.history])
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


# --- fine_tune -----------------------------------------------------------------------------------


def test_training_lowers_the_loss_of_a_tiny_model_and_records_what_happened(tiny, runs_folder):
    run = training.fine_tune(rows(16), model=tiny, method="full", epochs=4, batch_size=8, learning_rate=3e-3, **QUIET)
    losses = [row["loss"] for row in run.history]
    assert len(losses) == run.record["steps"] == 8
    assert losses[0] == pytest.approx(10.8, abs=0.3)  # the logarithm of the vocabulary's size
    assert losses[-1] < losses[0] - 1
    assert run.record["tokens_per_second"] > 0 and run.record["micro_batch_tokens"] >= training.WIDTH
    assert (run.folder / "model.safetensors").is_file()


def test_the_same_work_is_not_done_twice_and_other_work_is_not_taken_for_it(runs_folder, capsys):
    first = training.fine_tune(rows(8), model=models.tiny_model(), epochs=1, **QUIET)
    capsys.readouterr()
    again = training.fine_tune(rows(8), model=models.tiny_model(), epochs=1, **QUIET)
    assert again.folder == first.folder and "there already" in capsys.readouterr().out
    for change in (
        {"train_dataset": rows(8, 1)}, {"epochs": 2}, {"seed": 1}, {"rank": 8}, {"method": "full"},
        {"model": models.tiny_model(seed=1)}, {"learning_rate": 5e-4},
    ):  # fmt: skip
        arguments = {"train_dataset": rows(8), "model": models.tiny_model(), "epochs": 1, **change, **QUIET}
        assert training.fine_tune(arguments.pop("train_dataset"), **arguments).folder != first.folder, change


def test_the_same_seed_gives_the_same_adapter(tmp_path, monkeypatch):
    adapters = []
    for name in ("one", "two"):
        monkeypatch.setenv("COURSE_RUNS", str(tmp_path / name))
        run = training.fine_tune(rows(16), model=models.tiny_model(), epochs=1, seed=3, **QUIET)
        adapters.append((run.folder / "adapter_model.safetensors").read_bytes())
    assert adapters[0] == adapters[1]


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_a_run_that_was_killed_ends_as_if_nothing_had_happened(method, dtype, tmp_path, monkeypatch, capsys):
    from transformers import TrainerCallback

    class Kill(TrainerCallback):
        def on_step_end(self, args, state, control, **unused):
            if state.global_step == 4:
                raise KeyboardInterrupt

    def tune(*callbacks):
        model = models.tiny_model().to(dtype)
        return training.fine_tune(
            rows(20), model=model, method=method, epochs=2, batch_size=8, save_steps=3, callbacks=callbacks, **QUIET
        )

    monkeypatch.setenv("COURSE_RUNS", str(tmp_path / "whole"))
    whole = tune()
    monkeypatch.setenv("COURSE_RUNS", str(tmp_path / "killed"))
    with pytest.raises(KeyboardInterrupt):
        tune(Kill())
    (part,) = (tmp_path / "killed").glob("*.part")
    (part / "checkpoint-4").mkdir()  # a second kill, in the middle of writing a checkpoint
    plan = json.loads((part / "plan.json").read_text(encoding="utf-8"))
    monkeypatch.setattr(training, "micro_batch_tokens", lambda *a, **k: 99)  # memory looks different after the restart
    resumed = tune()
    assert "Taking up the run at step 3 of 6" in capsys.readouterr().out
    assert resumed.record["resumed"] and resumed.record["micro_batch_tokens"] == plan["micro_batch_tokens"]
    weights = "adapter_model.safetensors" if method == "lora" else "model.safetensors"
    assert (resumed.folder / weights).read_bytes() == (whole.folder / weights).read_bytes()
    assert [row["loss"] for row in resumed.history] == [row["loss"] for row in whole.history]
    assert not list(resumed.folder.glob("checkpoint-*"))


def test_callbacks_see_every_step(tiny, runs_folder):
    from transformers import TrainerCallback

    class Count(TrainerCallback):
        steps = 0

        def on_step_end(self, *args, **unused):
            Count.steps += 1

    training.fine_tune(rows(16), model=tiny, epochs=1, batch_size=8, callbacks=[Count()], **QUIET)
    assert Count.steps == 2


def test_validation_loss_is_that_of_the_validation_rows_after_each_epoch(tiny, runs_folder, tokenizer):
    held_out, how = rows(4, 50), {"method": "full", "learning_rate": 3e-3, "epochs": 2}
    run = training.fine_tune(rows(8), validation=held_out, model=tiny, **how, **QUIET)
    measured = {row["epoch"]: row["eval_loss"] for row in run.history if "eval_loss" in row}
    assert list(measured) == [1.0, 2.0]
    batch = training.collate([data.encode(row, tokenizer) for row in held_out], tokenizer.pad_token_id)
    with torch.no_grad():
        expected = models.load_model(run.folder, dtype="float32")(**batch).loss.item()
    assert measured[2.0] == pytest.approx(expected, rel=1e-3)  # that of the training rows is a hundredth lower


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"method": "qlora"}, "method"),
        ({"epochs": 0}, "epochs"),
        ({"batch_size": 0}, "batch_size"),
        ({"rank": 0}, "rank"),
        ({"learning_rate": 0}, "learning_rate=0"),
        ({"learning_rate": -1e-3}, "learning_rate=-0.001"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(settings, word, tiny, runs_folder):
    with pytest.raises(CourseError, match=word):
        training.fine_tune(rows(8), model=tiny, **settings)
    assert not list(runs_folder.glob("*"))


def test_a_bad_row_stops_everything_before_anything_is_written(tiny, runs_folder):
    broken = [*rows(8), {"messages": [{"role": "user", "content": "hello"}]}]
    with pytest.raises(data.DataError, match=":9:"):
        training.fine_tune(broken, model=tiny)
    assert not list(runs_folder.glob("*"))


def test_an_over_long_row_is_refused_not_cut(tiny, runs_folder):
    with pytest.raises(data.DataError, match="token"):
        training.fine_tune(rows(8), model=tiny, max_length=40)


def test_a_row_of_many_short_words_is_measured_in_tokens_not_in_letters(tiny, runs_folder):
    long = data.recipe("Long", ["a b c d " * 450], ["salt"])  # by its letters 1,300 tokens
    assert data.check([long], max_tokens=1500) == [] != data.check([long], max_tokens=1000)
    with pytest.raises(data.DataError, match="1,8.. tokens long, more than 1,500"):
        training.fine_tune([long], model=tiny, max_length=1500)


def test_the_key_of_a_run_hangs_on_the_code_that_makes_it(monkeypatch):
    before = runs.key(config={"epochs": 1})
    monkeypatch.setattr(runs, "fingerprint", lambda: {"training": "other"})
    assert runs.key(config={"epochs": 1}) != before


def test_a_change_of_any_room_that_training_imports_makes_other_runs():
    assert {"models", "kernels", "training"} <= set(runs.fingerprint())


def test_log_probabilities_without_triton_are_those_of_the_softmax_and_differentiable():
    from trl.trainer import utils

    training.without_triton()
    torch.manual_seed(0)
    hidden, weight = torch.randn(5, 8, requires_grad=True), torch.randn(11, 8)
    labels = torch.tensor([0, 3, 10, 2, 7])
    wanted = ("entropy", "mean_logits", "is_top1")
    logs, entropy, squares, mean, top = utils._ChunkedLogProbFunction.apply(
        hidden, weight, None, labels, 2.0, 4096, None, 1.0, wanted
    )
    law = torch.distributions.Categorical(logits=hidden @ weight.t() / 2.0)
    torch.testing.assert_close(logs, law.log_prob(labels))
    torch.testing.assert_close(entropy, law.entropy())
    assert squares is None and mean.shape == (5,) and top.tolist() == (law.probs.argmax(-1) == labels).tolist()
    (gradient,) = torch.autograd.grad(logs.sum(), hidden)
    (expected,) = torch.autograd.grad(law.log_prob(labels).sum(), hidden)
    torch.testing.assert_close(gradient, expected)
