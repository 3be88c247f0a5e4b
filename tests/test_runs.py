"""Work in a process of its own: it is alone there, done once, and tells what stopped it."""

from __future__ import annotations

import sys

import pytest

from helpers import runs, runtime
from helpers.runtime import CourseError


def half(number):
    return number / 2


def work(folder, number):
    import os
    import sys

    (folder / "left.txt").write_text("here", encoding="utf-8")
    seen = (folder / "given.txt").read_text(encoding="utf-8")
    sys.modules["json"].dumps.__globals__["__spoiled__"] = True
    return {"half": half(number), "pid": os.getpid(), "seen": seen, "torch": "torch" in sys.modules}


def stops(folder):
    raise ValueError("the third row is empty")


def large(folder):
    return {"held": len(bytearray(50 << 20))}


def test_it_runs_elsewhere_and_leaves_its_files_and_its_record(runs_folder):
    run = runs.apart(half, work, files={"given.txt": "größer"}, number=3)
    assert run.record["half"] == 1.5 and run.record["seen"] == "größer" and not run.record["torch"]
    assert run.record["pid"] != __import__("os").getpid()
    assert (run.folder / "left.txt").read_text(encoding="utf-8") == "here" and run.folder.parent == runs_folder
    assert "__spoiled__" not in sys.modules["json"].dumps.__globals__


def test_the_same_work_is_not_done_twice_and_other_work_is_not_taken_for_it(runs_folder):
    first = runs.apart(half, work, files={"given.txt": "a"}, number=3)
    assert runs.apart(half, work, files={"given.txt": "a"}, number=3) == first
    for files, number in (({"given.txt": "b"}, 3), ({"given.txt": "a"}, 4)):
        assert runs.apart(half, work, files=files, number=number).folder != first.folder
    others = [runs.apart(half, work, files={"given.txt": "a"}, libraries=("psutil",), number=3)]
    assert first.folder not in [run.folder for run in others]


def test_what_stopped_it_is_told_and_nothing_counts_as_done(runs_folder):
    with pytest.raises(CourseError, match="stops stopped in its own process(.|\n)*the third row is empty"):
        runs.apart(stops)
    assert not list(runs_folder.glob("*/record.json"))


def killed(folder):
    import os
    import signal

    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.skipif(sys.platform == "win32", reason="no such signal there")
def test_one_that_was_killed_without_a_word_is_told_so(runs_folder):
    with pytest.raises(CourseError, match="perhaps for lack of memory"):
        runs.apart(killed)


def test_folders_are_counted_from_the_repository_wherever_a_process_runs(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runtime, "ROOT", tmp_path / "course")
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    for name, folder in (("COURSE_HOME", runtime.home), ("COURSE_RUNS", runtime.records)):
        for told, meant in (("mine", "course/mine"), ("~/mine", "me/mine"), (str(tmp_path / "else"), "else")):
            monkeypatch.setenv(name, told)
            assert folder() == tmp_path / meant and folder().is_dir()


@pytest.mark.parametrize("told", ["8GB", "8,5", "0", "-1", "nan", "inf"])
def test_memory_that_is_no_number_is_named_and_a_number_counts(monkeypatch, told):
    monkeypatch.setenv("COURSE_MEMORY_GB", told)
    with pytest.raises(CourseError, match=f"COURSE_MEMORY_GB='{told}' is no number of GiB"):
        runtime.memory_limit()
    monkeypatch.setenv("COURSE_MEMORY_GB", "1.5")
    assert runtime.memory_limit() == 1.5 * 2**30


def test_a_device_that_there_is_not_is_refused_in_place_of_taking_another(monkeypatch):
    monkeypatch.setenv("COURSE_DEVICE", "tpu")
    with pytest.raises(CourseError, match="COURSE_DEVICE='tpu' is unknown"):
        runtime.machine.__wrapped__()
    monkeypatch.setenv("COURSE_DEVICE", " CPU ")
    assert runtime.machine.__wrapped__().device == "cpu"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="where a child begins with its parent's peak")
def test_its_peak_memory_is_its_own_however_large_the_process_that_started_it(runs_folder):
    ours = bytearray(700 << 20)
    run = runs.apart(large)
    assert 0.05 < run.record["peak_memory_gb"] < 0.6 < runtime.peak_memory() / 2**30
    del ours


def test_functions_defined_inside_others_are_sent_as_well(runs_folder):
    def inner(folder, word):
        return {"said": word}

    assert runs.apart(inner, word="hello").record["said"] == "hello"
