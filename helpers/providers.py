"""One small door per provider: official clients, jobs watched to their end, hosted models as systems."""

from __future__ import annotations

import datetime
import json
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from . import costs, evaluation, plots
from .runtime import CourseError

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types.fine_tuning import FineTuningJob

# --- hosted services: OpenAI, Azure, and the course's practice server --------------------------------

API_VERSION = "2024-10-21"  # the newest stable one of Azure's classic paths
OFFERS = (  # what each service allows, and on which day that was read
    {
        "provider": "practice", "who may start a job": "anybody, on this machine", "a tuned model answers": "at once",
        "until": "you delete it", "read on": "2026-11-24", "source": "this course",
    },
    {
        "provider": "openai", "who may start a job": "who fine-tuned before 2026-05-07 and still uses the model; from "
        "2027-01-06 nobody", "a tuned model answers": "at once", "until": "2027-01-14 (gpt-4.1, gpt-4o, their minis)",
        "read on": "2026-11-22", "source": "developers.openai.com/api/docs/deprecations",
    },
    {
        "provider": "azure", "who may start a job": "who has a subscription (gpt-4.1-mini: until 2027-04-14)",
        "a tuned model answers": "once it is deployed, by the hour", "until": "2027-10-14 (gpt-4.1-mini)",
        "read on": "2026-09-02",
        "source": "learn.microsoft.com/azure/foundry/openai/concepts/model-retirement-schedule",
    },
)  # fmt: skip
_MODEL, _KEYS = "gpt-4.1-mini-2025-04-14", {"openai": "OPENAI_API_KEY", "azure": "AZURE_OPENAI_API_KEY"}


def offers(today: datetime.date | None = None) -> evaluation.Table:
    """What each hosted service allows, with day and source; a line is printed if one was read long ago.

    Args:
        today: the day to count from; by default today.
    """
    days = {one["provider"]: datetime.date.fromisoformat(one["read on"]) for one in OFFERS}
    aged = [name for name, day in days.items() if not 0 <= ((today or datetime.date.today()) - day).days <= costs.OLD]
    if aged:
        print(f"Read more than {costs.OLD} days ago: {', '.join(aged)}. Look at the source before you rely on it.")
    return evaluation.Table(OFFERS)


@dataclass(frozen=True)
class Service:
    """A way into a hosted service: the official client, and the base model's name there."""

    provider: str
    model: str
    client: OpenAI = field(repr=False)


def connect(provider: str, server: Any = None, *, model: str | None = None, classic: bool = False) -> Service:
    """The official client of a provider. Nothing is sent yet, but for one question to the practice server.

    Args:
        provider: "practice"; "openai", with the key in `OPENAI_API_KEY`; or "azure", with the key in
            `AZURE_OPENAI_API_KEY` and the resource's address in `AZURE_OPENAI_ENDPOINT`. A key that is not in the
            environment is asked for, and kept nowhere.
        server: the practice server; with "azure" it is spoken to in Azure's shape.
        model: the base model's name; by default the practice server's own, or gpt-4.1-mini.
        classic: for "azure": `AzureOpenAI`, with an API version, in place of the v1 path.

    Raises:
        CourseError: there is no such provider, or a key, an address or the server is missing.
    """
    from openai import AzureOpenAI, OpenAI

    if provider not in ("practice", *_KEYS):
        raise CourseError(f"PROVIDER={provider!r} is unknown: choose practice, openai or azure.")
    if provider == "practice" and server is None:
        raise CourseError("Start the practice server first, and hand it over: connect('practice', endpoint.serve()).")
    practice = server is not None and provider != "openai"
    key = server.api_key if practice else _key(_KEYS[provider])
    if provider == "azure":
        address = server.address if practice else _address()
        if classic:
            client = AzureOpenAI(azure_endpoint=address, api_key=key, api_version=API_VERSION, max_retries=5)
        else:
            client = OpenAI(base_url=f"{address}/openai/v1/", api_key=key, max_retries=5)
    else:
        client = OpenAI(base_url=server.base_url if practice else None, api_key=key, max_retries=5)
    if model is None:
        model = client.models.list().data[0].id if practice else _MODEL
    return Service(provider, model, client)


def _key(name: str) -> str:
    """A key from the environment, or typed into a field that does not show it."""
    import getpass

    key = os.environ.get(name, "")
    try:
        key = (key or getpass.getpass(f"{name} (it is not shown and not kept): ")).strip()
    except (EOFError, OSError, NotImplementedError):  # nobody is there to type
        pass
    if not key:
        raise CourseError(f"There is no key. Set {name} in the environment, or type it in; never write it into a cell.")
    if not key.isascii() or any(sign.isspace() for sign in key):
        raise CourseError(f"What {name} holds is no key: it has spaces or letters that no key has. Copy it again.")
    return key


def _address() -> str:
    address = os.environ.get("AZURE_OPENAI_ENDPOINT", "").strip().rstrip("/")
    if not address.startswith("https://"):
        raise CourseError("Set AZURE_OPENAI_ENDPOINT to your resource's address, https://NAME.openai.azure.com.")
    return address.removesuffix("/openai/v1")


def upload(client: OpenAI, rows: Sequence[dict], name: str) -> str:
    """Send rows as a training file of this name, wait until the service has taken it, and return its id."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    file = client.files.create(file=(name, text.encode()), purpose="fine-tune")
    return client.files.wait_for_processing(file.id).id


def follow(client: OpenAI, job: str, every: float = 1.0) -> FineTuningJob:
    """Watch a job to its end: what the service tells is printed, the losses draw themselves.

    Watching changes nothing: stop it, restart the kernel, call it again with the same id, and it tells
    all from the beginning.

    Args:
        client: of the service where the job is.
        job: the job's id; `client.fine_tuning.jobs.list()` knows it.
        every: seconds between two looks.

    Returns:
        The job that succeeded; its `fine_tuned_model` can be asked.

    Raises:
        CourseError: the job failed, with the service's reason, or was cancelled.
    """
    jobs, told, losses, curve = client.fine_tuning.jobs, set(), [], None
    while True:
        state = jobs.retrieve(job)  # before its events: so none is missed of a job that has ended
        ended, news = state.status in ("succeeded", "failed", "cancelled"), []
        for event in jobs.list_events(job, limit=100):  # the newest first, from as many pages as it takes
            if event.id in told:
                break
            news.insert(0, event)
        for event in news:
            told.add(event.id)
            metrics = dict(event.data or {})
            if "train_loss" in metrics:
                losses.append({"step": metrics["step"], "loss": metrics["train_loss"]})
                curve = curve or plots.LiveCurve(metrics["total_steps"], state.model)
            else:
                print(event.message)
        if curve and (news or ended):
            curve.update(losses + _held_out(jobs.checkpoints.list(job)), losses[-1]["step"], last=ended)
        if ended:
            break
        time.sleep(every)
    if state.status != "succeeded":
        reason = f": {state.error.message}" if state.error and state.error.message else "."
        raise CourseError(f"The job {job} has {state.status}{reason}" if reason != "." else f"{job}: {state.status}.")
    return state


def _held_out(checkpoints: Any) -> list[dict[str, float]]:
    """The validation losses that checkpoints bear, in the order of their steps."""
    found = [(one.step_number, one.metrics.full_valid_loss) for one in checkpoints]
    return [{"step": step, "eval_loss": loss} for step, loss in sorted(found) if loss is not None]


def hosted(
    client: OpenAI, model: str, *, parallel: int = 16, max_tokens: int = 128, progress: bool = True, **options: Any
) -> evaluation.System:
    """A system that asks a hosted model greedily, many chats at a time; the client repeats what is turned away.

    Its `seconds` are the time of all shared out, as for local models: throughput, not the wait for one answer.

    Args:
        client: of the service.
        model: a model's name, or on Azure that of a deployment.
        parallel: requests under way at once.
        max_tokens: an answer stops here. Answers that are compared need the same.
        progress: show a bar.
        options: further arguments of `chat.completions.create`, such as `tools`.
    """
    from tqdm.auto import tqdm

    def ask(chat: Sequence[dict]) -> dict:
        told = client.chat.completions.create(
            model=model, messages=chat, temperature=0, max_completion_tokens=max_tokens, **options
        )
        return {
            "text": told.choices[0].message.content or "", "prompt_tokens": told.usage.prompt_tokens,
            "completion_tokens": told.usage.completion_tokens, "finished": told.choices[0].finish_reason == "stop",
        }  # fmt: skip

    def system(chats: list[evaluation.Chat]) -> list[dict]:
        began, pool = time.perf_counter(), ThreadPoolExecutor(parallel)
        try:
            answers = list(tqdm(pool.map(ask, chats), total=len(chats), desc="asking", disable=not progress))
        finally:
            pool.shutdown(cancel_futures=True)  # if one fails for good, the others are not asked (and billed) in vain
        each = (time.perf_counter() - began) / max(1, len(chats))
        return [answer | {"seconds": each} for answer in answers]

    system.dtype, system.device = "unknown", "hosted"
    return system


def management(server: Any = None) -> Callable[..., Any]:
    """A function for requests about Azure's deployments, which are plain HTTP: `call("PUT", name, body)`.

    Source of path and body: Microsoft, *Deploy a fine-tuned model*, 2026-02-11.

    Args:
        server: the practice server, which takes its own key. Without it the requests go to Azure, for the account in
            `AZURE_SUBSCRIPTION`, `AZURE_RESOURCE_GROUP`, `AZURE_ACCOUNT`, with a token of the tool `az`.

    Raises:
        CourseError: one of these is missing; the returned function raises it if the service refuses.
    """
    if server is not None:
        address, token, account = server.address, server.api_key, ["mine", "course", "practice"]
    else:
        account, token, address = _az_account(), _az_token(), "https://management.azure.com"
    path = "/subscriptions/{}/resourceGroups/{}/providers/Microsoft.CognitiveServices/accounts/{}/deployments"

    def call(method: str, name: str = "", body: dict | None = None) -> Any:
        url = f"{address}{path.format(*account)}/{name}".rstrip("/") + "?api-version=2024-10-01"
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        content = json.dumps(body).encode() if body else None
        try:
            with urllib.request.urlopen(urllib.request.Request(url, content, headers, method=method)) as answer:
                return json.loads(answer.read() or "null")
        except urllib.error.HTTPError as error:
            raise CourseError(f"{method} {name} was refused: {error.code} {error.read().decode()[:500]}") from None

    return call


def _az_account() -> list[str]:
    names = [f"AZURE_{name}" for name in ("SUBSCRIPTION", "RESOURCE_GROUP", "ACCOUNT")]
    if missing := [name for name in names if not os.environ.get(name, "").strip()]:
        raise CourseError(f"Set {', '.join(missing)} in the environment: the portal shows them on the resource's page.")
    return [os.environ[name].strip() for name in names]


def _az_token() -> str:
    """A token for management, which `az login` has to precede."""
    command = [shutil.which("az") or "az", "account", "get-access-token", "--query", "accessToken", "--output", "tsv"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except OSError:
        raise CourseError("Install the Azure command line tool (az), run `az login`, and try again.") from None
    except subprocess.CalledProcessError as error:
        raise CourseError(f"az gave no token: {error.stderr.strip()[:300]} Run `az login` and try again.") from None
