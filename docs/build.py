"""The documentation as a folder of HTML: docs/*.md as they stand, and a reference read from the docstrings.

    python docs/build.py build/docs

Nothing of redsam is imported for the reference: modules are parsed, so it is built in a second and on any machine. What
would be a gap for a reader (a public thing without a docstring, a link that leads nowhere) is a warning, and a warning
makes the exit code 1.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "redsam"
LEFT_OUT = ("cli", "__main__")  # the command line documents itself: redsam COMMAND --help
Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
EXTRA = """
header nav { display: flex; flex-wrap: wrap; gap: .2rem 1rem; font-size: .875rem; margin-bottom: 2rem; }
a { color: inherit; text-decoration-color: var(--accent); text-underline-offset: .2em; }
a:hover { color: var(--accent); }
h1 { font: 600 clamp(1.9rem, 5vw, 3rem)/1.1 var(--serif); margin: 0 0 1rem; } h2 { margin-top: 2.5rem; }
main table { display: block; overflow-x: auto; } main img { max-width: 100%; }
code { font: .875em ui-monospace, "SF Mono", Menlo, Consolas, monospace; overflow-wrap: anywhere; }
.member { margin: 1.4rem 0 0 1.2rem; } .module { margin-top: 3.5rem; } .text { max-width: 46em; }
.signature { display: block; font-weight: 600; }
"""


@dataclass
class Site:
    """Where pages go, and what was found wanting."""

    out: Path
    warnings: list[str] = field(default_factory=list)

    def write(self, name: str, title: str, body: str, nav: list[tuple[str, str]]) -> None:
        """One page in the house's style."""
        style = (SOURCE / "report" / "templates" / "style.css").read_text(encoding="utf-8") + EXTRA
        links = "".join(f'<a href="{href}">{escape(text)}</a>' for href, text in nav)
        policy = "default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'"
        (self.out / name).write_text(
            f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}: redsam</title>'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            '<meta name="color-scheme" content="light dark">'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
            f'<link rel="icon" href="data:,"><style>{style}</style></head><body><header><p class="eyebrow">redsam '
            f"<span>documentation</span></p><nav>{links}</nav></header><main>{body}</main></body></html>\n",
            encoding="utf-8",
        )


def build(out: Path) -> list[str]:
    """Write the site into `out`, return the warnings."""
    out.mkdir(parents=True, exist_ok=True)
    site = Site(out)
    guides = [(page, _title(page)) for page in sorted((ROOT / "docs").glob("*.md"))]
    rooms = dict(sorted(_rooms().items()))
    nav = [("index.html", "README"), *((f"{p.stem}.html", t) for p, t in guides), ("api.html", "API reference")]
    for page, title in ((ROOT / "README.md", "redsam"), *guides):
        name = "index.html" if page.name == "README.md" else f"{page.stem}.html"
        site.write(name, title, _guide(page, site), nav)
    for picture in (p for suffix in ("svg", "webp", "png") for p in (ROOT / "docs").glob(f"*.{suffix}")):
        (out / picture.name).write_bytes(picture.read_bytes())
    listed = "".join(
        f'<dt><a href="api-{room}.html">redsam.{room}</a></dt><dd>{escape(_first(_parse(paths[0])))}</dd>'
        for room, paths in rooms.items()
    )
    site.write("api.html", "API reference", f'<h1>API reference</h1><dl class="facts">{listed}</dl>', nav)
    for room, paths in rooms.items():
        body = "".join(_module(path, site) for path in paths)
        site.write(f"api-{room}.html", f"redsam.{room}", f"<h1>redsam.{room}</h1>{body}", nav)
    return site.warnings


def _rooms() -> dict[str, list[Path]]:
    """Modules by room, the room's own __init__ first; a single module is a room of one."""
    found: dict[str, list[Path]] = {}
    for path in sorted(SOURCE.rglob("*.py"), key=lambda p: (p.parent, p.name != "__init__.py", p.name)):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        if parts[0] not in LEFT_OUT and parts != ("__init__",):
            found.setdefault(parts[0], []).append(path)
    return found


def _module(path: Path, site: Site) -> str:
    """A module with its public classes and functions."""
    tree = _parse(path)
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    if not ast.get_docstring(tree):
        site.warnings.append(f"{name} has no docstring")
    members = "".join(_member(node, name, site) for node in _public(tree))
    return f'<section class="module" id="{name}"><h2>{name}</h2>{_text(ast.get_docstring(tree))}{members}</section>'


def _member(node: Definition, owner: str, site: Site) -> str:
    name, told = f"{owner}.{node.name}", ast.get_docstring(node)
    if not told and not isinstance(node, ast.ClassDef) and not _inherits(node):
        site.warnings.append(f"{name} has no docstring")
    if isinstance(node, ast.ClassDef):
        if not told:
            site.warnings.append(f"{name} has no docstring")
        base = ", ".join(ast.unparse(b) for b in node.bases)
        stated = (ast.unparse(s) for s in node.body if isinstance(s, ast.AnnAssign))
        fields = [s for s in stated if not s.startswith("_")]
        methods = "".join(_method(m) for m in _public(node) if not isinstance(m, ast.ClassDef) and ast.get_docstring(m))
        shown = "".join(f'<code class="signature">{escape(f)}</code>' for f in fields)
        return (
            f'<div class="member" id="{name}"><code class="signature">class {node.name}({escape(base)})</code>'
            f"{_text(told)}{shown}{methods}</div>"
        )
    return f'<div class="member" id="{name}">{_signature(node)}{_text(told)}</div>'


def _method(node: Definition) -> str:
    return f'<div class="member">{_signature(node)}{_text(ast.get_docstring(node))}</div>'


def _signature(node: Definition) -> str:
    assert not isinstance(node, ast.ClassDef)
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f'<code class="signature">{escape(f"{node.name}({ast.unparse(node.args)}){returns}")}</code>'


def _inherits(node: Definition) -> bool:
    """Stubs of a protocol and overloads say nothing of their own."""
    return any(ast.unparse(d).split(".")[-1] == "overload" for d in node.decorator_list)


def _public(tree: ast.Module | ast.ClassDef) -> Iterator[Definition]:
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            yield node


def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _first(tree: ast.Module) -> str:
    return (ast.get_docstring(tree) or "").split("\n\n")[0]


def _text(docstring: str | None) -> str:
    """A docstring: paragraphs as they stand, `names` as code."""
    paragraphs = filter(None, (docstring or "").split("\n\n"))
    return "".join(f'<p class="text">{_code(escape(p, quote=False))}</p>' for p in paragraphs)


def _code(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", text)


def _guide(page: Path, site: Site) -> str:
    """A Markdown page; links to other pages lead to their HTML, and those that lead nowhere are warnings."""
    html = str(MarkdownIt("commonmark").enable("table").render(page.read_text(encoding="utf-8")))

    def follow(match: re.Match[str]) -> str:
        kind, target = match.groups()
        if re.match(r"https?:|#|data:", target):
            return match.group()
        file, _, anchor = target.partition("#")
        if not (page.parent / file).exists():
            site.warnings.append(f"{page.name}: {target} leads nowhere")
        name = "index.html" if Path(file).name == "README.md" else Path(file).name
        shown = f"{Path(name).stem}.html" if name.endswith(".md") else name
        return f'{kind}="{shown}{"#" if anchor else ""}{anchor}"'

    return re.sub(r'(href|src)="([^"]+)"', follow, html)


def _title(page: Path) -> str:
    first = page.read_text(encoding="utf-8").split("\n", 1)[0]
    return first.lstrip("# ").strip()


if __name__ == "__main__":
    found = build(Path(sys.argv[1] if len(sys.argv) > 1 else "build/docs"))
    for warning in found:
        sys.stderr.write(f"warning: {warning}\n")
    sys.exit(1 if found else 0)
