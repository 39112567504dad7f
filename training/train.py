"""Train one lab model: `python training/train.py lab-b --data packed.zip --minutes 60 [--device cuda] [--workers 4]`.

Progress is the larger of steps done / --steps and minutes spent / --minutes, so one command fits a GPU lease and a
laptop. Every --save minutes the state is written; the same command again goes on from there (--fresh starts over).
The weights delivered are an exponential moving average, in half precision: OUT/NAME/{config.json,model.safetensors}.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

# Before torch is imported: threads that spin while they wait starve each other on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from init import initialise
from loop import Log, console, until_spent
from muon import Muon
from objective import KINDS, loss_of
from packed import Packed, draw, load_packed
from progress import Run, ship
from recipes import RECIPES, Recipe, build
from team import Team, run
from torch import nn
from transfer import start_from


def optimisers(model: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon (orthogonalised momentum, Jordan et al. 2024) for the matrices of the transformer blocks, AdamW for the
    rest. Muon's rate is matched to AdamW's root mean square, so one rate serves both."""
    matrices, plain, bare = [], [], []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        block = ".layers." in name or ".blocks." in name or "transformer" in name
        if parameter.ndim == 2 and block and "rel_pos" not in name:
            matrices.append(parameter)
        elif parameter.ndim >= 2 and "embed" not in name and "token" not in name:
            plain.append(parameter)
        else:
            bare.append(parameter)
    groups = [{"params": plain, "weight_decay": recipe.weight_decay}, {"params": bare, "weight_decay": 0.0}]
    return [
        Muon(matrices, lr=recipe.lr, weight_decay=recipe.weight_decay),
        torch.optim.AdamW(groups, lr=recipe.lr, betas=(0.9, 0.98)),
    ]


@torch.no_grad()
def held_out_score(model: nn.Module, packed: Packed, *, side: int, batches: int = 6) -> dict[str, float]:
    """Mean IoU by prompt kind on pool images that are not trained on: same draws every time."""
    gen = torch.Generator().manual_seed(17)
    sums: dict[str, float] = dict.fromkeys(dict.fromkeys(KINDS), 0.0)
    for _ in range(batches):
        batch = draw(packed, count=16, objects=len(KINDS), side=side, pseudo=0.0, gen=gen, augment=False)
        for kind, value in loss_of(model, batch, gen=gen)[1].items():
            sums[kind] += value / batches
    return {kind: round(value, 4) for kind, value in sums.items()}


def one_step(now: Run, packed: Packed, *, team: Team, count: int, side: int, progress: float) -> dict[str, float]:
    """Draw, differentiate, agree, update; returns the numbers for the log."""
    pseudo = 0.35 * max(0.0, 1 - progress / 0.7)  # region maps teach edges early and leave at 70 %
    batch = draw(packed, count=count, objects=len(KINDS), side=side, pseudo=pseudo, gen=now.gen)
    with torch.autocast("cuda", torch.bfloat16, enabled=batch.pixels.is_cuda):
        loss, seen = loss_of(now.model, batch, gen=now.gen)
    now.update(loss, agree=team.average_gradients)
    return {"loss": loss.item(), **seen}


def prepare(team: Team, args: argparse.Namespace, recipe: Recipe, packed: Packed, side: int) -> Run:
    """A fresh model, one started from other weights, or a saved state; every worker draws batches of its own."""
    gen = torch.Generator().manual_seed(recipe.seed)
    model = build(recipe)
    first = draw(packed, count=256, objects=1, side=side, pseudo=0.0, gen=gen).pixels.cpu()
    initialise(model, pixels=first, seed=recipe.seed)
    if args.start:
        console.print(f"{start_from(model, args.start)} tensors from {args.start}")
    model.to(args.device).train()
    now = Run.fresh(model, optimisers(model, recipe), gen)
    file = args.out / recipe.name / "state.pt"
    if file.exists() and not args.fresh:
        now.load(file, device=args.device)
        if team.leads:
            console.print(f"goes on at step {now.step}, {now.spent:.1f} minutes in")
    if team.rank:
        now.gen.manual_seed(1000 * recipe.seed + 100_000 * team.rank + now.step)
    return now


def train(team: Team, args: argparse.Namespace, packed: Packed, watching: Packed) -> None:
    """Run or resume one recipe as one of a team."""
    recipe = RECIPES[args.name]
    torch.set_num_threads(max(1, args.threads // team.size))
    side, out, count = recipe.side, args.out / recipe.name, args.batch or recipe.batch
    now = prepare(team, args, recipe, packed, side)
    size = sum(p.numel() for p in now.model.parameters())
    facts: dict[str, Any] = {
        "batch": count, "device": args.device, "threads": args.threads, "workers": team.size, "parameters": size,
        "torch": torch.__version__, "start": args.start and args.start.name,
    }  # fmt: skip
    if team.leads:
        console.print(f"{recipe.name}: {size / 1e6:.2f} M parameters, {len(packed.images)} images")

    def step(progress: float) -> Log:
        return one_step(now, packed, team=team, count=count // team.size, side=side, progress=progress)

    def keep(log: Log, finished: bool) -> None:
        score = held_out_score(now.average, watching, side=side)
        now.note(score, log)
        now.save(out / "state.pt")
        ship(now, out, recipe, facts if finished else facts | {"unfinished": True})

    until_spent(now, args, name=recipe.name, lr=args.lr or recipe.lr, step=step, keep=keep, team=team)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted(RECIPES))
    parser.add_argument("--data", type=Path, required=True, help="what pack.py wrote")
    parser.add_argument("--out", type=Path, default=Path("training/out"))
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--steps", type=int, default=10**9)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of all workers together")
    parser.add_argument("--workers", type=int, default=1, help="processes that share a step (CPU only)")
    parser.add_argument("--batch", type=int, default=0, help="images a step, of all workers (default: the recipe's)")
    parser.add_argument("--lr", type=float, default=0.0)
    parser.add_argument("--save", type=float, default=3.0, help="minutes between saved states")
    parser.add_argument("--start", type=Path, default=None, help="a lab model to start from (see transfer.py)")
    parser.add_argument("--fresh", action="store_true")
    args = parser.parse_args()
    packed, watching = load_packed(args.data), load_packed(args.data, held_out=True)
    if args.workers > 1:
        packed, watching = packed.shared(), watching.shared()
    run(train, size=args.workers, args=(args, packed.to(args.device), watching.to(args.device)))


if __name__ == "__main__":
    main()
