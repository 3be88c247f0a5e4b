"""The practice endpoint as the official client meets it: a real server, real training, real answers."""

from __future__ import annotations

import asyncio
import csv
import hashlib
import io
import json
import os
import time

import openai
import pytest
from hosted import MODEL, everything_under, exact, lines, short_rows, upload, wait
from openai import types

from helpers import data, endpoint, models

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
ROWS = 12


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with endpoint.serve(tmp_path_factory.mktemp("endpoint")) as running:
        yield running


@pytest.fixture(scope="module")
def client(server):
    return openai.OpenAI(base_url=server.base_url, api_key=server.api_key, max_retries=0)


@pytest.fixture(scope="module")
def trained(client):
    """A job of one epoch on twelve rows with validation, trained for real."""
    job = client.fine_tuning.jobs.create(
        model=MODEL, training_file=upload(client, short_rows(ROWS)), suffix="tests", seed=7,
        validation_file=upload(client, data.load("validation")[:3]), metadata={"lesson": "ten"},
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2}}},
    )  # fmt: skip
    return wait(client, job.id)


def raw(method, *arguments, **options) -> object:
    """The JSON of an answer, through the client's own raw responses."""
    return json.loads(method(*arguments, **options).text)


def ask(client, messages=QUESTION, **options):
    options = {"model": MODEL, "temperature": 0, "max_tokens": 24} | options
    return client.chat.completions.create(messages=messages, **options)


# --- files -----------------------------------------------------------------------------------------


def test_a_file_comes_back_byte_for_byte_and_is_gone_once_deleted(client):
    content = lines(short_rows(3))
    made = raw(client.files.with_raw_response.create, file=("rows.jsonl", content), purpose="fine-tune")
    exact(types.FileObject, made)
    assert made["bytes"] == len(content) and made["filename"] == "rows.jsonl"
    assert raw(client.files.with_raw_response.retrieve, made["id"]) == made
    assert client.files.content(made["id"]).read() == content
    exact(types.FileDeleted, raw(client.files.with_raw_response.delete, made["id"]))
    with pytest.raises(openai.NotFoundError, match="No such File object"):
        client.files.retrieve(made["id"])


def test_pages_of_files_hold_each_file_once_in_either_order_even_while_files_are_deleted(client):
    made = [client.files.create(file=("a.txt", b"x"), purpose="user_data").id for _ in range(5)]
    listed = [file.id for file in client.files.list(purpose="user_data", limit=2)]
    assert listed == made[::-1]
    assert [file.id for file in client.files.list(purpose="user_data", limit=2, order="asc")] == made
    for file in client.files.list(purpose="user_data", limit=2):
        client.files.delete(file.id)
    assert not list(client.files.list(purpose="user_data"))


def test_a_file_uploaded_in_parts_is_the_whole_file(client):
    content = lines(short_rows(8))
    half = len(content) // 2
    made = raw(
        client.uploads.with_raw_response.create,
        bytes=len(content), filename="parts.jsonl", mime_type="application/jsonl", purpose="fine-tune",
    )  # fmt: skip
    exact(types.Upload, made)
    parts = [
        raw(client.uploads.parts.with_raw_response.create, made["id"], data=part)
        for part in (content[:half], content[half:])
    ]
    exact(types.uploads.UploadPart, parts[0])
    names = [part["id"] for part in parts]
    with pytest.raises(openai.BadRequestError, match="checksum"):
        client.uploads.complete(made["id"], part_ids=names, md5="0" * 32)
    with pytest.raises(openai.BadRequestError, match="of the"):
        client.uploads.complete(made["id"], part_ids=names[:1])
    done = raw(
        client.uploads.with_raw_response.complete, made["id"], part_ids=names, md5=hashlib.md5(content).hexdigest()
    )
    exact(types.Upload, done)
    assert client.files.content(done["file"]["id"]).read() == content
    with pytest.raises(openai.BadRequestError, match="completed"):
        client.uploads.cancel(made["id"])


def test_the_clients_own_chunked_upload_works(client, tmp_path):
    path = tmp_path / "chunked.jsonl"
    path.write_bytes(lines(short_rows(4)))
    done = client.uploads.upload_file_chunked(
        file=path, mime_type="application/jsonl", purpose="fine-tune", part_size=500
    )
    assert client.files.content(done.file.id).read() == path.read_bytes()


# --- jobs --------------------------------------------------------------------------------------------


def test_a_job_ends_with_a_model_and_reports_what_it_did(client, trained, tokenizer):
    assert trained.status == "succeeded", trained.error
    exact(types.fine_tuning.FineTuningJob, raw(client.fine_tuning.jobs.with_raw_response.retrieve, trained.id))
    counted = data.count_tokens(short_rows(ROWS), tokenizer)
    assert trained.trained_tokens == 2 * (counted["prompt"] + counted["completion"])
    assert trained.fine_tuned_model.startswith(f"ft:{MODEL}:practice:tests:")
    chosen = trained.hyperparameters  # `auto` has become numbers
    assert (chosen.n_epochs, chosen.batch_size, chosen.learning_rate_multiplier) == (2, 4, 1.0)
    assert trained.method.supervised.hyperparameters.batch_size == 4


def test_events_tell_the_steps_in_order_with_a_loss_that_falls(client, trained):
    events = list(client.fine_tuning.jobs.list_events(trained.id, limit=4))  # over several pages
    exact(
        list[types.fine_tuning.FineTuningJobEvent],
        raw(client.fine_tuning.jobs.with_raw_response.list_events, trained.id)["data"],
    )
    messages = [event.message for event in events]
    assert messages[0] == "The job has successfully completed" and messages[-1].startswith("Created fine-tuning job")
    metrics = [event.data for event in reversed(events) if event.type == "metrics"]
    assert [one["step"] for one in metrics] == list(range(1, 1 + metrics[0]["total_steps"]))
    assert metrics[-1]["train_loss"] < metrics[0]["train_loss"]


def test_each_epoch_leaves_a_checkpoint_that_answers_like_a_model(client, trained):
    listed = raw(client.fine_tuning.jobs.checkpoints.with_raw_response.list, trained.id)
    exact(list[types.fine_tuning.jobs.FineTuningJobCheckpoint], listed["data"])
    assert [one["step_number"] for one in listed["data"]] == [6, 3]
    losses = [one["metrics"]["full_valid_loss"] for one in listed["data"]]
    assert losses[0] < losses[1]
    last, first = (one["fine_tuned_model_checkpoint"] for one in listed["data"])
    question = data.prompt(data.load("validation")[0])
    said = {
        name: ask(client, question, model=name, max_tokens=40).choices[0].message.content
        for name in (trained.fine_tuned_model, last, first)
    }
    assert said[trained.fine_tuned_model] == said[last]
    assert said[last] != said[first]


def test_a_checkpoint_can_be_shared_with_projects_and_taken_back(client, trained):
    permissions = client.fine_tuning.checkpoints.permissions
    name = client.fine_tuning.jobs.checkpoints.list(trained.id).data[0].fine_tuned_model_checkpoint
    made = raw(permissions.with_raw_response.create, name, project_ids=["proj_a", "proj_b", "proj_a"])
    exact(list[types.fine_tuning.checkpoints.PermissionCreateResponse], made["data"])
    assert [one["project_id"] for one in made["data"]] == ["proj_a", "proj_b"]
    newest = raw(permissions.with_raw_response.list, name, limit=1)
    exact(list[types.fine_tuning.checkpoints.PermissionListResponse], newest["data"])
    assert [one.project_id for one in permissions.list(name, limit=1)] == ["proj_b", "proj_a"]
    assert [one.project_id for one in permissions.list(name, project_id="proj_a")] == ["proj_a"]
    taken = raw(permissions.with_raw_response.delete, newest["data"][0]["id"], fine_tuned_model_checkpoint=name)
    exact(types.fine_tuning.checkpoints.PermissionDeleteResponse, taken)
    assert [one.project_id for one in permissions.list(name)] == ["proj_a"]
    for lost in (
        lambda: permissions.delete(newest["data"][0]["id"], fine_tuned_model_checkpoint=name),
        lambda: permissions.create("ft:none", project_ids=["proj_a"]),
    ):
        with pytest.raises(openai.NotFoundError):
            lost()


def test_the_result_file_holds_the_losses_of_the_events(client, trained):
    file = client.files.retrieve(trained.result_files[0])
    assert file.purpose == "fine-tune-results"
    rows = list(csv.DictReader(io.StringIO(client.files.content(file.id).text)))
    events = {
        event.data["step"]: event.data["train_loss"]
        for event in client.fine_tuning.jobs.list_events(trained.id)
        if event.type == "metrics"
    }
    assert {int(row["step"]): float(row["train_loss"]) for row in rows} == pytest.approx(events)
    assert rows[-1]["valid_loss"]


def test_jobs_are_listed_with_cursors_and_found_by_metadata(client, trained):
    file = upload(client, short_rows(10))
    more = [client.fine_tuning.jobs.create(model=MODEL, training_file=file).id for _ in range(2)]
    for job in more:
        client.fine_tuning.jobs.cancel(job)
    listed = [job.id for job in client.fine_tuning.jobs.list(limit=1)]  # a page for each
    assert listed[:2] == more[::-1] and trained.id in listed and len(set(listed)) == len(listed)
    assert [job.id for job in client.fine_tuning.jobs.list(metadata={"lesson": "ten"})] == [trained.id]
    assert not list(client.fine_tuning.jobs.list(metadata={"lesson": "eleven"}))


def test_a_tuned_model_is_what_the_course_trains_and_decodes_locally(client, trained, server, tokenizer):
    rows = data.load("validation")[:4]
    hosted = [ask(client, data.prompt(row), model=trained.fine_tuned_model, max_tokens=40) for row in rows]
    model = models.load_model(server.folder / "model" / _folder_of(server, trained.fine_tuned_model) / "0")
    local = models.generate(model, tokenizer, [data.prompt(row) for row in rows], max_new_tokens=40, progress=False)
    assert [answer.choices[0].message.content for answer in hosted] == [answer["text"] for answer in local]
    usage = [(answer.usage.prompt_tokens, answer.usage.completion_tokens) for answer in hosted]
    assert usage == [(answer["prompt_tokens"], answer["completion_tokens"]) for answer in local]


def _folder_of(server, name: str) -> str:
    import sqlite3

    database = sqlite3.connect(server.folder / "endpoint.sqlite")
    (body,) = database.execute("SELECT body FROM objects WHERE kind = 'model' AND id = ?", (name,)).fetchone()
    return json.loads(body)["_folder"]


@pytest.mark.slow  # the lesson goes the same way in the default tier
def test_a_tuned_model_can_be_tuned_again_with_tool_calls_and_deleted(client, trained):
    tools = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}]

    def row(number: int) -> dict:
        call = {"name": "look_up", "arguments": json.dumps({"word": f"word{number}"})}
        return {
            "messages": [
                {"role": "user", "content": f"What does word{number} mean?"},
                {"role": "assistant", "tool_calls": [{"id": "a", "type": "function", "function": call}]},
            ],
            "tools": tools,
        }

    job = client.fine_tuning.jobs.create(
        model=trained.fine_tuned_model, training_file=upload(client, [row(number) for number in range(16)]),
        hyperparameters={"n_epochs": 6}, seed=1,
    )  # fmt: skip
    again = wait(client, job.id)
    assert again.status == "succeeded", again.error
    answer = client.chat.completions.create(
        model=again.fine_tuned_model, messages=[{"role": "user", "content": "What does word3 mean?"}],
        tools=tools, temperature=0, max_tokens=60,
    )  # fmt: skip
    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls", choice
    (call,) = choice.message.tool_calls
    assert call.function.name == "look_up" and "word" in json.loads(call.function.arguments)
    pieces = list(
        client.chat.completions.create(
            model=again.fine_tuned_model, messages=[{"role": "user", "content": "What does word3 mean?"}],
            tools=tools, temperature=0, max_tokens=60, stream=True,
        )
    )  # fmt: skip
    streamed = [piece.choices[0].delta.tool_calls for piece in pieces if piece.choices[0].delta.tool_calls]
    assert streamed[0][0].function.arguments == call.function.arguments
    assert not any(piece.choices[0].delta.content for piece in pieces)
    exact(types.ModelDeleted, raw(client.models.with_raw_response.delete, again.fine_tuned_model))
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        client.chat.completions.create(model=again.fine_tuned_model, messages=QUESTION)


def test_a_paused_job_goes_on_where_it_stopped_and_a_cancelled_one_stops(client):
    file = upload(client, short_rows(40))
    job = client.fine_tuning.jobs.create(model=MODEL, training_file=file, hyperparameters={"n_epochs": 3}, seed=1)
    queued = client.fine_tuning.jobs.create(model=MODEL, training_file=file, hyperparameters={"n_epochs": 3}, seed=2)
    _until_step(client, job.id, 3)
    client.fine_tuning.jobs.pause(job.id)
    assert wait(client, job.id).status == "paused"
    assert client.fine_tuning.jobs.cancel(queued.id).status == "cancelled"
    with pytest.raises(openai.BadRequestError, match="cannot be resumed"):
        client.fine_tuning.jobs.resume(queued.id)
    before = _steps(client, job.id)
    client.fine_tuning.jobs.resume(job.id)
    _until_step(client, job.id, max(before) + 1)
    steps = _steps(client, job.id)
    assert sorted(steps) == list(range(1, 1 + max(steps)))  # none was made twice
    client.fine_tuning.jobs.cancel(job.id)
    time.sleep(1)
    stopped = _steps(client, job.id)
    time.sleep(2)
    assert _steps(client, job.id) == stopped
    assert client.fine_tuning.jobs.retrieve(job.id).fine_tuned_model is None


def _steps(client, job: str) -> list[int]:
    return [event.data["step"] for event in client.fine_tuning.jobs.list_events(job) if event.type == "metrics"]


def _until_step(client, job: str, step: int) -> None:
    deadline = time.monotonic() + 180
    while max(_steps(client, job), default=0) < step:
        assert time.monotonic() < deadline and client.fine_tuning.jobs.retrieve(job).status != "failed"
        time.sleep(0.2)


@pytest.mark.slow  # the lesson goes the same way in the default tier
def test_preferences_are_learned(client):
    rows = [
        {
            "input": {"messages": [{"role": "user", "content": f"Say hello to guest {number}."}]},
            "preferred_output": [{"role": "assistant", "content": "Ahoy!"}],
            "non_preferred_output": [{"role": "assistant", "content": "Good morning."}],
        }
        for number in range(12)
    ]
    marked = b"\xef\xbb\xbf" + lines(rows)  # with a byte order mark, as Azure wants it
    job = client.fine_tuning.jobs.create(
        model=MODEL, training_file=upload(client, marked), seed=1,
        method={"type": "dpo", "dpo": {"hyperparameters": {"n_epochs": 1, "beta": 0.1}}},
    )  # fmt: skip
    done = wait(client, job.id)
    assert done.status == "succeeded", done.error
    losses = [e.data["train_loss"] for e in client.fine_tuning.jobs.list_events(done.id) if e.type == "metrics"][::-1]
    assert losses[0] == pytest.approx(0.693, abs=0.02)  # log 2: the model and its reference are still the same
    assert losses[-1] < losses[0]
    assert done.trained_tokens > 12 * 2 * 10  # each row is read twice: with the better and with the worse answer


@pytest.mark.slow  # the lesson goes the same way in the default tier
def test_a_grader_is_what_reinforcement_learns_from(client):
    rows = [{"messages": [{"role": "user", "content": f"Say a word, number {n}."}], "wanted": "a"} for n in range(10)]
    grader = {
        "type": "python", "name": "letters",
        "source": "def grade(sample, item):\n    text = sample['output_text']\n"
        "    return text.count(item['wanted']) / max(1, len(text))",
    }  # fmt: skip
    job = client.fine_tuning.jobs.create(
        model=MODEL, training_file=upload(client, rows), seed=1,
        method={"type": "reinforcement", "reinforcement": {"grader": grader, "hyperparameters": {"batch_size": 5}}},
    )  # fmt: skip
    done = wait(client, job.id)
    assert done.status == "succeeded", done.error
    rewards = [e.data["train_mean_reward"] for e in client.fine_tuning.jobs.list_events(done.id) if e.type == "metrics"]
    assert len(rewards) == 2 and all(0 < reward < 1 for reward in rewards)
    assert done.trained_tokens > 0


SEVERAL_TURNS = {
    "messages": [{"role": role, "content": f"{role} {turn}"} for turn in (1, 2) for role in ("user", "assistant")]
}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (lines(short_rows(3)), "must have at least 10"),
        (b"{broken\n" * 12, "line 1"),
        (lines([{"messages": [{"role": "user", "content": f"{n}"}]} for n in range(12)]), "no assistant turn"),
        (lines([{"prompt": "a", "completion": "b"}] * 12), "messages"),
        (lines([{"input": 1}] * 12), "messages"),
        (b"\xff\xfe\x00" * 40, "UTF-16"),
        # The first line makes two rows, yet lines are counted as they stand in the file.
        (lines([SEVERAL_TURNS, *short_rows(12), short_rows(2)[1]]), "file:14: messages: repeats line 3"),
    ],
)
def test_a_file_that_cannot_be_trained_on_fails_the_job_with_the_reason(server, client, content, reason):
    job = client.fine_tuning.jobs.create(model=MODEL, training_file=upload(client, content))
    failed = wait(client, job.id)
    assert failed.status == "failed" and failed.error.code == "invalid_training_file"
    assert reason in failed.error.message and failed.error.param == "training_file"
    for place in (server.folder, os.getcwd()):
        assert str(place) not in failed.error.message


# --- chat --------------------------------------------------------------------------------------------


def test_greedy_answers_are_the_courses_own_whoever_else_is_asking(client, tokenizer):
    chats = [data.prompt(row) for row in data.load("validation")[:3]] + [QUESTION]
    local = models.generate(models.load_model(), tokenizer, chats, max_new_tokens=24, progress=False)

    async def together():
        async with openai.AsyncOpenAI(base_url=client.base_url, api_key=client.api_key) as many:
            return await asyncio.gather(*(
                many.chat.completions.create(model=MODEL, messages=chat, temperature=0, max_tokens=24)
                for chat in chats * 3
            ))  # fmt: skip

    answers = asyncio.run(together())
    assert [answer.choices[0].message.content for answer in answers] == [one["text"] for one in local] * 3


def test_an_answer_has_the_official_shape_in_one_piece_and_streamed(client):
    options = {"logprobs": True, "top_logprobs": 2, "n": 2, "seed": 5, "temperature": 0.8}
    whole = raw(
        client.chat.completions.with_raw_response.create, model=MODEL, messages=QUESTION, max_tokens=12, **options
    )
    exact(types.chat.ChatCompletion, whole)
    pieces = list(ask(client, stream=True, stream_options={"include_usage": True}, max_tokens=12, **options))
    for piece in pieces:
        exact(types.chat.ChatCompletionChunk, piece.model_dump(exclude_unset=True))
    for choice in whole["choices"]:
        mine = [piece.choices[0] for piece in pieces if piece.choices and piece.choices[0].index == choice["index"]]
        assert "".join(one.delta.content or "" for one in mine) == choice["message"]["content"]
        assert mine[-1].finish_reason == choice["finish_reason"]
        streamed = [token.logprob for one in mine if one.logprobs for token in one.logprobs.content]
        assert streamed == [token["logprob"] for token in choice["logprobs"]["content"]]
    assert pieces[-1].usage.model_dump(exclude_unset=True) == whole["usage"]


def test_sampling_is_reproducible_by_seed_and_differs_among_choices(client):
    first, second = (ask(client, temperature=1.2, seed=11, n=3) for _ in range(2))
    texts = [choice.message.content for choice in first.choices]
    assert texts == [choice.message.content for choice in second.choices]
    assert len(set(texts)) == 3
    assert len({ask(client, temperature=1.2, top_p=1e-9, seed=s).choices[0].message.content for s in range(3)}) == 1


def test_an_answer_ends_at_the_limit_or_before_a_stop_text(client):
    full = ask(client).choices[0].message.content
    cut = ask(client, max_tokens=3)
    assert cut.choices[0].finish_reason == "length" and cut.usage.completion_tokens == 3
    stopped = ask(client, stop=[" Paris"]).choices[0]
    assert stopped.finish_reason == "stop" and stopped.message.content == full.split(" Paris")[0]
    pieces = ask(client, stop=[" Paris"], stream=True)
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == stopped.message.content


def test_logprobs_are_those_of_the_tokens_and_the_likeliest_comes_first(client, tokenizer):
    content = ask(client, logprobs=True, top_logprobs=3).choices[0].logprobs.content
    for token in content:
        assert token.logprob <= 0 and token.token == token.top_logprobs[0].token
        assert [one.logprob for one in token.top_logprobs] == sorted(
            (o.logprob for o in token.top_logprobs), reverse=True
        )
    import torch

    ids = tokenizer.apply_chat_template(QUESTION, add_generation_prompt=True, return_dict=False)
    with torch.inference_mode():
        own = models.load_model()(torch.tensor([ids])).logits[0, -1].float().log_softmax(-1).topk(3).values.tolist()
    assert [one.logprob for one in content[0].top_logprobs] == pytest.approx(own, abs=0.3)
    assert content[0].logprob == content[0].top_logprobs[0].logprob
    assert bytes(b for token in content for b in token.bytes).decode() == ask(client).choices[0].message.content


def test_bias_and_penalties_move_the_choice(client, tokenizer):
    paris = tokenizer(" Paris")["input_ids"][0]
    assert "Paris" not in ask(client, logit_bias={str(paris): -100}).choices[0].message.content

    story = [{"role": "user", "content": "Write a long story about the sea."}]

    def repeated(**penalty):
        words = ask(client, story, max_tokens=40, **penalty).choices[0].message.content.split()
        return len(words) - len(set(words))

    assert repeated(frequency_penalty=2) < repeated(frequency_penalty=-2)
    assert repeated(presence_penalty=2) < repeated(presence_penalty=-2)


def test_an_answer_can_be_held_to_a_schema_or_to_a_tool(client):
    schema = {
        "type": "object", "properties": {"city": {"type": "string", "maxLength": 12}}, "required": ["city"],
        "additionalProperties": False,
    }  # fmt: skip
    held = {"type": "json_schema", "json_schema": {"name": "place", "schema": schema}}
    said = json.loads(ask(client, response_format=held, max_tokens=40).choices[0].message.content)
    assert list(said) == ["city"]
    tool = {"type": "function", "function": {"name": "find", "parameters": schema}}
    choice = ask(client, tools=[tool], tool_choice="required", max_tokens=60).choices[0]
    assert choice.finish_reason == "tool_calls" and choice.message.content is None
    assert choice.message.tool_calls[0].function.name == "find"
    assert list(json.loads(choice.message.tool_calls[0].function.arguments)) == ["city"]


def test_stored_completions_can_be_found_changed_and_deleted(client):
    made = ask(client, store=True, metadata={"for": "keeping"})
    found = raw(client.chat.completions.with_raw_response.retrieve, made.id)
    exact(types.chat.ChatCompletion, found)
    assert found["metadata"] == {"for": "keeping"} and made.id in [one.id for one in client.chat.completions.list()]
    assert client.chat.completions.update(made.id, metadata={"for": "later"}).metadata == {"for": "later"}
    messages = list(client.chat.completions.messages.list(made.id))
    assert [message.content for message in messages] == [QUESTION[0]["content"]]
    client.chat.completions.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.retrieve(made.id)


def test_models_are_listed_with_the_base_model_that_nobody_may_delete(client, trained):
    listed = raw(client.models.with_raw_response.list)
    exact(list[types.Model], listed["data"])
    assert {MODEL, trained.fine_tuned_model} <= {model["id"] for model in listed["data"]}
    exact(types.Model, raw(client.models.with_raw_response.retrieve, trained.fine_tuned_model))
    with pytest.raises(openai.PermissionDeniedError):
        client.models.delete(MODEL)


# --- graders -----------------------------------------------------------------------------------------


def test_a_grader_can_be_tried_before_a_job_uses_it(client):
    grader = {
        "type": "string_check", "name": "same", "operation": "eq", "input": "{{ sample.output_text }}",
        "reference": "{{ item.wanted }}",
    }  # fmt: skip
    alpha = client.fine_tuning.alpha.graders
    assert raw(alpha.with_raw_response.validate, grader=grader) == {"grader": grader}
    answer = raw(alpha.with_raw_response.run, grader=grader, model_sample="yes", item={"wanted": "yes"})
    exact(types.fine_tuning.alpha.GraderRunResponse, answer)
    assert answer["reward"] == 1
    assert alpha.run(grader=grader, model_sample="no", item={"wanted": "yes"}).reward == 0
    with pytest.raises(openai.BadRequestError) as refused:
        alpha.validate(grader=grader | {"operation": "sounds_like"})
    assert refused.value.code == "invalid_grader" and refused.value.param == "grader.operation"


# --- Azure -------------------------------------------------------------------------------------------


def test_on_azures_paths_a_tuned_model_answers_only_where_it_is_deployed(server, client, trained):
    v1 = openai.OpenAI(base_url=server.azure_url, api_key=server.api_key, max_retries=0)
    classic = openai.AzureOpenAI(
        azure_endpoint=server.address, api_key=server.api_key, api_version="2025-04-01-preview", max_retries=0
    )
    account = f"{server.address}/subscriptions/s/resourceGroups/g/providers/Microsoft.CognitiveServices/accounts/a"
    place = f"{account}/deployments/my-recipes"
    for one in (v1, classic):
        assert one.fine_tuning.jobs.retrieve(trained.id).id == trained.id
        for name in ("my-recipes", trained.fine_tuned_model):
            with pytest.raises(openai.NotFoundError) as lost:
                one.chat.completions.create(model=name, messages=QUESTION)
            assert lost.value.code == "DeploymentNotFound"
    wanted = {"sku": {"name": "standard", "capacity": 1}, "properties": {"model": {"name": trained.fine_tuned_model}}}
    status, made = _http(server, "PUT", place, wanted)
    assert status == 201 and made["properties"]["provisioningState"] == "Succeeded"
    question = data.prompt(data.load("validation")[1])
    said = [
        ask(one, question, model=name).choices[0].message.content
        for one, name in ((v1, "my-recipes"), (classic, "my-recipes"), (client, trained.fine_tuned_model))
    ]
    assert len(set(said)) == 1
    with pytest.raises(openai.ConflictError, match="delete the deployment") as refusal:
        v1.models.delete(trained.fine_tuned_model)
    assert refusal.value.response.headers["x-should-retry"] == "false"  # asking again would change nothing
    running = _http(server, "GET", f"{server.address}/practice/meter")[1]["data"][-1]
    assert running["ended_at"] is None and running["hours"] > 0
    assert _http(server, "DELETE", place)[0] == 200
    assert _http(server, "GET", f"{account}/deployments")[1] == {"value": []}
    stopped = [_http(server, "GET", f"{server.address}/practice/meter")[1]["data"][-1]["hours"] for _ in range(2)]
    assert stopped[0] == stopped[1]
    with pytest.raises(openai.NotFoundError, match="api-version"):
        openai.OpenAI(base_url=f"{server.address}/openai", api_key=server.api_key).models.list()


def _http(server, verb: str, address: str, body: object = None) -> tuple[int, object]:
    import urllib.request

    request = urllib.request.Request(
        f"{address}?api-version=2024-10-01", method=verb, data=json.dumps(body).encode() if body else None,
        headers={"Authorization": f"Bearer {server.api_key}", "Content-Type": "application/json"},
    )  # fmt: skip
    with urllib.request.urlopen(request) as answer:
        content = answer.read()
        return answer.status, json.loads(content) if content else None


# --- the asynchronous client -------------------------------------------------------------------------


def test_the_asynchronous_client_goes_all_the_way_too(server, trained):
    async def go() -> list[str]:
        async with openai.AsyncOpenAI(base_url=server.base_url, api_key=server.api_key, max_retries=0) as client:
            file = await client.files.create(file=("rows.jsonl", lines(short_rows(10))), purpose="fine-tune")
            assert (await client.files.content(file.id)).content == lines(short_rows(10))
            assert file.id in [one.id async for one in client.files.list(limit=2)]
            job = await client.fine_tuning.jobs.create(model=MODEL, training_file=file.id)
            assert (await client.fine_tuning.jobs.cancel(job.id)).status == "cancelled"
            assert job.id in [one.id async for one in client.fine_tuning.jobs.list(limit=1)]
            assert [event.message async for event in client.fine_tuning.jobs.list_events(job.id, limit=1)]
            steps = [one.step_number async for one in client.fine_tuning.jobs.checkpoints.list(trained.id, limit=1)]
            assert steps == [6, 3]
            assert trained.fine_tuned_model in [model.id async for model in client.models.list()]
            stream = await client.chat.completions.create(
                model=MODEL, messages=QUESTION, max_tokens=8, temperature=0, stream=True
            )
            pieces = [piece.choices[0].delta.content or "" async for piece in stream]
            assert (await client.files.delete(file.id)).deleted
            with pytest.raises(openai.NotFoundError):
                await client.files.retrieve(file.id)
            return pieces

    assert "".join(asyncio.run(go())).startswith("The capital of France")


# --- the server as a whole ---------------------------------------------------------------------------


def test_a_client_retries_what_is_turned_away_for_its_rate_and_gives_up_without_retries(tmp_path):
    with endpoint.serve(tmp_path, requests_per_minute=60) as busy:
        hasty = openai.OpenAI(base_url=busy.base_url, api_key=busy.api_key, max_retries=0)
        with pytest.raises(openai.RateLimitError) as slow:
            for _ in range(80):
                hasty.models.list()
        assert slow.value.code == "rate_limit_exceeded" and slow.value.response.headers["retry-after"]
        assert slow.value.request_id.startswith("req_")
        assert hasty.with_options(max_retries=3).models.list()


def test_a_timeout_is_the_clients_and_its_answer_is_dropped(server, client, tokenizer):
    import psutil

    def spent() -> float:
        return sum(psutil.Process(server.process.pid).cpu_times()[:2])

    ask(client, max_tokens=2)  # the engine is there
    endless = {str(tokenizer.eos_token_id): -100}
    with pytest.raises(openai.APITimeoutError):
        ask(client.with_options(timeout=1), max_tokens=1500, temperature=2.0, n=8, logit_bias=endless)
    time.sleep(3)  # the server looks once a second whether somebody still waits
    before = spent()
    time.sleep(2)
    assert spent() - before < 0.5  # nobody is answered
    began = time.monotonic()
    ask(client, max_tokens=2)
    assert time.monotonic() - began < 20


def test_no_key_is_ever_written_down(server, client, trained):
    with pytest.raises(openai.AuthenticationError) as refused:
        openai.OpenAI(base_url=server.base_url, api_key="sk-somebody-elses-key", max_retries=0).models.list()
    assert "somebody" not in str(refused.value)
    written = everything_under(server.folder)
    assert server.api_key.encode() not in written and b"sk-somebody" not in written


def test_nothing_is_kept_but_safetensors_json_and_the_store(server, trained):
    kinds = {path.suffix for path in (server.folder / "model").rglob("*") if path.is_file()}
    assert kinds == {".safetensors", ".json"}
    left, deadline = server.folder / "job" / trained.id, time.monotonic() + 20
    while [path.name for path in left.iterdir()] != ["log.txt"]:  # it tidies up once it has told that it succeeded
        assert time.monotonic() < deadline, list(left.iterdir())
        time.sleep(0.1)


@pytest.mark.parametrize(
    "moment", [pytest.param(0.0, marks=pytest.mark.slow), 1.0, pytest.param(4.0, marks=pytest.mark.slow)]
)
def test_a_kill_loses_no_accepted_file_or_job(tmp_path, moment):
    server = endpoint.serve(tmp_path)
    client = openai.OpenAI(base_url=server.base_url, api_key=server.api_key, max_retries=0)
    content = lines(short_rows(10))
    file = upload(client, content)
    job = client.fine_tuning.jobs.create(model=MODEL, training_file=file, hyperparameters={"n_epochs": 1}, seed=1)
    time.sleep(moment)
    server.kill()
    with endpoint.serve(tmp_path) as again:
        client = openai.OpenAI(base_url=again.base_url, api_key=again.api_key, max_retries=0)
        assert client.files.content(file).read() == content
        assert wait(client, job.id).status == "succeeded"
