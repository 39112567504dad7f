"""What docs/attack-in-one-file.md shows is run: the file, its use, and the conformance suite on it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "attack-in-one-file.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), flags=re.M | re.S)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a reader has put the page's file."""
    found = tmp_path_factory.mktemp("reader")
    (found / "cosine_pgd.py").write_text(blocks("python")[0], encoding="utf-8")
    return found


def run(command: list[str], folder: Path, where: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run(command, cwd=where, env=env, capture_output=True, text=True, timeout=900, check=False)


def test_the_use_that_is_shown_runs(folder: Path, photo: Path, tiny_folder: Path) -> None:
    shutil.copy(photo, folder / "photo.jpg")
    code = blocks("python")[1].replace('"lab-b"', repr(str(tiny_folder)))
    done = run([sys.executable, "-c", code], folder, folder)
    assert done.returncode == 0, done.stderr
    assert 0 < float(done.stdout.split()[0]) <= 8.001


def test_the_conformance_suite_as_the_page_types_it(folder: Path) -> None:
    (line,) = [line for block in blocks("sh") for line in block.splitlines() if "pytest" in line]
    assert line.startswith(
        "PYTHONPATH=. python -m pytest tests/attacks/test_conformance.py -p cosine_pgd -k cosine-pgd"
    )
    words = line.split()[2:]
    done = run([sys.executable, *words, "-q", "-p", "no:cacheprovider"], folder, ROOT)
    assert done.returncode == 0, done.stdout[-3000:]
    found = re.search(r"(\d+) passed", done.stdout)
    assert found is not None and int(found.group(1)) >= 8
    assert "failed" not in done.stdout


def test_a_broken_attack_does_not_pass_it(folder: Path, tmp_path: Path) -> None:
    """The suite is no formality: without a gradient step the same file fails."""
    text = (
        (folder / "cosine_pgd.py").read_text(encoding="utf-8").replace("return state.x - size", "return state.x + size")
    )
    (tmp_path / "cosine_pgd.py").write_text(text.replace("start=uniform", "start=lambda s: s.clean"), encoding="utf-8")
    words = ["-m", "pytest", "tests/attacks/test_conformance.py", "-p", "cosine_pgd", "-k"]
    wanted = "cosine-pgd and (lowers or deviation)"
    done = run([sys.executable, *words, wanted, "-q", "-p", "no:cacheprovider"], tmp_path, ROOT)
    assert "1 failed" in done.stdout, done.stdout[-2000:]
