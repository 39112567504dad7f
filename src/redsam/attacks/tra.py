"""T-RA: S-RA over random spectra of the image, for other models than the one it was made on (Shen, Li & Wang, 2024)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from redsam.attacks.loop import Parts
from redsam.attacks.sra import SRA
from redsam.attacks.transforms import average, ranked_at_iterate, spectrum
from redsam.errors import InputError
from redsam.registry import register
from redsam.threat import Threat


@register("attack", "t-ra", year=2024, url="https://arxiv.org/abs/2404.08255", norms=("linf",), kind="transfer",
          paper="Practical Region-level Attack against Segment Anything Models (Shen et al.)",
          knowledge=("white-box", "transfer"), cost="steps x samples gradients", noisy=True)  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class TRA(SRA):
    """S-RA whose gradient is the mean over `samples` spectrum simulations (SSA) of the iterate.

    5 draws, rho 0.1, sigma 16/255 as published. Deviations: sigma is in [0, 1] units, where the authors' code adds
    noise of 16/255 to an image of 0..255, which is nearly none; the last iterate is delivered (keep_best ranks the
    iterates themselves, for one more forward pass a step, not their random copies); the grid as in `s-ra`.
    """

    samples: int = 5
    sigma: float = 16 / 255
    rho: float = 0.1
    keep_best: bool = False

    def parts(self, threat: Threat) -> Parts:
        """The recipe."""
        if self.samples < 1:
            raise InputError(f"{self.samples} spectrum draws are none.", hint="Give at least 1 sample.")
        copies = [spectrum(self.sigma, self.rho)] * self.samples
        parts = replace(super().parts(threat), differentiate=average(copies), passes=self.samples)
        return ranked_at_iterate(parts, self.keep_best or self.stop_at is not None)
