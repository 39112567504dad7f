"""Train lab-text after pack_text.py: `python training/train_text.py --data text.zip --minutes 60 [--workers 4]`.

Progress is the larger of steps done / --steps and minutes spent / --minutes. Every --save minutes the state is written
and the weights delivered so far; the same command again goes on from there (--fresh starts over). Delivered is an
exponential moving average, in half precision: OUT/lab-text/{config.json,model.safetensors,training.json}. To ship it,
copy these into src/redsam/weights/lab-text: `redsam.models.load("lab-text")` finds it there.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from loop import ALONE, Log, console, until_spent
from progress import Run, ship
from team import Team, run
from text import RECIPE, LabText, Named, build, draw, load_named, loss_of
from train import optimisers

SOURCE = Path(__file__).resolve().parents[1] / "src" / "redsam" / "weights" / "lab-b"


def one_step(now: Run, named: Named, *, count: int, team: Team = ALONE) -> dict[str, float]:
    """Draw, differentiate, update; returns the numbers for the log."""
    batch = draw(named, count=count, side=RECIPE.side, gen=now.gen)
    model: Any = now.model
    with torch.autocast("cuda", torch.bfloat16, enabled=batch.pixels.is_cuda):
        loss, seen = loss_of(model, batch, named)
    now.update(loss, agree=team.average_gradients)
    return {"loss": loss.item(), **seen}


@torch.no_grad()
def held_out_score(model: LabText, named: Named, *, batches: int = 6) -> dict[str, float]:
    """Mean IoU of present names, share of right presence answers and of cells named right, on photographs not trained
    on: same draws every time."""
    gen = torch.Generator().manual_seed(17)
    sums = {"iou": 0.0, "presence": 0.0, "cells": 0.0}
    for _ in range(batches):
        seen = loss_of(model, draw(named, count=16, side=RECIPE.side, gen=gen, augment=False), named)[1]
        for key in sums:
            sums[key] += seen[key] / batches
    return {key: round(value, 4) for key, value in sums.items()}


def freeze(model: LabText, layers: int) -> None:
    """Leave patches, positions and the first `layers` blocks of the encoder as they are: what they do is no more
    particular to names than to objects, and a step without them costs two thirds."""
    encoder = model.vision_encoder
    for part in [encoder.patch_embed, *encoder.layers[:layers]] if layers else []:
        part.requires_grad_(False)
    if layers:
        encoder.pos_embed.requires_grad_(False)


def prepare(args: argparse.Namespace, team: Team = ALONE) -> Run:
    """A model started from the lab's encoder and decoder, or a saved state; every worker draws crops of its own."""
    model = build(args.start).to(args.device).train()
    freeze(model, args.freeze)
    now = Run.fresh(model, optimisers(model, RECIPE), torch.Generator().manual_seed(RECIPE.seed))
    file = args.out / RECIPE.name / "state.pt"
    if file.exists() and not args.fresh:
        now.load(file, device=args.device)
        if team.leads:
            console.print(f"goes on at step {now.step}, {now.spent:.1f} minutes in")
    if team.rank:
        now.gen.manual_seed(1000 * RECIPE.seed + 100_000 * team.rank + now.step)
    return now


def train(team: Team, args: argparse.Namespace, named: Named, watching: Named) -> None:
    """Run or resume, as one of a team."""
    torch.set_num_threads(max(1, args.threads // team.size))
    now, out = prepare(args, team), args.out / RECIPE.name
    count = args.batch or RECIPE.batch
    size = sum(p.numel() for p in now.model.parameters())
    facts: dict[str, Any] = {
        "batch": count, "device": args.device, "threads": args.threads, "workers": team.size, "parameters": size,
        "torch": torch.__version__, "start": args.start and args.start.name, "frozen": args.freeze,
        "names": len(named.names),
    }  # fmt: skip
    if team.leads:
        console.print(f"{RECIPE.name}: {size / 1e6:.2f} M parameters, {len(named.groups)} photographs")

    def step(_: float) -> Log:
        return one_step(now, named, count=count // team.size, team=team)

    def keep(log: Log, finished: bool) -> None:
        average: Any = now.average
        now.note(held_out_score(average, watching, batches=6 if finished else 2), log)
        now.save(out / "state.pt")
        ship(now, out, RECIPE, facts if finished else facts | {"unfinished": True})

    until_spent(now, args, name=RECIPE.name, lr=args.lr or RECIPE.lr, step=step, keep=keep, team=team)


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="what pack_text.py wrote")
    parser.add_argument("--out", type=Path, default=Path("training/out"))
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--steps", type=int, default=10**9)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--workers", type=int, default=1, help="processes that share a step (CPU only)")
    parser.add_argument("--batch", type=int, default=0, help="crops a step, of all workers (default: the recipe's)")
    parser.add_argument("--lr", type=float, default=0.0)
    parser.add_argument("--save", type=float, default=3.0, help="minutes between saved states")
    parser.add_argument("--start", type=Path, default=SOURCE, help="lab model whose encoder and decoder start it")
    parser.add_argument("--freeze", type=int, default=0, help="encoder blocks that stay as they start")
    parser.add_argument("--fresh", action="store_true")
    return parser.parse_args(words)


def main() -> None:
    """Load, move, train."""
    args = parse()
    named, watching = load_named(args.data), load_named(args.data, held_out=True)
    if args.workers > 1:
        named, watching = (replace(n, packed=n.packed.shared()) for n in (named, watching))
    placed = [replace(n, packed=n.packed.to(args.device)) for n in (named, watching)]
    run(train, size=args.workers, args=(args, *placed))


if __name__ == "__main__":
    main()
