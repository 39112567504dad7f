"""A chart as a file of its own, beside a page that does not carry it."""

from __future__ import annotations


def standalone(svg: str) -> str:
    """A chart as a file of its own, light and dark: with its namespace, and the colours that a page would give it."""
    style = (
        ":root{--ink:#1b1b1a;--soft:#6b6a66;--hair:#dcdad3;--paper:#fff;--accent:#b3261e}"
        "@media (prefers-color-scheme:dark){:root{--ink:#eceae4;--soft:#a3a199;--hair:#3a3936;--paper:#171716;"
        "--accent:#ff8a7a}}svg{background:var(--paper);font:13px sans-serif}text{fill:var(--ink)}"
        ".tick,.axis{fill:var(--soft);font-size:12px}.grid{stroke:var(--hair)}.zero{stroke:var(--soft)}"
        ".curve{color:var(--soft);fill:none;stroke:currentColor;stroke-width:1.75}.curve text{fill:currentColor;"
        "stroke:none}.curve polygon{fill:currentColor;fill-opacity:.1;stroke:none}.curve circle{fill:currentColor}"
        ".curve.lead{color:var(--accent);stroke-width:2.5}"
    )
    head, rest = svg.split(">", 1)
    return f'{head} xmlns="http://www.w3.org/2000/svg"><style>{style}</style>{rest}\n'
