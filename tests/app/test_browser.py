"""The app as a visitor meets it, in a headless Chromium: click, attack, the mask shrinks, files, a narrow window."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from redsam.app.session import photographs
from redsam.models import lab_names

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking")
# Where a coin lies in coins.jpg, for the prompt that the README's picture uses.
COIN = (305, 16, 365, 72)
PATIENCE = 600_000  # milliseconds: a busy machine is slow

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here"),
    pytest.mark.skipif("lab-b" not in lab_names(), reason="lab-b is not bundled"),
]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    pytest.importorskip("gradio")
    from redsam.app.page import serve
    from redsam.app.play import Stage

    page, where = serve(Stage(models=["lab-b"]), block=False)
    yield where
    page.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


def visit(browser: Any, address: str, width: int, asked: set[str]) -> Any:
    page = browser.new_context(viewport={"width": width, "height": 900}, accept_downloads=True).new_page()
    page.set_default_timeout(PATIENCE)
    page.on("request", lambda request: asked.add(request.url.split("/")[2]) if "//" in request.url else None)
    page.goto(address)
    page.wait_for_selector(".rs-stage img")
    return page


def choose_coins(page: Any) -> None:
    page.locator('.rs-thumb[data-photo="coins"]').click()
    with Image.open(photographs()["coins"]) as photo:
        page.wait_for_selector(f'.rs-stage[data-w="{photo.width}"]')


def pull_a_box(page: Any) -> None:
    """Drag around the coin, in the photograph's pixels."""
    stage = page.locator(".rs-stage")
    stage.scroll_into_view_if_needed()
    frame, width = stage.bounding_box(), float(stage.get_attribute("data-w"))
    scale = frame["width"] / width
    x0, y0, x1, y1 = (value * scale for value in COIN)
    page.mouse.move(frame["x"] + x0, frame["y"] + y0)
    page.mouse.down()
    page.mouse.move(frame["x"] + (x0 + x1) / 2, frame["y"] + (y0 + y1) / 2)
    page.mouse.move(frame["x"] + x1, frame["y"] + y1)
    page.mouse.up()
    # Not the rectangle: it is drawn while dragging. The numbers come from the server.
    page.wait_for_function(
        "document.querySelector('#rs-prompt textarea, #rs-prompt input').value.split(',').length == 4"
    )


def written(page: Any) -> list[float]:
    return [float(n) for n in page.locator("#rs-prompt textarea, #rs-prompt input").first.input_value().split(",")]


def set_steps(page: Any, steps: int) -> None:
    field = page.locator("#rs-steps input[type=number]")
    field.fill(str(steps))
    field.press("Tab")


def attack(page: Any) -> None:
    page.locator("#rs-go").click()
    page.wait_for_function("document.querySelector('#rs-line').innerText.startsWith('After')")


def test_click_attack_shrink_download(browser: Any, address: str, tmp_path: Path) -> None:
    asked: set[str] = set()
    page = visit(browser, address, 1200, asked)
    choose_coins(page)
    frame = page.locator(".rs-stage").bounding_box()
    page.mouse.click(frame["x"] + frame["width"] / 2, frame["y"] + frame["height"] / 2)
    page.wait_for_selector(".rs-stage circle")
    page.wait_for_function("document.querySelector('#rs-prompt textarea, #rs-prompt input').value !== ''")
    assert len(written(page)) == 2
    pull_a_box(page)
    assert np.abs(np.array(written(page)) - np.array(COIN)).max() <= 2
    set_steps(page, 6)
    page.evaluate(
        "window.seen = []; new MutationObserver(() => document.querySelectorAll('.rs-lane')"
        ".forEach((lane) => window.seen.push(+lane.dataset.iou)))"
        ".observe(document.querySelector('#rs-lanes'), {childList: true, subtree: true, attributes: true})"
    )
    attack(page)
    final = float(page.locator(".rs-lane").get_attribute("data-iou"))
    seen = page.evaluate("window.seen")
    assert final < 0.9 and seen[0] == 1.0 and len(set(seen)) >= 3, seen  # it was seen to go, step by step

    files = {}
    for name in ("PNG", "JSON"):
        with page.expect_download() as waiting:
            page.get_by_text(f"({name})").first.click()
        files[name] = tmp_path / f"file.{name.lower()}"
        waiting.value.save_as(files[name])
    told = json.loads(files["JSON"].read_text())
    assert told["iou"] == pytest.approx(final, abs=1e-4) and told["area_after"] < told["area_before"]
    delivered = np.asarray(Image.open(files["PNG"]).convert("RGB")).astype(int)
    clean = np.asarray(Image.open(photographs()["coins"]).convert("RGB")).astype(int)
    assert 0 < np.abs(delivered - clean).max() <= 8
    assert asked == {address.split("/")[2]}, "something was fetched from elsewhere"


def test_a_narrow_window_two_defences_stop_and_an_error(browser: Any, address: str) -> None:
    page = visit(browser, address, 390, set())
    page.locator("#rs-go").click()
    page.wait_for_selector(".rs-line.rs-wrong")
    assert "Nothing is selected" in page.locator("#rs-line").inner_text()
    choose_coins(page)
    pull_a_box(page)
    page.locator("#rs-compare input").check()
    set_steps(page, 40)
    page.locator("#rs-go").click()
    page.wait_for_function("document.querySelectorAll('.rs-lane').length === 2")
    page.locator("#rs-stop").click()
    page.wait_for_function("document.querySelector('#rs-line').innerText.startsWith('Stopped')")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390, "nothing is wider than the window"
    page.wait_for_function("!document.querySelector('#rs-go').disabled")
    set_steps(page, 2)
    attack(page)
    assert page.locator(".rs-lane").count() == 2
    page.get_by_text("(PNG)").nth(1).wait_for()
