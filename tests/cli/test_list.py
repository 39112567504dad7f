"""`redsam list`, help and version: quick, complete, readable by a program."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from collections.abc import Callable

import pytest

import redsam as package
from redsam import registry
from redsam.bench import PRESETS
from redsam.models import lab_names
from tests.cli.conftest import Ran

Redsam = Callable[..., Ran]


@pytest.mark.parametrize("kind", ["attack", "objective", "protocol", "reader", "metric"])
def test_a_list_has_every_name_in_singular_and_plural(redsam: Redsam, kind: str) -> None:
    rows = json.loads(redsam("list", f"{kind}s", "--json").out)
    assert [row["name"] for row in rows] == registry.names(kind)
    assert all(row["summary"] for row in rows)
    assert json.loads(redsam("list", kind, "--json").out) == rows


def test_models_are_lab_models_and_families(redsam: Redsam) -> None:
    rows = json.loads(redsam("list", "models", "--json").out)
    assert [row["name"] for row in rows] == [*lab_names(), *registry.names("model")]


def test_presets(redsam: Redsam) -> None:
    assert [row["name"] for row in json.loads(redsam("list", "presets", "--json").out)] == list(PRESETS)


def test_a_table_has_paper_and_year(redsam: Redsam) -> None:
    table = redsam("list", "attacks").out
    assert "pgd" in table
    assert "2018" in table


def test_an_unknown_kind_names_the_known_ones(redsam: Redsam) -> None:
    ran = redsam("list", "atacks")
    assert ran.code == 2
    assert ran.err == "redsam: There is no kind named 'atacks'. Did you mean 'attacks'?\n"


@pytest.mark.parametrize("module", ["torch", "transformers", "matplotlib", "numpy"])
def test_help_imports_nothing_heavy(module: str) -> None:
    code = f"import sys; from redsam.cli import main; main(['--help']); sys.exit({module!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_list_does_not_import_transformers() -> None:
    code = "import sys; from redsam.cli import main; main(['list', 'attacks']); sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_the_module_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "redsam", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"redsam {package.__version__}\n"


def test_a_closed_pipe_is_silent() -> None:
    line = f"{sys.executable} -m redsam list attacks | true"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert done.stderr == ""


@pytest.mark.parametrize("command", ["audit", "attack", "masks", "report", "list"])
def test_every_command_has_help(redsam: Redsam, command: str) -> None:
    ran = redsam(command, "--help")
    assert ran.code == 0
    assert ran.err == ""
    assert command in ran.out


def test_a_bug_is_one_line_and_code_1(redsam: Redsam, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(kind: str) -> None:
        raise ZeroDivisionError("oops\nand more")

    monkeypatch.setattr("redsam.cli.listing.rows_of", broken)
    ran = redsam("list", "attacks")
    assert ran.code == 1
    assert ran.err.startswith("redsam: error inside redsam, ZeroDivisionError: oops and more")
    assert len(ran.err.splitlines()) == 1
    assert "Traceback" in redsam("--debug", "list", "attacks").err


def test_the_public_names_exist() -> None:
    for name in package.__all__:
        assert getattr(package, name) is not None
    assert dir(package) == sorted(package.__all__)
    assert package.defenses.load is package.load
    with pytest.raises(AttributeError):
        package.nonsense  # noqa: B018


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/out/a.png"), "The disk is full, cannot write /out/a.png."),
        (OSError(errno.EROFS, "Read-only file system", "/out/a.png"), "No permission for /out/a.png."),
        (PermissionError(errno.EACCES, "Permission denied", "/out"), "No permission for /out."),
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory", "/in.png"),
            "No such file or directory: /in.png.",
        ),
        (MemoryError(), "Out of memory."),
    ],
)
def test_an_error_of_the_system_is_one_line_and_code_2(
    redsam: Redsam, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    def broken(kind: str) -> None:
        raise error

    monkeypatch.setattr("redsam.cli.listing.rows_of", broken)
    ran = redsam("list", "attacks")
    assert ran.code == 2
    assert ran.err.startswith(f"redsam: {words}")
    assert len(ran.err.splitlines()) == 1


def test_interrupted(redsam: Redsam, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(kind: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("redsam.cli.listing.rows_of", interrupt)
    ran = redsam("list", "attacks")
    assert (ran.code, ran.err) == (130, "redsam: interrupted.\n")
