"""What every page is made with: its template, its filters, its style and script, escaped by default."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


def render(template: str, *, filters: Mapping[str, Callable[..., Any]], **shown: Any) -> str:
    """A whole HTML document as text. template: a file of templates/. filters: beside `two`, by the name that the
    template uses. shown: what it sees beside `style`; a name that it uses and is not given is an error."""
    environment = Environment(
        loader=PackageLoader("redsam.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"two": two, **filters}
    return environment.get_template(template).render(style=Markup(asset("style.css")), **shown)


def asset(name: str) -> str:
    """A file of templates/ as text."""
    return resources.files("redsam.report").joinpath("templates", name).read_text(encoding="utf-8")


def script() -> dict[str, str]:
    """`script` and `script_hash`, what a page with sortable tables or sliders shows, and its policy allows."""
    text = asset("script.js")
    return {"script": Markup(text), "script_hash": base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}


def two(value: float | None, digits: int = 3) -> str:
    """A number for a table; a dash where nothing was measured, a real minus sign."""
    return "\N{EN DASH}" if value is None else f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}")
