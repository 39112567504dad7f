"""Train one lab model: `python training/train.py lab-b --data packed.zip --minutes 60 [--device cuda]`.

Progress is the larger of steps done / --steps and minutes spent / --minutes, so one command fits a GPU lease and a
laptop. Every --save minutes the state is written; the same command again goes on from there (--fresh starts over).
The weights delivered are an exponential moving average, in half precision: OUT/NAME/{config.json,model.safetensors}.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import time
from pathlib import Path
from typing import Any

import torch
from init import initialise
from muon import Muon
from objective import KINDS, loss_of
from packed import Packed, draw, load_packed
from recipes import RECIPES, Recipe, build
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from safetensors.torch import save_file
from torch import nn

console = Console()


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


def rate(progress: float, *, warm: float) -> float:
    """Share of the peak rate: linear warm-up, flat, then down to nothing over the last 60 %."""
    if progress < warm:
        return progress / warm
    return 1.0 if progress < 0.4 else 0.5 * (1 + math.cos(math.pi * (progress - 0.4) / 0.6))


@torch.no_grad()
def held_out_score(model: nn.Module, packed: Packed, *, side: int, batches: int = 6) -> dict[str, float]:
    """Mean IoU by prompt kind on pool images that are not trained on: same draws every time."""
    gen = torch.Generator().manual_seed(17)
    sums: dict[str, float] = dict.fromkeys(dict.fromkeys(KINDS), 0.0)
    for _ in range(batches):
        batch = draw(packed, count=16, objects=len(KINDS), side=side, pseudo=0.0, gen=gen, augment=False)
        for kind, value in loss_of(model, batch, gen=gen)[1].items():
            sums[kind] += value / batches
    return sums


def save(path: Path, model: nn.Module, recipe: Recipe, facts: dict[str, Any]) -> None:
    """Half-precision safetensors, the architecture's own config.json, and what made them in training.json."""
    path.mkdir(parents=True, exist_ok=True)
    model.config.save_pretrained(path)
    state = {k: v.detach().half().cpu().contiguous() for k, v in model.state_dict().items()}
    tied = {"shared_image_embedding.positional_embedding", "prompt_encoder.shared_embedding.positional_embedding"}
    state = {k: v.clone() if k in tied else v for k, v in state.items()}
    save_file(state, path / "model.safetensors.tmp", metadata={"format": "pt"})
    os.replace(path / "model.safetensors.tmp", path / "model.safetensors")
    (path / "training.json").write_text(json.dumps(facts, indent=1) + "\n")


def train(args: argparse.Namespace) -> None:
    """Run or resume one recipe."""
    recipe = RECIPES[args.name]
    torch.set_num_threads(args.threads)
    watching = load_packed(args.data, held_out=True).to(args.device)
    packed = load_packed(args.data).to(args.device)
    gen = torch.Generator().manual_seed(recipe.seed)
    model = build(recipe)
    vision = model.config.vision_config
    side = vision.image_size if recipe.family == "sam" else vision.backbone_config.image_size[0]
    first = draw(packed, count=256, objects=1, side=side, pseudo=0.0, gen=gen).pixels.cpu()
    initialise(model, pixels=first, seed=recipe.seed)
    model.to(args.device).train()
    average = copy.deepcopy(model).eval().requires_grad_(False)
    opts = optimisers(model, recipe)
    state_file, out = args.out / args.name / "state.pt", args.out / args.name
    step, spent, history = 0, 0.0, []
    if args.start:
        from transfer import start_from

        console.print(f"{start_from(model, args.start)} tensors from {args.start}")
        average.load_state_dict(model.state_dict())
    if state_file.exists() and not args.fresh:
        state = torch.load(state_file, map_location=args.device, weights_only=True)
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        for opt, saved in zip(opts, state["opts"], strict=True):
            opt.load_state_dict(saved)
        step, spent, history = state["step"], state["spent"], state["history"]
        gen.set_state(state["gen"].cpu())
        console.print(f"goes on at step {step}, {spent:.1f} minutes in")
    size = sum(p.numel() for p in model.parameters()) / 1e6
    console.print(f"{recipe.name}: {size:.2f} M parameters, {len(packed.images)} images, {len(packed.maps)} maps")
    began, saved_at, log = time.monotonic() - 60 * spent, time.monotonic(), {}
    batch_size = args.batch or recipe.batch

    def facts() -> dict[str, Any]:
        return {
            "recipe": recipe.name, "step": step, "minutes": round(spent, 1), "batch": batch_size, "seed": recipe.seed,
            "device": args.device, "threads": args.threads, "torch": torch.__version__,
            "start": args.start and args.start.name, "parameters": sum(p.numel() for p in model.parameters()),
            "history": history,
        }  # fmt: skip

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:.1f} %"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(recipe.name, total=1.0)
        while True:
            spent = (time.monotonic() - began) / 60
            progress = max(step / args.steps, spent / args.minutes)
            if progress >= 1:
                break
            scale = rate(progress, warm=0.02) * (args.lr or recipe.lr)
            for opt in opts:
                for group in opt.param_groups:
                    group["lr"] = scale
            pseudo = 0.35 * max(0.0, 1 - progress / 0.7)  # region maps teach edges early and leave at 70 %
            batch = draw(packed, count=batch_size, objects=len(KINDS), side=side, pseudo=pseudo, gen=gen)
            with torch.autocast("cuda", torch.bfloat16, enabled=args.device.startswith("cuda")):
                loss, seen = loss_of(model, batch, gen=gen)
            if not torch.isfinite(loss):
                raise RuntimeError(f"the loss is {loss.item()} at step {step}; the last saved state is {state_file}")
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for opt in opts:
                opt.step()
                opt.zero_grad(set_to_none=True)
            step += 1
            decay = min(0.999, (step + 1) / (step + 20))
            with torch.no_grad():
                for kept, fresh in zip(average.parameters(), model.parameters(), strict=True):
                    kept.lerp_(fresh, 1 - decay)
            for kind, value in {"loss": loss.item(), **seen}.items():
                log[kind] = 0.98 * log.get(kind, value) + 0.02 * value
            bar.update(task, completed=progress, description=f"{recipe.name} step {step} loss {log['loss']:.3f}")
            if time.monotonic() - saved_at > 60 * args.save:
                saved_at = time.monotonic()
                score = held_out_score(average, watching, side=side)
                history.append({"step": step, "minutes": round(spent, 1), **{k: round(v, 4) for k, v in score.items()}})
                console.print(json.dumps({**history[-1], "train": {k: round(v, 3) for k, v in log.items()}}))
                out.mkdir(parents=True, exist_ok=True)
                torch.save(
                    {
                        "model": model.state_dict(), "average": average.state_dict(), "step": step, "spent": spent,
                        "opts": [o.state_dict() for o in opts], "gen": gen.get_state(), "history": history,
                    },
                    state_file.with_suffix(".tmp"),
                )  # fmt: skip
                os.replace(state_file.with_suffix(".tmp"), state_file)
                save(out, average, recipe, facts() | {"unfinished": True})
    score = held_out_score(average, watching, side=side)
    history.append({"step": step, "minutes": round(spent, 1), **{k: round(v, 4) for k, v in score.items()}})
    save(out, average, recipe, facts())
    console.print(f"{out}: {json.dumps(history[-1])}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted(RECIPES))
    parser.add_argument("--data", type=Path, required=True, help="what pack.py wrote")
    parser.add_argument("--out", type=Path, default=Path("training/out"))
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--steps", type=int, default=10**9)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--batch", type=int, default=0, help="images a step (default: the recipe's)")
    parser.add_argument("--lr", type=float, default=0.0)
    parser.add_argument("--save", type=float, default=3.0, help="minutes between saved states")
    parser.add_argument("--start", type=Path, default=None, help="a lab model to start from (see transfer.py)")
    parser.add_argument("--fresh", action="store_true")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
