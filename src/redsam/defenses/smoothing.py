"""Certified smoothing (SegCertify): masks that no perturbation inside an l2 radius can change, pixel by pixel.

Not the model answers but its smoothed version: for each pixel the answer that most of the model's answers give to the
image under Gaussian noise. For a fixed prompt a pixel has two answers, object or not, so this is the binary case of
Fischer, Baader & Vechev, "Scalable Certified Segmentation via Randomized Smoothing", ICML 2021 (their algorithm 2).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import binom
from torch import Tensor

from redsam.defenses.base import within
from redsam.errors import InputError
from redsam.models.base import Segmenter
from redsam.models.values import Select
from redsam.prompts import Prompt
from redsam.registry import register
from redsam.seeds import generator
from redsam.types import check_image

# (noisy copies answered, noisy copies in all)
Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True, eq=False)
class Certificate:
    """masks: bool PxHxW, the smoothed model's answers; certified: bool PxHxW, where they hold; elsewhere it abstains.

    With probability at least 1 - alpha (over the noise drawn, for each prompt) every certified pixel of the smoothed
    model keeps its answer under any perturbation of l2 length at most `radius` over all values of the image in [0, 1].
    agree: PxHxW, in how many of `n` copies the model gave that answer. sigma, tau: as certified.
    """

    masks: Tensor
    certified: Tensor
    agree: Tensor
    radius: float
    sigma: float
    tau: float
    alpha: float
    n: int

    @property
    def abstained(self) -> list[float]:
        """For each prompt the share of pixels without a certificate."""
        return [1 - float(c.float().mean()) for c in self.certified]

    def iou(self, reference: Tensor) -> list[float]:
        """IoU with bool PxHxW as published: a pixel without a certificate belongs to neither answer, so it is wrong."""
        return _ious(self.masks & self.certified, reference, self.masks & self.certified)

    def guaranteed(self, reference: Tensor) -> list[float]:
        """What IoU with the reference no perturbation inside the radius can go below: whatever is not certified is
        taken to answer wrongly, also outside the reference."""
        return _ious(self.masks & self.certified, reference, (self.masks & self.certified) | ~self.certified)


@register("defense", "segcertify", group="smoothing", random=True, differentiable=False,
          paper="Scalable Certified Segmentation via Randomized Smoothing (Fischer et al.)", year=2021,
          url="https://arxiv.org/abs/2107.00228")  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class SegCertify:
    """sigma: of the noise, in [0, 1] units. tau: share of copies whose answer must be the same, above 1/2; the radius
    is sigma * Phi^-1(tau). alpha: chance that any of a mask's certificates is wrong. n0: copies that choose the answer,
    n: other copies that test it. correction: over the pixels, "holm" (as published) or "bonferroni".

    As published tau 0.75, alpha 0.001, n0 10, n 100, sigma 0.25. Models that never saw noise answer badly at it: put
    a denoiser in front (`lab-b|bilateral`), which is certified along with the model.
    Deviation: two classes for a fixed prompt, ties to "not the object"; the mask of highest predicted IoU is the answer
    to every copy, so that the choice among several masks is smoothed, too.
    """

    sigma: float = 0.25
    tau: float = 0.75
    alpha: float = 0.001
    n0: int = 10
    n: int = 100
    correction: Literal["holm", "bonferroni"] = "holm"

    def __post_init__(self) -> None:
        within("sigma of the noise", self.sigma, 1e-4, 10)
        within("tau", self.tau, 0.5, 0.999999)
        within("alpha", self.alpha, 1e-12, 0.5)
        within("n0", self.n0, 1, 10**6, whole=True)
        within("n", self.n, 1, 10**7, whole=True)
        if self.tau == 0.5:
            raise InputError("With tau 0.5 the radius is 0.", hint="Give a share above a half; published: 0.75.")
        if self.correction not in ("holm", "bonferroni"):
            raise InputError(f"There is no correction '{self.correction}'.", hint="Known: holm, bonferroni.")

    @property
    def radius(self) -> float:
        """l2 radius of every certificate, sigma * Phi^-1(tau)."""
        return self.sigma * NormalDist().inv_cdf(self.tau)

    @torch.no_grad()
    def certify(
        self,
        segmenter: Segmenter,
        image: Tensor,
        prompts: Sequence[Prompt],
        *,
        select: Select = "iou",
        seed: int = 0,
        batch: int = 8,
        progress: Progress | None = None,
    ) -> Certificate:
        """Certify the masks of all prompts on a float32 3xHxW image in [0, 1]. batch: noisy copies that share an
        encoder call, which changes speed and memory, not results. Raises InputError where no certificate is possible:
        when n is so small that not even full agreement could pass the test of a single pixel."""
        check_image(image)
        pixels = int(image.shape[-2] * image.shape[-1])
        if not prompts:
            raise InputError("There is no prompt to certify.", hint="Give at least one.")
        if batch < 1:
            raise InputError(f"A batch of {batch} copies answers nothing.", hint="Give 1 or more.")
        if self.tau**self.n > self.alpha / pixels:
            raise InputError(
                f"{self.n} copies cannot certify a pixel of {pixels} at tau {self.tau:g}, alpha {self.alpha:g}.",
                hint=f"Give n at least {enough(self.tau, self.alpha, pixels)}.",
            )
        votes = _Votes(segmenter=segmenter, image=image, prompts=prompts, sigma=self.sigma, select=select, batch=batch,
                       random=generator("segcertify", seed), total=self.n0 + self.n, progress=progress)  # fmt: skip
        masks = votes.count(self.n0) * 2 > self.n0
        yes = votes.count(self.n)
        agree = torch.where(masks, yes, self.n - yes)
        certified = torch.stack([self.significant(one) for one in agree])
        return Certificate(
            masks=masks, certified=certified, agree=agree, radius=self.radius, sigma=self.sigma, tau=self.tau,
            alpha=self.alpha, n=self.n,
        )  # fmt: skip

    def significant(self, agree: Tensor) -> Tensor:
        """Bool HxW: where counts (of n) prove, all together at level alpha, a chance above tau."""
        p = p_values(agree.cpu().numpy().reshape(-1), self.n, self.tau)
        kept = holm(p, self.alpha) if self.correction == "holm" else p <= self.alpha / len(p)
        return torch.from_numpy(kept).view(agree.shape)


def p_values(counts: NDArray[np.int64], n: int, tau: float) -> NDArray[np.float64]:
    """One-sided binomial test of "chance at most tau": P(at least `count` of n) at tau."""
    table: NDArray[np.float64] = binom.sf(np.arange(n + 1) - 1, n, tau)
    return table[counts]


def holm(p: NDArray[np.float64], alpha: float) -> NDArray[np.bool_]:
    """Holm's step-down procedure (1979): which hypotheses are rejected with a family-wise error of at most alpha."""
    order = np.argsort(p, kind="stable")
    passed = p[order] <= alpha / np.arange(len(p), 0, -1)
    rejected = np.zeros(len(p), dtype=np.bool_)
    rejected[order] = np.logical_and.accumulate(passed)
    return rejected


def enough(tau: float, alpha: float, pixels: int) -> int:
    """The least n at which full agreement certifies a pixel."""
    return int(np.ceil(np.log(alpha / pixels) / np.log(tau)))


@dataclass(kw_only=True, eq=False)
class _Votes:
    """Answers to noisy copies; each copy's noise is drawn alone, so that the batch changes nothing."""

    segmenter: Segmenter
    image: Tensor
    prompts: Sequence[Prompt]
    sigma: float
    select: Select
    batch: int
    random: torch.Generator
    total: int
    progress: Progress | None
    done: int = field(default=0)

    def count(self, copies: int) -> Tensor:
        """In how many of the next copies each pixel is of the object: int64 PxHxW on the CPU."""
        found = torch.zeros(len(self.prompts), *self.image.shape[-2:], dtype=torch.int64)
        for start in range(0, copies, self.batch):
            size = min(self.batch, copies - start)
            noise = torch.stack([torch.randn(self.image.shape, generator=self.random) for _ in range(size)])
            noisy = (self.image.cpu() + self.sigma * noise).to(self.segmenter.device)
            found += answers(self.segmenter, noisy, self.prompts, self.select).sum(0).cpu()
            self.done += size
            if self.progress is not None:
                self.progress(self.done, self.total)
        return found


def answers(segmenter: Segmenter, images: Tensor, prompts: Sequence[Prompt], select: Select = "iou") -> Tensor:
    """Bool BxPxHxW: what the model answers to the same prompts on each of B images, encoded together."""
    encoding = segmenter.encode(images)
    prediction = segmenter.decode(encoding, [list(prompts)] * len(images), multimask=select != "single")
    return torch.stack([logits > 0 for logits in prediction.logits(select=select)])


def _ious(both: Tensor, reference: Tensor, either: Tensor) -> list[float]:
    if reference.shape != both.shape:
        raise InputError(f"The reference is {tuple(reference.shape)}, the masks {tuple(both.shape)}.")
    reference = reference.to(both.device)
    inter, union = (x.flatten(1).sum(1).double() for x in (both & reference, either | reference))
    return torch.where(union > 0, inter / union.clamp(min=1), torch.ones_like(union)).tolist()
