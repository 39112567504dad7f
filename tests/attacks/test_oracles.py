"""The attacks against independent implementations, from the same start, through the same closure.

Models run in float64: signs of gradients are then decided by the method and not by the order of summation.

captum (FGSM, PGD in linf and l2) and adversarial-robustness-toolbox (BIM, PGD, MI-FGSM in linf and l2) come with the
`dev` extra. torchattacks holds the authors' APGD and MI-FGSM, but pins versions nobody has: `pip install --no-deps
torchattacks` runs the tests that are skipped without it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from redsam import registry
from redsam.attacks.apgd import APGD
from redsam.attacks.bim import BIM
from redsam.attacks.fgsm import FGSM
from redsam.attacks.goal import Goal
from redsam.attacks.loop import descend
from redsam.attacks.mifgsm import MIFGSM
from redsam.attacks.parts import given
from redsam.attacks.pgd import PGD
from redsam.attacks.task import Task
from redsam.models import Segmenter, lab_names, load, tiny
from redsam.prompts import Prompt, box, point
from redsam.threat import Threat
from redsam.types import from_uint8, to_uint8

LINF, L2 = Threat(eps=8 / 255), Threat(norm="l2", eps=2.0)
MODELS = ["tiny-sam", "lab-b"]
COUNT, HEIGHT, WIDTH = 2, 48, 64


@pytest.fixture(scope="module", params=MODELS)
def segmenter(request: pytest.FixtureRequest) -> Segmenter:
    if request.param == "tiny-sam":
        return tiny("sam", dtype=torch.float64)
    if request.param not in lab_names():
        pytest.skip(f"{request.param} is not bundled yet")
    return load(request.param, dtype=torch.float64)


def pictures() -> Tensor:
    """Smooth random pictures that touch 0 and 1, so that a trained model has something to look at."""
    generator = torch.Generator().manual_seed(3)
    coarse = torch.rand(COUNT, 3, 6, 8, generator=generator)
    return from_uint8(to_uint8(nn.functional.interpolate(coarse, (HEIGHT, WIDTH), mode="bicubic").clamp(0, 1)))


def inner() -> Tensor:
    """The same away from 0 and 1: libraries differ in whether they cut to the l2 ball or to [0, 1] first."""
    return from_uint8(to_uint8(pictures() * 0.6 + 0.2))


PROMPTS: list[list[Prompt]] = [[point(20, 20), box(10, 10, 50, 40)], [box(5, 5, 30, 30), point(40, 12)]]


def clip_mse(segmenter: Segmenter) -> Callable[[Tensor], Tensor]:
    """Attack-SAM's loss written again from the paper: images to one loss each, mean over prompts and pixels."""

    def loss(images: Tensor) -> Tensor:
        prediction = segmenter.decode(segmenter.encode(images), PROMPTS[: len(images)])
        out = []
        for logits in prediction.logits():
            excess = torch.nn.functional.relu(logits + 10)
            out.append((excess**2).mean())
        return torch.stack(out)

    return loss


def images_for(threat: Threat) -> Tensor:
    return pictures() if threat.norm == "linf" else inner()


def same(ours: Tensor, theirs: Tensor, clean: Tensor) -> None:
    """Within one 8-bit level on at least 99.9 % of values, and both really moved."""
    gap = (ours.int() - to_uint8(theirs).int()).abs()
    assert float((gap <= 1).float().mean()) >= 0.999
    assert float((ours != to_uint8(clean)).float().mean()) > 0.5


# --- captum --------------------------------------------------------------------------------------------------------
# captum takes gradients below 1e-6 for zero; a louder loss keeps it from that.
LOUD = -1e6


def test_fgsm_equals_captum(segmenter: Segmenter) -> None:
    robust = pytest.importorskip("captum.robust")
    loss = clip_mse(segmenter)
    theirs = robust.FGSM(loss, loss_func=lambda out, _: LOUD * out, lower_bound=0, upper_bound=1).perturb(
        pictures(), epsilon=LINF.eps, target=None
    )
    same(FGSM().run(segmenter, pictures(), PROMPTS, threat=LINF).images, theirs, pictures())


def test_pgd_equals_captum(segmenter: Segmenter) -> None:
    robust = pytest.importorskip("captum.robust")
    pgd = robust.PGD(clip_mse(segmenter), loss_func=lambda out, _: LOUD * out, lower_bound=0, upper_bound=1)
    theirs = pgd.perturb(pictures(), radius=LINF.eps, step_size=2 / 255, step_num=10, target=None)
    ours = PGD(steps=10, step_size=2 / 255, random_start=False, keep_best=False)
    same(ours.run(segmenter, pictures(), PROMPTS, threat=LINF).images, theirs, pictures())


# --- adversarial-robustness-toolbox --------------------------------------------------------------------------------
def art_estimator(segmenter: Segmenter) -> Any:
    """ART's smallest estimator: nothing but the gradient of the loss (it climbs, so minus ours)."""
    base = pytest.importorskip("art.estimators.estimator")
    loss = clip_mse(segmenter)

    class Closure(base.BaseEstimator, base.LossGradientsMixin):  # type: ignore[misc,name-defined]
        estimator_params = base.BaseEstimator.estimator_params
        input_shape = (3, HEIGHT, WIDTH)
        nb_classes = 2

        def loss_gradient(self, x: Any, y: Any, **_: Any) -> Any:
            images = torch.from_numpy(np.asarray(x, dtype=np.float32)).requires_grad_(True)
            (gradient,) = torch.autograd.grad(-loss(images).sum(), images)
            return gradient.numpy()

        def fit(self, *_: Any, **__: Any) -> None:
            raise AssertionError("never trained")

        def predict(self, *_: Any, **__: Any) -> Any:
            raise AssertionError("labels are given")

    return Closure(model=None, clip_values=(0.0, 1.0))


def art_run(attack: Any, images: Tensor) -> Tensor:
    labels = np.eye(2, dtype=np.float32)[[0] * COUNT]
    return torch.from_numpy(attack.generate(x=images.numpy(), y=labels))


def art_norm(threat: Threat) -> Any:
    return np.inf if threat.norm == "linf" else 2


def test_bim_equals_art(segmenter: Segmenter) -> None:
    evasion = pytest.importorskip("art.attacks.evasion")
    attack = evasion.ProjectedGradientDescentNumpy(
        art_estimator(segmenter), norm=np.inf, eps=LINF.eps, eps_step=1 / 255, max_iter=10, verbose=False
    )
    ours = BIM(keep_best=False).run(segmenter, pictures(), PROMPTS, threat=LINF)
    assert ours.steps == (10, 10)  # min(8 + 4, 1.25 * 8)
    same(ours.images, art_run(attack, pictures()), pictures())


@pytest.mark.parametrize("threat", [LINF, L2], ids=["linf", "l2"])
def test_pgd_equals_art_from_the_same_random_start(segmenter: Segmenter, threat: Threat) -> None:
    """ART draws its own starts, so its inner step is called with ours and its ball stays around the clean image."""
    evasion = pytest.importorskip("art.attacks.evasion")
    clean, attack = images_for(threat), PGD(steps=8, keep_best=False)
    task = Task(segmenter=segmenter, clean=clean, prompts=PROMPTS)
    goal = Goal(task=task, objective=registry.get("objective", "vanish"))
    parts = attack.parts(threat)
    still = replace(parts, steps=1, rule=lambda g, s: s.x)
    x = descend(goal, clean, threat=threat, parts=still, seeds=[4, 5]).images.numpy()
    other = evasion.ProjectedGradientDescentNumpy(
        art_estimator(segmenter), norm=art_norm(threat), eps=threat.eps, eps_step=threat.eps / 4, verbose=False
    )
    labels = np.eye(2, dtype=np.float32)[[0] * COUNT]
    for _ in range(8):
        x = other._compute(x, clean.numpy(), labels, None, threat.eps, threat.eps / 4, project=True, random_init=False)
    ours = attack.run(segmenter, clean, PROMPTS, threat=threat, seeds=[4, 5])
    same(ours.images, torch.from_numpy(x), clean)


@pytest.mark.parametrize("threat", [LINF, L2], ids=["linf", "l2"])
def test_mifgsm_equals_art(segmenter: Segmenter, threat: Threat) -> None:
    evasion = pytest.importorskip("art.attacks.evasion")
    attack = evasion.MomentumIterativeMethod(
        art_estimator(segmenter), norm=art_norm(threat), eps=threat.eps, eps_step=threat.eps / 10, decay=1.0,
        max_iter=10, verbose=False,
    )  # fmt: skip
    clean = images_for(threat)
    ours = MIFGSM(keep_best=False).run(segmenter, clean, PROMPTS, threat=threat)
    same(ours.images, art_run(attack, clean), clean)


# --- torchattacks --------------------------------------------------------------------------------------------------
class TwoClasses(nn.Module):
    """Logits whose cross-entropy for label 0 is exactly top - loss, so that climbing it descends our loss."""

    def __init__(self, loss: Callable[[Tensor], Tensor], top: float) -> None:
        super().__init__()
        self.loss, self.top, self.anchor = loss, top, nn.Parameter(torch.zeros(1))

    def forward(self, images: Tensor) -> Tensor:
        wanted = self.top - self.loss(images)
        first = -(wanted + torch.log1p(-torch.exp(-wanted)))  # softplus(-first) = wanted
        return torch.stack([first, torch.zeros_like(first)], dim=1)


def two_classes(segmenter: Segmenter, images: Tensor) -> TwoClasses:
    """The top just above what can occur: torchattacks keeps losses in float32."""
    with torch.no_grad():
        return TwoClasses(clip_mse(segmenter), top=float(clip_mse(segmenter)(images).max()) + 5)


def test_mifgsm_equals_torchattacks(segmenter: Segmenter) -> None:
    torchattacks = pytest.importorskip("torchattacks")
    model = two_classes(segmenter, pictures())
    attack = torchattacks.MIFGSM(model, eps=LINF.eps, alpha=LINF.eps / 10, steps=10, decay=1.0)
    theirs = attack.forward(pictures(), torch.zeros(COUNT, dtype=torch.long))
    same(MIFGSM(keep_best=False).run(segmenter, pictures(), PROMPTS, threat=LINF).images, theirs, pictures())


@pytest.mark.parametrize("threat", [LINF, L2], ids=["linf", "l2"])
def test_apgd_equals_the_authors_code_in_torchattacks(segmenter: Segmenter, threat: Threat) -> None:
    torchattacks = pytest.importorskip("torchattacks")
    steps, clean = 16, images_for(threat)
    norm = "Linf" if threat.norm == "linf" else "L2"
    attack = torchattacks.APGD(two_classes(segmenter, clean), norm=norm, eps=threat.eps, steps=steps)
    torch.manual_seed(11)
    theirs = attack.attack_single_run(clean, torch.zeros(COUNT, dtype=torch.long))[0]
    torch.manual_seed(11)  # its start, drawn as it draws it
    if threat.norm == "linf":
        t = 2 * torch.rand(clean.shape) - 1
        start = clean + threat.eps * t / t.abs().flatten(1).max(1).values[:, None, None, None]
    else:
        t = torch.randn(clean.shape)
        start = clean + threat.eps * t / t.flatten(1).norm(dim=1)[:, None, None, None]
    task = Task(segmenter=segmenter, clean=clean, prompts=PROMPTS)
    goal = Goal(task=task, objective=registry.get("objective", "vanish"))
    parts = replace(APGD(steps=steps).parts(threat), start=given(start.clamp(0, 1)))
    found = descend(goal, clean, threat=threat, parts=parts, seeds=[0, 0]).images
    assert float(((found - theirs).abs() <= 1 / 255).float().mean()) >= 0.999
