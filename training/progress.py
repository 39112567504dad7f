"""What a training run writes down: its state to go on from, its weights to ship, its history to look at."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from recipes import Recipe
from safetensors.torch import save_file
from torch import nn


@dataclass(kw_only=True, eq=False)
class Run:
    """A model in training. average: the exponential moving average that is shipped. spent: minutes, over all runs."""

    model: nn.Module
    average: nn.Module
    opts: list[torch.optim.Optimizer]
    gen: torch.Generator
    step: int = 0
    spent: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def fresh(cls, model: nn.Module, opts: list[torch.optim.Optimizer], gen: torch.Generator) -> Run:
        """At step 0."""
        return cls(model=model, average=copy.deepcopy(model).eval().requires_grad_(False), opts=opts, gen=gen)

    def update(self, loss: torch.Tensor, *, agree: Callable[[nn.Module], None] = lambda _: None) -> None:
        """One step down a loss, gradients clipped to norm 1. agree: what a team does with its gradients first. Raises
        RuntimeError for a loss that is no number, before anything moves."""
        if not torch.isfinite(loss):
            raise RuntimeError(f"the loss is {loss.item()} at step {self.step}; go on from the last saved state")
        loss.backward()
        agree(self.model)
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for opt in self.opts:
            opt.step()
            opt.zero_grad(set_to_none=True)
        self.step += 1
        self.follow()

    def follow(self) -> None:
        """Move the average one step towards the model; it forgets over about 1000 steps, faster at the start."""
        decay = min(0.999, (self.step + 1) / (self.step + 20))
        with torch.no_grad():
            for kept, new in zip(self.average.parameters(), self.model.parameters(), strict=True):
                kept.lerp_(new, 1 - decay)

    def note(self, score: dict[str, float], log: dict[str, float]) -> None:
        """Add held-out scores to the history, and print them beside the running means of the training."""
        self.history.append({"step": self.step, "minutes": round(self.spent, 1), **score})
        print(json.dumps({**self.history[-1], "train": {k: round(v, 3) for k, v in log.items()}}), flush=True)

    def save(self, file: Path) -> None:
        """Everything that going on needs, written whole or not at all."""
        file.parent.mkdir(parents=True, exist_ok=True)
        state = {
            "model": self.model.state_dict(), "average": self.average.state_dict(), "gen": self.gen.get_state(),
            "opts": [o.state_dict() for o in self.opts], "step": self.step, "spent": self.spent,
            "history": self.history,
        }  # fmt: skip
        torch.save(state, file.with_suffix(".tmp"))
        os.replace(file.with_suffix(".tmp"), file)

    def load(self, file: Path, *, device: str) -> None:
        """Go on from a saved state."""
        state = torch.load(file, map_location=device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        for opt, saved in zip(self.opts, state["opts"], strict=True):
            opt.load_state_dict(saved)
        self.gen.set_state(state["gen"].cpu())
        self.step, self.spent, self.history = state["step"], state["spent"], state["history"]


def ship(run: Run, folder: Path, recipe: Recipe, facts: dict[str, Any]) -> None:
    """The average in half precision as safetensors, the architecture's own config.json, and training.json."""
    folder.mkdir(parents=True, exist_ok=True)
    run.average.config.save_pretrained(folder)
    state = {k: v.detach().half().cpu().contiguous() for k, v in run.average.state_dict().items()}
    save_file(state, folder / "model.safetensors.tmp", metadata={"format": "pt"})
    os.replace(folder / "model.safetensors.tmp", folder / "model.safetensors")
    made = {"recipe": recipe.name, "seed": recipe.seed, "step": run.step, "minutes": round(run.spent, 1)}
    (folder / "training.json").write_text(json.dumps(made | facts | {"history": run.history}, indent=1) + "\n")
