"""A model as one file, and the engine that answers from it: the same answers, or an error that says why not."""

from __future__ import annotations

import json

import pytest

from helpers import models, serving
from helpers.runtime import CourseError

CHAT = [
    {"role": "system", "content": "List 12 eggs, 3½ cups crème & 200g of Käse."},
    {"role": "user", "content": "1 tsp. salt, 2 eggs.\n\n  1/2 cup  water 1234"},
]


@pytest.fixture(scope="module")
def file(tmp_path_factory, tokenizer):
    """A tiny random model in a GGUF file, Q8_0."""
    return serving.export(models.tiny_model(), tokenizer, tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture(scope="module")
def engine(file):
    """The real engine on that file."""
    with serving.Engine(file, "tiny") as running:
        yield running


def first_token(engine, tokenizer, model, chat=CHAT):
    """Log-probabilities of the likeliest first tokens of an answer: the engine's, and the model's own."""
    import torch

    told = engine.client.chat.completions.create(
        model=engine.name, messages=chat, max_tokens=1, temperature=0, logprobs=True, top_logprobs=5
    )
    top = told.choices[0].logprobs.content[0].top_logprobs
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    with torch.inference_mode():
        own = model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
    return [token.logprob for token in top], [own[token.id].item() for token in top], told.usage.prompt_tokens, len(ids)


def attentive(seed: int):
    """A tiny model whose heads look at single tokens: as it is made, they look at all alike, wherever these stand."""
    import torch

    model = models.tiny_model(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "self_attn" in name:
                weight.mul_(8 if "q_proj" in name or "k_proj" in name else 4)
    return model


@pytest.mark.parametrize(("kind", "tolerance"), [("f16", 1e-3), ("Q8_0", 1e-2), ("Q4_0", 1e-1)])
def test_the_engine_gives_the_models_own_probabilities_within_what_rounding_takes(kind, tolerance, tmp_path, tokenizer):
    model = attentive(seed=3)
    path = serving.export(model, tokenizer, tmp_path / "model.gguf", kind)
    with serving.Engine(path) as engine:
        theirs, own, _, _ = first_token(engine, tokenizer, model)
    assert theirs == pytest.approx(own, abs=tolerance)


def test_the_engine_counts_the_same_prompt_tokens_as_our_tokenizer(engine, tokenizer, tiny):
    for text in ("", "eggs", "3½ cups  flour,\n\n\t2 Käse – 1,250 g", "naïve 日本 🥚", "don't I'll 'tis", "x" * 50):
        _, _, theirs, ours = first_token(engine, tokenizer, tiny, [*CHAT[:1], {"role": "user", "content": text}])
        assert theirs == ours, text


def test_fewer_bits_make_a_smaller_file(tmp_path, tokenizer):
    model = models.tiny_model()
    sizes = [serving.export(model, tokenizer, tmp_path / kind, kind).stat().st_size for kind in serving.KINDS]
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == 3


def test_a_head_of_its_own_is_exported_and_used(tmp_path, tokenizer):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    shape = {**models.tiny_model().config.to_dict(), "tie_word_embeddings": False}
    model = LlamaForCausalLM(LlamaConfig(**shape)).eval()
    with serving.Engine(serving.export(model, tokenizer, tmp_path / "untied.gguf", "f16")) as engine:
        theirs, own, _, _ = first_token(engine, tokenizer, model)
    assert theirs == pytest.approx(own, abs=1e-3)


def test_what_cannot_be_exported_is_refused_and_leaves_no_file(tmp_path, tokenizer, tiny):
    from transformers import GPT2Config, GPT2LMHeadModel

    other = GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=16))
    for model, kind, word in (
        (tiny, "Q5_K", "f16, Q8_0, Q4_0"),
        (other, "f16", "'gpt2'"),
        (models.trainable(tiny), "f16", "merge it"),
    ):
        with pytest.raises(CourseError, match=word):
            serving.export(model, tokenizer, tmp_path / "model.gguf", kind)
    assert list(tmp_path.iterdir()) == []


def test_an_export_that_stops_halfway_leaves_the_old_file(file, tmp_path, tokenizer, tiny, monkeypatch):
    path = tmp_path / "model.gguf"
    path.write_bytes(b"old")
    monkeypatch.setattr(tokenizer, "chat_template", 7)  # no text: the writer stops
    with pytest.raises(Exception):  # noqa: B017  (whatever it is, the file must survive it)
        serving.export(tiny, tokenizer, path)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_the_official_client_is_answered_by_the_name_that_was_given(engine):
    assert [model.id for model in engine.client.models.list()] == ["tiny"]
    told = engine.client.chat.completions.create(model="tiny", messages=CHAT, max_completion_tokens=4, temperature=0)
    assert told.usage.completion_tokens == 4 and told.choices[0].finish_reason == "length"


def test_a_proxy_of_the_machine_does_not_come_between_client_and_engine(file, proxied):
    with serving.Engine(file, "tiny") as engine:
        assert [model.id for model in engine.client.models.list()] == ["tiny"]


def test_without_its_key_the_engine_answers_nobody_and_shows_nobodys_questions(engine):
    from openai import AuthenticationError, OpenAI

    with pytest.raises(AuthenticationError):
        OpenAI(base_url=f"{engine.address}/v1", api_key="guessed", max_retries=0).chat.completions.create(
            model="tiny", messages=CHAT
        )
    assert engine.address.startswith("http://127.0.0.1:")
    assert engine.client.with_options(max_retries=0)._client.get(
        f"{engine.address}/slots", headers={"Authorization": f"Bearer {engine.api_key}"}
    ).status_code >= 400  # fmt: skip


def test_the_key_stands_in_no_command_line(engine):
    import psutil

    assert engine.api_key not in json.dumps(psutil.Process(engine.process.pid).cmdline())


def test_a_stopped_engine_is_gone_and_may_be_stopped_again(file):
    import psutil

    engine = serving.Engine(file)
    assert engine.memory_mb() > 10 and "running" in repr(engine)
    engine.stop()
    engine.stop()
    assert not psutil.pid_exists(engine.process.pid) and "stopped" in repr(engine)


def test_an_engine_ends_with_the_process_that_started_it(file, alive):
    import subprocess
    import sys
    import time

    from helpers import runtime

    code = f"import os; from helpers import serving; engine = serving.Engine({str(file)!r})\n"
    code += "print(engine.process.pid, flush=True); os._exit(1)"  # without a word of farewell
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=runtime.ROOT, check=False)
    engine, deadline = int(done.stdout), time.monotonic() + 20
    while alive(engine):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_file_that_is_missing_or_no_model_is_named(tmp_path):
    with pytest.raises(CourseError, match="none.gguf does not exist"):
        serving.Engine(tmp_path / "none.gguf")
    (tmp_path / "torn.gguf").write_bytes(b"GGUF and then nothing")
    with pytest.raises(CourseError, match="did not start on torn.gguf: .*Failed"):
        serving.Engine(tmp_path / "torn.gguf")


def test_where_the_engine_is_not_installed_the_remedy_is_said(file, monkeypatch):
    monkeypatch.setattr(serving.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CourseError, match="helpers start"):
        serving.Engine(file)
