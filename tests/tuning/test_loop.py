"""The loop: the same numbers after an interruption, early stopping, clean IoU held, states that do not fit refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from redsam.data import Dataset
from redsam.errors import InputError
from redsam.models import tiny
from redsam.registry import spec_of
from redsam.tuning import Course
from redsam.tuning.lessons import divided, held_out
from redsam.tuning.loop import HALVINGS, SHARES, Training, clipped, rate
from redsam.tuning.state import State
from redsam.tuning.svd import Svd

Make = Callable[..., Course]


def training(data: Dataset, course: Course, home: Path, *, lr: float = 0.05, watch: Any = None) -> Training:
    segmenter = tiny("sam", seed=2)
    train, held = divided(data, course.held_out)
    method = Svd(count=40)
    return Training(
        segmenter=segmenter, attached=method.attach(segmenter.model), course=course, data=train,
        held=held_out(held, course, segmenter), lr=lr, home=home,
        settings={"method": spec_of(method), "data": data.fingerprint, **course.to_dict()}, watch=watch,
    )  # fmt: skip


class Stop:
    """Raises at a step: `KeyboardInterrupt` is the user, anything else a crash that stores nothing."""

    def __init__(self, step: int, error: type[BaseException]) -> None:
        self.step, self.error = step, error

    def __call__(self, *, done: float, step: int, loss: float, entry: Mapping[str, Any] | None) -> None:
        if step == self.step and entry is None:
            raise self.error


def close(a: State, b: State) -> bool:
    return all(torch.allclose(a.now[n], b.now[n], atol=1e-6) for n in a.now) and all(
        torch.allclose(a.best[n], b.best[n], atol=1e-6) for n in a.best
    )


@pytest.mark.parametrize(("error", "every"), [(KeyboardInterrupt, 10), (MemoryError, 1), (MemoryError, 3)])
def test_an_interrupted_training_ends_where_an_uninterrupted_one_does(
    data: Dataset, quick: Make, tmp_path: Path, error: type[BaseException], every: int
) -> None:
    course = quick(save_every=every)
    straight = training(data, course, tmp_path / "straight").run()
    home = tmp_path / "halved"
    with pytest.raises(error):
        training(data, course, home, watch=Stop(3, error)).run()
    resumed = training(data, course, home).run()
    assert resumed.step == straight.step == 4 and close(resumed, straight)
    times = ("minutes",)
    assert [{k: v for k, v in e.items() if k not in times} for e in resumed.history] == [
        {k: v for k, v in e.items() if k not in times} for e in straight.history
    ]
    assert any(bool(v.any()) for v in straight.now.values())


def test_the_best_check_is_what_is_delivered(data: Dataset, quick: Make, tmp_path: Path) -> None:
    one = training(data, quick(steps=6), tmp_path / "s", lr=0.3)
    state = one.run()
    robust = [e["robust"] for e in state.history]
    assert [e["step"] for e in state.history] == [0, 2, 4, 6]
    assert state.top["robust"] == max(robust)
    assert all(torch.equal(one.attached.parameters[n].detach(), v) for n, v in state.best.items())


def test_it_ends_early_when_nothing_gets_better(
    data: Dataset, quick: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("redsam.tuning.loop.robust_iou", lambda *_: 0.5)
    state = training(data, quick(steps=50, patience=2), tmp_path / "s").run()
    assert state.step == 4 and "early after 4 steps" in state.ended
    assert not any(bool(v.any()) for v in state.best.values())  # the first of equals: the original


def test_numbers_that_cost_too_much_are_taken_back(
    data: Dataset, quick: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clean IoU falls with the length of the way: the shortest share of all is allowed, and of what is then tried on
    the way back to the next longer one the second."""
    clean, robust = [0.9] + [0.5] * (len(SHARES) - 1) + [0.89, 0.5, 0.885], [0.1, 0.2]
    monkeypatch.setattr("redsam.tuning.loop.clean_iou", lambda *_: clean.pop(0))
    monkeypatch.setattr("redsam.tuning.loop.robust_iou", lambda *_: robust.pop(0))
    one = training(data, quick(steps=2, clean_loss=0.02), tmp_path / "s")
    state = one.run()
    share = SHARES[-1] + (SHARES[-2] - SHARES[-1]) / 4
    assert state.top["share"] == pytest.approx(share) and state.top["clean"] == 0.885
    assert state.top["robust"] == 0.2 and not clean and not robust
    assert all(torch.allclose(state.best[n], state.now[n] * share, atol=1e-6) for n in state.now)


def test_where_nothing_longer_holds_the_numbers_are_those_that_did(
    data: Dataset, quick: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean = [0.9] + [0.5, 0.89] + [0.5] * HALVINGS
    monkeypatch.setattr("redsam.tuning.loop.clean_iou", lambda *_: clean.pop(0))
    monkeypatch.setattr("redsam.tuning.loop.robust_iou", lambda *_: 0.1 if len(clean) > 1 else 0.2)
    state = training(data, quick(steps=2, clean_loss=0.02), tmp_path / "s").run()
    assert (state.top["share"], state.top["clean"]) == (SHARES[1], 0.89) and not clean
    assert all(torch.allclose(state.best[n], state.now[n] * SHARES[1], atol=1e-6) for n in state.now)


def test_a_check_that_costs_too_much_at_any_length_is_no_candidate(
    data: Dataset, quick: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean = [0.9] + [0.1] * len(SHARES)
    monkeypatch.setattr("redsam.tuning.loop.clean_iou", lambda *_: clean.pop(0))
    monkeypatch.setattr("redsam.tuning.loop.robust_iou", lambda *_: 0.1)
    state = training(data, quick(steps=2, clean_loss=0.02), tmp_path / "s").run()
    assert state.history[-1]["robust"] is None and state.top["step"] == 0


def broken(home: Path, how: str) -> None:
    if how == "cut":
        home.write_bytes(home.read_bytes()[:-20])
    elif how == "text":
        home.write_text("nothing")
    elif how == "pickle":
        torch.save({"step": 1}, home)
    elif how == "numbers":
        from safetensors import safe_open

        with safe_open(str(home), framework="pt") as opened:
            meta = opened.metadata()
        tensors = load_file(home)
        tensors[next(k for k in tensors if k.startswith("now/"))].add_(1)
        save_file(tensors, home, metadata=meta)
    elif how == "foreign":
        save_file({"a": torch.zeros(1)}, home, metadata={"redsam": json.dumps({"schema": 1, "kind": "something"})})


@pytest.mark.parametrize("how", ["cut", "text", "pickle", "numbers", "foreign"])
def test_a_broken_state_is_refused(data: Dataset, quick: Make, tmp_path: Path, how: str) -> None:
    home = tmp_path / "state.safetensors"
    with pytest.raises(KeyboardInterrupt):
        training(data, quick(), home, watch=Stop(1, KeyboardInterrupt)).run()
    broken(home, how)
    with pytest.raises(InputError, match=r"state\.safetensors.*(broken|damaged|pickle|state|written).*Delete"):
        training(data, quick(), home).run()


def test_a_state_of_another_training_is_refused(data: Dataset, quick: Make, tmp_path: Path) -> None:
    home = tmp_path / "state.safetensors"
    with pytest.raises(KeyboardInterrupt):
        training(data, quick(), home, watch=Stop(1, KeyboardInterrupt)).run()
    with pytest.raises(InputError, match="belongs to another training: batch is 2 there and 3 here"):
        training(data, quick(batch=3), home).run()


def test_a_loss_that_is_not_finite_says_so(
    data: Dataset, quick: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = training(data, quick(), tmp_path / "s")
    name = next(iter(one.attached.parameters))
    monkeypatch.setattr("redsam.tuning.loop.mask_loss", lambda *_: one.attached.parameters[name].sum() * float("nan"))
    with pytest.raises(InputError, match="loss is nan at step 0.*smaller --lr"):
        one.run()


def test_minutes_end_it(data: Dataset, quick: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10_000, 30))  # every look at the clock is half a minute later
    monkeypatch.setattr("redsam.tuning.loop.time.monotonic", lambda: float(next(clock)))
    state = training(data, quick(steps=None, minutes=2), tmp_path / "s").run()
    assert 1 <= state.step <= 4 and state.minutes >= 2 and state.history[-1]["step"] == state.step


def test_rate_and_clip() -> None:
    assert 0 < rate(0.0) < rate(0.03) < rate(0.05) == 1.0 > rate(0.5) > rate(1.0) == pytest.approx(0)
    short, long = {"a": torch.tensor([0.3, 0.4])}, {"a": torch.tensor([3.0]), "b": torch.tensor([4.0])}
    assert torch.equal(clipped(short)["a"], short["a"])
    assert {n: float(g) for n, g in clipped(long).items()} == pytest.approx({"a": 0.6, "b": 0.8})
