"""One changed image and what it is for: the step between crafting (replaying, corrupting) an image and its record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from torch import Tensor

from redsam.attacks.loop import NON_FINITE
from redsam.bench.evaluate import Answer, Moved, finite, joined, record
from redsam.bench.spec import Cell, JsonDict
from redsam.metrics import psnr, ssim
from redsam.prompts import Prompt
from redsam.threat import Budget
from redsam.types import Sample


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """An adversarial image to come by.

    sample: the clean image with the prompts that the image is for. clean: the clean answer to them. which: the prompt's
    index where every prompt has an image of its own, None where one image serves all prompts.
    """

    sample: Sample
    clean: Answer
    which: int | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Shot:
    """A delivered image as read back from its file.

    image: float32 3xHxW. path: the file as the record names it. budget: measured on the file. prompts: what the model
    is asked with, moved where the attack moved them. notes: further fields of the record (steps, flag, queries, ...).
    moved: where a corruption moved the pixels; `prompts` are then those that stayed.
    """

    job: Job
    image: Tensor
    path: str
    budget: Budget
    prompts: tuple[Prompt, ...]
    notes: JsonDict
    moved: Moved | None = None

    @property
    def sample(self) -> Sample:
        """What the model is asked."""
        asked = self.job.sample
        if self.moved is None:
            return replace(asked, image=self.image, prompts=self.prompts)
        objects = tuple(asked.objects[i] for i in self.moved.kept) if asked.objects else ()
        return replace(asked, image=self.image, prompts=self.prompts, masks=self.moved.truth, objects=objects)

    def measured(self) -> JsonDict:
        """Budget, quality, file and notes as fields of a record; `shift` only where prompts moved."""
        spent: JsonDict = {k: v for k, v in self.budget._asdict().items() if k != "shift" or v}
        clean = self.job.sample.image
        looks = {"psnr": finite(psnr(self.image, clean)), "ssim": finite(ssim(self.image, clean))}
        return spent | looks | {"image": self.path} | self.notes


class Supply(Protocol):
    """Where changed images come from: an attack, the files that one left, a corruption."""

    def __call__(self, jobs: Sequence[Job]) -> list[Shot]: ...


def jobs_of(cell: Cell, sample: Sample, clean: Answer) -> list[Job]:
    """One job for all prompts of a sample, or one for each of them (joint=False)."""
    if cell.joint:
        return [Job(sample=sample, clean=clean)]
    return [Job(sample=_only(sample, i), clean=clean.only(i), which=i) for i in range(len(sample.prompts))]


def _only(sample: Sample, index: int) -> Sample:
    keep = slice(index, index + 1)
    masks = None if sample.masks is None else sample.masks[keep]
    return replace(sample, prompts=sample.prompts[keep], masks=masks, objects=sample.objects[keep])


def attacked_record(
    cell: Cell, sample: Sample, clean: Answer, clean_path: str, shots: Sequence[Shot], answers: Sequence[Answer]
) -> JsonDict:
    """The record of an attacked image.

    With one image for all prompts its numbers stand in the record. With one for each prompt they stand in the entries
    of the prompts, and the record holds the worst of them: largest budget, lowest PSNR and SSIM, most steps, all
    queries, every flag with its prompt.
    """
    each = [shot.measured() for shot in shots]
    extra = each[0] if cell.joint else _together(each)
    tested = [p for shot in shots for p in shot.prompts]
    moved = shots[0].moved if cell.joint else None
    out = record(
        cell, sample, clean, joined(answers), tested=tested, moved=moved, extra={"clean_image": clean_path} | extra
    )
    if not cell.joint:
        for entry, own in zip(out["prompts"], each, strict=True):
            entry |= own
    if NON_FINITE in (out.get("flag") or ""):  # the attack could not look for a better image: no measure of the model
        out |= {"status": "failed", "reason": out["flag"]}
    return out


def _together(each: Sequence[JsonDict]) -> JsonDict:
    def known(name: str) -> list[Any]:
        return [one[name] for one in each if one.get(name) is not None]

    out: JsonDict = {name: max(known(name)) for name in ("linf", "l2", "l0", "shift", "steps") if known(name)}
    out |= {name: min(known(name), default=None) for name in ("psnr", "ssim")}
    out |= {"queries": sum(known("queries"))} if known("queries") else {}
    flags = [f"prompt {i}: {one['flag']}" for i, one in enumerate(each) if one.get("flag")]
    return out | {"flag": "; ".join(flags) or None}
