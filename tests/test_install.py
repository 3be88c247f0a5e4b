"""The two commands: what they decide on machines we don't have, and what they do on this one."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import os
import platform
import re
import socket
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from helpers import __main__ as cli
from helpers import install, models
from helpers.install import Host
from helpers.runtime import ROOT, CourseError

REQUIREMENTS = (ROOT / "requirements.txt").read_text(encoding="utf-8")
PINS = install.pins(REQUIREMENTS)

LINUX = Host()
LINUX_GPU = Host(gpu=True)
MAC = Host("Darwin", "arm64", macos=15)
INTEL_MAC = Host("Darwin", "x86_64", macos=14)
WINDOWS = Host("Windows", "x86_64")
WINDOWS_ARM = Host("Windows", "arm64")
COLAB = Host(python=(3, 12), gpu=True, active="colab", executable=Path("/usr/bin/python3"))


# --- may it run here? ----------------------------------------------------------------------------


@pytest.mark.parametrize("host", [LINUX, LINUX_GPU, MAC, WINDOWS, COLAB, Host(arch="aarch64"), Host(python=(3, 14))])
def test_machines_that_pytorch_has_wheels_for_are_welcome(host):
    assert install.refusal(host) == ""


@pytest.mark.parametrize(
    "host, reason, remedy",
    [
        (Host(python=(3, 10)), "This is Python 3.10", "python3.14 -m helpers start"),
        (Host(python=(3, 15)), "no wheels for Python 3.15", "Install Python 3.14"),
        (Host("Windows", "x86", bits=32), "32-bit", "Install the 64-bit one"),
        (INTEL_MAC, "Intel macOS", "Colab"),
        (Host("Darwin", "arm64", macos=13), "macOS 13", "Update to macOS 14"),
        (WINDOWS_ARM, "Windows on ARM", "x64 Python"),
    ],
)
def test_machines_without_wheels_are_refused_with_the_remedy(host, reason, remedy):
    assert reason in install.refusal(host) and remedy in install.refusal(host)


def test_a_pytorch_that_is_there_lifts_what_only_concerns_wheels():
    assert install.refusal(INTEL_MAC, torch="2.9.1") == ""
    assert "3.10" in install.refusal(Host(python=(3, 10)), torch="2.9.1")


@pytest.mark.parametrize("old", [(3, 6), (3, 7)])
def test_old_pythons_can_read_the_command_and_are_told(old, monkeypatch, capsys):
    ast.parse((ROOT / "helpers" / "__main__.py").read_text(encoding="utf-8"), feature_version=old)
    monkeypatch.setattr(sys, "version_info", (*old, 9))
    assert cli.main(["start"]) == 1
    assert "The course needs Python 3.11 to 3.14" in capsys.readouterr().out


# --- which environment? --------------------------------------------------------------------------


def test_a_bare_python_gets_a_venv_in_the_repository():
    assert install.environment(LINUX, Path("/c"))[:2] == (Path("/c/.venv/bin/python"), True)
    assert install.environment(WINDOWS, Path("/c"))[:2] == (Path("/c/.venv/Scripts/python.exe"), True)


@pytest.mark.parametrize("active, named", [("virtual", "virtual"), ("conda", "conda"), ("colab", "Colab")])
def test_an_active_environment_is_used_and_named(active, named):
    host = Host(active=active, prefix=Path("/mine"), executable=Path("/mine/bin/python3.12"))
    place = install.environment(host, Path("/c"))
    assert (place.python, place.own) == (Path("/mine/bin/python3.12"), False) and named in place.text


def test_the_course_s_own_venv_stays_its_own_when_active():
    host = Host(active="virtual", prefix=Path("/c/.venv"), executable=Path("/c/.venv/bin/python"))
    assert install.environment(host, Path("/c")).own


@pytest.mark.parametrize(
    "folders, variables, expected",
    [
        (["conda-meta"], {}, "conda"),
        (["conda-meta", "condabin"], {}, ""),  # conda's base is not ours to fill
        ([], {}, ""),
        ([], {"COLAB_RELEASE_TAG": "release"}, "colab"),
    ],
)
def test_the_kind_of_the_running_python_is_recognised(tmp_path, monkeypatch, folders, variables, expected):
    for folder in folders:
        (tmp_path / folder).mkdir()
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path))
    monkeypatch.delenv("COLAB_RELEASE_TAG", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert install.describe().active == expected


# --- which PyTorch? ------------------------------------------------------------------------------


def test_linux_without_a_gpu_takes_the_cpu_build_from_the_cpu_index():
    text, arguments = install.torch_plan(LINUX)
    assert arguments == ["torch==2.13.0+cpu", "--index-url", install.CPU_INDEX]
    assert "for the CPU, about 190 MB" in text


def test_where_pip_already_offers_the_cpu_build_no_index_is_named():
    assert install.torch_plan(LINUX, offered=True)[1] == ["torch==2.13.0+cpu"]


@pytest.mark.parametrize("host, size", [(LINUX_GPU, "3 GB"), (MAC, "120 MB"), (WINDOWS, "120 MB")])
def test_everybody_else_takes_the_default_index(host, size):
    text, arguments = install.torch_plan(host)
    assert arguments == ["torch==2.13.0"] and size in text


@pytest.mark.parametrize("host", [LINUX, LINUX_GPU, MAC, COLAB])
@pytest.mark.parametrize("version", ["2.6.0", "2.9.0+cu126", "2.15.0"])
def test_a_pytorch_that_works_is_kept(host, version):
    assert install.torch_plan(host, version)[1] == []


def test_a_useless_pytorch_is_named_and_not_replaced():
    with pytest.raises(CourseError, match="2.5.1 is here, but the course needs 2.6"):
        install.torch_plan(LINUX, "2.5.1")
    with pytest.raises(CourseError, match="OSError: libtorch.*never replaces"):
        install.torch_plan(LINUX, "2.13.0", broken="OSError: libtorch.so is cut short")


@pytest.mark.parametrize(
    "listing, offered",
    [
        ("torch (2.15.0)\nAvailable versions: 2.15.0, 2.13.0+cpu, 2.13.0\n", True),
        ("torch (2.13.0+cpu)\nAvailable versions: 2.13.0+cpu\n", True),
        ("torch (2.15.0)\nAvailable versions: 2.15.0, 2.13.0, 2.13.0+cpu.cxx11\n", False),
        ("", False),
    ],
)
def test_pip_s_own_listing_tells_whether_it_offers_the_cpu_build(monkeypatch, listing, offered):
    monkeypatch.setattr(install, "ask", lambda *words: (listing, ""))
    assert install.offers_cpu_build(["python", "-m", "pip", "install"]) is offered


def test_uv_is_asked_by_a_dry_run(monkeypatch):
    asked = []
    monkeypatch.setattr(install, "ask", lambda *words: asked.append(words) or ("", ""))
    assert install.offers_cpu_build(["uv", "pip", "install", "--python", "p"])
    assert "--dry-run" in asked[0] and "torch==2.13.0+cpu" in asked[0]


# --- which packages? -----------------------------------------------------------------------------


def test_pins_are_read_past_comments_options_and_spellings():
    text = "--extra-index-url x\n# a==1\nJupyter_Quiz==2.9  # why\ntorch==2.13.0\n\n-r other.txt\n"
    assert install.pins(text) == {"jupyter-quiz": "2.9", "torch": "2.13.0"}


def test_missing_names_what_is_absent_and_other_versions_of_what_decides_results():
    installed = {"trl": "1.14.0", "peft": PINS["peft"], "Torch": "2.9.0", "matplotlib": "3.8.0"}
    missing = install.missing(REQUIREMENTS, installed)
    assert f"trl=={PINS['trl']}" in missing and f"datasets=={PINS['datasets']}" in missing
    assert not any(pin.startswith(("torch", "peft", "matplotlib")) for pin in missing)
    assert f"matplotlib=={PINS['matplotlib']}" in install.missing(REQUIREMENTS, installed, None)


def test_torch_is_never_missing():
    assert len(install.missing(REQUIREMENTS, {}, None)) == len(PINS) - 1


def test_colab_gets_no_tools_and_keeps_its_torch(monkeypatch, tmp_path):
    class Distribution:
        def __init__(self, name, version):
            self.name, self.version = name, version

    there = {"torch": "2.9.0+cu126", "torchvision": "0.24.0", "transformers": "4.57.1", "numpy": "2.0.2"}
    monkeypatch.setenv("COURSE_HOME", str(tmp_path))
    monkeypatch.setattr(importlib.metadata, "distributions", lambda: [Distribution(*pair) for pair in there.items()])
    commands = []
    monkeypatch.setattr(install, "ask", lambda *words: commands.append(words) or ("", ""))
    installed = install.colab()
    assert f"transformers=={PINS['transformers']}" in installed and f"trl=={PINS['trl']}" in installed
    assert not any(pin.split("==")[0] in {"torch", "numpy", "jupyterlab", "pytest", "ruff"} for pin in installed)
    limits = Path(commands[0][commands[0].index("-c") + 1]).read_text(encoding="utf-8")
    assert limits.split() == ["torch==2.9.0+cu126", "torchvision==0.24.0"]
    there |= dict(pin.split("==") for pin in installed)
    assert install.colab() == [] and len(commands) == 1


def test_a_failed_colab_installation_says_which_and_why(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_HOME", str(tmp_path))
    monkeypatch.setattr(importlib.metadata, "distributions", lambda: [])
    monkeypatch.setattr(install, "ask", lambda *words: ("", "ERROR: no space left"))
    with pytest.raises(CourseError, match=f"trl=={PINS['trl']}.*no space left"):
        install.colab()


# --- stages --------------------------------------------------------------------------------------


class Computer:
    """A pretended machine: it notes what would be run, and remembers what that would install."""

    def __init__(self, folder, monkeypatch, made=False):
        self.packages, self.made, self.versions, self.commands, self.stop = folder, made, {}, [], None
        self.model = "not fetched yet"
        monkeypatch.setenv("COURSE_HOME", str(folder / "home"))
        monkeypatch.delenv("COURSE_MODEL", raising=False)
        monkeypatch.setattr(venv, "create", self.create)
        for name in ("look", "run", "ask", "model_problem"):
            monkeypatch.setattr(install, name, getattr(self, name))
        monkeypatch.setattr(install, "data_problem", lambda: "")

    def create(self, *arguments, **options):
        self.made = True

    def look(self, python):
        found = {"python": [3, 11], "versions": dict(self.versions), "packages": str(self.packages)}
        return found if self.made else {}

    def ask(self, *words):
        return ("torch\nAvailable versions: 2.13.0+cpu\n", "") if "index" in words else ("", "")

    def model_problem(self):
        return self.model

    def run(self, command, failing):
        words = [str(word) for word in command]
        if self.stop and any(self.stop in word for word in words):
            raise KeyboardInterrupt
        self.commands.append(words)
        if words[-1] == "fetch":
            self.model = ""
        self.versions |= dict(word.split("==") for word in words if "==" in word)


@pytest.fixture
def computer(tmp_path, monkeypatch):
    return Computer(tmp_path, monkeypatch)


def test_a_fresh_machine_goes_through_all_stages_once(computer, capsys):
    install.set_up(host=LINUX)
    torch, packages, _, _, fetch = computer.commands
    assert torch[-1] == "torch==2.13.0+cpu" and fetch[-2:] == ["helpers", "fetch"]
    assert set(packages) >= {f"{name}=={version}" for name, version in PINS.items() if name != "torch"}
    limits = Path(packages[packages.index("-c") + 1]).read_text(encoding="utf-8")
    assert "torch==2.13.0+cpu\n" in limits
    assert (computer.packages / "fine-tuning-course.pth").read_text(encoding="utf-8") == f"{ROOT}\n"
    capsys.readouterr()
    install.set_up(host=LINUX)
    assert len(computer.commands) == 5
    assert capsys.readouterr().out.count("done before") == 4


@pytest.mark.parametrize("stop, left", [("torch==", 5), ("trl==", 4), ("unsloth==", 3), ("fetch", 1)])
def test_an_interrupted_stage_is_the_one_that_is_taken_up_again(computer, stop, left):
    computer.stop = stop
    with pytest.raises(KeyboardInterrupt):
        install.set_up(host=LINUX)
    computer.stop, computer.commands = None, []
    install.set_up(host=LINUX)
    assert len(computer.commands) == left


def test_what_vanished_is_brought_again(computer):
    install.set_up(host=LINUX)
    del computer.versions["trl"]
    computer.model, computer.commands = "damaged: model.safetensors", []
    install.set_up(host=LINUX)
    assert [command[-1] for command in computer.commands] == [f"ruff=={PINS['ruff']}", "fetch"]


def test_a_record_cut_short_only_costs_time(computer):
    install.set_up(host=LINUX)
    (computer.packages / "home" / "setup.json").write_text('{"abc": ["tor', encoding="utf-8")
    install.set_up(host=LINUX)
    assert len(computer.commands) == 9  # PyTorch is there and stays


def test_another_requirements_txt_installs_again(computer, tmp_path, monkeypatch):
    install.set_up(host=LINUX)
    changed = tmp_path / "requirements.txt"
    changed.write_text(REQUIREMENTS.replace("psutil==", "psutil==99."), encoding="utf-8")
    monkeypatch.setattr(install, "REQUIREMENTS", changed)
    computer.commands = []
    install.set_up(host=LINUX)
    assert any(word.startswith("psutil==99.") for word in computer.commands[0])


def test_a_present_torch_is_kept_and_pinned_while_packages_are_installed(computer):
    computer.made, computer.versions = True, {"torch": "2.9.0+cu126"}
    host = Host(active="virtual", prefix=Path("/mine"), executable=Path("/mine/bin/python"))
    install.set_up(host=host)
    assert not any("torch==" in word for command in computer.commands for word in command)
    packages = computer.commands[0]
    assert packages[0] == str(Path("/mine/bin/python"))
    assert Path(packages[packages.index("-c") + 1]).read_text().startswith("torch==2.9.0+cu126\n")


def test_unsloth_comes_last_without_its_dependencies_and_touches_no_pin(computer):
    install.set_up(host=LINUX)
    _, packages, needs, bare, _ = computer.commands
    assert (
        bare[-3:] == ["--no-deps", *install.UNSLOTH] and needs[-len(install.UNSLOTH_NEEDS) :] == install.UNSLOTH_NEEDS
    )
    assert needs[needs.index("-c") + 1] == packages[packages.index("-c") + 1]
    assert not {word.split("==")[0] for word in needs if "==" in word} & set(PINS)


def test_another_unsloth_than_the_course_s_is_replaced(computer):
    install.set_up(host=LINUX)
    computer.versions["unsloth"], computer.commands = "2027.1.1", []
    install.set_up(host=LINUX)
    assert [command[-1] for command in computer.commands] == [install.UNSLOTH_NEEDS[-1], install.UNSLOTH[-1]]


@pytest.mark.parametrize("fault", ["no wheel", "does not start"])
def test_where_unsloth_fails_the_course_goes_on_and_the_next_start_tries_again(computer, monkeypatch, fault, capsys):
    def run(command, failing):
        if fault == "no wheel" and "tyro" in str(command):
            raise CourseError(failing)
        computer.run(command, failing)

    def ask(*words):
        return ("", "No module named 'triton'") if words[-1] == "import unsloth" else computer.ask(*words)

    monkeypatch.setattr(install, "run", run)
    if fault == "does not start":
        monkeypatch.setattr(install, "ask", ask)
    install.set_up(host=LINUX)
    told = capsys.readouterr().out
    assert "lesson 13 shows its recorded run" in told and ("triton" in told) == (fault == "does not start")
    assert computer.commands[-1][-1] == "fetch"
    monkeypatch.setattr(install, "run", computer.run)
    monkeypatch.setattr(install, "ask", computer.ask)
    computer.commands = []
    install.set_up(host=LINUX)
    assert computer.commands[-1][-1] == install.UNSLOTH[-1]


@pytest.mark.parametrize(
    ("host", "word", "extra"),
    [
        (LINUX, "for the CPU", []),
        (LINUX_GPU, "bitsandbytes for the GPU", ["bitsandbytes"]),
        (Host("Windows", gpu=True), "for the CPU", []),  # PyTorch there is for the CPU
    ],
)
def test_cuda_parts_come_only_where_pytorch_has_cuda(host, word, extra):
    text, needs = install.unsloth_plan(host)
    assert word in text and "MB" in text
    assert [need.split("==")[0] for need in needs if need not in install.UNSLOTH_NEEDS] == extra


def test_a_mac_is_told_that_it_gets_the_recorded_run(computer, capsys):
    install.set_up(host=MAC)
    assert "MLX" in capsys.readouterr().out
    assert not any("unsloth" in word for command in computer.commands for word in command)


def test_a_python_without_ensurepip_is_told_what_to_install(computer, monkeypatch):
    monkeypatch.setattr(install.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CourseError, match="apt install python3-venv"):
        install.set_up(host=LINUX)
    assert not computer.made


def test_nothing_is_made_on_a_machine_that_is_refused(computer):
    with pytest.raises(CourseError, match="Intel macOS"):
        install.set_up(host=INTEL_MAC)
    assert not computer.made and not computer.commands


def test_too_little_disk_is_said_before_anything_is_downloaded(computer, monkeypatch):
    monkeypatch.setattr(install.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 2**30})())
    with pytest.raises(CourseError, match="5 GB of disk"):
        install.set_up(host=LINUX)
    assert not computer.made


def test_altered_data_stop_the_set_up(computer, monkeypatch):
    monkeypatch.setattr(install, "data_problem", lambda: "missing or altered: test.jsonl")
    with pytest.raises(CourseError, match="test.jsonl.*git checkout"):
        install.set_up(host=LINUX)


def test_a_failing_child_becomes_one_clear_sentence():
    with pytest.raises(CourseError, match="No luck. Then run `python -m helpers start` again"):
        install.run([sys.executable, "-c", "raise SystemExit(3)"], "No luck.")
    with pytest.raises(KeyboardInterrupt):
        install.run([sys.executable, "-c", "raise SystemExit(130)"], "")


def test_children_speak_utf8_and_start_in_the_repository():
    code = "import os, sys; print(sys.flags.utf8_mode, os.getcwd())"
    assert install.ask(sys.executable, "-c", code)[0].split(maxsplit=1) == ["1", f"{ROOT}\n"]


def test_ctrl_c_ends_with_one_line_and_130(monkeypatch, capsys):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(install, "start", interrupted)
    assert cli.main(["start", "--no-lab"]) == 130
    said = capsys.readouterr().err.strip().splitlines()
    assert said == ["Stopped; what is finished is kept. Go on with `python -m helpers start --no-lab`."]


def test_an_error_of_the_course_ends_with_its_message_and_1(monkeypatch, capsys):
    def failing():
        raise CourseError("what, where, remedy")

    monkeypatch.setattr(install, "check", failing)
    assert cli.main(["check"]) == 1
    assert capsys.readouterr().err.strip() == "what, where, remedy"


@pytest.mark.parametrize("code", [0, 1, 5])
def test_the_test_command_hands_arguments_and_exit_code_through(monkeypatch, code):
    calls = []
    place = install.Environment(Path("python"), True, "")
    monkeypatch.setattr(install, "set_up", lambda: (place, None))
    monkeypatch.setattr(install, "foreground", lambda command: calls.append(command) or code)
    assert cli.main(["test", "-m", "slow", "-k", "a or b", "--help"]) == code
    assert calls == [[Path("python"), "-m", "pytest", "-m", "slow", "-k", "a or b", "--help"]]


@pytest.mark.parametrize("codes, ends", [([0, 0], 0), ([1, 0], 1), ([0, 1], 1), ([2], 2)])
def test_without_arguments_the_judges_of_the_board_come_last_and_see_what_the_others_left(monkeypatch, codes, ends):
    calls, left = [], list(codes)
    monkeypatch.setattr(install, "set_up", lambda: (install.Environment(Path("python"), True, ""), None))
    monkeypatch.setattr(install, "look", lambda python: {"memory_gb": 24.0})
    monkeypatch.setattr(install, "foreground", lambda command, **more: calls.append((command, more)) or left.pop(0))
    assert cli.main(["test"]) == ends and not left
    words = [set(map(str, command)) for command, _ in calls]
    assert f"--ignore={install.JUDGES}" in words[0] and all(install.JUDGES in each for each in words[1:])
    assert (ROOT / install.JUDGES).is_file()
    folders = {more["COURSE_TEST_RUNS"] for _, more in calls}
    assert len(folders) == 1 and not Path(*folders).exists()  # one for both, and gone


@pytest.mark.parametrize(
    "cores, memory_gb, at_once", [(2, 24, 2), (2, 15.6, 1), (1, 64, 1), (8, 32, 4), (64, 500, 4), (4, 0.5, 1)]
)
def test_as_many_files_are_tested_at_once_as_processors_and_memory_bear(cores, memory_gb, at_once):
    assert install.side_by_side(cores, memory_gb) == at_once


# --- environments without pip, and foreign packages, for real ------------------------------------


@pytest.fixture
def bare_venv(tmp_path):
    """A real environment with neither pip nor packages, as uv makes them."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "v"], check=True)
    return tmp_path / "v" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def test_an_environment_without_pip_uses_uv_where_there_is_one(bare_venv, monkeypatch):
    monkeypatch.setattr(install.shutil, "which", lambda name: "/usr/bin/uv")
    assert install.installer(bare_venv) == ["/usr/bin/uv", "pip", "install", "--python", str(bare_venv)]


def test_an_environment_without_pip_and_uv_gets_pip(bare_venv, monkeypatch):
    monkeypatch.setattr(install.shutil, "which", lambda name: None)
    command = install.installer(bare_venv)
    assert command == [str(bare_venv), "-m", "pip", "install"]
    assert install.ask(*command, "--help")[1] == ""


def test_an_environment_that_does_not_start_counts_as_none(tmp_path):
    assert install.look(tmp_path / "no" / "python") == {}
    assert install.look(Path(sys.executable))["python"] == list(sys.version_info[:2])


@pytest.mark.parametrize("command", [install.set_up, install.check])
def test_a_memory_limit_that_is_no_number_ends_a_command_before_it_touches_an_environment(command, monkeypatch):
    monkeypatch.setenv("COURSE_MEMORY_GB", "8GB")
    monkeypatch.setattr(install, "environment", lambda host: pytest.fail("went on"))
    with pytest.raises(CourseError, match="COURSE_MEMORY_GB='8GB'"):
        command()
    assert install.look(Path(sys.executable))["versions"]  # nor does an environment count as broken for it


def test_a_foreign_package_named_helpers_is_seen(bare_venv):
    packages = Path(install.look(bare_venv)["packages"])
    assert install.look(bare_venv)["helpers"] is None
    (packages / "fine-tuning-course.pth").write_text(f"{ROOT}\n", encoding="utf-8")
    assert install.look(bare_venv)["helpers"] == str(ROOT / "helpers" / "__init__.py")
    (packages / "helpers").mkdir()
    (packages / "helpers" / "__init__.py").touch()
    found = install.look(bare_venv)
    assert "pip uninstall helpers" in remedies(facts(helpers=found["helpers"]))["helpers"]


# --- preflight -----------------------------------------------------------------------------------


def facts(**changes):
    """What a machine in order says, with changes."""
    fine = {
        "python": [3, 11], "versions": PINS | {"torch": "2.13.0+cpu"}, "memory_gb": 8.0, "disk_gb": 40.0,
        "helpers": str(ROOT / "helpers" / "__init__.py"), "port": True,
    }  # fmt: skip
    return fine | dict.fromkeys(("torch", "jupyter", "model", "data", "writing"), "") | changes


def remedies(found, host=LINUX):
    """Remedy of each item that fails."""
    return {item: remedy for item, ok, _, remedy in install.preflight(host, REQUIREMENTS, found) if not ok}


def test_a_machine_in_order_passes():
    assert remedies(facts()) == {}
    assert remedies(facts(versions=PINS | {"torch": "2.9.0+cu126"}), LINUX_GPU) == {}


@pytest.mark.parametrize(
    "item, changes, remedy",
    [
        ("Python", {"python": [3, 10]}, "delete .venv"),
        ("Memory", {"memory_gb": 1.0}, "1.7 GB"),
        ("Disk", {"disk_gb": 0.5}, "COURSE_HOME"),
        ("Writing", {"writing": "/course: Permission denied"}, "own folder"),
        ("PyTorch", {"torch": "ImportError: libtorch"}, "helpers start"),
        ("PyTorch", {"versions": {name: v for name, v in PINS.items() if name != "torch"}}, "helpers start"),
        ("Packages", {"versions": PINS | {"psutil": "1.0"}}, "helpers start"),
        ("helpers", {"helpers": None}, "helpers start"),
        ("helpers", {"helpers": "/elsewhere/helpers/__init__.py"}, "pip uninstall helpers"),
        ("Model", {"model": "damaged: model.safetensors"}, "helpers start"),
        ("Data", {"data": "missing or altered: train.jsonl"}, "git checkout"),
        ("Jupyter", {"jupyter": "No module named jupyterlab"}, "helpers start"),
        ("Port", {"port": False}, "stop other Jupyter servers"),
    ],
)
def test_each_broken_item_fails_alone_and_says_its_remedy(item, changes, remedy):
    failed = remedies(facts(**changes))
    assert list(failed) == [item] and remedy in failed[item]


def test_an_unfit_machine_fails_with_the_refusal_as_its_remedy():
    versions = {name: version for name, version in PINS.items() if name != "torch"}
    assert "Windows on ARM" in remedies(facts(versions=versions), WINDOWS_ARM)["System"]


def test_the_check_command_prints_every_item_and_fails_with_one(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("COURSE_HOME", str(tmp_path))
    monkeypatch.setattr(install, "environment", lambda host: install.Environment(Path("p"), True, ""))
    monkeypatch.setattr(install, "look", lambda python: facts())
    monkeypatch.setattr(install, "ask", lambda *words: ("", ""))
    monkeypatch.setattr(install, "model_problem", lambda: "")
    monkeypatch.setattr(install, "data_problem", lambda: "missing or altered: train.jsonl")
    assert install.check() == 1
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.strip().startswith("OK") for line in lines) == 11
    assert [line for line in lines if "FAIL" in line] == ["  FAIL  Data      missing or altered: train.jsonl"]
    assert "git checkout" in lines[lines.index("  FAIL  Data      missing or altered: train.jsonl") + 1]
    monkeypatch.setattr(install, "data_problem", lambda: "")
    assert install.check() == 0


def test_check_before_start_says_so(monkeypatch):
    monkeypatch.setattr(install, "look", lambda python: {})
    with pytest.raises(CourseError, match="run `python -m helpers start`"):
        install.check()


def test_a_taken_port_is_noticed():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        assert not install.port_free([server.getsockname()[1]])
    assert install.port_free()


def test_altered_data_and_a_missing_list_are_noticed(tmp_path):
    assert "hashes.json" in install.data_problem(tmp_path)
    (tmp_path / "a.jsonl").write_text("{}\n", encoding="utf-8")
    entry = {"sha256": models.sha256(tmp_path / "a.jsonl"), "rows": 1}
    (tmp_path / "hashes.json").write_text(json.dumps({"a.jsonl": entry}), encoding="utf-8")
    assert install.data_problem(tmp_path) == ""
    (tmp_path / "a.jsonl").write_text("{}\r\n", encoding="utf-8", newline="")
    assert "a.jsonl" in install.data_problem(tmp_path)


def test_a_damaged_model_is_noticed_and_a_chosen_one_left_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_HOME", str(tmp_path))
    monkeypatch.delenv("COURSE_MODEL", raising=False)
    assert install.model_problem() == "not fetched yet"
    folder = tmp_path / "models" / "m"
    folder.mkdir(parents=True)
    (folder / "weights").write_bytes(b"0123")
    manifest = {"sha256": {"weights": models.sha256(folder / "weights")}}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert install.model_problem() == ""
    (folder / "weights").write_bytes(b"012")
    assert install.model_problem() == "damaged: weights"
    monkeypatch.setenv("COURSE_MODEL", "somebody/else")
    assert install.model_problem() == ""


# --- the learner's copies ------------------------------------------------------------------------


@pytest.fixture
def lessons(tmp_path):
    """Two lessons and a template, copied for the first time."""
    (tmp_path / "lessons" / "my_task").mkdir(parents=True)
    for name in ("00.ipynb", "01.ipynb", "my_task/case.md"):
        (tmp_path / "lessons" / name).write_text("first", encoding="utf-8")
    assert copy(tmp_path) == []
    return tmp_path


def copy(folder):
    return install.copy_lessons(folder / "lessons", folder / "my_lessons")


def mine(folder):
    """Text of each of the learner's notebooks."""
    return {path.name: path.read_text(encoding="utf-8") for path in (folder / "my_lessons").glob("*.ipynb")}


def write(path, text):
    path.write_text(text, encoding="utf-8")


def test_lessons_and_the_task_s_template_are_copied(lessons):
    assert mine(lessons) == {"00.ipynb": "first", "01.ipynb": "first"}
    assert (lessons / "my_task" / "case.md").read_text(encoding="utf-8") == "first"


def test_an_unedited_copy_follows_its_lesson(lessons):
    write(lessons / "lessons" / "00.ipynb", "second")
    assert copy(lessons) == ["00.ipynb has a new version"]
    assert mine(lessons) == {"00.ipynb": "second", "01.ipynb": "first"}
    assert copy(lessons) == []


def test_an_edited_copy_is_kept_and_the_new_version_put_beside_it_once(lessons):
    write(lessons / "my_lessons" / "00.ipynb", "edited")
    assert copy(lessons) == []
    write(lessons / "lessons" / "00.ipynb", "second")
    assert "00.ipynb was edited and stays" in copy(lessons)[0]
    assert mine(lessons) == {"00.ipynb": "edited", "00.new.ipynb": "second", "01.ipynb": "first"}
    (lessons / "my_lessons" / "00.new.ipynb").unlink()
    assert copy(lessons) == [] and "00.new.ipynb" not in mine(lessons)
    write(lessons / "lessons" / "00.ipynb", "third")
    copy(lessons)
    assert mine(lessons)["00.ipynb"] == "edited" and mine(lessons)["00.new.ipynb"] == "third"


def test_not_even_an_edited_neighbour_is_overwritten(lessons):
    write(lessons / "my_lessons" / "00.ipynb", "edited")
    write(lessons / "lessons" / "00.ipynb", "second")
    copy(lessons)
    write(lessons / "my_lessons" / "00.new.ipynb", "edited too")
    write(lessons / "lessons" / "00.ipynb", "third")
    copy(lessons)
    texts = sorted(mine(lessons).values())
    assert texts == ["edited", "edited too", "first", "third"]


def test_a_deleted_copy_comes_back(lessons):
    (lessons / "my_lessons" / "00.ipynb").unlink()
    (lessons / "my_task" / "case.md").unlink()
    copy(lessons)
    assert mine(lessons)["00.ipynb"] == "first" and (lessons / "my_task" / "case.md").is_file()


def test_a_lost_manifest_loses_no_edits(lessons):
    write(lessons / "my_lessons" / "00.ipynb", "edited")
    write(lessons / "my_task" / "case.md", "edited")
    (lessons / "my_lessons" / ".copied.json").write_text("{", encoding="utf-8")
    copy(lessons)
    assert mine(lessons)["00.ipynb"] == "edited" and mine(lessons)["00.new.ipynb"] == "first"
    assert "01.new.ipynb" not in mine(lessons)
    assert (lessons / "my_task" / "case.md").read_text(encoding="utf-8") == "edited"


def test_start_checks_copies_and_opens_the_first_lesson(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("COURSE_HOME", str(tmp_path))
    for name in ("COLAB_RELEASE_TAG", "BINDER_LAUNCH_HOST"):
        monkeypatch.delenv(name, raising=False)
    python = tmp_path / ".venv" / "bin" / "python"
    place, opened, checks = install.Environment(python, True, ""), [], []
    monkeypatch.setattr(install, "set_up", lambda: (place, install.Record("here")))
    monkeypatch.setattr(install, "check", lambda: checks.append(1) or int(len(checks) == 1))
    monkeypatch.setattr(install, "copy_lessons", lambda: ["00.ipynb has a new version"])
    monkeypatch.setattr(install, "foreground", lambda command: opened.append(command) or 0)
    with pytest.raises(CourseError, match="Mend what says FAIL"):
        install.start()
    assert not opened
    assert install.start(browser=False) == 0
    assert opened[0][:3] == [str(python), "-m", "jupyterlab"]
    (settings,) = tmp_path.glob(".venv/share/jupyter/lab/settings/*.json")
    assert "fetchNews" in settings.read_text(encoding="utf-8")
    assert opened[0][3].endswith("=/lab/tree/my_lessons/00-start-here.ipynb")
    assert f"--ServerApp.root_dir={install.runtime.ROOT}" in opened[0]  # else links out of my_lessons lead nowhere
    assert "--no-browser" in opened[0] and "00.ipynb has a new version" in capsys.readouterr().out
    assert install.start(lab=False) == 0
    assert len(opened) == 1 and len(checks) == 2  # a passed preflight is not repeated


# --- the files around it -------------------------------------------------------------------------


def numbers(version):
    return tuple(int(part) for part in re.findall(r"\d+", version))


def test_pins_are_exact_and_inside_unsloth_s_window():
    lines = [line for line in REQUIREMENTS.splitlines() if line and not line.startswith("#")]
    assert len(lines) == len(PINS) and all("==" in line for line in lines)
    assert numbers(PINS["trl"]) <= (1, 15, 0) and numbers(PINS["transformers"]) <= (5, 17, 0)
    assert numbers(PINS["datasets"]) < (5,) and numbers(PINS["torch"]) < (2, 15)
    assert PINS["torch"] == install.TORCH


def test_this_environment_is_the_pinned_one():
    installed = {found.name: found.version for found in importlib.metadata.distributions()}
    assert install.missing(REQUIREMENTS, installed, None) == []
    if platform.system() != "Darwin":
        unsloth = dict(pin.split("==") for pin in install.UNSLOTH)
        assert installed.items() >= unsloth.items(), "`python -m helpers start` adds Unsloth, requirements.txt does not"


@pytest.mark.parametrize("script", ["binder/postBuild", "binder/start", ".ci/run"])
def test_scripts_are_executable_bash_with_lf(script):
    path = ROOT / script
    assert path.read_bytes().startswith(b"#!/usr/bin/env bash\n") and b"\r" not in path.read_bytes()
    if os.name != "nt":
        assert os.access(path, os.X_OK)
        subprocess.run(["bash", "-n", path], check=True)


def test_binder_has_the_same_packages_with_pytorch_s_cpu_build():
    text = (ROOT / "binder" / "requirements.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert lines == [f"--extra-index-url {install.CPU_INDEX}", "-r ../requirements.txt"]


def test_binder_s_python_is_one_the_course_takes():
    name, version = (ROOT / "binder" / "runtime.txt").read_text(encoding="utf-8").strip().split("-")
    assert name == "python" and install.PYTHONS[0] <= numbers(version) <= install.PYTHONS[1]


def test_binder_builds_with_the_start_command_and_hands_its_session_on():
    build = (ROOT / "binder" / "postBuild").read_text(encoding="utf-8")
    assert "set -euo pipefail" in build and "python -m helpers start --no-lab" in build
    if os.name != "nt":
        show = ["bash", "-c", 'echo "$COURSE_MEMORY_GB $OMP_NUM_THREADS $PYTHONUTF8"']
        given = {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"}
        done = subprocess.run([ROOT / "binder" / "start", *show], capture_output=True, text=True, env=given)
        memory, threads, utf8 = done.stdout.split()
        assert float(memory) <= 1.8 and (threads, utf8) == ("1", "1")


def test_ci_runs_the_test_command_of_the_readme_and_nothing_else():
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()[1:]
    assert lines == ["set -euo pipefail", 'cd "$(dirname "$0")/.."', "python3 -m helpers test"]


def test_the_set_up_needs_only_the_standard_library():
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); before = set(sys.modules)\n"
        "from helpers import __main__, install\n"
        "print(*{name.split('.')[0] for name in set(sys.modules) - before})"
    )
    loaded = install.ask(sys.executable, "-I", "-c", code)[0].split()
    assert "helpers" in loaded and set(loaded) <= set(sys.stdlib_module_names) | {"helpers"}
