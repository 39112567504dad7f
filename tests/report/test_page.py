"""The page: complete, self-contained, escaped, and with the numbers of summary.json."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import fake
import pytest

from redsam.errors import InputError
from redsam.report import render

VOID = {"meta", "link", "img", "input", "br"}


class Page(HTMLParser):
    """Collects what a browser would act on; complains about tags that do not close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.resources: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.resources += [v or "" for k, v in attrs if k in ("src", "href", "srcset", "data", "action", "poster")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(scope="module")
def html(finished: Path) -> str:
    return render(finished).read_text(encoding="utf-8")


def test_every_tag_closes(html: str) -> None:
    page = Page(html)
    assert page.wrong == [] and page.open == []


def test_nothing_is_fetched(html: str) -> None:
    page = Page(html)
    assert page.resources and all(r.startswith("data:") for r in page.resources)
    style = re.search(r"<style>(.*?)</style>", html, re.S)
    assert style and "url(" not in style[1] and "@import" not in style[1]
    assert "http://" not in html and "https://" not in html
    policy = next(
        a["content"] for t, a in page.tags if t == "meta" and a.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy and policy.startswith("default-src 'none'")


def test_script_is_short_and_hashed(html: str) -> None:
    import base64
    import hashlib

    scripts = re.findall(r"<script>(.*?)</script>", html, re.S)
    assert len(scripts) == 1 and scripts[0].count("\n") < 200
    assert base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode() in html


def test_numbers_are_those_of_the_summary(finished: Path, html: str) -> None:
    shown = {a.get("data-value") for t, a in Page(html).tags if t == "td"}
    rows = json.loads((finished / "summary.json").read_text())["cells"]
    assert len(rows) == 2 + 8 * 2
    for row in rows:
        keys = ["miou_clean", "asr50", "asr10"] + (["miou_adv", "delta"] if row["attack"] != "none" else [])
        for key in keys:
            assert repr(row[key]) in shown, key
            lo, hi = (f"{row[f'{key}_{end}']:.{2 if key.startswith('asr') else 3}f}" for end in ("lo", "hi"))
            assert f"{lo} to {hi}".replace("-", "\N{MINUS SIGN}") in html


def test_pictures_charts_failures_and_references_are_there(html: str) -> None:
    page = Page(html)
    assert sum(a.get("class") == "cut" for t, a in page.tags if t == "input") >= 4
    assert all(a.get("alt") for t, a in page.tags if t == "img")
    assert sum(t == "svg" and a.get("class") == "chart" for t, a in page.tags) == 4
    for words in (
        "Against the ground truth",
        "Against the clean prediction",
        "the file is cut short",
        "ASR@10",
        "Typical",
    ):
        assert words in html
    assert html.count("the file is cut short") == 1, "one line for one image, not one for each cell"


def test_small(html: str) -> None:
    pictures = sum(len(r) for r in Page(html).resources)
    assert len(html) - pictures < 200_000


def test_names_from_outside_do_not_run(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>\"'&.jpg"
    pictures = [(evil + str(i), image, masks) for i, (_, image, masks) in enumerate(fake.scenes(5))]
    out = fake.make_run(
        tmp_path / "run",
        pictures,
        model="<img src=x onerror=alert(2)>",
        attacks=("pgd",),
        levels=(8,),
        failed=[(evil, evil)],
    )
    html = render(out).read_text(encoding="utf-8")
    page = Page(html)
    assert sum(t == "script" for t, _ in page.tags) == 1
    assert not any(k.startswith("on") for _, a in page.tags for k in a)
    assert page.wrong == [] and all(r.startswith("data:") for r in page.resources)
    assert "<script>alert" not in html and "&lt;script&gt;alert(1)" in html


def test_a_record_cannot_reach_outside_the_run(tmp_path: Path) -> None:
    out = fake.make_run(tmp_path / "run", attacks=("pgd",), levels=(8,))
    shutil.copy(out / "images" / "p0.png", tmp_path / "secret.png")
    for path in (out / "records").glob("*/samples.jsonl"):
        path.write_text(re.sub(r'"clean_image": "[^"]*"', '"clean_image": "../secret.png"', path.read_text()))
    assert 'class="cut"' not in render(out).read_text()


def test_without_ground_truth(tmp_path: Path) -> None:
    html = render(fake.make_run(tmp_path / "run", truth=False, attacks=("pgd",), levels=(8,))).read_text()
    assert "mIoU against the clean prediction" in html and "There is no ground truth" in html
    assert "Against the ground truth" not in html


def test_failed_only_run(tmp_path: Path) -> None:
    out = fake.make_run(
        tmp_path / "run", [], attacks=("pgd",), levels=(8,), failed=[("a", "out of memory")], done=False
    )
    html = render(out).read_text()
    assert "Nothing was measured" in html and "out of memory" in html and "Not finished" in html
    assert Page(html).wrong == []


def test_empty_summary_renders(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text('{"schema": 1, "cells": [], "contrasts": [], "failures": [], "env": {}}')
    html = render(tmp_path).read_text()
    assert "Nothing was measured" in html and Page(html).wrong == []


def test_damaged_records_cost_pictures_not_the_page(tmp_path: Path) -> None:
    out = fake.make_run(tmp_path / "run", attacks=("pgd",), levels=(8,))
    for path in (out / "records").glob("*/samples.jsonl"):
        path.write_text(path.read_text()[:-40].replace('"counts": "', '"counts": "zz'))
    for path in (out / "images").glob("*.png"):
        path.write_bytes(path.read_bytes()[:60])
    assert "its mIoU against ground truth" in render(out).read_text()


@pytest.mark.parametrize("content", [None, "", "[]", '{"schema": 1}', '{"schema": 9, "cells": []}'])
def test_no_readable_summary_is_an_input_error_with_a_hint(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "summary.json").write_text(content)
    with pytest.raises(InputError) as caught:
        render(tmp_path)
    assert caught.value.hint
