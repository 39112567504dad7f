"""What attacks on intermediate features share: losses on tapped blocks, their evaluator, the FeatureAttack base.

Features are a list with one tensor per block, each with the n images in front; blocks may differ in shape (Hiera). An
l2 distance runs over all blocks together, as UAD's benchmark has it; a cosine is one per block, then their mean.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from redsam import registry
from redsam.attacks.base import Attack
from redsam.attacks.goal import HALF_SCALE, Goal
from redsam.attacks.loop import Evaluation, Parts, Start, State, Trace, descend
from redsam.attacks.parts import fixed_step, zero
from redsam.attacks.task import Task
from redsam.errors import InputError
from redsam.models.features import tap
from redsam.objectives import wide

Features = list[Tensor]
# Features (n images), the images nx3xHxW they come from and their positions in the batch, to n losses.
Loss = Callable[[Features, Tensor, Sequence[int]], Tensor]


# --- losses --------------------------------------------------------------------------------------------------------
def flat(features: Features) -> Tensor:
    """n x everything: all blocks of an image in a row, at least float32."""
    return torch.cat([wide(f).flatten(1) for f in features], dim=1)


def distance(one: Features, other: Features) -> Tensor:
    """n l2 distances over all blocks; the gradient where both agree is zero."""
    length: Tensor = torch.linalg.vector_norm(flat(one) - flat(other), dim=1)
    return length


def similarity(one: Features, other: Features) -> Tensor:
    """n cosines, in [-1, 1]: one of each flattened block, averaged over the blocks."""
    pairs = zip(one, other, strict=True)
    return torch.stack([F.cosine_similarity(wide(a).flatten(1), wide(b).flatten(1), dim=1) for a, b in pairs]).mean(0)


def dominance(features: Features, competitor: Features) -> Tensor:
    """n: how much more the features show in the sum with a competitor's than those do, mean over blocks of
    cos(f, f + c) - cos(c, f + c) (PATA, 2023), in [-2, 2]."""
    mixed = [wide(f) + wide(c) for f, c in zip(features, competitor, strict=True)]
    return similarity(features, mixed) - similarity(competitor, mixed)


def rows(features: Features, active: Sequence[int]) -> Features:
    """The active images' features."""
    return [f if len(f) == len(active) else f[list(active)] for f in features]


# --- the evaluator -------------------------------------------------------------------------------------------------
@dataclass(kw_only=True, eq=False)
class Anchors:
    """Features of fixed images (clean, target, competitor), without gradient. forwards, gradients: passes of one image
    beside those of the loop; who makes others adds them here."""

    task: Task
    layers: tuple[int, ...] | None = None
    forwards: int = 0
    gradients: int = 0

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Features:
        self.forwards += len(images)
        return tap(self.task.segmenter, images, self.layers)[1]


@dataclass(frozen=True, kw_only=True, eq=False)
class FeatureEvaluator:
    """`loop.Evaluate` of a loss on tapped features; prompts are looked at only when `stop_at` asks for it."""

    task: Task
    loss: Loss
    goal: Goal
    layers: tuple[int, ...] | None = None

    def __call__(self, images: Tensor, active: Sequence[int], progress: float) -> Evaluation:
        encoding, features = tap(self.task.segmenter, images, self.layers)
        value = self.loss(features, images, active)
        reached = self.goal.judge(self.task.framed(encoding), active)
        return Evaluation(loss=value * scale_of(self.task), rank=value.detach(), reached=reached)


def scale_of(task: Task) -> float:
    """What a loss is multiplied with so that half precision holds its gradient."""
    return HALF_SCALE if task.segmenter.dtype == torch.float16 else 1.0


# --- the base ------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, kw_only=True)
class FeatureAttack(Attack):
    """steps of size step_size (the threat's units, None is eps / 4: 2/255 at eps 8/255) down a loss on the outputs of
    encoder blocks `layers` (None: the middle third, blocks 4 to 7 of a ViT-B). Prompt-free; the last iterate is
    delivered. A recipe fills `loss`. Raises InputError for a model that names no blocks."""

    steps: int = 40
    step_size: float | None = None
    layers: tuple[int, ...] | None = None
    keep_best: bool = False

    def __post_init__(self) -> None:
        if self.layers is not None:
            if not self.layers:
                raise InputError("An attack on no block does nothing.", hint="Name blocks, such as layers=4,5,6,7.")
            object.__setattr__(self, "layers", tuple(self.layers))  # a log has lists

    @abstractmethod
    def loss(self, task: Task, anchors: Anchors) -> Loss:
        """The loss to minimise; `anchors` reads the features of fixed images."""

    def start(self, task: Task) -> Start:
        """The first point; the clean image unless the gradient is zero there."""
        return zero

    def reads_masks(self) -> bool:
        """Prompt-free."""
        return False

    def needs_reference(self) -> bool:
        """Only to know when to stop: no mask is selected for the loss."""
        return self.stop_at is not None

    def evaluator(self, task: Task, anchors: Anchors) -> FeatureEvaluator:
        """The function that the loop minimises."""
        return FeatureEvaluator(
            task=task, loss=self.loss(task, anchors), goal=stop_goal(self, task), layers=self.layers
        )

    def parts(self, task: Task) -> Parts:
        """Sign steps."""
        return Parts(
            steps=self.steps, start=self.start(task), rule=fixed_step(self.size(task)), keep_best=self.keep_best
        )

    def passes_beside(self) -> int:
        """Forward passes per image beside the loop's: of the clean image or the target."""
        return 1

    def search(self, task: Task) -> Trace:
        """The gradient loop."""
        afford(self.steps, task.threat.queries, beside=self.passes_beside())
        anchors = Anchors(task=task, layers=self.layers)
        trace = descend(
            self.evaluator(task, anchors), task.clean, threat=task.threat, parts=self.parts(task), seeds=task.seeds,
            region=task.region,
        )  # fmt: skip
        return replace(trace, forwards=trace.forwards + anchors.forwards, gradients=trace.gradients + anchors.gradients)

    def size(self, task: Task) -> float:
        """The step size in the threat's units."""
        return self.step_size if self.step_size is not None else task.threat.eps / 4


def stop_goal(attack: Attack, task: Task) -> Goal:
    """A goal that is only asked whether `stop_at` is reached."""
    objective = registry.get("objective", "feature-l2")  # aims away from the reference, as all of these attacks do
    return Goal(task=task, objective=objective, select=attack.select, stop_at=attack.stop_at)


def nudged(share: float) -> Callable[[Task], Start]:
    """The clean image with Gaussian noise of `share` of the model's own per-channel standard deviation, drawn on the
    CPU from each image's generator: where the clean image's gradient is zero, UAD's benchmark starts there."""

    def at(task: Task) -> Start:
        std = torch.tensor(task.segmenter.frame(*task.clean.shape[-2:]).std)[:, None, None]

        def start(state: State) -> Tensor:
            noise = torch.stack([torch.randn(state.clean.shape[1:], generator=g) for g in state.generators])
            return state.clean + (noise * std * share).to(state.clean)

        return start

    return at


def afford(steps: int, queries: int | None, *, beside: int) -> None:
    """Raise InputError for no steps, and when the threat grants fewer forward passes than steps + 1 + `beside`."""
    if steps < 1:
        raise InputError(f"An attack of {steps} steps does nothing.", hint="Give at least 1 step.")
    needed = steps + 1 + beside
    if queries is not None and needed > queries:
        raise InputError(
            f"{steps} steps need {needed} forward passes, the threat grants {queries}.",
            hint="Give fewer steps or more queries.",
        )
