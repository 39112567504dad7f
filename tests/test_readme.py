"""The README's code runs and its command lines parse."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
import typer.main

from redsam.cli import app
from redsam.models import lab_names

README = Path(__file__).parents[1] / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(encoding="utf-8"), flags=re.M | re.S)


def command_lines() -> list[str]:
    lines = [line.split(" #")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    return [line.removeprefix(".venv/bin/") for line in lines if line.removeprefix(".venv/bin/").startswith("redsam ")]


@pytest.mark.parametrize("code", blocks("python"))
def test_the_python_code_runs(
    code: str,
    tiny_folder: Path,
    photo: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copy(photo, tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    if "lab-b" not in lab_names():
        code = code.replace("lab-b", str(tiny_folder))
    assert len([line for line in code.splitlines() if line]) <= 10, "ten lines are promised"
    exec(compile(code, str(README), "exec"), {})
    printed = capsys.readouterr().out
    assert 0 < float(printed.split()[0]) <= 8.001
    assert "tensor([" in printed


def test_there_are_command_lines() -> None:
    assert len(command_lines()) >= 5


@pytest.mark.parametrize("line", command_lines())
def test_the_command_lines_parse(line: str) -> None:
    name, *arguments = shlex.split(line)[1:]
    group = typer.main.get_command(app)
    context = group.make_context("redsam", [name], resilient_parsing=True)
    command = group.get_command(context, name)  # type: ignore[attr-defined]
    assert command is not None, name
    command.make_context(name, arguments)  # raises for an option it does not know


def test_what_the_readme_names_is_there() -> None:
    text = README.read_text(encoding="utf-8")
    for path in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (README.parent / path).exists(), path
