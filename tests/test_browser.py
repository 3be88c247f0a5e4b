"""A newcomer's walk: every lesson in JupyterLab, in a real Chromium: exercises left open, then all done wrong.

Needs Chromium with its driver, and `pip install selenium`. Screenshots go to `$COURSE_SHOTS` if that is set; with
`$COURSE_WALK_RUNS` the lessons find the runs of that folder, so that 08 can be walked without 07.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from helpers import authoring, runtime

selenium = pytest.importorskip("selenium", reason="the walk needs selenium and Chromium")
pytestmark = pytest.mark.browser

STATE = """
const panel = window.jupyterapp.shell.currentWidget;
const cells = panel.content.widgets.filter(cell => cell.model.type === 'code' && cell.model.sharedModel.source.trim());
const outputs = cell => JSON.stringify(cell.model.outputs.toJSON());
return {
  status: panel.sessionContext.session.kernel.status,
  left: cells.filter(cell => cell.model.executionCount === null).length,
  errors: cells.filter(cell => !(cell.model.getMetadata('tags') || []).includes('raises-exception'))
    .map(outputs).filter(output => output.includes('"output_type":"error"')),
  checks: cells.filter(cell => /exercises\\.(check|predict)\\(/.test(cell.model.sharedModel.source)).map(outputs),
};"""
WRONG = """
for (const cell of window.jupyterapp.shell.currentWidget.content.widgets)
  if ((cell.model.getMetadata('tags') || []).includes('exercise'))
    cell.model.sharedModel.setSource(cell.model.sharedModel.source
      .replace(/^(\\w+) = \\.\\.\\..*$/gm, '$1 = 0.123').replace(/^(\\s+)\\.\\.\\..*$/gm, '$1return 0.123')
      .replace(/^(def .*:) \\.\\.\\.$/gm, '$1 return 0.123'));
window.jupyterapp.commands.execute('notebook:clear-all-cell-outputs');"""
READY = """
const panel = window.jupyterapp && window.jupyterapp.shell.currentWidget;
return !!(panel && panel.sessionContext && panel.sessionContext.session && panel.content.widgets);"""
SCROLL = """
const view = window.jupyterapp.shell.currentWidget.content.node.querySelector('.jp-WindowedPanel-outer');
view.scrollTop = arguments[0];
return [view.scrollHeight, view.clientHeight];"""


def wait(condition, seconds: float, what: str):
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        if result := condition():
            return result
        time.sleep(1)
    raise AssertionError(f"{what}: not within {seconds} s")


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A JupyterLab on fresh copies of the lessons, and its address."""
    folder = tmp_path_factory.mktemp("walk")
    shutil.copytree(runtime.ROOT / "lessons", folder / "my_lessons")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    runs = os.environ.get("COURSE_WALK_RUNS", str(folder / "runs"))
    server = subprocess.Popen(
        [
            sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root", f"--port={port}",
            "--port-retries=0", "--expose-app-in-browser",
            f"--ServerApp.root_dir={folder}", "--IdentityProvider.token=",
        ],
        env={**os.environ, "COURSE_ROOT": str(runtime.ROOT), "COURSE_RUNS": runs},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    address = f"http://localhost:{port}"

    def answers() -> bool:
        assert server.poll() is None, "JupyterLab's server has stopped"
        with contextlib.suppress(OSError):
            return urllib.request.urlopen(f"{address}/api", timeout=5).status == 200
        return False

    try:
        wait(answers, 60, "JupyterLab's server")
        yield f"{address}/lab/tree/my_lessons/"
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture(scope="module")
def browser():
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1250,1500"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    yield driver
    driver.quit()


def run_all(browser, seconds: float) -> dict:
    """Run every cell; the state afterwards. An error ends a run as it does for a learner."""
    browser.execute_script("window.jupyterapp.commands.execute('notebook:run-all-cells')")
    time.sleep(2)
    return wait(lambda: ran(browser), seconds, "a run of all cells")


def ran(browser) -> dict | None:
    state = browser.execute_script(STATE)
    return state if state["status"] == "idle" and (not state["left"] or state["errors"]) else None


def photograph(browser, lesson: str) -> None:
    if "COURSE_SHOTS" not in os.environ:
        return
    folder = Path(os.environ["COURSE_SHOTS"]) / lesson
    folder.mkdir(parents=True, exist_ok=True)
    place = page = 0
    while True:
        height, seen = browser.execute_script(SCROLL, place)
        time.sleep(0.7)
        browser.save_screenshot(str(folder / f"{page:02d}.png"))
        if place + seen >= height or page > 40:
            return
        place, page = place + seen - 60, page + 1


@pytest.mark.parametrize("lesson", [path.stem for path in authoring.masters()])
def test_a_lesson_runs_from_the_top_and_explains_what_is_missing_and_what_is_wrong(lesson, lab, browser):
    browser.get(f"{lab}{lesson}.ipynb")
    wait(lambda: browser.execute_script(READY), 90, "JupyterLab with the lesson open")
    time.sleep(2)
    browser.execute_script("window.jupyterapp.shell.collapseLeft()")
    try:
        state = run_all(browser, 900)
        assert not state["errors"]
        assert state["checks"] and all(f"… {lesson[:2]}-" in said for said in state["checks"]), state["checks"]
        photograph(browser, lesson)
        browser.execute_script(WRONG)
        state = run_all(browser, 900)
        assert not state["errors"]
        for said in state["checks"]:
            assert f" {lesson[:2]}-" in said and "… " + lesson[:2] not in said and "✔" not in said, said
        photograph(browser, f"{lesson}-wrong")
    finally:
        browser.execute_async_script(
            "window.jupyterapp.serviceManager.sessions.shutdownAll().finally(arguments[arguments.length - 1])"
        )
