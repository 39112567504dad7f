"""Transfer recipes against torchattacks, from shared randomness, through the same closure.

Models run in float64. torchattacks draws from PyTorch's global generator and ours from one generator per image: seeded
alike and asked for the same numbers in the same order they give the same draws, so random copies and neighbours agree
without any hook. Agreement: within one 8-bit level on at least 99.9 % of values. Square pictures, because torchattacks
resizes to squares. `pip install --no-deps torchattacks` runs the tests that are skipped without it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from redsam.attacks.difgsm import DIFGSM
from redsam.attacks.gradient import GradientAttack
from redsam.attacks.nifgsm import NIFGSM
from redsam.attacks.sinifgsm import SINIFGSM
from redsam.attacks.tifgsm import TIFGSM
from redsam.attacks.vmifgsm import VMIFGSM
from redsam.models import Segmenter, lab_names, load, tiny
from redsam.prompts import Prompt, box, point
from redsam.threat import Threat
from redsam.types import from_uint8, to_uint8

SIDE, SEED = 48, 7
EPS, STEP = 8 / 255, 2 / 255
PROMPTS: list[list[Prompt]] = [[point(20, 20), box(10, 10, 40, 40)]]
# Every loss that can occur must stay below: torchattacks climbs top - loss, a cross-entropy.
HEADROOM = 300.0


@pytest.fixture(scope="module", params=["tiny-sam", "lab-b"])
def segmenter(request: pytest.FixtureRequest) -> Segmenter:
    if request.param == "tiny-sam":
        return tiny("sam", dtype=torch.float64)
    if request.param not in lab_names():
        pytest.skip(f"{request.param} is not bundled yet")
    return load(request.param, dtype=torch.float64)


@pytest.fixture(scope="module")
def torchattacks() -> Any:
    return pytest.importorskip("torchattacks")


def picture() -> Tensor:
    """A smooth random picture that touches 0 and 1, so that a trained model has something to look at."""
    coarse = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(3))
    return from_uint8(to_uint8(nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bicubic").clamp(0, 1)))


class TwoClasses(nn.Module):
    """Logits whose cross-entropy for label 0 is top - loss (Attack-SAM's, written again from the paper)."""

    def __init__(self, segmenter: Segmenter) -> None:
        super().__init__()
        self.segmenter, self.anchor = segmenter, nn.Parameter(torch.zeros(1))
        with torch.no_grad():
            self.top = float(self.loss(picture())) + HEADROOM

    def loss(self, images: Tensor) -> Tensor:
        logits = self.segmenter.decode(self.segmenter.encode(images), PROMPTS).logits()[0]
        return nn.functional.relu(logits + 10).square().mean()[None]

    def forward(self, images: Tensor) -> Tensor:
        wanted = self.top - self.loss(images)
        first = -(wanted + torch.log1p(-torch.exp(-wanted)))  # softplus(-first) = wanted
        return torch.stack([first, torch.zeros_like(first)], dim=1)


def run_theirs(attack: Any) -> Tensor:
    torch.manual_seed(SEED)
    found: Tensor = attack.forward(picture(), torch.zeros(1, dtype=torch.long))
    return to_uint8(found)


def run_ours(attack: GradientAttack, segmenter: Segmenter, seed: int = SEED) -> Tensor:
    return attack.run(segmenter, picture(), PROMPTS, threat=Threat(eps=EPS), seeds=[seed]).images


def share(one: Tensor, other: Tensor) -> float:
    """Of values within one level."""
    return float(((one.int() - other.int()).abs() <= 1).float().mean())


def same(ours: Tensor, theirs: Tensor) -> None:
    assert share(ours, theirs) >= 0.999
    assert float((ours != to_uint8(picture())).float().mean()) > 0.5  # and both really moved


def steps(segmenter: Segmenter) -> int:
    return 10 if segmenter.name != "lab-b" else 3


@pytest.mark.parametrize("decay", [0.0, 1.0])
def test_difgsm_equals_torchattacks(segmenter: Segmenter, torchattacks: Any, decay: float) -> None:
    if segmenter.name == "lab-b" and not decay:
        pytest.skip("both decays are compared on the tiny model")
    count, rate = steps(segmenter), 0.8
    model = TwoClasses(segmenter)
    theirs = torchattacks.DIFGSM(
        model, eps=EPS, alpha=STEP, steps=count, decay=decay, resize_rate=rate, diversity_prob=0.7
    )
    ours = DIFGSM(steps=count, step_size=STEP, decay=decay, resize_rate=rate, probability=0.7)
    same(run_ours(ours, segmenter), run_theirs(theirs))
    assert share(run_ours(ours, segmenter), run_ours(ours, segmenter, seed=SEED + 1)) < 0.99  # the draws do matter


@pytest.mark.parametrize("kernel", ["gaussian", "uniform", "linear"])
def test_tifgsm_equals_torchattacks(segmenter: Segmenter, torchattacks: Any, kernel: Any) -> None:
    if segmenter.name == "lab-b" and kernel != "gaussian":
        pytest.skip("the kernels are compared on the tiny model")
    count = steps(segmenter)
    theirs = torchattacks.TIFGSM(
        TwoClasses(segmenter), eps=EPS, alpha=STEP, steps=count, decay=1.0, kernel_name=kernel, len_kernel=15, nsig=3,
        resize_rate=0.9, diversity_prob=0.5,
    )  # fmt: skip
    ours = TIFGSM(steps=count, step_size=STEP, decay=1.0, kernel=kernel, resize_rate=0.9, probability=0.5)
    same(run_ours(ours, segmenter), run_theirs(theirs))


def test_nifgsm_equals_torchattacks(segmenter: Segmenter, torchattacks: Any) -> None:
    count = steps(segmenter)
    theirs = torchattacks.NIFGSM(TwoClasses(segmenter), eps=EPS, alpha=EPS / count, steps=count, decay=1.0)
    same(run_ours(NIFGSM(steps=count), segmenter), run_theirs(theirs))


def test_sinifgsm_equals_torchattacks(segmenter: Segmenter, torchattacks: Any) -> None:
    count = steps(segmenter)
    theirs = torchattacks.SINIFGSM(TwoClasses(segmenter), eps=EPS, alpha=EPS / count, steps=count, decay=1.0, m=5)
    same(run_ours(SINIFGSM(steps=count), segmenter), run_theirs(theirs))


def test_vmifgsm_equals_torchattacks(segmenter: Segmenter, torchattacks: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """torchattacks fills its neighbours with normal numbers before it overwrites them with uniform ones; without those
    unused draws the two streams are one."""
    count = steps(segmenter)
    theirs = torchattacks.VMIFGSM(TwoClasses(segmenter), eps=EPS, alpha=EPS / count, steps=count, N=3, beta=1.5)
    monkeypatch.setattr(torch, "randn_like", torch.empty_like)
    found = run_theirs(theirs)
    monkeypatch.undo()
    same(run_ours(VMIFGSM(steps=count, samples=3), segmenter), found)


OFF: list[tuple[str, Callable[[int], GradientAttack]]] = [
    ("no look-ahead", lambda n: NIFGSM(steps=n, decay=0.9)),
    ("two copies", lambda n: SINIFGSM(steps=n, copies=2)),
    ("short kernel", lambda n: TIFGSM(steps=n, length=7)),
    ("narrow neighbourhood", lambda n: VMIFGSM(steps=n, samples=3, beta=0.1)),
]


@pytest.mark.parametrize(("name", "make"), OFF, ids=[name for name, _ in OFF])
def test_the_comparison_would_notice_a_wrong_setting(name: str, make: Callable[[int], GradientAttack]) -> None:
    model, right = tiny("sam", dtype=torch.float64), {"no": NIFGSM, "two": SINIFGSM, "short": TIFGSM}
    reference = right.get(name.split()[0], VMIFGSM)
    extra = {"samples": 3} if reference is VMIFGSM else {}
    assert share(run_ours(make(10), model), run_ours(reference(steps=10, **extra), model)) < 0.999
