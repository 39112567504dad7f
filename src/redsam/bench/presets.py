"""Presets: what an audit asks, as plain data. A preset is copied and changed with `dataclasses.replace`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from redsam.registry import unknown

Options = Mapping[str, Any]
Asked = tuple[str, Options]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One attack with its options, asked once for each threat (`Threat` fields) and each of the preset's protocols.
    label: what tables call it, the attack's name unless given; no part of a cell's identity."""

    attack: str
    args: Options = field(default_factory=dict)
    threats: tuple[Options, ...]
    label: str = ""


@dataclass(frozen=True, kw_only=True)
class Change:
    """One corruption with its options, asked once for each severity and each of the preset's protocols.
    label: what tables call it, the corruption's name unless given; no part of a cell's identity."""

    corruption: str
    args: Options = field(default_factory=dict)
    severities: tuple[int, ...] = (1, 3, 5)
    label: str = ""


@dataclass(frozen=True, kw_only=True)
class Preset:
    """protocols: (name, options) pairs; each also gets a clean cell. limit: at most so many images, None for all.
    joint: one adversarial image for all prompts of an image; False attacks every prompt alone, with its own image.
    changes: corruptions, always one image for all prompts."""

    name: str
    summary: str
    protocols: tuple[Asked, ...]
    trials: tuple[Trial, ...] = ()
    changes: tuple[Change, ...] = ()
    limit: int | None = None
    joint: bool = True


def linf(*levels: int) -> tuple[Options, ...]:
    """linf threats of so many grey levels out of 255."""
    return tuple({"norm": "linf", "eps": level / 255} for level in levels)


POINT: Asked = ("point", {})
BOX: Asked = ("box", {})

QUICK = Preset(
    name="quick",
    summary="FGSM and PGD-10 at 8/255, point and box prompts on up to 5 objects, 6 images: about a minute on 4 cores",
    protocols=(("point", {"max_objects": 5}), ("box", {"max_objects": 5})),
    trials=(
        Trial(attack="fgsm", threats=linf(8)),
        Trial(attack="pgd", args={"steps": 10}, threats=linf(8)),
    ),
    limit=6,
)

STANDARD = Preset(
    name="standard",
    summary="FGSM, MI-FGSM and PGD-40, PGD at 1, 2, 4 and 8/255, point and box prompts, up to 100 images",
    protocols=(POINT, BOX),
    trials=(
        Trial(attack="fgsm", threats=linf(8)),
        Trial(attack="mifgsm", threats=linf(8)),
        Trial(attack="pgd", args={"steps": 40}, threats=linf(1, 2, 4, 8)),
    ),
    limit=100,
)

FULL = Preset(
    name="full",
    summary="standard plus APGD, l2 and a prompt-free feature attack, five points and mask prompts, all images",
    protocols=(POINT, ("points", {"k": 5}), BOX, ("mask", {})),
    trials=(
        *STANDARD.trials,
        Trial(attack="apgd", threats=linf(1, 2, 4, 8)),
        # An l2 of 2.0 moves a 481 x 321 photograph by 0.75/255 per value (root mean square), 0.5 by 0.19/255.
        Trial(attack="pgd", args={"steps": 40}, threats=({"norm": "l2", "eps": 0.5}, {"norm": "l2", "eps": 2.0})),
        Trial(attack="pgd", args={"steps": 40, "objective": "feature-cosine"}, threats=linf(8)),
    ),
)

TEXT = Preset(
    name="text",
    summary="for models that take texts: FGSM and PGD-10 at 8/255 on the names of what is on each image, 6 images",
    protocols=(("text", {"max_objects": 5}),),
    trials=QUICK.trials,
    limit=6,
)

# The seven conditions of Red-Teaming SAM (Jankowski et al. 2024) and the weather it leaves out; at the middle severity,
# three of them at the ends, too, so that a reader sees whether more is worse.
CONDITIONS = ("overcast+drops", "night", "night+drops", "snow", "snow+drops", "wet", "wet+drops", "rain", "fog", "haze")
GRADED = ("night+drops", "rain", "fog")

WEATHER = Preset(
    name="weather",
    summary="night, snow, wet road, rain, fog, haze, drops on the lens at severity 3, three of these at 1 and 5, too; "
    "point and box prompts on up to 5 objects, 6 images",
    protocols=QUICK.protocols,
    changes=tuple(Change(corruption=n, severities=(1, 3, 5) if n in GRADED else (3,)) for n in CONDITIONS),
    limit=6,
)

PRESETS: Mapping[str, Preset] = {p.name: p for p in (QUICK, STANDARD, FULL, TEXT, WEATHER)}


def preset(name: str) -> Preset:
    """A preset by name. Raises UnknownName with the nearest ones."""
    if name not in PRESETS:
        raise unknown("preset", name, list(PRESETS))
    return PRESETS[name]
