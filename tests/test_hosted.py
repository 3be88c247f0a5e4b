"""Hosted services: clients and keys, jobs watched to their end, hosted models as systems; no key in any notebook.

The official client, the practice server and the real small model throughout; the one job that trains takes ten rows.
"""

from __future__ import annotations

import base64
import datetime
import getpass
import os
import re
import time
from types import SimpleNamespace

import pytest
from hosted import upload

from helpers import authoring, costs, data, evaluation, models, providers, runtime
from helpers.endpoint import serve
from helpers.runtime import CourseError

ONCE = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 1}}}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serve(tmp_path_factory.mktemp("hosted")) as server:
        yield server


@pytest.fixture(scope="module")
def practice(server):
    return providers.connect("practice", server)


@pytest.fixture(scope="module")
def job(practice):
    """The one job of this file that trains, watched for the first time."""
    train, validation = data.load("train"), data.load("validation")
    created = practice.client.fine_tuning.jobs.create(
        model=practice.model, training_file=upload(practice.client, train[:10]), method=ONCE, seed=0,
        validation_file=upload(practice.client, validation[:2]),
    )  # fmt: skip
    return providers.follow(practice.client, created.id, every=0.5)


@pytest.fixture
def nobody(monkeypatch):
    """No key in the environment, and nobody at the keyboard."""
    for name in ("OPENAI_API_KEY", "AZURE_OPENAI_API_KEY", "AZURE_OPENAI_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)

    def silent(prompt):
        raise EOFError

    monkeypatch.setattr(getpass, "getpass", silent)


# --- a client, an address, a key -----------------------------------------------------------------------


def test_the_practice_server_is_reached_by_the_official_client_and_names_its_base_model(practice):
    assert type(practice.client).__module__.startswith("openai")
    assert practice.model == "smollm2-135m-instruct"
    assert practice.model in [model.id for model in practice.client.models.list()]


def test_the_same_server_is_reached_in_azures_shape_by_both_of_its_clients(server):
    for classic in (False, True):
        azure = providers.connect("azure", server, classic=classic)
        assert (type(azure.client).__name__ == "AzureOpenAI") == classic
        assert azure.model in [model.id for model in azure.client.models.list()]


def test_a_cell_that_is_run_again_gets_the_server_that_it_started(server):
    assert serve(server.folder) is server
    assert server.process.poll() is None


def test_a_proxy_of_the_machine_does_not_come_between_client_and_practice_server(server, proxied):
    for provider in ("practice", "azure"):
        assert providers.connect(provider, server, model="any").client.models.list().data
    assert providers.management(server)("GET") == {"value": []}


def test_azure_is_told_how_to_train_and_openai_knows_no_such_option(server):
    import openai

    azure, practice = providers.connect("azure", server), providers.connect("practice", server)
    file = upload(practice.client, data.load("train")[:10])

    def create(one, how):
        more = {"trainingType": how}
        return one.client.fine_tuning.jobs.create(model=one.model, training_file=file, extra_body=more)

    azure.client.fine_tuning.jobs.cancel(create(azure, "GlobalStandard").id)
    for one, how, code in ((practice, "GlobalStandard", "unknown_parameter"), (azure, "Cheap", "invalid_value")):
        with pytest.raises(openai.BadRequestError) as refused:
            create(one, how)
        assert (refused.value.code, refused.value.param) == (code, "trainingType")


def test_a_real_provider_is_another_address_key_and_model_and_nothing_is_sent(nobody, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "a-key-for-openai")
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "a-key-for-azure")
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://mine.openai.azure.com/")
    openai, azure = providers.connect("openai"), providers.connect("azure", model="gpt-oss-20b")
    classic = providers.connect("azure", classic=True)
    assert str(openai.client.base_url) == "https://api.openai.com/v1/"
    assert str(azure.client.base_url) == "https://mine.openai.azure.com/openai/v1/"
    assert str(classic.client.base_url) == "https://mine.openai.azure.com/openai/"
    assert [one.client.api_key for one in (openai, azure, classic)] == ["a-key-for-openai", *["a-key-for-azure"] * 2]
    assert (openai.model, azure.model) == ("gpt-4.1-mini-2025-04-14", "gpt-oss-20b")


def test_an_address_that_was_copied_with_its_path_is_understood(nobody, monkeypatch):
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "a-key-for-azure")
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://mine.openai.azure.com/openai/v1/")
    assert str(providers.connect("azure").client.base_url) == "https://mine.openai.azure.com/openai/v1/"


def test_a_key_that_is_typed_in_is_used_and_kept_nowhere(nobody, monkeypatch):
    monkeypatch.setattr(getpass, "getpass", lambda prompt: " k3y-of-mine\n")
    service = providers.connect("openai")
    assert service.client.api_key == "k3y-of-mine"
    assert "k3y" not in repr(service) and "k3y" not in str(dict(os.environ))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("bing",), ("'bing'", "practice, openai or azure")),
        (("practice",), ("Start the practice server",)),
        (("openai",), ("OPENAI_API_KEY", "never write it into a cell")),
        (("azure",), ("AZURE_OPENAI_API_KEY",)),
    ],
)
def test_what_is_missing_is_named(nobody, arguments, words):
    with pytest.raises(CourseError) as told:
        providers.connect(*arguments)
    assert all(word in str(told.value) for word in words)


@pytest.mark.parametrize("address", ["", "mine.openai.azure.com", "http://mine.openai.azure.com"])
def test_an_address_without_https_is_refused_before_a_key_goes_there(nobody, monkeypatch, address):
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "a-key-for-azure")
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", address)
    with pytest.raises(CourseError, match="AZURE_OPENAI_ENDPOINT"):
        providers.connect("azure")


@pytest.mark.parametrize("key", ["two words", "schlüssel", "a\nb"])
def test_a_key_that_can_be_none_is_refused_without_being_shown(nobody, monkeypatch, key):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(CourseError, match="is no key") as told:
        providers.connect("openai")
    assert key not in str(told.value)


def test_a_kernel_that_cannot_ask_says_so_as_a_missing_key(nobody, monkeypatch):
    from IPython.core.error import StdinNotImplementedError

    def mute(prompt):
        raise StdinNotImplementedError("this kernel has no input")

    monkeypatch.setattr(getpass, "getpass", mute)
    with pytest.raises(CourseError, match="There is no key"):
        providers.connect("openai")


def test_a_file_that_the_service_gives_up_on_is_not_handed_on():
    class Files:
        def create(self, **told):
            return SimpleNamespace(id="file-1")

        def wait_for_processing(self, id):
            return SimpleNamespace(id=id, status="error", status_details="line 3 is too long")

    with pytest.raises(CourseError, match=r"did not take train.jsonl \(error\): line 3 is too long"):
        providers.upload(SimpleNamespace(files=Files()), data.load("train")[:10], "train.jsonl")


# --- what the services allow ---------------------------------------------------------------------------


def test_the_card_has_a_line_with_day_and_source_for_each_provider_that_can_be_connected_to(capsys):
    card = providers.offers(max(datetime.date.fromisoformat(line["read on"]) for line in providers.OFFERS))
    assert [line["provider"] for line in card] == ["practice", "openai", "azure"]
    assert all(datetime.date.fromisoformat(line["read on"]) and line["source"] for line in card)
    assert capsys.readouterr().out == ""


def test_an_old_card_says_so_and_names_the_lines(capsys, monkeypatch):
    lines = ({"provider": "north", "read on": "2026-01-01"}, {"provider": "south", "read on": "2026-01-02"})
    monkeypatch.setattr(providers, "OFFERS", lines)
    for days, old in ((0, []), (1, ["north"]), (2, ["north", "south"])):
        providers.offers(datetime.date(2026, 1, 1) + datetime.timedelta(days=costs.OLD + days))
        told = capsys.readouterr().out
        assert [name for name in ("north", "south") if name in told] == old


# --- a job, watched --------------------------------------------------------------------------------------


def test_a_watched_job_ends_with_a_model_that_can_be_asked(practice, job):
    assert job.status == "succeeded"
    said = practice.client.chat.completions.create(
        model=job.fine_tuned_model, messages=data.prompt(data.load("validation")[0]), max_tokens=3
    )
    assert said.model == job.fine_tuned_model and said.usage.completion_tokens <= 3


def test_a_result_file_is_read_as_it_is_and_as_openai_encodes_it(practice, job):
    text = providers.result(practice.client, job)
    assert text.startswith("step,train_loss")
    encoded = base64.b64encode(text.encode())
    sent = practice.client.files.create(file=("metrics.csv", encoded), purpose="user_data").id
    assert providers.result(practice.client, SimpleNamespace(result_files=[sent])) == text


def test_a_job_can_be_watched_again_with_its_id_alone_and_tells_all_from_the_beginning(practice, job, capsys):
    (newest,) = [one.id for one in practice.client.fine_tuning.jobs.list() if one.status == "succeeded"]
    began = time.perf_counter()
    assert providers.follow(practice.client, newest).fine_tuned_model == job.fine_tuned_model
    told = capsys.readouterr().out
    assert time.perf_counter() - began < 5
    assert told.index("Created fine-tuning job") < told.index("step 3 of 3") < len(told)
    assert "New fine-tuned model created" in told


def test_the_curve_gets_every_training_loss_in_order_and_the_validation_loss(practice, job, monkeypatch):
    drawn = []

    class Curve:
        def __init__(self, total, title, quantity):
            assert quantity == "loss per answer token"
            drawn.append(total)

        def update(self, history, step, last=False):
            drawn.append((history, step, last))

    monkeypatch.setattr(providers.plots, "LiveCurve", Curve)
    providers.follow(practice.client, job.id)
    total, (history, step, last) = drawn[0], drawn[-1]
    assert (total, step, last) == (3, 3, True)
    assert [row["step"] for row in history if "loss" in row] == [1, 2, 3]
    assert [row["step"] for row in history if "eval_loss" in row] == [3]
    csv = practice.client.files.content(job.result_files[0]).text.splitlines()
    assert [float(line.split(",")[1]) for line in csv[1:]] == [row["loss"] for row in history if "loss" in row]


def test_a_loss_that_is_no_number_is_shown_as_that(capsys):
    event = SimpleNamespace(id="1", message="", data={"step": 1, "total_steps": 1, "train_loss": None})
    ended = SimpleNamespace(status="succeeded", model="any", method=None)
    jobs = SimpleNamespace(
        retrieve=lambda job: ended, list_events=lambda job, limit: [event],
        checkpoints=SimpleNamespace(list=lambda job: []),
    )  # fmt: skip
    assert providers.follow(SimpleNamespace(fine_tuning=SimpleNamespace(jobs=jobs)), "ftjob-1") is ended
    assert "step 1 of 1, loss nan" in capsys.readouterr().out


def test_a_job_that_fails_ends_the_watching_with_the_services_reason(practice):
    rows = [*data.load("train")[:12], {"messages": data.prompt(data.load("train")[12])}]
    made = practice.client.fine_tuning.jobs.create(
        model=practice.model, training_file=upload(practice.client, rows), method=ONCE
    )
    with pytest.raises(CourseError, match=r"(?s)failed.*:13:.*no assistant turn") as told:
        providers.follow(practice.client, made.id, every=0.1)
    assert made.id in str(told.value)


def test_a_job_that_was_cancelled_ends_the_watching_too(practice):
    file = upload(practice.client, data.load("train")[:10])
    made = practice.client.fine_tuning.jobs.create(model=practice.model, training_file=file, method=ONCE)
    practice.client.fine_tuning.jobs.cancel(made.id)
    with pytest.raises(CourseError, match="cancelled"):
        providers.follow(practice.client, made.id, every=0.1)


# --- a hosted model as a system --------------------------------------------------------------------------


def test_a_hosted_model_is_evaluated_like_any_other_system(practice, job):
    rows = data.load("validation")[:6]
    report = evaluation.evaluate(
        providers.hosted(practice.client, job.fine_tuned_model, max_tokens=24, progress=False), rows, "hosted"
    )
    assert report.n == 6 and report.device == "hosted"
    counted = data.count_tokens(rows, models.load_tokenizer())
    assert report.metrics["prompt_tokens"] * 6 == counted["prompt"]
    assert all(0 < row["completion_tokens"] <= 24 and row["seconds"] > 0 for row in report.rows)
    assert all(row["finished"] or row["completion_tokens"] == 24 for row in report.rows)


def fake(answer, delay=0.0):
    """A client whose answers are made by a function of the question."""

    def create(messages, **options):
        time.sleep(delay * (hash(messages[-1]["content"]) % 5))
        message = SimpleNamespace(content=answer(messages[-1]["content"]))
        usage = SimpleNamespace(prompt_tokens=1, completion_tokens=1)
        return SimpleNamespace(choices=[SimpleNamespace(message=message, finish_reason="stop")], usage=usage)

    return SimpleNamespace(chat=SimpleNamespace(completions=SimpleNamespace(create=create)))


@pytest.mark.parametrize("parallel", [1, 3, 16])
def test_answers_come_in_the_order_of_the_questions_however_many_are_under_way(parallel):
    chats = [[{"role": "user", "content": str(number)}] for number in range(40)]
    system = providers.hosted(fake(str, 0.004), "any", parallel=parallel, progress=False)
    assert [answer["text"] for answer in system(chats)] == [str(number) for number in range(40)]


def test_no_answer_at_all_counts_as_an_empty_one():
    (answer,) = providers.hosted(fake(lambda text: None), "any", progress=False)([[{"role": "user", "content": "?"}]])
    assert answer["text"] == ""


def test_after_a_request_that_failed_for_good_the_rest_are_not_asked():
    asked = []

    def refuse(text):
        asked.append(text)
        time.sleep(0.02)
        raise ConnectionError("the service is gone")

    chats = [[{"role": "user", "content": str(number)}] for number in range(200)]
    with pytest.raises(ConnectionError):
        providers.hosted(fake(refuse), "any", parallel=4, progress=False)(chats)
    assert len(asked) < 50


# --- Azure: deployments ----------------------------------------------------------------------------------


def test_a_tuned_model_answers_on_azures_paths_only_while_it_is_deployed_and_the_meter_runs_as_long(server, job):
    import openai

    azure, classic = (providers.connect("azure", server, classic=classic).client for classic in (False, True))
    manage, chat = providers.management(server), data.prompt(data.load("validation")[0])

    def meter():
        return azure.get(f"{server.address}/practice/meter", cast_to=object)["data"]

    def ask(client, name):
        return client.chat.completions.create(model=name, messages=chat, temperature=0, max_tokens=8)

    for name in (job.fine_tuned_model, "recipes"):
        with pytest.raises(openai.NotFoundError) as refused:
            ask(azure, name)
        assert refused.value.code == "DeploymentNotFound"
    model = {"format": "OpenAI", "name": job.fine_tuned_model, "version": "1"}
    made = manage("PUT", "recipes", {"sku": {"name": "standard", "capacity": 1}, "properties": {"model": model}})
    assert made["properties"]["provisioningState"] == "Succeeded"
    assert [one["name"] for one in manage("GET")["value"]] == [manage("GET", "recipes")["name"]] == ["recipes"]
    assert [(one["deployment"], one["ended_at"]) for one in meter()] == [("recipes", None)]
    assert ask(azure, "recipes").choices[0].message.content == ask(classic, "recipes").choices[0].message.content
    assert manage("DELETE", "recipes") is None
    assert manage("GET")["value"] == [] and meter()[0]["ended_at"]
    manage("PUT", "trial", {"sku": {"name": "DeveloperTier"}, "properties": {"model": model}})
    assert ask(azure, "trial").choices and len(meter()) == 1  # no fee by the hour
    manage("DELETE", "trial")


def test_a_management_request_that_is_refused_says_why(server):
    with pytest.raises(CourseError, match="PUT lost was refused: 400.*no-such-model"):
        providers.management(server)("PUT", "lost", {"properties": {"model": {"name": "no-such-model"}}})


def test_management_at_azure_names_what_is_missing_before_it_asks_for_a_token(monkeypatch):
    for name in ("AZURE_SUBSCRIPTION", "AZURE_RESOURCE_GROUP", "AZURE_ACCOUNT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(providers, "_az_token", lambda: pytest.fail("asked for a token"))
    monkeypatch.setenv("AZURE_ACCOUNT", "mine")
    with pytest.raises(CourseError, match="AZURE_SUBSCRIPTION, AZURE_RESOURCE_GROUP in the environment"):
        providers.management()


@pytest.mark.parametrize(
    ("az", "says"),
    [(None, "Install the Azure command line tool"), ("echo Please sign in >&2; exit 1", "sign in.*az login")],
)
@pytest.mark.skipif(os.name == "nt", reason="the stand-in for az is a shell script")
def test_without_a_token_it_says_what_to_do(monkeypatch, tmp_path, az, says):
    for name in ("SUBSCRIPTION", "RESOURCE_GROUP", "ACCOUNT"):
        monkeypatch.setenv(f"AZURE_{name}", "mine")
    if az:
        (tmp_path / "az").write_text(f"#!/bin/sh\n{az}\n")
        (tmp_path / "az").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CourseError, match=says):
        providers.management()


# --- keys ------------------------------------------------------------------------------------------------

LOOKS_LIKE_A_KEY = re.compile(
    "|".join(
        (
            authoring.UNSAFE["a key"],
            r"\bsk-[\w-]{12,}",  # OpenAI's, and the practice server's
            r"(?<![\w-])[0-9a-f]{32}(?![\w-])",  # Azure's older ones; a tuned model's name has a hyphen before it
            r"(?<![\w/+=-])[A-Za-z0-9]{84}(?![\w/+=-])",  # Azure's newer ones
            r"\beyJ[\w-]{10,}\.[\w-]{10,}",  # tokens of its management
        )
    )
)


def texts(notebook):
    """All that a notebook shows, but for its pictures."""
    for cell in notebook.cells:
        yield cell.source
        for output in cell.get("outputs", []):
            yield "\n".join([output.get("text", ""), *output.get("traceback", [])])
            yield from (str(shown) for mime, shown in output.get("data", {}).items() if "image/" not in mime)


@pytest.mark.parametrize("folder", ["solutions", "lessons"])
def test_no_notebook_holds_anything_that_looks_like_a_key(folder):
    paths = sorted((runtime.ROOT / folder).glob("*.ipynb"))
    assert len(paths) > 10
    for path in paths:
        for text in texts(authoring.read(path)):
            assert not (found := LOOKS_LIKE_A_KEY.search(text)), (path.name, found[0][:8])


@pytest.mark.parametrize(
    "key",
    ["sk-" + "a1B2" * 12, "sk-proj-" + "x_Y-" * 10, "hf_" + "Ab3" * 11, "0123456789abcdef" * 2, "A1b2" * 21,
     "eyJ" + "hbGciOiJSUzI1NiJ9." + "eyJhdWQiOiJodHRwcyJ9"],
)  # fmt: skip
def test_each_kind_of_key_would_be_found_in_code_and_in_output(key):
    for text in (f'client = OpenAI(api_key="{key}")', f"{{'authorization': 'Bearer {key}'}}"):
        assert LOOKS_LIKE_A_KEY.search(text), key[:8]


def test_the_practice_servers_own_key_would_be_found_and_a_tuned_models_name_is_none(server):
    assert LOOKS_LIKE_A_KEY.search(f"Bearer {server.api_key}")
    assert not LOOKS_LIKE_A_KEY.search("smollm2-135m-instruct.ft-" + "0123456789abcdef" * 2 + "-thirty")
