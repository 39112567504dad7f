"""Artefacts, training that survives kill -9, the wavelet, and the contrastive recipe, on a tiny model."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from redsam.attacks.artefact import Artefact, lay, store
from redsam.attacks.uap_contrast import UAPContrast, contrast_loss
from redsam.attacks.uap_sam2 import UAPSAM2, confusion, feature_shift
from redsam.attacks.universal import momentum
from redsam.attacks.universal_training import train
from redsam.attacks.wavelet import haar, inverse
from redsam.errors import InputError
from redsam.models import Segmenter, tiny
from redsam.prompts import point
from redsam.registry import create, names
from redsam.storage import StorageError
from redsam.threat import Threat
from redsam.types import Sample, from_uint8

UNIVERSAL = ("darksam", "uap-contrast", "uap-sam2", "umi-grat")
QUICK = {
    "darksam": {"samples": 3, "inner": 2},
    "uap-contrast": {"samples": 1},
    "uap-sam2": {"samples": 4},
    "umi-grat": {},
}
THREAT = Threat(eps=10 / 255)


def sample(seed: int, height: int = 24, width: int = 32) -> Sample:
    generator = torch.Generator().manual_seed(seed)
    image = from_uint8(torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8))
    return Sample(id=f"image-{seed}", image=image, prompts=(point(5, 7),))


def samples(count: int) -> list[Sample]:
    return [sample(i, 24, 32 + 8 * (i % 2)) for i in range(count)]


@pytest.fixture(scope="module")
def sam() -> Segmenter:
    return tiny("sam", image_size=32)


def artefact(**changes: Any) -> Artefact:
    delta = (torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1) * 8 / 255
    settings: dict[str, Any] = {
        "delta": delta, "attack": {"name": "darksam", "args": {}}, "model": "tiny", "fingerprint": "0" * 16,
        "eps": 8 / 255, "norm": "linf", "data": "1" * 16, "protocol": None, "ids": ["a"], "epochs": 1, "steps": 1,
        "seed": 0,
    }  # fmt: skip
    return Artefact(**(settings | changes))


# --- the file ------------------------------------------------------------------------------------------------------
def test_it_comes_back_as_it_was_and_equal_content_is_equal_bytes(tmp_path: Path) -> None:
    one = artefact(skipped={"b": "broken"})
    one.save(tmp_path / "one")
    one.save(tmp_path / "two")
    again = Artefact.load(tmp_path / "one")
    assert torch.equal(again.delta, one.delta) and again.to_dict() == one.to_dict()
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one", "two"]


class Bomb:
    """Leaves a file where it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (self.path,)


def test_a_pickle_is_refused_and_not_opened(tmp_path: Path) -> None:
    trap = tmp_path / "exploded"
    (tmp_path / "bad").write_bytes(pickle.dumps(Bomb(str(trap))))
    torch.save({"delta": torch.zeros(3, 8, 8)}, tmp_path / "torch")
    for name in ("bad", "torch"):
        with pytest.raises(InputError, match="a pickle"):
            Artefact.load(tmp_path / name)
    assert not trap.exists()


def test_files_that_hold_no_perturbation(tmp_path: Path) -> None:
    good = tmp_path / "good"
    artefact().save(good)
    (tmp_path / "cut").write_bytes(good.read_bytes()[:-40])
    (tmp_path / "text").write_text("no tensors here")
    (tmp_path / "empty").touch()
    save_file({"delta": torch.zeros(3, 8, 8)}, tmp_path / "foreign")
    described = {"kind": "universal perturbation", **artefact().to_dict()}
    store(tmp_path / "norm", {"delta": torch.zeros(3, 8, 8)}, described | {"norm": "l2"})
    store(tmp_path / "large", {"delta": torch.full((3, 8, 8), 0.5)}, described)
    store(tmp_path / "nan", {"delta": torch.full((3, 8, 8), float("nan"))}, described)
    store(tmp_path / "flat", {"delta": torch.zeros(3, 8, 9)}, described)
    store(tmp_path / "eps", {"delta": torch.zeros(3, 8, 8)}, described | {"eps": "many"})
    store(tmp_path / "lacks", {"other": torch.zeros(3, 8, 8)}, described)
    said = {
        "cut": "broken", "text": "broken", "empty": "broken", "foreign": "not written", "norm": "'l2'",
        "nan": "reaches", "large": "reaches 0.5", "flat": "3xSxS", "eps": "description", "lacks": "lacks delta",
        "absent": "cannot be read",
    }  # fmt: skip
    for name, words in said.items():
        with pytest.raises(InputError, match=words) as raised:
            Artefact.load(tmp_path / name)
        assert name in str(raised.value)


# --- onto an image -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("size", [(8, 8), (5, 31), (64, 40), (2, 2)])
def test_laid_onto_any_size_it_stays_inside_its_eps(size: tuple[int, int]) -> None:
    one = artefact()
    for fit in ("stretch", "tile"):
        laid = one.on(size, fit)  # type: ignore[arg-type]
        assert laid.shape == (3, *size) and float(laid.abs().max()) <= 8 / 255 + 1e-7


def test_tiles_repeat_and_stretching_is_bilinear() -> None:
    delta = artefact().delta
    tiled = lay(delta, (10, 19), "tile")
    assert all(torch.equal(tiled[:, y, x], delta[:, y % 8, x % 8]) for y in range(10) for x in range(19))
    step = torch.tensor([[0.0, 1.0]]).expand(3, 2, 2)
    assert torch.allclose(lay(step, (2, 4))[0, 0], torch.tensor([0.0, 0.25, 0.75, 1.0]))  # half-pixel centres
    with pytest.raises(InputError, match="no fit 'crop'"):
        lay(delta, (4, 4), "crop")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", UNIVERSAL)
def test_an_artefact_is_applied_without_a_gradient(name: str, sam: Segmenter, tmp_path: Path) -> None:
    artefact().save(tmp_path / "delta")
    attack = create("attack", name, artefact=str(tmp_path / "delta"), steps=0, **QUICK[name])
    for size in ((24, 32), (40, 17)):
        image = sample(3, *size).image[None] * 0.5 + 0.25  # away from the ends of the range
        image = (image * 255).round() / 255
        result = attack.run(sam, image, [[point(5, 7)]], threat=THREAT)
        wanted = artefact().on(size) * 255
        assert result.gradients == 0 and not any(result.flags)
        assert float((result.images[0] - (image[0] * 255) - wanted).abs().max()) <= 0.5 + 1e-3


def test_a_larger_artefact_is_projected_and_flagged(sam: Segmenter, tmp_path: Path) -> None:
    artefact().save(tmp_path / "delta")
    attack = create("attack", "darksam", artefact=str(tmp_path / "delta"))
    result = attack.run(sam, sample(1).image[None], [[point(5, 7)]], threat=Threat(eps=4 / 255))
    assert result.flags[0].startswith("a perturbation of eps 8/255") and result.budget[0].linf <= 4 / 255


def test_a_goal_stops_the_image_variant(sam: Segmenter) -> None:
    attack = create("attack", "uap-contrast", steps=3, samples=1, stop_at=1.0)
    result = attack.run(sam, sample(1).image[None], [[point(5, 7)]], threat=THREAT)
    assert result.steps == (0,)  # every IoU is at most 1


# --- training ------------------------------------------------------------------------------------------------------
def test_the_four_are_all_there_are() -> None:
    assert set(UNIVERSAL) <= set(names("attack"))


@pytest.mark.parametrize("name", UNIVERSAL)
def test_training_lowers_the_loss_and_says_what_it_did(name: str, sam: Segmenter, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    attack = create("attack", name, **QUICK[name])
    made = train(
        attack, sam, samples(3), threat=THREAT, out=tmp_path / "d", epochs=2, seed=4,
        progress=lambda *, done, total, note: told.append((done, total)),
    )  # fmt: skip
    assert told == [(i, 6) for i in range(1, 7)]
    assert made.delta.shape == (3, 32, 32) and 0 < float(made.delta.abs().max()) <= THREAT.eps + 1e-7
    assert list(made.ids) == [s.id for s in samples(3)] and made.steps > 0 and made.fingerprint == sam.fingerprint()
    assert [p.name for p in tmp_path.iterdir()] == ["d"]
    # The recipe's own loss on an image it never saw, against the clean image.
    seen = replace(attack, artefact=str(tmp_path / "d"), steps=0)
    unseen, where = sample(9).image[None], [[point(5, 7)]]
    loss = seen.run(sam, unseen, where, threat=THREAT).losses[0]
    clean = seen.run(sam, unseen, where, threat=Threat(eps=0)).losses[0]
    assert float(loss) < float(clean)


def test_training_by_hand(sam: Segmenter, tmp_path: Path) -> None:
    """One image, one step: minus the step size times the sign of the loss's gradient, nothing scaled by the loss."""
    attack = create("attack", "darksam", samples=3, inner=1)
    made = train(attack, sam, [sample(0)], threat=THREAT, out=tmp_path / "d", size=8)
    assert set((made.delta * 255).unique().round().tolist()) <= {-1.0, 0.0, 1.0}
    assert float((made.delta.abs() * 255 - 1).abs().max()) < 1e-4


def test_it_is_the_seeds_doing(sam: Segmenter, tmp_path: Path) -> None:
    attack = create("attack", "uap-contrast", samples=1)
    one, two, other = (
        train(attack, sam, samples(2), threat=THREAT, out=tmp_path / str(i), epochs=1, seed=seed, size=8)
        for i, seed in enumerate((1, 1, 2))
    )
    assert torch.equal(one.delta, two.delta) and not torch.equal(one.delta, other.delta)


SCRIPT = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import torch
torch.set_num_threads(1)
from tests.attacks.test_universal import QUICK, THREAT, samples
from redsam.attacks.universal_training import train
from redsam.models import tiny
from redsam.registry import create
deadly = int(sys.argv[4])
def progress(*, done, total, note):
    if done == deadly:
        os.kill(os.getpid(), signal.SIGKILL)
attack = create("attack", sys.argv[2], **QUICK[sys.argv[2]])
train(attack, tiny("sam", image_size=32), samples(3), threat=THREAT, out=Path(sys.argv[3]), epochs=2, save_every=2,
      progress=progress)
"""


def test_killed_and_run_again_it_is_the_same_file(tmp_path: Path) -> None:
    name = "uap-sam2"  # the one that remembers: gradients and foreign features

    def run(out: Path, deadly: int) -> int:
        root = Path(__file__).parents[2]
        command = [sys.executable, "-c", SCRIPT, str(root), name, str(out), str(deadly)]
        return subprocess.run(command, cwd=root, check=False).returncode

    assert run(tmp_path / "whole", -1) == 0
    assert run(tmp_path / "cut", 3) == -signal.SIGKILL
    assert not (tmp_path / "cut").exists() and (tmp_path / "cut.state").exists()
    assert run(tmp_path / "cut", -1) == 0
    assert (tmp_path / "cut").read_bytes() == (tmp_path / "whole").read_bytes()
    assert not (tmp_path / "cut.state").exists()


def test_two_trainings_of_one_file_do_not_mix(sam: Segmenter, tmp_path: Path) -> None:
    attack, out = create("attack", "uap-contrast", samples=1), tmp_path / "d"
    kwargs: dict[str, Any] = {"threat": THREAT, "out": out, "epochs": 1, "size": 8}
    told: list[int] = []

    def second(*, done: int, total: int, note: str) -> None:
        told.append(done)
        with pytest.raises(StorageError, match=rf"d is being written by process {os.getpid()}"):
            train(attack, sam, samples(2), **kwargs)

    made = train(attack, sam, samples(2), progress=second, **kwargs)
    assert told == [1, 2] and [p.name for p in tmp_path.iterdir()] == ["d"], "no state and no lock is left"
    assert torch.equal(train(attack, sam, samples(2), progress=second, **kwargs).delta, made.delta) and told == [1, 2]
    whole = train(attack, sam, samples(2), **(kwargs | {"out": tmp_path / "e"}))
    assert torch.equal(whole.delta, made.delta)


@pytest.mark.parametrize("name", UNIVERSAL)
def test_ctrl_c_loses_nothing(name: str, sam: Segmenter, tmp_path: Path) -> None:
    attack, told = create("attack", name, **QUICK[name]), []

    def stop(*, done: int, total: int, note: str) -> None:
        told.append(done)
        if told == [1]:
            raise KeyboardInterrupt

    kwargs: dict[str, Any] = {"threat": THREAT, "epochs": 1, "size": 8, "progress": stop}
    with pytest.raises(KeyboardInterrupt):
        train(attack, sam, samples(2), out=tmp_path / "d", **kwargs)
    made = train(attack, sam, samples(2), out=tmp_path / "d", **kwargs)
    assert told == [1, 2]  # the first image was not learned from twice
    whole = train(attack, sam, samples(2), out=tmp_path / "whole", **(kwargs | {"progress": None}))
    assert torch.equal(made.delta, whole.delta)


def test_a_state_or_file_of_other_settings_is_not_overwritten(sam: Segmenter, tmp_path: Path) -> None:
    attack = create("attack", "uap-contrast", samples=1)

    def go(**changes: Any) -> Artefact:
        given: dict[str, Any] = {"attack": attack, "threat": THREAT, "epochs": 1, "size": 8, "images": samples(2)}
        given |= changes
        return train(given.pop("attack"), sam, given.pop("images"), out=tmp_path / "d", **given)

    def stop(*, done: int, total: int, note: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go(progress=stop)
    differently: dict[str, dict[str, Any]] = {
        "eps is 0.039.* there and 0.015.* here": {"threat": Threat(eps=4 / 255)},
        "seed is 0 there and 3 here": {"seed": 3},
        "size is 8 there and 9 here": {"size": 9},
        "data is": {"images": samples(3)},
        "attack is temperature=0.1 there and temperature=0.2 here": {"attack": replace(attack, temperature=0.2)},
    }
    for words, changes in differently.items():
        with pytest.raises(InputError, match=f"d.state belongs to another training: {words}"):
            go(**changes)
    made = go()
    with pytest.raises(InputError, match="d holds another perturbation: seed"):
        go(seed=3)
    assert torch.equal(go().delta, made.delta)  # finished: nothing to do
    (tmp_path / "d").unlink()
    (tmp_path / "d.state").write_bytes(b"nonsense")
    with pytest.raises(InputError, match="d.state: broken"):
        go()


class Broken(list[Sample]):
    """A data set whose second image cannot be read."""

    @property
    def ids(self) -> list[str]:
        return ["image-0", "image-1", "image-2"]

    fingerprint = "f" * 16

    def __getitem__(self, index: Any) -> Any:
        if index == 1:
            raise InputError("image-1 is truncated.")
        return super().__getitem__(index)


def test_an_image_that_cannot_be_read_is_recorded(sam: Segmenter, tmp_path: Path) -> None:
    notes: list[str] = []
    made = train(
        create("attack", "uap-contrast", samples=1), sam, Broken(samples(3)), threat=THREAT, out=tmp_path / "d",
        epochs=1, size=8, progress=lambda *, done, total, note: notes.append(note),
    )  # fmt: skip
    assert list(made.ids) == ["image-0", "image-2"] and dict(made.skipped) == {"image-1": "image-1 is truncated."}
    assert [n for n in notes if n] == ["image-1: image-1 is truncated."]


def test_what_cannot_be_trained(sam: Segmenter, toy_class: Any, tmp_path: Path) -> None:
    attack, out = create("attack", "darksam", samples=2), tmp_path / "d"
    blind = toy_class()
    blind.differentiable = False
    cases: list[tuple[str, Any, Any, Any, dict[str, Any]]] = [
        ("makes no universal", create("attack", "pgd"), sam, samples(1), {}),
        ("gives none", attack, blind, samples(1), {}),
        ("no image", attack, sam, [], {}),
        ("bounded in linf", attack, sam, samples(1), {"threat": Threat(norm="l2", eps=1)}),
        ("bounded in linf", attack, sam, samples(1), {"threat": Threat(eps=0)}),
        ("takes none", replace(attack, artefact="x"), sam, samples(1), {}),
        ("0 epochs", attack, sam, samples(1), {"epochs": 0}),
        ("0 x 0", attack, sam, samples(1), {"size": 0}),
    ]
    for words, recipe, model, images, more in cases:
        with pytest.raises(InputError, match=words):
            train(recipe, model, images, out=out, **({"threat": THREAT} | more))
    assert not list(tmp_path.iterdir())


# --- pieces ---------------------------------------------------------------------------------------------------------
def test_momentum_by_hand() -> None:
    memory: dict[str, Tensor] = {}
    assert momentum(0.9, torch.tensor([2.0]), memory).item() == 2.0
    assert momentum(0.9, torch.tensor([-1.0]), memory).item() == pytest.approx(0.9 * 2 - 0.1)


def test_haar_by_hand_and_back() -> None:
    block = torch.tensor([[1.0, 2.0], [3.0, 5.0]])
    assert [b.item() for b in haar(block)] == [5.5, -1.5, -2.5, 0.5]
    for size in ((8, 6), (5, 7), (1, 1), (2, 9)):
        images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
        assert torch.allclose(inverse(haar(images), size), images, atol=1e-6)
    even = torch.rand(2, 3, 8, 6, generator=torch.Generator().manual_seed(0))
    assert torch.stack(list(haar(even))).square().sum().item() == pytest.approx(even.square().sum().item(), rel=1e-5)


def test_haar_against_the_filter_bank() -> None:
    """Independent: two-channel filter bank written as matrix products, (1, 1) / sqrt 2 and (1, -1) / sqrt 2."""
    images = torch.rand(3, 8, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def bank(side: int, sign: float) -> Tensor:
        rows = torch.zeros(side // 2, side, dtype=torch.float64)
        for i in range(side // 2):
            rows[i, 2 * i], rows[i, 2 * i + 1] = 2**-0.5, sign * 2**-0.5
        return rows

    found = haar(images)
    for band, (vertical, horizontal) in zip(found, ((1, 1), (1, -1), (-1, 1), (-1, -1)), strict=True):
        wanted = bank(8, vertical) @ images @ bank(12, horizontal).T
        assert torch.allclose(band, wanted, atol=1e-12)


def test_haar_against_pywavelets() -> None:
    pywt = pytest.importorskip("pywt")
    images = torch.rand(8, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    low, (horizontal, vertical, diagonal) = pywt.dwt2(images.numpy(), "haar")
    ll, lh, hl, hh = haar(images)
    for ours, theirs in ((ll, low), (hl, horizontal), (lh, vertical), (hh, diagonal)):
        assert torch.allclose(ours, torch.from_numpy(theirs), atol=1e-12)


def test_contrast_loss_by_hand() -> None:
    anchor = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)
    positive = torch.tensor([3.0, 4.0]).view(1, 2, 1, 1)  # cosine 0.6
    negative = torch.tensor([0.0, 2.0]).view(1, 2, 1, 1)  # cosine 0
    wanted = torch.log(torch.exp(torch.tensor(1.2)) + 1) - 1.2
    assert contrast_loss(anchor, [positive], [negative], 0.5).item() == pytest.approx(wanted.item(), rel=1e-5)
    assert contrast_loss(anchor, [anchor], [negative], 0.5) < contrast_loss(anchor, [negative], [anchor], 0.5)


def test_confusion_by_hand() -> None:
    """Inside softplus(z) + z, and outside softplus(1 - z); the other factor is 0 there and adds log 2."""
    logits = torch.tensor([[[[2.0, -1.0]]]])
    masks = torch.tensor([[[[True, False]]]])
    log2, soft = torch.log(torch.tensor(2.0)), torch.nn.functional.softplus
    wanted = (soft(torch.tensor(2.0)) + 2 + log2 + soft(torch.tensor(2.0)) + log2) / 2
    assert confusion(logits, masks).item() == pytest.approx(wanted.item(), rel=1e-6)


def test_feature_shift_leaves_the_prototype_for_foreign_images() -> None:
    own, foreign = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1), torch.tensor([0.0, 1.0]).view(1, 2, 1, 1)
    none = own[:0]
    assert feature_shift(own, own, none, 0.1).item() == pytest.approx(10.0)
    assert feature_shift(foreign, own, none, 0.1).item() == pytest.approx(0.0)
    assert feature_shift(own, own, foreign, 0.1).item() == pytest.approx(10.0, abs=1e-3)  # log(1 + e^10)
    assert feature_shift(foreign, own, foreign, 0.1).item() == pytest.approx(0.0, abs=1e-3)


def test_foreign_features_are_remembered_across_images(sam: Segmenter) -> None:
    from redsam.attacks.task import Task

    attack, memory = UAPSAM2(samples=2), {}
    for i in range(2):
        task = Task(segmenter=sam, clean=sample(i).image[None], prompts=[[]], threat=THREAT, seeds=[i])
        attack.evaluator(task, memory)
    assert len(memory["foreign"]) == 2


@pytest.mark.parametrize("kind", [UAPContrast, UAPSAM2])
def test_no_sample_is_refused(kind: Any) -> None:
    with pytest.raises(InputError, match="at least 1"):
        kind(samples=0)
