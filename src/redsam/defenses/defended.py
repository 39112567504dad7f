"""DefendedSegmenter: any Segmenter behind purifiers, as one model that is attacked through its defence.

Images pass the purifiers in order and then the model. What users get (`predict`, encode(exact=True)) is deployed: each
purifier hands 8-bit images on. An attacker (encode) sees the same values with gradients (Purifier.through). Random
purifiers draw from (seed, number of the draw, the image rounded to 8 bits): an answer repeats, a batch equals a loop,
and another image is another draw. An attacker's draws are not those of the deployed model, which nobody tells him; he
averages gradients over `eot` of them (expectation over transformation, see models/draws.py and attacks/loop.py).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn

from redsam import registry
from redsam.defenses.base import Purifier
from redsam.defenses.specs import BETWEEN, chain
from redsam.errors import InputError
from redsam.models import draws
from redsam.models.base import Segmenter
from redsam.models.geometry import Frame
from redsam.models.text import Detection
from redsam.models.values import Encoding, Images, ModelPrompts
from redsam.prompts import Prompt
from redsam.seeds import stable_seed
from redsam.types import to_uint8

# Athalye et al. 2018 take 30 draws of Xie et al.'s defence; ours, for a CPU.
DRAWS = 8


class DefendedSegmenter(Segmenter):
    """segmenter: the model, which may itself be defended: its purifiers then come last. purifiers: in the order an
    image passes them. eot: draws an attacker averages over; counts only where a purifier is random."""

    purifiers: tuple[Purifier, ...]

    def __init__(
        self,
        segmenter: Segmenter,
        purifiers: str | Purifier | Sequence[str | Purifier],
        *,
        seed: int = 0,
        eot: int = DRAWS,
    ) -> None:
        inner, passed = segmenter, chain(purifiers)
        if isinstance(segmenter, DefendedSegmenter):
            inner, passed = segmenter.undefended, (*passed, *segmenter.purifiers)
        if not passed:
            raise InputError(f"{segmenter.name} came without a defence.", hint="Type: redsam list defenses")
        if isinstance(eot, bool) or not isinstance(eot, int) or eot < 1:
            raise InputError(
                f"An attacker cannot average over {eot!r} draws.", hint=f"Give 1 or more; default {DRAWS}."
            )
        self._inner, self.purifiers, self.seed = inner, passed, int(seed)
        self.draws = eot if any(p.random for p in passed) else 1
        super().__init__(inner.model, name="+".join([inner.name, *(p.label for p in passed)]))
        self.family, self.differentiable = inner.family, inner.differentiable
        self.takes_text, self.takes_clicks = inner.takes_text, inner.takes_clicks

    # --- the defence -----------------------------------------------------------------------------------------------
    @property
    def undefended(self) -> Segmenter:
        """The model behind the purifiers."""
        return self._inner

    @property
    def label(self) -> str:
        """The defence as text: `jpeg:quality=50|median`."""
        return BETWEEN.join(p.label for p in self.purifiers)

    @property
    def defense(self) -> Mapping[str, Any]:
        """Purifiers with all options, the seed of what is drawn, and over how many draws attackers average."""
        return {"label": self.label, "purifiers": self._specs(), "seed": self.seed, "eot": self.draws}

    def _specs(self) -> list[dict[str, Any]]:
        """Each purifier's name and options, and the fingerprint of its weights where it has some."""
        return [_spec(p) | ({"weights": p.learned} if p.learned else {}) for p in self.purifiers]

    def prepare(self, images: Tensor, *, exact: bool) -> Tensor:
        """The purified images."""
        marks = [hashlib.sha256(to_uint8(image).cpu().contiguous().numpy().tobytes()).hexdigest() for image in images]
        who = ("deployed", 0) if exact else ("attacker", draws.current())
        for place, purifier in enumerate(self.purifiers):
            seeds = [stable_seed(self.seed, place, *who, mark) for mark in marks]
            images = purifier.run(images, seeds=seeds) if exact else purifier.through(images, seeds=seeds)
        return images

    def purified(self, images: Images) -> Images:
        """Images as the deployed purifiers hand them to the model, of one size or a list; on the lattice."""
        if isinstance(images, Tensor):
            return self.prepare(images, exact=True)
        return [self.prepare(image[None], exact=True)[0] for image in images]

    def fingerprint(self) -> str:
        """Of the model, the purifiers and the seed."""
        told = json.dumps([self._inner.fingerprint(), self._specs(), self.seed], sort_keys=True, allow_nan=False)
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    # --- the model's own part, passed on ---------------------------------------------------------------------------
    @property
    def device(self) -> torch.device:
        """The model's."""
        return self._inner.device

    @property
    def dtype(self) -> torch.dtype:
        """The model's."""
        return self._inner.dtype

    @property
    def mask_size(self) -> tuple[int, int]:
        """The model's."""
        return self._inner.mask_size

    def stages(self) -> Sequence[nn.Module]:
        """The model's."""
        return self._inner.stages()

    def frame(self, height: int, width: int) -> Frame:
        """The model's."""
        return self._inner.frame(height, width)

    def settle(self, images: Images, prompts: Sequence[Sequence[Prompt]]) -> Sequence[Sequence[Prompt]]:
        """As the model settles them on purified images."""
        return self._inner.settle(self.purified(images), prompts) if self.takes_text else prompts

    def forms(self) -> Mapping[str, Segmenter]:
        """The model's, each behind the same defence."""
        found = self._inner.forms().items()
        return {k: DefendedSegmenter(v, self.purifiers, seed=self.seed, eot=self.draws) for k, v in found}

    def detect(self, image: Tensor, what: str) -> list[Detection]:
        """What a model that takes texts finds on the purified 3xHxW image."""
        return self.detect_all(image, [what])[0]

    def detect_all(self, image: Tensor, texts: Sequence[str]) -> list[list[Detection]]:
        """`detect` for every text."""
        look = getattr(self._inner, "detect_all", None)
        if look is None:
            raise InputError(f"{self.name} ({self.family}) takes no text prompt.")
        found: list[list[Detection]] = look(self.prepare(image[None], exact=True)[0], texts)
        return found

    def _embed(self, pixels: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        return self._inner._embed(pixels)

    def _decode_group(
        self, features: Tensor, extra: tuple[Tensor, ...], prompts: ModelPrompts, *, multimask: bool
    ) -> tuple[Tensor, Tensor]:
        return self._inner._decode_group(features, extra, prompts, multimask=multimask)

    def _decode_texts(self, encoding: Encoding, asked: Sequence[tuple[int, Prompt]]) -> tuple[Tensor, Tensor]:
        return self._inner._decode_texts(encoding, asked)


def _spec(purifier: Purifier) -> dict[str, Any]:
    """Name and options, also of a class that nobody registered."""
    try:
        return registry.spec_of(purifier)
    except ValueError:
        return {"name": purifier.name, "args": {f.name: getattr(purifier, f.name) for f in fields(purifier)}}
