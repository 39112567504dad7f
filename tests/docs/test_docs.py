"""The documentation builds without a warning, its pages lead to each other, its command lines parse."""

from __future__ import annotations

import importlib.util
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import pytest
import typer.main

from redsam import registry
from redsam.cli import app

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))


@pytest.fixture(scope="module")
def builder() -> ModuleType:
    pytest.importorskip("markdown_it")
    spec = importlib.util.spec_from_file_location("redsam_docs_build", ROOT / "docs" / "build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def site(builder: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("docs") / "site"
    assert builder.build(out) == []
    return out


def test_every_page_is_there_and_leads_to_pages_that_are(site: Path) -> None:
    assert {f"{p.stem}.html" for p in PAGES} | {"index.html", "api.html"} <= {p.name for p in site.iterdir()}

    class Links(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            targets.extend(v or "" for k, v in attrs if k in ("href", "src"))

    for page in site.glob("*.html"):
        targets: list[str] = []
        Links().feed(page.read_text(encoding="utf-8"))
        local = [t.split("#")[0] for t in targets if not re.match(r"https?:|data:|#", t)]
        assert [t for t in local if not (site / t).exists() and not (ROOT / t).exists()] == [], page.name


def test_every_attack_and_defence_is_in_the_reference(site: Path) -> None:
    for kind, room in (("attack", "attacks"), ("defense", "defenses")):
        text = (site / f"api-{room}.html").read_text(encoding="utf-8")
        for entry in registry.entries(kind):
            if entry.obj.__module__.startswith(f"redsam.{room}"):
                assert f'id="{entry.obj.__module__}.{entry.obj.__qualname__}"' in text, entry.name


def test_a_gap_is_a_warning(builder: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = tmp_path / "src" / "redsam" / "room.py"
    bare.parent.mkdir(parents=True)
    bare.write_text("class Thing: ...\n\ndef act(x: int) -> int:\n    return x\n")
    page = tmp_path / "page.md"
    page.write_text("[gone](nowhere.md)")
    monkeypatch.setattr(builder, "SOURCE", bare.parent)
    found = builder.Site(tmp_path)
    builder._module(bare, found)
    builder._guide(page, found)
    assert len(found.warnings) == 4 and "nowhere.md" in found.warnings[-1]


def command_lines() -> list[str]:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.M | re.S)
    lines = [line.split("#")[0].strip() for kind, code in blocks if kind in ("", "sh") for line in code.splitlines()]
    return sorted({line for line in lines if line.startswith("redsam ") and "..." not in line})


@pytest.mark.parametrize("line", command_lines())
def test_the_command_lines_of_the_pages_parse(line: str) -> None:
    words = shlex.split(line)[1:]
    command = typer.main.get_command(app)
    flags = {name for option in command.params for name in option.opts}
    while words[0].startswith("--"):
        assert words.pop(0) in flags
    context = command.make_context("redsam", words[:1], resilient_parsing=True)
    while hasattr(command, "get_command") and words:
        found = command.get_command(context, words[0])
        assert found is not None, words[0]
        command, words = found, words[1:]
        context = command.make_context("redsam", list(words), resilient_parsing=hasattr(command, "get_command"))
