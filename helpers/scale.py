"""The same training on several processes: started together, watched, and planned for machines that are not here."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from . import runs, runtime
from .runtime import CourseError

MEMORY_GB = 5  # two processes that train, and the notebook beside them
PEAK = {"T4": 65, "L4": 121, "A100 40 GB": 312, "A100 80 GB": 312, "H100 80 GB": 989}  # TFLOP/s, dense, 16 bits


def problem() -> str:
    """Why two processes cannot train here, with the remedy; empty if they can."""
    if runtime.memory_limit() < MEMORY_GB * 2**30:
        return f"Two processes side by side take {MEMORY_GB} GB of memory, and this machine has less."
    if sys.platform == "win32":
        return "PyTorch for Windows comes without the launcher's rendezvous; in WSL these cells run."
    return ""


@dataclass(frozen=True)
class Launched:
    """How processes that were started together ended; `status` 0 is well, `told` what they printed.

    `run` is what they made, if they made one.
    """

    status: int
    seconds: float
    told: str
    run: runs.Run | None


def launch(script: str, folder: Path | str, processes: int = 2, seconds: float = 900) -> Launched:
    """Run a script in several processes by `accelerate launch`: one for each GPU if there are enough, else on the CPU.

    Args:
        script: Python source; every process runs all of it, and imports `helpers` as a notebook does.
        folder: where the script lies and where its runs are kept.
        processes: how many.
        seconds: after which they are ended.

    Raises:
        CourseError: they did not end in time.
    """
    import psutil

    folder = Path(folder).resolve()
    runtime.atomic_write(folder / "train.py", script)
    environment = {
        **os.environ,
        "PYTHONPATH": str(runtime.ROOT),
        "COURSE_RUNS": str(folder / "runs"),
        "PYTHONUTF8": "1",
    }
    if _gpus() < processes:
        share = str(max(1, runtime.machine().cores // processes))
        environment |= {"COURSE_DEVICE": "cpu", "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": share}
        environment |= {"CUDA_VISIBLE_DEVICES": ""}
    # `--cpu` would start one process only, so the kind is said to be GPUs; the environment says CPU, and that counts.
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1"]
    command += ["--num_processes", str(processes), "--main_process_port", "0", "--mixed_precision", "no"]
    command += ["--dynamo_backend", "no", "train.py"]
    began = time.perf_counter()
    launcher = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        encoding="utf-8", errors="replace",
    )  # fmt: skip
    try:
        told, _ = launcher.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        raise CourseError(f"{processes} processes did not end within {seconds:.0f} s: they were stopped.") from None
    finally:
        if launcher.poll() is None:  # time is up, or the cell was interrupted; alone it would leave the others behind
            family = psutil.Process(launcher.pid).children(recursive=True)
            for one in (launcher, *family):
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()
            launcher.communicate()
    made = sorted(folder.glob("runs/*/record.json"), key=lambda record: record.stat().st_mtime)
    run = runs.Run(made[-1].parent, json.loads(made[-1].read_text(encoding="utf-8"))) if made else None
    return Launched(launcher.returncode, time.perf_counter() - began, told, run)


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


# --- a plan --------------------------------------------------------------------------------------


def memory_per_gpu(parameters: float, gpus: int, shared: int = 0, trained: float | None = None) -> float:
    """GB (of 10⁹ bytes) of weights, gradients and optimizer on each GPU, activations not among them.

    With AdamW a trained parameter takes 2 bytes, its gradient 2, float32 copy and two moments 12; one that stands
    still 2. Source: Rajbhandari et al., *ZeRO*, arXiv 1910.02054, section 3 and figure 1.

    Args:
        parameters: of the model.
        gpus: across which the data are split.
        shared: what the GPUs hold between them, and not each for itself: 0 nothing, 1 the optimizer, 2 the
            gradients as well, 3 the weights as well (FSDP's full sharding).
        trained: parameters that are trained; by default all.

    Raises:
        CourseError: a number that makes no sense.
    """
    trained = parameters if trained is None else trained
    if gpus < 1 or shared not in (0, 1, 2, 3) or not 0 < trained <= parameters:
        raise CourseError(f"gpus={gpus}, shared={shared}, trained={trained}: at least 1; 0 to 3; above 0, at most all.")
    parts = {1: 12 * trained, 2: 2 * trained, 3: 2 * parameters}  # from which stage on each is shared
    return sum(size / (gpus if shared >= stage else 1) for stage, size in parts.items()) / 1e9


def hours(parameters: float, tokens: float, gpu: str, gpus: int = 1, use: float = 0.4, frozen: bool = False) -> float:
    """Hours that a training takes: 6 operations a parameter and token, 4 where weights stand still.

    Forward takes 2, the gradient with respect to what comes in 2, that with respect to the weights 2; adapters
    spare the last. Source: Kaplan et al., *Scaling Laws*, arXiv 2001.08361, section 2.1. Attention over long rows
    comes on top.

    Args:
        parameters: of the model.
        tokens: seen in training, every epoch counted.
        gpu: a key of `PEAK`.
        gpus: how many.
        use: share of the GPU's peak that is reached; what one hopes for is 0.4.
        frozen: the base model stands still (LoRA).

    Raises:
        CourseError: an unknown GPU.
    """
    if gpu not in PEAK:
        raise CourseError(f"gpu={gpu!r} is not known here; there are {', '.join(PEAK)}.")
    return (4 if frozen else 6) * parameters * tokens / (PEAK[gpu] * 1e12 * use * gpus) / 3600
