"""harden from end to end on tiny models: the folder, a delta that agrees in every bit, input that is wrong."""

from __future__ import annotations

import contextlib
import errno
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from redsam.data import Dataset, join, open_data
from redsam.errors import InputError
from redsam.models import Segmenter, load, tiny, wrap
from redsam.prompts import box, point
from redsam.storage import alone
from redsam.tuning import Course, Delta, apply_delta, harden
from redsam.tuning.base import photograph
from redsam.tuning.hardening import CARD, DELTA, FACTS, STATE
from redsam.tuning.selections import Bias
from redsam.tuning.svd import Svd

Make = Callable[..., Course]
SVD = Svd(count=64, lr=0.2)


@pytest.fixture(params=["sam", "sam2"])
def original(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    folder = tmp_path / f"tiny-{request.param}"
    tiny(request.param, seed=2).model.save_pretrained(folder)  # type: ignore[operator]
    return folder


@pytest.fixture
def sam(tmp_path: Path) -> Path:
    folder = tmp_path / "sam"
    tiny("sam", seed=2).model.save_pretrained(folder)  # type: ignore[operator]
    return folder


def answers(segmenter: Segmenter) -> Tensor:
    image = (torch.rand(1, 3, 48, 64, generator=torch.Generator().manual_seed(0)) * 255).round() / 255
    return segmenter.predict(image, [[point(20, 20), box(5, 5, 40, 40)]])[0].logits


def test_the_delta_on_the_original_is_the_folder_in_every_bit(
    original: Path, data: Dataset, quick: Make, tmp_path: Path
) -> None:
    segmenter = load(original)
    before = answers(segmenter)
    made = harden(segmenter, data, method=SVD, out=tmp_path / "out", course=quick())
    folder = load(made.out)
    assert made.facts["numbers"] == made.delta.numbers == 64
    assert made.facts["tensors_frozen"] == made.facts["tensors"] == len(segmenter.model.state_dict())
    fresh = apply_delta(load(original), made.out / DELTA)
    for one in (fresh, folder):
        assert torch.equal(answers(one), answers(segmenter))
        assert photograph(one.model) == photograph(segmenter.model)
    # Only the weights it names moved, and they did.
    changed = {p.weight for p in made.delta.patches}
    old, new = load(original).model.state_dict(), folder.model.state_dict()
    assert {n for n in old if not torch.equal(old[n], new[n])} == changed
    assert not torch.equal(before, answers(folder))
    assert (made.out / DELTA).stat().st_size < 4096


def test_transformers_alone_loads_the_folder(sam: Path, data: Dataset, quick: Make, tmp_path: Path) -> None:
    from transformers import SamModel

    settings = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25]}
    made = harden(load(sam), data, method=SVD, out=tmp_path / "out", course=quick(), processor=settings)
    model, info = SamModel.from_pretrained(made.out, output_loading_info=True)
    assert not any(info[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert isinstance(model, SamModel) and load(made.out).mean == (0.5, 0.5, 0.5)  # type: ignore[attr-defined]
    assert {f.name for f in made.out.iterdir()} == {
        "config.json", "model.safetensors", DELTA, FACTS, CARD, "preprocessor_config.json"
    }  # fmt: skip
    card = (made.out / CARD).read_text()
    assert "64 of " in card and "Frozen" in card and "fgsm" in card and data.fingerprint in card
    facts = json.loads((made.out / FACTS).read_text())
    assert facts["held_out"]["images"] == 2 and facts["before"].keys() == facts["after"].keys() == {"clean", "robust"}
    assert [c["numbers"] for c in facts["changed"]] == [32, 32]


def test_typed_again_it_returns_what_is_there(
    sam: Path, data: Dataset, quick: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = harden(load(sam), data, method=SVD, out=tmp_path / "out", course=quick())
    monkeypatch.setattr("redsam.tuning.hardening.Training", None)  # nothing may be trained
    again = load(sam)
    second = harden(again, data, method=SVD, out=tmp_path / "out", course=quick())
    assert second.facts == first.facts and again.fingerprint() == first.delta.after
    with pytest.raises(InputError, match="of another hardening: steps is 4 there and 5 here"):
        harden(load(sam), data, method=SVD, out=tmp_path / "out", course=quick(steps=5))
    with pytest.raises(InputError, match="of another hardening: method is count=64"):
        harden(load(sam), data, method=Svd(count=63, lr=0.2), out=tmp_path / "out", course=quick())


def test_a_disk_that_fills_up_at_the_end_loses_nothing(
    sam: Path, data: Dataset, quick: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as full:

        def fill(self: Any, folder: Path) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        segmenter = load(sam)
        full.setattr(type(segmenter.model), "save_pretrained", fill)
        with pytest.raises(InputError, match="No space left on device.*same command again"):
            harden(segmenter, data, method=SVD, out=out, course=quick())
    assert [f.name for f in out.iterdir()] == [STATE]
    calls = []
    monkeypatch.setattr("redsam.tuning.loop.Training._step", lambda *a: calls.append(a))
    made = harden(load(sam), data, method=SVD, out=out, course=quick())
    assert not calls and made.facts["steps"] == 4 and not (out / STATE).exists()


def test_no_room_is_found_before_training(
    sam: Path, data: Dataset, quick: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("redsam.tuning.hardening.shutil.disk_usage", lambda _: type("U", (), {"free": 1000}))
    with pytest.raises(InputError, match="0 MB are free, the hardened model needs about 1 MB"):
        harden(load(sam), data, method=SVD, out=tmp_path / "out", course=quick())
    with pytest.raises(InputError, match="there is a model already"):
        harden(load(sam), data, method=SVD, out=sam, course=quick())
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write there"):
        harden(load(sam), data, method=SVD, out=tmp_path / "file", course=quick())


def test_a_second_hardening_into_one_folder_is_refused(sam: Path, data: Dataset, quick: Make, tmp_path: Path) -> None:
    with alone(tmp_path / "out"), pytest.raises(InputError, match="is being written by process"):
        harden(load(sam), data, method=SVD, out=tmp_path / "out", course=quick())


def test_what_another_process_ended_a_moment_ago_is_taken(
    sam: Path, data: Dataset, quick: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, steps = harden(load(sam), data, method=SVD, out=tmp_path / "other", course=quick()).out, []

    @contextlib.contextmanager
    def late(out: Path) -> Iterator[None]:
        shutil.copytree(done, out, dirs_exist_ok=True)
        with alone(out):
            yield

    monkeypatch.setattr("redsam.tuning.hardening.alone", late)
    made = harden(load(sam), data, method=SVD, out=tmp_path / "out", course=quick(), watch=lambda **k: steps.append(k))
    assert not steps and made.out == tmp_path / "out" and not (tmp_path / "out.lock").exists()


def test_an_interrupted_hardening_leaves_the_original(sam: Path, data: Dataset, quick: Make, tmp_path: Path) -> None:
    segmenter = load(sam)
    before = photograph(segmenter.model)

    def stop(**told: Any) -> None:
        if told["step"] == 2 and told["entry"] is None:
            raise KeyboardInterrupt

    for method in (Bias(lr=0.1), SVD):
        with pytest.raises(KeyboardInterrupt):
            harden(segmenter, data, method=method, out=tmp_path / method.__class__.__name__, course=quick(), watch=stop)
        assert photograph(segmenter.model) == before
        made = harden(segmenter, data, method=method, out=tmp_path / method.__class__.__name__, course=quick())
        assert made.facts["steps"] == 4
        segmenter = load(sam)


class Flat(nn.Module):
    """A promptable module that is not transformers'."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 1)


def test_models_that_cannot_be_hardened(sam: Path, data: Dataset, quick: Make, tmp_path: Path) -> None:
    def embed(pixels: Tensor) -> Tensor:
        return pixels

    def decode(*_: Any) -> tuple[Tensor, Tensor]:
        return torch.zeros(1, 1, 8, 8), torch.zeros(1, 1)

    own = wrap(Flat(), image_size=32, embed=embed, decode=decode, name="own")
    with pytest.raises(InputError, match="no transformers model"):
        harden(own, data, method=SVD, out=tmp_path / "out", course=quick())
    with pytest.raises(InputError, match="trains in float32"):
        harden(load(sam, dtype=torch.bfloat16), data, method=SVD, out=tmp_path / "out", course=quick())
    from redsam.defenses import DefendedSegmenter

    with pytest.raises(InputError, match="behind purifiers"):
        harden(DefendedSegmenter(load(sam), "jpeg"), data, method=SVD, out=tmp_path / "out", course=quick())
    with pytest.raises(InputError, match="no layer answers to 'nowhere'"):
        harden(load(sam), data, method=Svd(layers="nowhere"), out=tmp_path / "out", course=quick())


def test_a_delta_fits_its_own_original_only(sam: Path, data: Dataset, quick: Make, tmp_path: Path) -> None:
    made = harden(load(sam), data, method=SVD, out=tmp_path / "out", course=quick())
    file = made.out / DELTA
    with pytest.raises(InputError, match="is another .*Load the original"):
        apply_delta(tiny("sam", seed=5), file)
    with pytest.raises(InputError, match="is the hardened model already"):
        apply_delta(load(made.out), file)
    tensors = load_file(file)
    from safetensors import safe_open

    with safe_open(str(file), framework="pt") as opened:
        meta = opened.metadata()
    tensors["0.change"][0] += 1e-3
    save_file(tensors, tmp_path / "d.safetensors", metadata=meta)
    with pytest.raises(InputError, match="damaged, its numbers"):
        Delta.load(tmp_path / "d.safetensors")
    with pytest.raises(InputError, match="no delta of a model"):
        from redsam.attacks.artefact import store

        store(tmp_path / "e.safetensors", {}, {"kind": "other"})
        Delta.load(tmp_path / "e.safetensors")
    with pytest.raises(InputError, match="pickle"):
        torch.save({}, tmp_path / "f.safetensors")
        Delta.load(tmp_path / "f.safetensors")


def test_another_machines_rounding_is_told(sam: Path, data: Dataset, quick: Make, tmp_path: Path) -> None:
    made = harden(load(sam), data, method=SVD, out=tmp_path / "out", course=quick())
    told = {k: getattr(made.delta, k) for k in ("method", "model", "before", "patches", "notes")}
    Delta(after="0" * 16, **told).save(tmp_path / "d.safetensors")
    with pytest.warns(UserWarning, match="up to rounding, not in every bit"):
        apply_delta(load(sam), tmp_path / "d.safetensors")


def test_sets_are_joined(photos: Path, tmp_path: Path) -> None:
    one = open_data(photos)
    both = join([one, one])
    assert join([one]) is one and len(both) == 2 * len(one) == len(set(both.ids))
    assert both[len(one)].id == both.ids[len(one)] and torch.equal(both[len(one)].image, one[0].image)
    assert both.limit(4).fingerprint != both.fingerprint
