"""Picture AutoTrain's page with a run configured in it: `python data/recorded/autotrain_gui.py FOLDER [start]`.

The page wants the network at four places, which are replaced here: lists of models on the hub (asked for while it is
imported), a token that the hub knows, whether the project's name is taken there, and style sheets. FOLDER holds the
latter: `flowbite.min.js` and `flowbite.min.css` of the npm package flowbite 2.3.0, and `tailwind.js`, the
`dist/index.global.js` of @tailwindcss/browser 4. With `start` the run is started, and what it leaves is judged:
offline it is id-only, for the page has runs upload to the hub. Needs selenium and Chromium.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from helpers import autotrain, data, models  # noqa: E402

PICTURE = Path(__file__).with_name("autotrain-gui.png")
PORT = 7867
SERVER = """
import sys

import huggingface_hub, uvicorn
huggingface_hub.list_models = lambda **asked: []
huggingface_hub.repo_exists = lambda *asked, **options: False
import autotrain.app.utils
autotrain.app.utils.token_verification = lambda token: {"name": "you"}
autotrain.app.utils.get_user_and_orgs = lambda user_token: ["you"]
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles
from autotrain.app.app import app
LOCAL = {
    "https://cdn.tailwindcss.com": "/local/tailwind.js",
    "https://cdnjs.cloudflare.com/ajax/libs/flowbite/2.3.0": "/local",
}

@app.middleware("http")
async def styles(request, call_next):
    answer = await call_next(request)
    if request.url.path != "/ui/":
        return answer
    page = b"".join([part async for part in answer.body_iterator]).decode()
    for theirs, ours in LOCAL.items():
        page = page.replace(theirs, ours)
    return HTMLResponse(page)

app.mount("/local", StaticFiles(directory=sys.argv[1]))
uvicorn.run(app, port=int(sys.argv[2]), log_level="warning")
"""
VALUES = {
    "chat_template": "tokenizer", "mixed_precision": "none", "quantization": "none", "peft": "true", "epochs": "1",
    "batch_size": "2", "lr": "0.001", "scheduler": "cosine", "gradient_accumulation": "1", "block_size": "512",
    "model_max_length": "512", "target_modules": "all-linear", "lora_dropout": "0", "log": "none",
    "disable_gradient_checkpointing": "true", "logging_steps": "1",
}  # fmt: skip


def fill(browser, rows: Path) -> None:
    """Configure the run in the page, as a person would: menus, fields, a file, the task's full parameters."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import Select, WebDriverWait

    def found(name):
        return WebDriverWait(browser, 20).until(lambda browser: browser.find_element(By.ID, name))

    Select(found("parameter_mode")).select_by_value("full")
    found("param_lora_r")  # only there in the full mode
    for name, text in (("project_name", "recipes"), ("col_map_text", "messages")):
        found(name).clear()
        found(name).send_keys(text)
    found("data_files_training").send_keys(str(rows))
    for name, value in VALUES.items():
        if not (fields := browser.find_elements(By.ID, f"param_{name}")):
            print(f"the page has no field for {name}")
            continue
        field = fields[0]
        if field.tag_name == "select":
            Select(field).select_by_value(value)
        else:
            field.clear()
            field.send_keys(value)


def main(assets: Path, start: bool) -> None:
    """Serve, configure, take the picture; perhaps start the run and judge it."""
    from selenium import webdriver
    from selenium.webdriver.common.by import By

    python, base = autotrain.environment(), autotrain.older(models.fetch())
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        rows = folder / "train.jsonl"
        rows.write_text(autotrain.rows_file(data.load("train")[:8], "jsonl"), encoding="utf-8")
        (folder / "smollm2").symlink_to(base)  # a short name, and nobody's folders in the picture
        environment = {**autotrain.surroundings(), "HF_TOKEN": "replaced", "AUTOTRAIN_CUSTOM_MODELS": "smollm2"}
        (folder / "autotrain.log").write_text("", encoding="utf-8")
        server = subprocess.Popen([python, "-c", SERVER, assets, str(PORT)], cwd=folder, env=environment)
        options = webdriver.ChromeOptions()
        for word in ("--headless=new", "--no-sandbox", "--window-size=1240,1010", "--hide-scrollbars"):
            options.add_argument(word)
        options.binary_location = "/usr/bin/chromium"
        browser = webdriver.Chrome(options, webdriver.ChromeService("/usr/bin/chromedriver"))
        try:
            for _ in range(120):
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{PORT}/ui/")
                    break
                except OSError:
                    time.sleep(1)
            browser.get(f"http://127.0.0.1:{PORT}/ui/")
            time.sleep(3)
            fill(browser, rows)
            time.sleep(1)
            browser.save_screenshot(str(PICTURE))
            if start:
                began = time.time()
                browser.find_element(By.ID, "start-training-button").click()
                browser.find_element(By.CSS_SELECTOR, "#confirmation-modal button.confirm").click()
                while time.time() < began + 120 and not (folder / "recipes" / "training_args.bin").exists():
                    time.sleep(1)
                print(autotrain.judge(folder / "recipes", base="smollm2", since=began))
        finally:
            browser.quit()
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), "start" in sys.argv[2:])
