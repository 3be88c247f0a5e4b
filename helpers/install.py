"""The set-up behind `python -m helpers`: stages that can be interrupted, a preflight, the learner's copies.

Only the standard library is imported, for at first there is nothing else. What there is to decide (which
environment, which PyTorch, what a failing check says) is decided by functions of a small description, so
that tests can put any machine before them.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from . import runtime
from .runtime import ROOT, CourseError

TORCH, TORCH_FLOOR, PYTHONS = "2.13.0", (2, 6), ((3, 11), (3, 14))  # and the Pythons it has wheels for
REQUIREMENTS = ROOT / "requirements.txt"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
WINDOW = ("transformers", "trl", "datasets", "peft")  # another version of these is another course
NOT_ON_COLAB = set("jupyterlab ipykernel pytest pytest-xdist nbval nbclient nbconvert nbformat ruff".split())
JUDGES = "tests/test_notebooks.py"  # of the scoreboard that the other tests leave
UNSLOTH = "unsloth==2026.10.9 unsloth_zoo==2026.10.9".split()  # their declared dependencies drag in CUDA
UNSLOTH_NEEDS = """tyro==1.0.17 protobuf==7.36.2 sentencepiece==0.2.3 nest-asyncio==1.6.0 structlog==26.1.0
    hf_transfer==0.1.9 einops==0.8.2 msgspec==0.22.0 rich typer pydantic json5 regex pillow requests psutil""".split()
AGAIN = "run `python -m helpers start` again"
DATA_REMEDY = "`git checkout -- data`, or unpack the course anew"
ELSEWHERE = "or take the course in Colab or Binder (links in README.md)."


# --- decisions -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Host:
    """What decisions depend on: the machine, and the Python that runs the command."""

    system: str = "Linux"  # as platform.system() says it
    arch: str = "x86_64"
    python: tuple[int, int] = (3, 11)
    bits: int = 64
    macos: int = 0  # major release of macOS
    gpu: bool = False  # an NVIDIA GPU that its driver lists
    active: str = ""  # "virtual", "conda" or "colab" if the command runs in such an environment
    prefix: Path = Path("/usr")
    executable: Path = Path("/usr/bin/python3")


class Environment(NamedTuple):
    """Where packages go; `own` says whether it is the `.venv` of the course."""

    python: Path
    own: bool
    text: str


def environment(host: Host, root: Path = ROOT) -> Environment:
    """The environment that the command's Python belongs to (conda's `base` does not count), else `.venv`."""
    if host.active and host.prefix != root / ".venv":
        name = {"colab": "Colab's Python", "virtual": "the active virtual environment"}.get(host.active)
        return Environment(host.executable, False, f"{name or 'the active conda environment'}, {host.prefix}")
    inside = "Scripts/python.exe" if host.system == "Windows" else "bin/python"
    return Environment(root / ".venv" / inside, True, str(root / ".venv"))


def refusal(host: Host, torch: str | None = None) -> str:
    """Why the course can't be set up here, with the remedy; empty if it can.

    Args:
        torch: version of a PyTorch that is there already; where one is, no wheel is needed.
    """
    low, high, here = (".".join(map(str, version)) for version in (*PYTHONS, host.python))
    mac, none = host.system == "Darwin", f"PyTorch {TORCH} has no wheels for"
    other = f"Install Python {high} from python.org, then run `python{high} -m helpers start` with it."
    problems = [
        (host.python < PYTHONS[0], f"This is Python {here}; the course needs {low} to {high}. {other}"),
        (host.bits < 64, f"{none} a 32-bit Python, which this is. Install the 64-bit one from python.org."),
        (host.python > PYTHONS[1] and not torch, f"{none} Python {here}. {other}"),
        (mac and host.arch == "x86_64" and not torch,
            f"{none} Intel macOS. If this Mac has Apple silicon, only its Python is Intel's: install the one "
            f"from python.org. Else activate a conda environment with PyTorch 2.6 or newer, {ELSEWHERE}"),
        (mac and host.macos < 14 and not torch,
            f"{none} macOS {host.macos}. Update to macOS 14 or newer, {ELSEWHERE}"),
        (host.system == "Windows" and host.arch == "arm64" and not torch,
            f"{none} Windows on ARM. Install the x64 Python from python.org ('Windows installer (64-bit)', "
            f"not ARM64), which Windows 11 can run, {ELSEWHERE}"),
    ]  # fmt: skip
    return next((text for holds, text in problems if holds), "")


def torch_plan(
    host: Host, present: str | None = None, broken: str = "", offered: bool = False
) -> tuple[str, list[str]]:
    """Decide which PyTorch to take: what to tell the learner, and pip's arguments (none: keep what is there).

    Args:
        present: version that is installed, if any; `broken`: why importing it fails, if it does.
        offered: whether pip, as configured here, finds the CPU build by itself.

    Raises:
        CourseError: PyTorch is there but useless; one that is there is never replaced.
    """
    old = present and tuple(map(int, re.findall(r"\d+", present)[:2])) < TORCH_FLOOR
    if broken or old:
        raise CourseError(
            f"PyTorch {present} is here, but {broken or 'the course needs 2.6 or newer'}. The course never "
            "replaces one: repair it, or leave its environment (`deactivate`; delete it if it is .venv)."
        )
    if present:
        return f"PyTorch {present} is here and stays", []
    if host.system != "Linux":
        return f"PyTorch {TORCH} for the CPU, about 120 MB", [f"torch=={TORCH}"]
    if host.gpu:
        return f"PyTorch {TORCH} with CUDA for the GPU here, about 3 GB", [f"torch=={TORCH}"]
    index = [] if offered else ["--index-url", CPU_INDEX]  # the default index brings gigabytes of CUDA along
    return f"PyTorch {TORCH} for the CPU, about 190 MB", [f"torch=={TORCH}+cpu", *index]


def unsloth_plan(host: Host) -> tuple[str, list[str]]:
    """What Unsloth (lesson 13) takes here: what to tell the learner, and the packages it needs (none: leave it)."""
    if host.system == "Darwin":
        return "none on macOS, where it trains with Apple's MLX; lesson 13 shows its recorded run", []
    if host.system == "Linux" and host.gpu:  # PyTorch's CUDA build has brought Triton
        return "Unsloth with bitsandbytes for the GPU here, about 100 MB", [*UNSLOTH_NEEDS, "bitsandbytes==0.50.2"]
    return "Unsloth for the CPU, about 40 MB (180 on disk)", UNSLOTH_NEEDS


def pins(requirements: str) -> dict[str, str]:
    """Names and versions in the text of a requirements file; comments and options are passed over."""
    found = re.findall(r"^([A-Za-z0-9._-]+)==([^\s#;]+)", requirements, flags=re.MULTILINE)
    return {canonical(name): version for name, version in found}


def canonical(name: str) -> str:
    """A distribution's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def missing(requirements: str, installed: dict[str, str], exact: Container[str] | None = WINDOW) -> list[str]:
    """What to install of requirements.txt (its text), as `name==version`; never torch.

    Args:
        installed: version of each installed distribution.
        exact: names whose other versions count as missing; None: every name.
    """
    have = {canonical(name): version for name, version in installed.items()}
    return [
        f"{name}=={version}"
        for name, version in pins(requirements).items()
        if name != "torch" and have.get(name) != version
        if name not in have or exact is None or name in exact
    ]


def wanted(host: Host, requirements: str, installed: dict[str, str]) -> list[str]:
    """What is missing on this host: on Colab less, for its own packages stay where results allow it."""
    if host.active != "colab":
        return missing(requirements, installed, None)
    return [pin for pin in missing(requirements, installed) if pin.split("==")[0] not in NOT_ON_COLAB]


def preflight(host: Host, requirements: str, facts: dict) -> list[tuple[str, bool, str, str]]:
    """Judge what was found: item, whether it is fine, what was found, and the remedy.

    Args:
        facts: what `look` says, `memory_gb` and `disk_gb` (free), `port` (one is free), and what is wrong
            (empty: nothing) with `torch`, `jupyter`, `model`, `data` and the folders to write to (`writing`).
    """
    versions, helpers = facts["versions"], facts["helpers"]
    wrong, torch = wanted(host, requirements, versions), versions.get("torch")
    python, ours = tuple(facts["python"]), ROOT / "helpers" / "__init__.py"
    foreign = "`pip uninstall helpers`: that package has the name of the course's own"
    disk = "make room: 2 GB are needed, or COURSE_HOME set to a folder on another disk"
    memory = "1.7 GB are needed: give the container more, or take the course in Colab"
    port = "free" if facts["port"] else "8888 to 8937 are taken"
    return [
        ("Python", python >= PYTHONS[0], ".".join(map(str, python)), f"delete .venv, {AGAIN}"),
        ("System", not refusal(host, torch), f"{host.system} {host.arch}", refusal(host, torch)),
        ("Memory", facts["memory_gb"] >= 1.7, f"{facts['memory_gb']:.1f} GB", memory),
        ("Disk", facts["disk_gb"] >= 2, f"{facts['disk_gb']:.0f} GB free", disk),
        (
            "Writing",
            not facts["writing"],
            facts["writing"] or "allowed",
            "move the course to your own folder",
        ),
        ("PyTorch", bool(torch) and not facts["torch"], facts["torch"] or torch or "missing", AGAIN),
        ("Packages", not wrong, "as in requirements.txt" if not wrong else f"not {', '.join(wrong)}", AGAIN),
        ("helpers", Path(helpers or "") == ours, helpers or "not found", foreign if helpers else AGAIN),
        ("Model", not facts["model"], facts["model"] or "intact", AGAIN),
        ("Data", not facts["data"], facts["data"] or "intact", DATA_REMEDY),
        ("Jupyter", not facts["jupyter"], facts["jupyter"] or "starts a kernel", AGAIN),
        ("Port", facts["port"], port, "stop other Jupyter servers"),
    ]


# --- looking -------------------------------------------------------------------------------------

LOOK = """
import importlib.metadata as metadata, importlib.util as util, json, sys, sysconfig
spec, memory = util.find_spec("helpers"), 0.0
sys.path.insert(0, sys.argv[1])
try:
    from helpers.runtime import memory_limit
    memory = memory_limit() / 2**30
except Exception:
    pass  # no psutil yet, or a broken one
versions = {found.name: found.version for found in metadata.distributions()}
print(json.dumps({"python": sys.version_info[:2], "versions": versions, "helpers": spec and spec.origin,
    "memory_gb": memory, "packages": sysconfig.get_path("purelib")}))
"""
KERNEL = """
import jupyterlab.labapp
from jupyter_client.manager import start_new_kernel
manager, client = start_new_kernel(kernel_name="python3", startup_timeout=60)
client.stop_channels(), manager.shutdown_kernel(now=True)
"""


def describe() -> Host:
    """Describe this machine and the Python that runs."""
    prefix, active, arch = Path(sys.prefix).resolve(), "", platform.machine().lower()
    if runtime.place() == "colab":
        active = "colab"
    elif sys.prefix != sys.base_prefix:
        active = "virtual"
    elif (prefix / "conda-meta").is_dir() and not (prefix / "condabin").is_dir():  # condabin: `base`
        active = "conda"
    if platform.system() == "Windows":  # the Python's kind counts: an x64 one runs on ARM
        arch = {"win-amd64": "x86_64", "win-arm64": "arm64"}.get(sysconfig.get_platform(), "x86")
    return Host(
        system=platform.system(), arch=arch, python=sys.version_info[:2], active=active, prefix=prefix,
        bits=64 if sys.maxsize > 2**32 else 32, macos=int(platform.mac_ver()[0].split(".")[0] or 0),
        gpu="GPU" in ask("nvidia-smi", "-L")[0], executable=Path(sys.executable),
    )  # fmt: skip


UTF8 = {"PYTHONUTF8": "1", "PIP_USER": "0"}  # a user's `pip install --user` habit fails in environments


def _child(words: Sequence[str | Path], **options: object) -> dict:
    """What every child is started with: in the repository, in UTF-8."""
    return {"args": [*map(str, words)], "cwd": ROOT, "env": os.environ | UTF8, **options}


def ask(*words: str | Path) -> tuple[str, str]:
    """Run a command out of sight: what it printed and, if it failed, the last line of its complaint."""
    try:
        done = subprocess.run(**_child(words, capture_output=True, encoding="utf-8", errors="replace"))
    except OSError as error:
        return "", str(error)
    return done.stdout, (done.stderr.strip().splitlines() or ["failed"])[-1] if done.returncode else ""


def look(python: Path) -> dict:
    """What an environment's Python says of itself (see LOOK); empty if it doesn't start or is too old."""
    answer, problem = ask(python, "-P", "-c", LOOK, ROOT)
    return {} if problem else json.loads(answer)


def sha256(path: Path) -> str | None:
    """SHA-256 of a file as hexadecimal text; None if there is no such file."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def altered(folder: Path, digests: dict[str, str]) -> str:
    """Names of the files in `folder` that are missing or have another SHA-256; empty if all are right."""
    return ", ".join(name for name, digest in digests.items() if sha256(folder / name) != digest)


def read_json(path: Path) -> dict:
    """A small state file; empty if it isn't there or was cut short."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def model_problem() -> str:
    """What is wrong with the converted model on disk; empty if nothing is, or the learner chose another."""
    if os.environ.get("COURSE_MODEL"):
        return ""
    manifests = [*(runtime.home() / "models").glob("[!.]*/manifest.json")]
    bad = [altered(path.parent, read_json(path).get("sha256", {path.name: ""})) for path in manifests]
    return "not fetched yet" if not bad else f"damaged: {', '.join(bad)}" if any(bad) else ""


def data_problem(folder: Path = ROOT / "data") -> str:
    """What is wrong with the course's rows, against `hashes.json` beside them; empty if nothing is."""
    hashes = read_json(folder / "hashes.json") or {"hashes.json": {"sha256": ""}}
    bad = altered(folder, {name: entry["sha256"] for name, entry in hashes.items()})
    return f"missing or altered: {bad}" if bad else ""


def port_free(ports: Sequence[int] = range(8888, 8938)) -> bool:
    """Whether one of the ports that JupyterLab tries can be opened on this machine."""
    for port in ports:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return True
    return False


# --- stages --------------------------------------------------------------------------------------


def say(text: str) -> None:
    """Print at once, so that our lines and those of children stand in order."""
    print(text, flush=True)


def run(command: Sequence[str | Path], failing: str) -> None:
    """Run a child with its output shown live; `failing` becomes the `CourseError` if it fails."""
    code = subprocess.run(**_child(command)).returncode
    if code in (130, -signal.SIGINT):
        raise KeyboardInterrupt
    if code:
        raise CourseError(f"{failing} Then {AGAIN}: finished stages are kept.")


def foreground(command: Sequence[str | Path], **environment: str) -> int:
    """Run a child that deals with Ctrl-C itself (JupyterLab asks, pytest sums up); returns its exit code."""
    process = subprocess.Popen(**_child(command, env=os.environ | UTF8 | environment))
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return process.wait()
    finally:
        signal.signal(signal.SIGINT, before)


def installer(python: Path) -> list[str]:
    """The command that installs into an environment: its pip, else `uv`, else a pip that ensurepip brings."""
    if ask(python, "-m", "pip", "--version")[1]:
        if uv := shutil.which("uv"):
            return [uv, "pip", "install", "--python", str(python)]
        run([python, "-m", "ensurepip"], f"{python} has no pip: install uv, or delete that environment.")
    return [str(python), "-m", "pip", "install"]


def offers_cpu_build(install: list[str]) -> bool:
    """Whether pip or uv, as configured here, finds PyTorch's CPU build by itself; downloads nothing."""
    if install[1] == "pip":
        return not ask(*install, "--dry-run", "--no-deps", f"torch=={TORCH}+cpu")[1]
    return f" {TORCH}+cpu," in ask(*install[:3], "index", "versions", "torch")[0].replace("\n", ",")


class Record:
    """The finished stages of one environment with one requirements.txt, kept in `.course/setup.json`."""

    def __init__(self, *identity: object) -> None:
        self.path, key = runtime.home() / "setup.json", hashlib.sha256(repr(identity).encode()).hexdigest()
        self.state = read_json(self.path)
        self.done = self.state.setdefault(key, [])

    def add(self, stage: str) -> None:
        """Note a stage as finished."""
        self.done.append(stage)
        runtime.atomic_write(self.path, json.dumps(self.state, indent=1) + "\n")


def set_up(host: Host | None = None) -> tuple[Environment, Record]:
    """Bring environment, PyTorch, packages, model and data here: stages 1 to 6 of 7, finished ones skipped.

    Raises:
        CourseError: a stage failed; says what helps.
    """
    runtime.told_memory()  # a wrong one ends here, not in each lesson
    host, requirements = host or describe(), REQUIREMENTS.read_text(encoding="utf-8")
    place = environment(host)
    found = look(place.python)
    if problem := refusal(host, found.get("versions", {}).get("torch")):
        raise CourseError(problem)
    say(f"[1/7] Environment: {place.text}" + ("" if found else ", made now …"))
    if not found:
        need, free = 12 if host.gpu else 5, shutil.disk_usage(ROOT).free / 2**30
        if free < need:
            raise CourseError(f"{need} GB of disk are needed and {free:.1f} are free here: make room.")
        if not importlib.util.find_spec("ensurepip"):  # Debian packs it apart
            raise CourseError(f"This Python makes no environments: `apt install python3-venv`, then {AGAIN}.")
        import venv

        try:
            venv.create(ROOT / ".venv", clear=True, symlinks=host.system != "Windows", with_pip=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise CourseError(f"The environment could not be made: {error}.") from None
        found = look(place.python)
    record = Record(str(place.python), found["python"], requirements)

    torch = found["versions"].get("torch")
    if torch and "torch" in record.done:
        say(f"[2/7] PyTorch {torch}: done before")
    else:
        broken = ask(place.python, "-c", "import torch")[1] if torch else ""
        install = installer(place.python)
        offered = host.system == "Linux" and not (host.gpu or torch) and offers_cpu_build(install)
        text, arguments = torch_plan(host, torch, broken, offered)
        say(f"[2/7] {text} …")
        if arguments:
            handed = f"put its wheel ({arguments[0]}) into a folder, and name that in PIP_FIND_LINKS"
            run(
                [*install, *arguments],
                f"PyTorch was not installed. Where its index can't be reached, {handed}.",
            )
            found = look(place.python)
        record.add("torch")

    pinned = [f"torch=={found['versions']['torch']}", *missing(requirements, {})]
    limits = runtime.atomic_write(runtime.home() / "limits.txt", "\n".join(pinned) + "\n")
    if "packages" in record.done and not wanted(host, requirements, found["versions"]):
        say("[3/7] Packages of requirements.txt: done before")
    elif host.active == "colab":
        say("[3/7] Packages that Colab lacks …")
        colab()
    else:
        say("[3/7] Packages of requirements.txt, about 200 MB …")
        run([*installer(place.python), "-c", limits, *pinned[1:]], "They were not installed: see above.")
        record.add("packages")

    unsloth(host, place.python, limits, record, found["versions"])

    pointer = Path(found["packages"]) / "fine-tuning-course.pth"
    say("[5/7] The course, importable from any folder")
    if not pointer.is_file() or pointer.read_text(encoding="utf-8") != f"{ROOT}\n":
        runtime.atomic_write(pointer, f"{ROOT}\n")

    wish = f"model {os.environ.get('COURSE_MODEL', '')}"
    if wish in record.done and not model_problem():
        say("[6/7] Model and data: done before")
    else:
        say("[6/7] Model and data …")
        run([place.python, "-m", "helpers", "fetch"], "The model is not here yet.")
        record.add(wish)
    if problem := data_problem():
        raise CourseError(f"The data are {problem}. Remedy: {DATA_REMEDY}; then {AGAIN}.")
    return place, record


def unsloth(host: Host, python: Path, limits: Path, record: Record, versions: dict[str, str]) -> None:
    """Stage 4: Unsloth without its declared dependencies, tried by importing it.

    One elective needs it, so a failure is told and stops nothing; the next `start` tries again.
    """
    text, needs = unsloth_plan(host)
    wish = " ".join(["unsloth", *UNSLOTH, *needs])
    if not needs or (wish in record.done and versions.get("unsloth") == UNSLOTH[0].split("==")[1]):
        return say(f"[4/7] Unsloth: {'done before' if needs else text}")
    say(f"[4/7] {text} …")
    try:
        for words in (["-c", limits, *needs], ["--no-deps", *UNSLOTH]):  # in this order pip has nothing to regret
            run([*installer(python), *words], "Unsloth was not installed.")
        if problem := ask(python, "-c", "import unsloth")[1]:
            raise CourseError(f"Unsloth is there, but does not start: {problem}.")
    except CourseError as error:
        return say(f"{error} The course goes on without it: lesson 13 shows its recorded run.")
    record.add(wish)


def colab() -> list[str]:
    """Install into Colab's Python what the lessons miss there, keeping its torch; returns what was installed.

    Raises:
        CourseError: pip can't install it beside that torch.
    """
    installed = {found.name: found.version for found in importlib.metadata.distributions()}
    absent = wanted(Host(active="colab"), REQUIREMENTS.read_text(encoding="utf-8"), installed)
    if absent:
        kept = [f"{name}=={version}\n" for name, version in installed.items() if name.startswith("torch")]
        limits = runtime.atomic_write(runtime.home() / "limits.txt", "".join(kept))
        _, problem = ask(sys.executable, "-m", "pip", "install", "-q", "-c", limits, *absent)
        if problem:
            raise CourseError(f"{', '.join(absent)} can't be installed: {problem}. Restart the session.")
        importlib.invalidate_caches()
    return absent


def copy_lessons(lessons: Path = ROOT / "lessons", target: Path = ROOT / "my_lessons") -> list[str]:
    """Copy the lessons to where the learner works; a copy that was edited is never touched.

    `.copied.json` holds the SHA-256 of what was copied last. An unedited copy follows its lesson; beside an
    edited one a new version is put as `NAME.new.ipynb`; a deleted one comes back. Templates of
    `lessons/my_task` go to `my_task` beside `target`, once.

    Returns:
        A line to print for each lesson that changed.
    """
    known, notes = read_json(target / ".copied.json"), []
    for lesson in sorted(lessons.glob("*.ipynb")):
        copy, digest = target / lesson.name, sha256(lesson)
        edited = sha256(copy) not in (None, digest, known.get(copy.name))
        if edited and known.get(copy.name) != digest:
            copy = target / f"{lesson.stem}.new.ipynb"
            if sha256(copy) not in (None, digest, known.get(copy.name)):  # edited as well
                copy = target / f"{lesson.stem}.{digest[:6]}.new.ipynb"
            notes.append(f"{lesson.name} was edited and stays as it is; its new version is {copy.name}")
        elif edited or sha256(copy) == digest:
            known[lesson.name] = digest
            continue
        elif copy.exists():
            notes.append(f"{lesson.name} has a new version")
        runtime.atomic_write(copy, lesson.read_bytes())
        known |= {lesson.name: digest, copy.name: digest}
    runtime.atomic_write(target / ".copied.json", json.dumps(known, indent=1) + "\n")
    for template in (lessons / "my_task").rglob("*"):
        mine = target.parent / template.relative_to(lessons)
        if template.is_file() and not mine.exists():
            runtime.atomic_write(mine, template.read_bytes())
    return notes


# --- the commands --------------------------------------------------------------------------------


def check() -> int:
    """Print the preflight, OK or FAIL with the remedy for each item; returns 0 if all are OK."""
    runtime.told_memory()
    host, writing = describe(), ""
    python = environment(host).python
    facts = look(python)
    if not facts:
        raise CourseError(f"There is no environment at {python} yet: run `python -m helpers start`.")
    for folder in (ROOT, runtime.home()):
        try:
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            writing = f"{folder}: {error}"
    facts |= {"writing": writing, "port": port_free(), "model": model_problem(), "data": data_problem()}
    facts["torch"] = ask(python, "-c", "import torch")[1]
    facts["jupyter"] = "" if host.active == "colab" else ask(python, "-c", KERNEL)[1]
    facts["disk_gb"] = shutil.disk_usage(runtime.home()).free / 2**30
    items = preflight(host, REQUIREMENTS.read_text(encoding="utf-8"), facts)
    for item, fine, state, remedy in items:
        say(f"  {'OK  ' if fine else 'FAIL'}  {item:9} {state}")
        if not fine:
            say(f"                  → {remedy}")
    return int(not all(fine for _, fine, _, _ in items))


def lab_command(python: Path, browser: bool = True, root_user: bool = False) -> list[str]:
    """The command that opens JupyterLab at the first lesson, and does not fetch its news.

    The whole course is its root, for lessons link to files outside their folder.
    """
    options = ["--LabApp.news_url=None", *([] if browser else ["--no-browser"])]
    options += ["--allow-root"] if root_user else []  # containers have no other user
    first = "--LabApp.default_url=/lab/tree/my_lessons/00-start-here.ipynb"
    return [str(python), "-m", "jupyterlab", first, f"--ServerApp.root_dir={runtime.ROOT}", *options]


def no_news(python: Path) -> None:
    """Let JupyterLab in the course's own `.venv` not ask, over the first lesson, whether it may fetch news."""
    settings = python.parents[1] / "share" / "jupyter" / "lab" / "settings" / "overrides.json"
    if not settings.is_file():
        runtime.atomic_write(settings, '{"@jupyterlab/apputils-extension:notification": {"fetchNews": "false"}}\n')


def start(lab: bool = True, browser: bool = True) -> int:
    """Set everything up, check it, copy the lessons and open JupyterLab; returns the exit code."""
    place, record = set_up()
    if "preflight" in record.done:
        say("[7/7] Preflight: passed before (`python -m helpers check` repeats it)")
    else:
        say("[7/7] Preflight …")
        if check():
            raise CourseError(f"Mend what says FAIL, then {AGAIN}.")
        record.add("preflight")
    for note in copy_lessons():
        say(note)
    if place.own:
        no_news(place.python)
    lab = lab and runtime.place() == "local"  # Colab and Binder have their own
    say("Ready: the lessons are in my_lessons." + (" JupyterLab opens; Ctrl-C here ends it." if lab else ""))
    root_user = hasattr(os, "geteuid") and os.geteuid() == 0
    return foreground(lab_command(place.python, browser, root_user)) if lab else 0


def side_by_side(cores: int, memory_gb: float) -> int:
    """How many files of tests may run at once: each wants a processor and 8 GB, and more than four gain little."""
    return max(1, min(cores, int(memory_gb // 8), 4))


def test(arguments: Sequence[str]) -> int:
    """Set up what the tests need, run pytest there with these arguments, return its exit code.

    Without arguments pytest runs twice: over the files that don't need one another, side by side where the machine
    allows it, then over what judges the scoreboard that they have left.
    """
    python = set_up()[0].python
    if arguments:
        return foreground([python, "-m", "pytest", *arguments])
    lanes = side_by_side(runtime.cores(), look(python)["memory_gb"])
    split = ["-n", str(lanes), "--dist", "loadfile", "--no-loadscope-reorder"] if lanes > 1 else []
    with tempfile.TemporaryDirectory(prefix="course-runs-", ignore_cleanup_errors=True) as folder:
        first = foreground([python, "-m", "pytest", f"--ignore={JUDGES}", *split], COURSE_TEST_RUNS=folder)
        if first == 2:  # interrupted, or not even collected
            return first
        return max(first, foreground([python, "-m", "pytest", JUDGES], COURSE_TEST_RUNS=folder))


def inside(arguments: Sequence[str]) -> int | None:
    """Run `python -m helpers …` in the course's environment; None if this Python is that environment's."""
    host = describe()
    python = environment(host).python
    if host.active:
        return None
    if not look(python):
        raise CourseError("The course isn't set up yet: run `python -m helpers start` first.")
    return foreground([python, "-m", "helpers", *arguments])
