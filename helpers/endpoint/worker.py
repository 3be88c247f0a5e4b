"""The process that trains one job: `python -m helpers.endpoint.worker FOLDER JOB`, started by the supervisor.

It dies with the server (its standard input ends), and what it had saved by then is where the next one goes on.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import data, models, runtime
from . import graders, jobs
from .store import Store, now

if TYPE_CHECKING:
    from transformers import PreTrainedModel, TrainerCallback

LEARNING_RATES = {"supervised": 1e-3, "dpo": 1e-4, "reinforcement": 1e-4}  # at a multiplier of 1
SAVE_STEPS = 20  # most steps that a kill costs
GENERATIONS = 4  # answers per prompt that reinforcement compares
KEPT = 3  # checkpoints that stay as models: those of the last epochs


class Paused(Exception):
    """Raised out of training once its checkpoint is saved."""


def main(folder: str, id: str) -> int:
    """Train the job and say in the store how it ended."""
    runtime.when_input_ends(lambda: os._exit(3))  # as it does with the server
    if hasattr(os, "nice"):
        os.nice(15)  # answers go before training: at 5 a crowd got a third fewer
    store = Store(Path(folder))
    place = store.path("job", id)
    os.environ["COURSE_RUNS"] = str(place / "runs")
    runtime.start()
    job = store.update("job", id, only_if=["queued"], status="running")
    if job is None:
        return 0
    jobs.tell(store, id, "Fine-tuning job started")
    try:
        kind = job["method"]["type"]
        with runtime.lock(f"endpoint-{id}"):
            adapter, history, tokens = _METHODS[kind](store, job, place)
        publish(store, job, adapter, history, tokens)
    except Paused:
        if store.update("job", id, only_if=["pausing"], status="paused", estimated_finish=None):
            jobs.tell(store, id, "Fine-tuning job paused")
    except data.DataError as error:
        jobs.fail(store, id, "invalid_training_file", str(error)[:2000], "training_file")
    except Exception as error:
        traceback.print_exc()  # into the job's log, which no client sees
        reason = f": {error.strerror}" if isinstance(error, OSError) and error.strerror else ""
        jobs.fail(store, id, "server_error", f"Training stopped with {type(error).__name__}{reason}.")
    return 0


# --- the three methods: each returns the adapter's folder, the history and the trained tokens --------


def _rows(place: Path, name: str) -> list[dict] | None:
    path = place / f"{name}.jsonl"
    if not path.is_file():
        return None
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _start(store: Store, job: dict[str, Any]) -> PreTrainedModel | None:
    """The weights to start from; None stands for the base model."""
    from . import engine

    chain = chain_of(store, job["model"])
    return engine.load(chain) if chain else None


def chain_of(store: Store, name: str) -> list[Path]:
    """The adapters that make a model out of the base model, in order; empty for the base model."""
    if name == jobs.base_model():
        return []
    folder = store.path("model", store.get("model", name)["_folder"])
    return sorted(folder.iterdir(), key=lambda adapter: int(adapter.name))


def supervised(store: Store, job: dict[str, Any], place: Path) -> tuple[Path, list[dict], int]:
    """The course's own trainer."""
    from .. import training

    settings = job["method"]["supervised"]["hyperparameters"]
    run = training.fine_tune(
        _rows(place, "training_file"), validation=_rows(place, "validation_file"), model=_start(store, job),
        epochs=settings["n_epochs"], batch_size=settings["batch_size"], seed=job["seed"],
        learning_rate=LEARNING_RATES["supervised"] * settings["learning_rate_multiplier"],
        save_steps=SAVE_STEPS, callbacks=[reporter(store, job)], live=False,
    )  # fmt: skip
    return run.folder, run.history, run.record["tokens"]


def dpo(store: Store, job: dict[str, Any], place: Path) -> tuple[Path, list[dict], int]:
    """Direct preference optimisation."""
    from .. import preferences

    settings = job["method"]["dpo"]["hyperparameters"]
    trainer = preferences.dpo_trainer(
        models.trainable(_start(store, job)), _rows(place, "training_file"), place / "trl", beta=settings["beta"],
        validation=_rows(place, "validation_file"), per_device_train_batch_size=settings["batch_size"],
        include_num_input_tokens_seen="non_padding", callbacks=[reporter(store, job)], **_arguments(job, settings),
    )  # fmt: skip
    return _train(trainer, place)


def reinforcement(store: Store, job: dict[str, Any], place: Path) -> tuple[Path, list[dict], int]:
    """Group relative policy optimisation, with the job's grader as reward."""
    from .. import preferences

    method = job["method"]["reinforcement"]
    settings, grader = method["hyperparameters"], method["grader"]

    def reward(completions: list, item: list[str], **unused: Any) -> list[float]:
        pairs = zip(completions, map(json.loads, item), strict=True)
        return [graders.reward(grader, one, answer[0]["content"]) for answer, one in pairs]

    trainer = preferences.grpo_trainer(
        models.trainable(_start(store, job)), _rows(place, "training_file"), place / "trl", reward_funcs=reward,
        num_generations=GENERATIONS, per_device_train_batch_size=settings["batch_size"] * GENERATIONS,
        callbacks=[reporter(store, job)], **_arguments(job, settings),
    )  # fmt: skip
    return _train(trainer, place)


def _arguments(job: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """What both of TRL's trainers are told about a job."""
    kind = job["method"]["type"]
    return {
        "seed": job["seed"], "num_train_epochs": settings["n_epochs"], "save_steps": SAVE_STEPS, "save_total_limit": 1,
        "learning_rate": LEARNING_RATES[kind] * settings["learning_rate_multiplier"],
    }  # fmt: skip


def _train(trainer: Any, place: Path) -> tuple[Path, list[dict], int]:
    """Run one of TRL's trainers from its last whole checkpoint on."""
    from .. import training

    last = training.last_checkpoint(place / "trl")
    trainer.train(resume_from_checkpoint=str(last) if last else None)
    models.save(trainer.model, trainer.processing_class, place / "adapter")
    history = [row for row in trainer.state.log_history if "loss" in row or "eval_loss" in row]
    return place / "adapter", history, int(trainer.state.num_input_tokens_seen or 0)


_METHODS: dict[str, Callable] = {"supervised": supervised, "dpo": dpo, "reinforcement": reinforcement}


# --- what the job tells ------------------------------------------------------------------------------


def reporter(store: Store, job: dict[str, Any]) -> TrainerCallback:
    """Tells metrics as events, saves each epoch as a model, and heeds `pause`."""
    from transformers import TrainerCallback

    id = job["id"]
    epochs = job["method"][job["method"]["type"]]["hyperparameters"]["n_epochs"]

    class Reporter(TrainerCallback):
        loss, began, first = None, 0.0, 0

        def on_train_begin(self, args, state, control, **unused):
            self.began, self.first = time.time(), state.global_step

        def on_log(self, args, state, control, logs=None, **unused):
            logs = logs or {}
            if "loss" not in logs:
                return
            self.loss = logs["loss"]
            metrics = {"step": state.global_step, "total_steps": state.max_steps, "train_loss": self.loss}
            if "reward" in logs:
                metrics |= {"train_mean_reward": logs["reward"]}
            done = max(1, state.global_step - self.first)
            left = (time.time() - self.began) / done * (state.max_steps - state.global_step)
            store.update("job", id, only_if=["running", "pausing"], estimated_finish=round(time.time() + left))
            text = f"Step {state.global_step}/{state.max_steps}: training loss={self.loss:.2f}"
            jobs.tell(store, id, text, **metrics)

        def on_epoch_end(self, args, state, control, model=None, **unused):
            if args.eval_strategy == "no":
                self._keep(state, model, None)

        def on_evaluate(self, args, state, control, metrics=None, model=None, **unused):
            self._keep(state, model, (metrics or {}).get("eval_loss"))

        def _keep(self, state, model, loss):
            if state.global_step == 0 or round(state.epoch) <= epochs - KEPT:
                return
            checkpoint(store, job, state.global_step, model, {"train_loss": self.loss, "full_valid_loss": loss})

        def on_step_end(self, args, state, control, **unused):
            if store.get("job", id)["status"] == "pausing":
                control.should_save = True

        def on_save(self, args, state, control, **unused):
            asked = store.update("job", id, _attempts=0)["status"]
            if asked in ("pausing", "cancelled"):
                raise Paused

    return Reporter()


def checkpoint(store: Store, job: dict[str, Any], step: int, model: Any, metrics: dict[str, Any]) -> None:
    """Make a model of the adapter as it stands after `step`; the second time for the same step does nothing."""
    name = f"{job['_name']}:ckpt-step-{step}"
    if store.get("model", name):
        return
    place = store.path("job", job["id"]) / "checkpoint"
    models.save(model, None, place)
    _add_model(store, job, name, place)
    shutil.rmtree(place)
    store.add("checkpoint", {
        "id": f"ftckpt_{job['id'].removeprefix('ftjob-')}{step}", "object": "fine_tuning.job.checkpoint",
        "created_at": now(), "fine_tuned_model_checkpoint": name, "fine_tuning_job_id": job["id"],
        "step_number": step, "metrics": jobs.finite({"step": step} | metrics),
    }, job["id"])  # fmt: skip
    jobs.tell(store, job["id"], f"Checkpoint created at step {step}")


def _add_model(store: Store, job: dict[str, Any], name: str, adapter: Path) -> None:
    """Put an adapter, with copies of those below it, in a folder of its own, and list the model."""
    folder = f"{job['id']}-{os.urandom(4).hex()}"
    chain = [*chain_of(store, job["model"]), adapter]
    with runtime.atomic_folder(store.path("model", folder)) as half:
        for number, one in enumerate(chain):
            (half / str(number)).mkdir()
            for file in ("adapter_config.json", "adapter_model.safetensors"):
                shutil.copyfile(one / file, half / str(number) / file)
    store.add("model", {"id": name, "object": "model", "created": now(), "owned_by": "org-practice", "_folder": folder})


def publish(store: Store, job: dict[str, Any], adapter: Path, history: list[dict], tokens: int) -> None:
    """Make model, result file and job whole. After a kill it runs again, and what is there already stays."""
    id, name, result = job["id"], job["_name"], job["_result"]
    if not store.get("model", name):
        _add_model(store, job, name, adapter)
    if not store.get("file", result):
        by_step: dict[int, dict] = {}
        for row in history:
            by_step.setdefault(row["step"], {}).update(row)
        lines = ["step,train_loss,valid_loss"]
        lines += [f"{step},{row.get('loss', '')},{row.get('eval_loss', '')}" for step, row in sorted(by_step.items())]
        size = store.keep("file", result, ("\n".join(lines) + "\n").encode())
        store.add("file", {
            "id": result, "object": "file", "bytes": size, "created_at": now(), "filename": "step_metrics.csv",
            "purpose": "fine-tune-results", "status": "processed", "status_details": None, "expires_at": None,
        })  # fmt: skip
    ended = {
        "status": "succeeded", "fine_tuned_model": name, "finished_at": now(), "result_files": [result],
        "trained_tokens": tokens, "estimated_finish": None,
    }  # fmt: skip
    if store.update("job", id, only_if=["running", "pausing"], **ended):
        jobs.tell(store, id, f"New fine-tuned model created: {name}")
        jobs.tell(store, id, "The job has successfully completed")
    place = store.path("job", id)
    for path in place.iterdir():
        if path.name != "log.txt":
            shutil.rmtree(path) if path.is_dir() else path.unlink()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
