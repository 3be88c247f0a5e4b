"""Where things lie, what this machine can do, and writing without leaving halves behind."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import math
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COURSE = json.loads((ROOT / "helpers" / "course.json").read_text(encoding="utf-8"))


# For processes that compute side by side. A thread that waits for the others of its own spins, and so keeps a processor
# from the other process. In one that answers it spins for some microseconds only, to be there when the next product
# begins; in one that trains not at all, which costs it little while it is alone. (That alone would give training more
# of the processors than before: the endpoint's worker is nice as well.)
ANSWERING = {"GOMP_SPINCOUNT": "20000", "KMP_BLOCKTIME": "0"}
TRAINING = {"GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0"}


class CourseError(Exception):
    """An error that says what is wrong, where, and what to do about it."""


def home() -> Path:
    """Folder of caches, runs and the learner's scoreboard: `$COURSE_HOME`, else `.course` in the repository."""
    path = _told("COURSE_HOME") or ROOT / ".course"
    path.mkdir(parents=True, exist_ok=True)
    return path


def records() -> Path:
    """Folder of what this learner made: `$COURSE_RUNS`, else `runs` in the course's home folder."""
    path = _told("COURSE_RUNS") or home() / "runs"
    path.mkdir(parents=True, exist_ok=True)
    return path


def _told(name: str) -> Path | None:
    """The folder that a variable names, if any; counted from the repository, as processes run in several folders."""
    return (ROOT / Path(told).expanduser()).resolve() if (told := os.environ.get(name)) else None


def atomic_write(path: Path | str, content: str | bytes) -> Path:
    """Write a file so that readers see the old one or the new one, never a half.

    Args:
        path: target file; parent folders are made.
        content: text (written as UTF-8 with LF) or bytes.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode("utf-8") if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp makes it private; a shared course folder is read by others
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


@contextlib.contextmanager
def atomic_folder(path: Path | str) -> Iterator[Path]:
    """Fill a folder beside its final place; it takes that place only if the block ends well.

    Yields:
        The temporary folder to write into. An existing folder at `path` is replaced.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield temporary
        if path.exists():
            shutil.rmtree(path)
        temporary.chmod(0o755)
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def lock(name: str) -> Iterator[None]:
    """Hold a lock among all processes that share `home()`, saying so when it has to wait."""
    import filelock

    folder = home() / "locks"
    folder.mkdir(exist_ok=True)
    guard = filelock.FileLock(folder / f"{name}.lock")
    try:
        guard.acquire(timeout=0.2)
    except filelock.Timeout:
        print(f"Another notebook is busy with '{name}'. Waiting for it…", flush=True)
        guard.acquire()
    try:
        yield
    finally:
        guard.release()


@dataclass(frozen=True)
class Machine:
    """What this machine offers; `memory_gb` is the limit that applies to this process, in GiB."""

    system: str
    place: str
    cores: int
    memory_gb: float
    device: str
    device_name: str
    bf16: bool

    @property
    def dtype(self) -> str:
        """The number format that training and decoding use here: `bfloat16` or `float32`."""
        return "bfloat16" if self.bf16 else "float32"

    @property
    def kind(self) -> str:
        """The column of a lesson's card that holds here: `GPU`, `bf16 CPU` or `plain CPU`."""
        return "GPU" if self.device == "cuda" else "bf16 CPU" if self.bf16 else "plain CPU"


def place() -> str:
    """Where the notebook runs: `colab`, `binder` or `local`."""
    if "COLAB_RELEASE_TAG" in os.environ or "google.colab" in sys.modules:
        return "colab"
    return "binder" if "BINDER_LAUNCH_HOST" in os.environ else "local"


def memory_limit() -> int:
    """Bytes of memory this process may use: the machine's, or less inside a container.

    `$COURSE_MEMORY_GB` overrides. Binder and other JupyterHubs announce their limit in `$MEM_LIMIT`;
    containers announce it in their control group (v2 `memory.max`, v1 `memory.limit_in_bytes`).

    Raises:
        CourseError: `$COURSE_MEMORY_GB` is no number.
    """
    if told := told_memory():
        return told
    import psutil

    limits = [psutil.virtual_memory().total]
    if os.environ.get("MEM_LIMIT", "").isdigit():
        limits.append(int(os.environ["MEM_LIMIT"]))
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            limits.append(int((Path("/sys/fs/cgroup") / name).read_text()))
    return min(limit for limit in limits if limit > 0)


def told_memory() -> int | None:
    """Bytes that `$COURSE_MEMORY_GB` allows; None if it is not set.

    Raises:
        CourseError: it is no number above zero.
    """
    if not (told := os.environ.get("COURSE_MEMORY_GB")):
        return None
    with contextlib.suppress(ValueError):
        if 0 < float(told) < math.inf:
            return int(float(told) * 2**30)
    raise CourseError(f"COURSE_MEMORY_GB={told!r} is no number of GiB: write it like 8 or 1.8, or unset it.")


def free_memory() -> int:
    """Bytes this process may still take: what the machine has free, within the limit that applies."""
    import psutil

    own = psutil.Process().memory_info().rss
    return max(0, min(psutil.virtual_memory().available, memory_limit() - own))


def peak_memory() -> int:
    """Most bytes of memory this process has held so far."""
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset
    with contextlib.suppress(OSError, StopIteration):  # getrusage begins with the peak of whoever started us
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def has_bf16_instructions() -> bool:
    """Whether the CPU multiplies bfloat16 matrices in hardware (AVX-512 BF16, AMX or Arm BF16).

    Switching the instructions off (`ATEN_CPU_CAPABILITY=avx2` with `ONEDNN_MAX_CPU_ISA=AVX2`) counts as
    not having them, so tests can take the path of an older CPU.
    """
    if os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper() in {"SSE41", "AVX", "AVX2", "AVX512_CORE"}:
        return False
    if platform.system() == "Linux":
        with contextlib.suppress(OSError):
            flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
            return any(f" {flag}" in flags for flag in ("avx512_bf16", "amx_bf16", "bf16 "))
    if platform.system() == "Windows":
        import torch

        probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
        return bool(probe and probe())
    return False  # macOS: PyTorch's CPU kernels are faster in float32 there


def end(process: subprocess.Popen, seconds: float = 15) -> None:
    """End a process that ends when its standard input does, and wait until it has; after `seconds` it is killed."""
    if process.poll() is None:
        process.stdin.close()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


def when_input_ends(do: Callable[[], None]) -> None:
    """Call something, in a thread, once standard input ends, as it does with the process that holds its other end."""

    def wait() -> None:
        while os.read(0, 1024):  # not by sys.stdin, whose lock would be held at exit
            pass
        do()

    threading.Thread(target=wait, daemon=True).start()


def process() -> tuple[int, int]:
    """Number of this process among those that `accelerate launch` or `torchrun` started together, and how many."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def cores() -> int:
    """Number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def machine() -> Machine:
    """Describe this machine (imports torch on first use). `COURSE_DEVICE=cpu` leaves a GPU alone."""
    import torch

    forced = os.environ.get("COURSE_DEVICE", "").strip().lower()
    if forced not in ("", "cpu", "cuda"):
        raise CourseError(f"COURSE_DEVICE={forced!r} is unknown: write cpu or cuda, or unset it.")
    cuda = torch.cuda.is_available() and forced != "cpu"
    name = torch.cuda.get_device_name(0) if cuda else platform.processor() or platform.machine()
    return Machine(
        system=f"{platform.system()} {platform.machine()}",
        place=place(),
        cores=cores(),
        memory_gb=round(memory_limit() / 2**30, 1),
        device="cuda" if cuda else "cpu",
        device_name=name,
        bf16=torch.cuda.is_bf16_supported() if cuda else has_bf16_instructions(),
    )


def spare_memory() -> None:
    """Where memory is scarce, have large freed blocks go back to the system at once (glibc).

    Left to itself, the allocator comes to keep blocks of up to 32 MB, such as logits, for later.
    """
    if sys.platform == "linux" and memory_limit() < 4 * 2**30:
        with contextlib.suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL("libc.so.6").mallopt(-3, 2**20)  # M_MMAP_THRESHOLD, bytes


def start() -> None:
    """End of a lesson's first cell: bring what Colab lacks, keep the hub quiet, say what this machine is."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")  # plans for a thousand shapes fill memory
    spare_memory()
    if place() == "colab":
        from . import install

        install.colab()
    import logging

    logging.getLogger("transformers").setLevel(logging.ERROR)
    here = machine()
    print(f"Ready: {here.kind}, {here.cores} cores, {here.memory_gb:.0f} GB of memory, training in {here.dtype}.")
