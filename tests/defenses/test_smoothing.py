"""Certificates against closed forms: a model whose chance is known for every pixel, and SciPy's binomial test."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, norm
from torch import Tensor, nn

from redsam.defenses.smoothing import Certificate, SegCertify, answers, enough, holm, p_values
from redsam.errors import InputError
from redsam.models import Segmenter, tiny, wrap
from redsam.prompts import box, point

SIDE = 16
SIGMA = 0.2


def threshold_model() -> Segmenter:
    """Answers "object" where the red value is above 1/2: under noise of sigma a pixel of red r says so with a chance of
    exactly Phi((r - 1/2) / sigma). A linear classifier, for which the radius of Cohen et al. is the true distance."""
    module = nn.Linear(1, 1)

    def decode(features: Tensor, *extra: Tensor, multimask: bool, **_: object) -> tuple[Tensor, Tensor]:
        return features[:, :1] - 0.5, torch.ones(len(features), 1)

    return wrap(
        module, image_size=SIDE, embed=lambda pixels: pixels, decode=decode, mean=(0.0,) * 3, std=(1.0,) * 3, name="red"
    )  # fmt: skip


def ramp() -> Tensor:
    """3xSIDExSIDE: red rises from left to right, the other colours mean nothing."""
    image = torch.full((3, SIDE, SIDE), 0.25)
    image[0] = torch.linspace(0, 1, SIDE)
    return image


def chances() -> np.ndarray:
    """Chance of the likelier answer, by column."""
    p = norm.cdf((np.linspace(0, 1, SIDE) - 0.5) / SIGMA)
    return np.maximum(p, 1 - p)


def test_p_values_are_those_of_scipy() -> None:
    for n, tau in ((1, 0.75), (20, 0.6), (100, 0.75), (100, 0.99)):
        mine = p_values(np.arange(n + 1), n, tau)
        theirs = [binomtest(k, n, tau, alternative="greater").pvalue for k in range(n + 1)]
        np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-300)


@pytest.mark.parametrize("seed", range(5))
def test_holm_is_the_step_down_procedure(seed: int) -> None:
    rng = np.random.default_rng(seed)
    p = rng.choice([1e-6, 1e-4, 2e-4, 5e-4, 0.01, 0.3], size=200)
    found = holm(p, 0.05)
    expected, left = np.zeros(200, dtype=bool), 200
    for index in np.argsort(p, kind="stable"):  # the least p-value against alpha / (hypotheses left), until one fails
        if p[index] > 0.05 / left:
            break
        expected[index], left = True, left - 1
    assert (found == expected).all() and 0 < found.sum() < 200
    assert (found >= (p <= 0.05 / 200)).all(), "it rejects whatever Bonferroni does"
    for value in np.unique(p):
        assert len(set(found[p == value].tolist())) == 1, "equal evidence, equal verdict"


def test_radius() -> None:
    assert SegCertify(sigma=0.25, tau=0.75).radius == pytest.approx(0.25 * norm.ppf(0.75), rel=1e-12)


def test_known_chances() -> None:
    """Certified where the chance is well above tau, never where it is below."""
    certificate = SegCertify(sigma=SIGMA, n=400, n0=30).certify(threshold_model(), ramp(), [point(3, 3)], batch=64)
    assert isinstance(certificate, Certificate) and certificate.masks.shape == (1, SIDE, SIDE)
    sure, chance = certificate.certified[0], chances()
    assert bool(sure[:, chance > 0.92].all()), "clear pixels have no certificate"
    assert not bool(sure[:, chance < 0.75].any()), "a pixel below tau is certified"
    right = torch.linspace(0, 1, SIDE) > 0.5
    assert torch.equal(certificate.masks[0][sure], right.expand(SIDE, SIDE)[sure])
    share = certificate.agree[0].float().mean(0).numpy() / 400
    clear = chance > 0.85  # elsewhere the few first copies may have chosen the other answer
    np.testing.assert_allclose(share[clear], chance[clear], atol=4 * 0.5 / np.sqrt(400 * SIDE))
    assert 0 < certificate.abstained[0] < 1


def test_the_error_rate_holds_at_the_edge() -> None:
    """Chances just below tau everywhere: a certificate for any of 256 pixels is an error, allowed in 20 % of runs."""
    red = 0.5 + SIGMA * NormalDist().inv_cdf(0.749)
    image = torch.full((3, SIDE, SIDE), float(red))
    recipe = SegCertify(sigma=SIGMA, alpha=0.2, n=60, n0=20)
    wrong = [
        bool(recipe.certify(threshold_model(), image, [point(3, 3)], seed=seed, batch=80).certified.any())
        for seed in range(40)
    ]
    assert sum(wrong) <= 40 * 0.2 + 3 * (40 * 0.2 * 0.8) ** 0.5
    loose = torch.stack([recipe.significant(torch.full((2, 2), k)) for k in (45, 60)])
    assert not bool(loose[0].any()) and bool(loose[1].all())


def test_certificates_are_sound_for_the_worst_perturbation() -> None:
    """For this model the worst perturbation of a pixel is known: all of the radius on its red value. The smoothed
    model's answer there, in closed form, is that of the certificate."""
    recipe = SegCertify(sigma=SIGMA, n=400, n0=30)
    certificate = recipe.certify(threshold_model(), ramp(), [point(3, 3)], batch=64)
    sure, mask = certificate.certified[0], certificate.masks[0]
    worst = torch.where(mask, ramp()[0] - certificate.radius, ramp()[0] + certificate.radius)
    chance = torch.from_numpy(norm.cdf((worst.numpy() - 0.5) / SIGMA))
    assert torch.equal(chance[sure] > 0.5, mask[sure])
    further = torch.where(mask, ramp()[0] - 1.5 * certificate.radius, ramp()[0] + 1.5 * certificate.radius)
    flipped = (further > 0.5) != mask
    assert bool((flipped & (torch.from_numpy(chances()) > 0.75)).any()), "the radius is not vacuous"


def test_batches_seeds_and_several_prompts() -> None:
    model, image = tiny("sam", seed=2), torch.rand(3, 24, 32, generator=torch.Generator().manual_seed(0))
    recipe, prompts = SegCertify(sigma=0.05, n=60, n0=4), [point(5, 6), box(2, 2, 20, 20)]
    steps: list[tuple[int, int]] = []
    one = recipe.certify(model, image, prompts, batch=1, seed=3)
    many = recipe.certify(model, image, prompts, batch=7, seed=3, progress=lambda a, b: steps.append((a, b)))
    assert float((one.agree - many.agree).abs().float().mean()) < 0.05  # a batch sums in another order
    assert steps[-1] == (64, 64) and [a for a, _ in steps] == sorted({a for a, _ in steps})
    alone = recipe.certify(model, image, prompts[1:], batch=7, seed=3)
    assert torch.equal(alone.agree[0], many.agree[1]) and one.masks.shape == (2, 24, 32)
    calls: list[int] = []
    model.net.vision_encoder.register_forward_pre_hook(lambda *_: calls.append(1))
    answers(model, image.expand(5, -1, -1, -1), prompts)
    assert calls == [1]


def test_ious() -> None:
    masks = torch.tensor([[[True, True, False, False]]])
    certified = torch.tensor([[[True, False, True, False]]])
    found = Certificate(
        masks=masks, certified=certified, agree=masks.long(), radius=0.1, sigma=0.1, tau=0.8, alpha=0.01, n=10
    )
    reference = torch.tensor([[[True, True, False, False]]])
    assert found.iou(reference) == [1 / 2]  # one of two found, none too many
    assert found.guaranteed(reference) == [1 / 3]  # the last pixel may answer "object" as well
    assert found.abstained == [1 / 2]
    with pytest.raises(InputError):
        found.iou(reference[..., :2])


@pytest.mark.parametrize(
    "options",
    [{"sigma": 0}, {"tau": 0.5}, {"tau": 1.0}, {"alpha": 0}, {"n": 0}, {"n0": -1}, {"n": 1.5}, {"correction": "none"}],
)
def test_options_that_certify_nothing(options: dict[str, object]) -> None:
    with pytest.raises(InputError):
        SegCertify(**options)  # type: ignore[arg-type]


def test_input_that_certifies_nothing() -> None:
    model, image = threshold_model(), ramp()
    with pytest.raises(InputError, match="at least"):
        SegCertify(sigma=SIGMA, n=10).certify(model, image, [point(3, 3)])
    assert 0.75 ** enough(0.75, 0.001, 256) <= 0.001 / 256 < 0.75 ** (enough(0.75, 0.001, 256) - 1)
    with pytest.raises(InputError, match="prompt"):
        SegCertify(sigma=SIGMA).certify(model, image, [])
    with pytest.raises(InputError):
        SegCertify(sigma=SIGMA).certify(model, image * 2, [point(3, 3)])
    with pytest.raises(InputError):
        SegCertify(sigma=SIGMA).certify(model, image, [point(3, 3)], batch=0)
