"""Rules of the house that no linter knows: direction of imports, size of files, global state, package data."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "redsam"
FILES = sorted(SOURCE.rglob("*.py"))
# What a room may not know. Values know nothing; the report knows records; nobody knows the command line.
FORBIDDEN = {
    "types.py": ("models", "attacks", "data", "bench", "report"),
    "prompts.py": ("models", "attacks", "data", "bench", "report"),
    "threat.py": ("models", "attacks", "data", "bench", "report"),
    "metrics": ("models", "attacks", "data", "bench", "report"),
    "models": ("attacks", "data", "bench", "report", "studies"),
    "data": ("models", "attacks", "bench", "report", "studies"),
    "attacks": ("data", "bench", "report", "studies"),
    "corruptions": ("attacks", "bench", "report", "studies"),
    "defenses": ("attacks", "data", "bench", "report", "studies", "tuning", "backdoor"),
    "tuning": ("bench", "report", "studies", "backdoor", "privacy"),
    "backdoor": ("report", "studies"),
    "privacy": ("models", "attacks", "report", "studies"),
    "bench": ("report", "studies"),
    "report": ("models", "attacks", "data", "bench", "studies"),
    "leaderboard": ("models", "attacks", "data", "studies"),
}
# Targeted attacks read a picture to aim at: the image reader and the bundled photographs, no data set.
EXCEPT = {"attacks": ("redsam.data.images", "redsam.data.demo")}


def imports(path: Path) -> Iterator[str]:
    """Modules a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("room", FORBIDDEN)
def test_imports_run_downward(room: str) -> None:
    paths = [SOURCE / room] if room.endswith(".py") else sorted((SOURCE / room).rglob("*.py"))
    wrong = [
        f"{path.relative_to(SOURCE)} imports {name}"
        for path in paths
        for name in imports(path)
        if name.startswith(tuple(f"redsam.{other}" for other in FORBIDDEN[room]))
        and not name.startswith(EXCEPT.get(room, ()))
    ]
    assert not wrong


def test_nothing_imports_the_command_line() -> None:
    outside = [path for path in FILES if SOURCE / "cli" not in path.parents and path.name != "__main__.py"]
    assert not [path for path in outside for name in imports(path) if name.startswith("redsam.cli")]


def test_files_hold_one_idea() -> None:
    long = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {name: lines for name, lines in long.items() if lines > 300} == {}


@pytest.mark.parametrize(
    "pattern",
    [
        r"\.cuda\(\)",
        r"np\.random\.(seed|rand|normal|uniform)",
        r"\bTODO\b",
        "NotImplementedError\\(",
    ],
)
def test_no_global_state_and_nothing_left_open(pattern: str) -> None:
    assert [str(path.relative_to(ROOT)) for path in FILES if re.search(pattern, path.read_text(encoding="utf-8"))] == []


def test_the_global_generator_is_only_used_in_a_fork_of_it() -> None:
    """PyTorch's own `reset_parameters` draws from it, so it is seeded inside fork_rng and comes back as it was."""
    texts = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in FILES}
    assert [name for name, text in texts.items() if "torch.manual_seed(" in text and "fork_rng(" not in text] == []


@pytest.mark.parametrize("name", ["py.typed", "data/demo/README.md", "data/demo/coffee.jpg", "report/templates"])
def test_package_data_is_there(name: str) -> None:
    where = resources.files("redsam").joinpath(name)
    assert where.is_file() or where.is_dir()


def test_no_package_file_is_ignored_by_git() -> None:
    """The wheel leaves out what git ignores."""
    command = ["git", "ls-files", "--others", "--ignored", "--exclude-standard", "src/redsam"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("not a git checkout")
    assert [line for line in done.stdout.splitlines() if "__pycache__" not in line] == []
