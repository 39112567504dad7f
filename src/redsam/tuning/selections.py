"""Baselines that train parameters as they are: all, the mask decoder, normalisation layers, biases."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

from torch import nn

from redsam.errors import InputError
from redsam.registry import register
from redsam.tuning.base import Attached, Tuning, trainable
from redsam.tuning.patches import Patch, Whole


@dataclass(frozen=True, kw_only=True)
class Selection(Tuning):
    """Whole parameters, chosen by name or by the layer they belong to."""

    @abstractmethod
    def chosen(self, model: nn.Module) -> list[str]:
        """Names of the parameters to train."""

    def attach(self, model: nn.Module, *, seed: int = 0) -> Attached:
        known = trainable(model)
        chosen = {name: known[name] for name in self.chosen(model) if name in known}
        if not chosen:
            raise InputError(
                f"Method '{type(self).__name__.lower()}' does not fit this model: it has no such parameters.",
                hint="See: redsam list defenses",
            )
        for p in chosen.values():
            p.requires_grad_(True)

        def patches() -> list[Patch]:
            return [Whole(weight=n, value=p.detach().cpu().clone()) for n, p in chosen.items()]

        def release() -> None:
            attached.put(attached.start)
            for p in chosen.values():
                p.requires_grad_(False)

        attached = Attached(parameters=chosen, patches=patches, release=release)
        return attached


@register("defense", "full", group="tuning", random=False, differentiable=True,
          paper="Towards Deep Learning Models Resistant to Adversarial Attacks (Madry et al.)", year=2018,
          url="https://arxiv.org/abs/1706.06083")  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class Full(Selection):
    """Every parameter but the random position encoding: plain adversarial training, the baseline with most freedom.

    Deviation: fine-tuned from the model as it is, not trained from scratch; a rate of our own choice.
    """

    lr: float = 1e-4

    def chosen(self, model: nn.Module) -> list[str]:
        return list(trainable(model))


@register("defense", "decoder", group="tuning", random=False, differentiable=True,
          paper="ASAM: Boosting Segment Anything Model with Adversarial Tuning (Li et al.)", year=2024,
          url="https://arxiv.org/abs/2405.00256")  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class Decoder(Selection):
    """The mask decoder only, on a frozen image encoder, as ASAM tunes.

    tokens: train its output tokens alone, ASAM's default. Deviation: the adversarial images are those of this library's
    attacks, not of ASAM's diffusion latents, so this is its tuning and not its data; rate 1e-4 where ASAM has 2e-3 for
    its tokens.
    """

    lr: float = 1e-4
    tokens: bool = False

    def chosen(self, model: nn.Module) -> list[str]:
        inside = [n for n in trainable(model) if n.startswith("mask_decoder.")]
        return [n for n in inside if "token" in n.split(".")[1]] if self.tokens else inside


@register("defense", "norm", group="tuning", random=False, differentiable=True,
          paper="Tent: Fully Test-time Adaptation by Entropy Minimization (Wang et al.)", year=2021,
          url="https://arxiv.org/abs/2006.10726")  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class Norm(Selection):
    """Scales and shifts of all normalisation layers.

    Deviation: the choice of parameters is Tent's, the training is not: supervised, on attacked images.
    """

    lr: float = 1e-3

    def chosen(self, model: nn.Module) -> list[str]:
        layers = [(name, m) for name, m in model.named_modules() if "Norm" in type(m).__name__]
        return [f"{name}.{leaf}" for name, m in layers for leaf, _ in m.named_parameters(recurse=False)]


@register("defense", "bias", group="tuning", random=False, differentiable=True,
          paper="BitFit: Simple Parameter-efficient Fine-tuning for Transformers (Ben Zaken et al.)", year=2022,
          url="https://arxiv.org/abs/2106.10199")  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class Bias(Selection):
    """Every bias, those of normalisation layers too.

    Deviation: on attacked images.
    """

    lr: float = 1e-3

    def chosen(self, model: nn.Module) -> list[str]:
        return [n for n in trainable(model) if n.endswith(".bias")]
