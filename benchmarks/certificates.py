"""Certificates on lab-b: how much of a mask they cover at three noise levels, and whether a search finds one wrong.

    python benchmarks/certificates.py --data ../shared/data/eval --jobs 4

20 photographs (10 each of bsds_test and coco_panoptic_val), the exact box of one object of each, SegCertify with n0 10,
n 100, tau 0.75, alpha 0.001 at sigma 0.05, 0.1 and 0.25: share of pixels without a certificate, certified IoU
against ground truth (as published: no certificate is wrong), the IoU no perturbation can go below, and the smoothed
model's own. Then, at sigma 0.1 (--search), a search inside the certified l2 radius R, 1,000 tries each of
 - PGD: 10 restarts of 100 steps of R / 4 down the mean logit of the weakest tenth of the certified pixels, over noise,
 - random: directions of length R, half of them white, half smooth.
A try is one perturbation, real-valued, not even kept in [0, 1]; --copies noisy copies vote on it. The tries in which
most certified pixels lost the vote, up to 5 of each kind, are voted on again by --confirm fresh copies. A certified
pixel that loses that vote is "lost"; "flipped" where a binomial test, corrected for all pixels and tries, proves a
chance below a half, which a sound certificate rules out. Each (photograph, sigma) is a job with a file of its own below
--work: it can be stopped and typed again, and --jobs run side by side. The table goes between the markers of --page.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

# Before torch is imported: threads that spin while they wait starve the jobs beside them.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
import torch.nn.functional as F
from evidence import alone, contrast
from pages import fill
from scipy.stats import binom
from torch import Tensor

from redsam import heap, load, open_data
from redsam.defenses.smoothing import Certificate, SegCertify, answers
from redsam.models.base import Segmenter
from redsam.prompts import Prompt
from redsam.registry import create
from redsam.seeds import generator, stable_seed

SETS = ("bsds_test", "coco_panoptic_val")
SIGMAS = (0.05, 0.1, 0.25)
HEADS = ("sigma", "l2 radius", "images", "IoU plain", "smoothed", "certified", "guaranteed", "abstained", "tries",
         "lost", "flipped")  # fmt: skip
NOTHING = {"tries": 0, "suspects": 0, "most_suspect_pixels": 0, "lost": 0, "flipped": 0, "seconds": 0.0}
RESTARTS, AGAIN = 10, 5
MARKER = "certificates"
LEVEL = 0.001  # of the test that proves a flip


def job(part: str, index: int, sigma: float, args: argparse.Namespace) -> dict[str, Any]:
    """One photograph at one sigma, from its file where that is there."""
    searched = (args.tries, args.copies, args.confirm) if sigma in args.search else ()
    stamp = stable_seed(args.model, args.images, args.n0, args.n, args.seed, *searched)
    path = args.work / f"{part}-{index:02d}-{sigma:g}-{stamp:016x}.json"
    if path.exists():
        told: dict[str, Any] = json.loads(path.read_text())
        return told
    heap.keep()
    torch.set_num_threads(max(1, args.threads // args.jobs))
    model = load(args.model, device=args.device)
    scene = open_data(args.data / part).limit(max(args.images // len(SETS), 1))[index]
    sample = create("protocol", "box", max_objects=1)(scene, seed=0)
    assert sample.masks is not None
    image, prompts, truth = sample.image, list(sample.prompts[:1]), sample.masks[:1]
    recipe = SegCertify(sigma=sigma, n0=args.n0, n=args.n)
    began = time.perf_counter()
    found = recipe.certify(model, image, prompts, seed=stable_seed(scene.id), batch=args.batch)
    seconds = time.perf_counter() - began
    plain = answers(model, image[None].to(model.device), prompts)[0].cpu()
    row: dict[str, Any] = {
        "image": f"{part}/{scene.id}", "sigma": sigma, "radius": found.radius, "seconds": seconds,
        "pixels": int(found.certified.sum()), "abstained": found.abstained[0],
        "iou_certified": found.iou(truth)[0], "iou_guaranteed": found.guaranteed(truth)[0],
        "iou_smoothed": _iou(found.masks, truth), "iou_plain": _iou(plain, truth),
    }  # fmt: skip
    for kind, tries in (("pgd", pgd), ("random", random)):
        row[kind] = search(tries, model, image, prompts, found, args) if searched else dict(NOTHING)
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_suffix(".half")
    half.write_text(json.dumps(row))
    half.rename(path)
    return row


def search(
    tries: Any, model: Segmenter, image: Tensor, prompts: list[Prompt], found: Certificate, args: argparse.Namespace
) -> dict[str, Any]:
    """Votes on every try, and again on the worst."""
    began, sure = time.perf_counter(), found.certified[0]
    if not bool(sure.any()):
        return dict(NOTHING)
    worst: list[tuple[int, int, Tensor]] = []  # (certified pixels that lost the small vote, number of the try, delta)
    count = suspects = longest = 0
    for delta, votes in tries(model, image, prompts, found, args):
        assert _length(delta) <= found.radius * (1 + 1e-5)
        against = int((_agree(votes, found)[sure] * 2 <= len(votes)).sum())
        suspects += against > 0
        longest = max(longest, against)
        worst = sorted([*worst, (against, count, delta)], key=lambda t: t[:2], reverse=True)[:AGAIN]
        count += 1
    lost = flipped = 0
    limit = LEVEL / (int(sure.sum()) * 2 * args.tries)
    for _, number, delta in worst:
        noise = generator("confirm", args.seed, number)
        sizes = _sizes(args.confirm, args.batch)
        votes = torch.cat([_vote(model, image + delta, prompts, found, noise, n) for n in sizes])
        agree = _agree(votes, found)[sure].numpy()
        lost = max(lost, int((agree * 2 <= args.confirm).sum()))
        flipped = max(flipped, int((binom.cdf(agree, args.confirm, 0.5) <= limit).sum()))
    return {
        "tries": count, "suspects": suspects, "most_suspect_pixels": longest, "lost": lost, "flipped": flipped,
        "seconds": time.perf_counter() - began,
    }  # fmt: skip


def pgd(
    model: Segmenter, image: Tensor, prompts: list[Prompt], found: Certificate, args: argparse.Namespace
) -> Iterator[tuple[Tensor, Tensor]]:
    """Each step one try of each restart: the perturbation before it, and the votes of the copies that its gradient is
    taken over. Restarts go in step, several in one pass; each draws from its own generator."""
    sure, sign = found.certified[0], found.masks[0].float() * 2 - 1
    weakest = found.agree[0].masked_fill(~sure, found.n + 1).flatten().argsort()[: max(int(sure.sum()) // 10, 1)]
    steps = max(args.tries // RESTARTS, 1)
    for group in _groups(args.tries // steps, args):
        noises = [generator("pgd", args.seed, restart) for restart in group]
        deltas = torch.stack([_sphere(torch.randn(image.shape, generator=n), found.radius) for n in noises])
        for _ in range(steps):
            leaf = deltas.clone().requires_grad_()
            copies = torch.stack([_copies(image, n, args.copies) for n in noises])
            seen = (image + leaf[:, None] + found.sigma * copies).flatten(0, 1).to(model.device)
            prediction = model.decode(model.encode(seen), [prompts] * len(seen))
            logits = torch.stack([each[0] for each in prediction.logits()]).cpu()
            votes = (logits.detach() > 0).unflatten(0, (len(group), args.copies))
            (gradients,) = torch.autograd.grad((logits * sign).flatten(1)[:, weakest].mean(1).sum(), leaf)
            yield from zip(deltas, votes, strict=True)
            moved = [d - _sphere(g, found.radius / 4) for d, g in zip(deltas, gradients, strict=True)]
            deltas = torch.stack([m * min(1.0, found.radius / max(_length(m), 1e-12)) for m in moved])


def random(
    model: Segmenter, image: Tensor, prompts: list[Prompt], found: Certificate, args: argparse.Namespace
) -> Iterator[tuple[Tensor, Tensor]]:
    """Directions without a gradient, on the sphere."""
    for group in _groups(args.tries, args):
        deltas, copies = [], []
        for number in group:
            noise = generator("random", args.seed, number)
            side = image.shape[1:] if number % 2 else (8, 8)
            drawn = torch.randn((1, 3, *side), generator=noise)
            deltas.append(_sphere(F.interpolate(drawn, image.shape[1:], mode="bilinear")[0], found.radius))
            copies.append(image + deltas[-1] + found.sigma * _copies(image, noise, args.copies))
        with torch.no_grad():
            votes = answers(model, torch.cat(copies).to(model.device), prompts)[:, 0].cpu()
        yield from zip(deltas, votes.unflatten(0, (len(group), args.copies)), strict=True)


def _groups(count: int, args: argparse.Namespace) -> list[range]:
    """So many at a time that their noisy copies fill a batch."""
    size = max(1, args.batch // args.copies)
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def _copies(image: Tensor, noise: torch.Generator, count: int) -> Tensor:
    return torch.stack([torch.randn(image.shape, generator=noise) for _ in range(count)])


@torch.no_grad()
def _vote(
    model: Segmenter, image: Tensor, prompts: list[Prompt], found: Certificate, noise: torch.Generator, count: int
) -> Tensor:
    """Bool count x H x W: answers to noisy copies."""
    copies = _copies(image, noise, count)
    return answers(model, (image + found.sigma * copies).to(model.device), prompts)[:, 0].cpu()


def _agree(votes: Tensor, found: Certificate) -> Tensor:
    """How many votes give each pixel the certified answer."""
    return (votes == found.masks[0]).sum(0)


def _sphere(direction: Tensor, radius: float) -> Tensor:
    return direction * (radius / max(_length(direction), 1e-12))


def _length(delta: Tensor) -> float:
    """In double precision: half a million squares added up in single precision are off by more than 1e-5."""
    return float(delta.double().norm())


def _sizes(count: int, batch: int) -> list[int]:
    return [min(batch, count - start) for start in range(0, count, batch)]


def _iou(masks: Tensor, truth: Tensor) -> float:
    union = int((masks | truth).sum())
    return int((masks & truth).sum()) / union if union else 1.0


def markdown(rows: Sequence[dict[str, Any]], args: argparse.Namespace) -> str:
    """The table for people."""
    lines = [
        f"SegCertify on {args.model}, n0 = {args.n0}, n = {args.n}, tau = 0.75, alpha = 0.001, box of one "
        f"object, {args.tries} PGD and {args.tries} random tries inside the radius on each photograph, {args.copies} "
        f"noisy copies voting on a try and {args.confirm} on the worst; means [95 % interval over photographs]; "
        f"printed by `python benchmarks/certificates.py --copies {args.copies} --confirm {args.confirm} --jobs 4`.", "",
        "| " + " | ".join(HEADS) + " |", "|" + "---|" * len(HEADS),
    ]  # fmt: skip
    for sigma in args.sigmas:
        mine = [r for r in rows if r["sigma"] == sigma]
        means = [_mean(mine, k) for k in
                 ("iou_plain", "iou_smoothed", "iou_certified", "iou_guaranteed", "abstained")]  # fmt: skip
        totals = [sum(r[kind][k] for r in mine for kind in ("pgd", "random")) for k in ("tries", "lost", "flipped")]
        totals = totals if totals[0] else ["not searched", "", ""]
        cells = [f"{sigma:g}", f"{mine[0]['radius']:.3f}", str(len(mine)), *means]
        lines.append("| " + " | ".join([*cells, *map(str, totals)]) + " |")
    return "\n".join(lines)


def _mean(rows: Sequence[dict[str, Any]], key: str) -> str:
    """With its interval; a row is a photograph."""
    found = contrast(f"certificates {key}", [{str(i): (r[key], 1) for i, r in enumerate(rows)}], alone)
    ends = "" if found.lo is None else f" [{found.lo:.3f}, {found.hi:.3f}]"
    return f"{found.value:.3f}{ends}"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="lab-b", help="as everywhere: 'lab-b|bilateral' certifies it denoised")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/eval"))
    parser.add_argument("--images", type=int, default=20, help="of all sets together")
    parser.add_argument("--sigmas", type=float, nargs="*", default=list(SIGMAS))
    parser.add_argument("--search", type=float, nargs="*", default=[0.1], help="sigmas at which it is searched")
    parser.add_argument("--n0", type=int, default=10)
    parser.add_argument("--n", type=int, default=100)
    parser.add_argument("--tries", type=int, default=1000, help="of each kind")
    parser.add_argument("--copies", type=int, default=2, help="noisy copies that vote on a try")
    parser.add_argument("--confirm", type=int, default=200, help="copies that vote again on the worst tries")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("build/certificates"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/certificates.json"))
    parser.add_argument("--page", type=Path, default=Path("docs/defences.md"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of all jobs together")
    args = parser.parse_args()
    each = max(args.images // len(SETS), 1)
    tasks = [(part, index, sigma) for index in range(each) for part in SETS for sigma in args.sigmas]
    with ProcessPoolExecutor(args.jobs) as pool:
        rows = list(pool.map(job, *zip(*tasks, strict=True), [args] * len(tasks)))
    text = markdown(rows, args)
    print(text)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    told = {k: getattr(args, k) for k in ("model", "images", "n0", "n", "tries", "copies", "confirm", "seed")}
    args.out.write_text(json.dumps({"settings": told, "rows": rows}, indent=1) + "\n")
    fill(args.page, MARKER, text)


if __name__ == "__main__":
    main()
