"""UAD: the features of a deformed copy of the image are what it is pushed to (Lu et al., 2024).

Stage A looks for a deformation that moves much and can be imitated inside the budget; stage B imitates it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from redsam.attacks.feature import Anchors, FeatureAttack, Features, Loss, rows, scale_of, similarity
from redsam.attacks.loop import Parts, State, Transform
from redsam.attacks.parts import momentum, steepest
from redsam.attacks.task import Task
from redsam.attacks.warp import LAST, SIDE, checkerboard, control_grid, control_loss, dense_flow, patchwork, warp
from redsam.errors import InputError
from redsam.models.features import tap
from redsam.registry import register

# Stage A as published, in pixels of a 1024-pixel frame: 6x6 control points, start noise of a tenth of their distance,
# 4 flows, patches of 300, Adam at 10; control loss 0.05, fidelity 1, looked at after 4 steps.
CONTROL, START_NOISE, PATCH, CONTROL_WEIGHT, PROXY_STEPS = 6, 0.1, 300, 0.05, 4


@register("attack", "uad", paper="Unsegment Anything by Simulating Deformation (Lu et al.)", year=2024,
          url="https://arxiv.org/abs/2404.02585", norms=("linf",), kind="transfer",
          knowledge=("white-box", "transfer"), cost="5 x iterations + steps gradients", features="blocks")  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class UAD(FeatureAttack):
    """Stage A: `flows` thin-plate splines with 6x6 control points each, combined patch by patch, whose source and
    dest points follow Adam (`rate`, in pixels of a 1024-pixel frame) for `iterations` on
        -mean |x - warp(x)| + 0.05 * [spread within a flow - 0.5 * spread across flows] + fidelity,
    fidelity = cos(f', f(x)) - cos(f', f(warp(x))), f' the features after 4 sign steps on it from the clean image.
    Stage B: `steps` sign steps of eps / 4 on the fidelity of the deformation found, from the clean image; blocks 4 to 7
    of 12, mean cosine over blocks. Off as published: noise (4/255 when used), decay of a momentum (1 when used).

    Deviation: the 1024-pixel frame, which SAM pads to a square, is stretched over the image, so all published pixel
    numbers (rate 10, patches of 300, start noise of 17) hold per axis as shares of 1024; |x - warp(x)| keeps the unit
    of the model's standard deviations. As the paper, unlike its code, the kernel is r^2 log r (the code's is r) and
    fidelity reaches the flows (the code detaches it): its gradient goes through f(warp(x)) with f' held fixed. noise
    is for the gradient only, and momentum and noise are for stage B only; flows are bilinear between 129x129 nodes.
    """

    iterations: int = 40
    flows: int = 4
    rate: float = 10.0
    noise: float = 0.0
    decay: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.iterations < 0 or self.flows < 1:
            raise InputError(
                f"iterations={self.iterations}, flows={self.flows} cannot be meant.", hint="As published: 40 and 4."
            )

    def loss(self, task: Task, anchors: Anchors) -> Loss:
        """Stage B's loss, after stage A."""
        clean = anchors(task.clean)
        return fidelity(clean, anchors(self.deform(task, anchors, clean).warped().detach()))

    def deform(self, task: Task, anchors: Anchors, clean: Features) -> Deformation:
        """Stage A; every image has its own flows."""
        shape = Deformation(task, self.flows)
        adam = torch.optim.Adam(shape.points, lr=self.rate)
        scale = scale_of(task)
        for _ in range(self.iterations):
            copy = shape.warped()
            wanted = tap(task.segmenter, copy, self.layers)[1]
            imitation = self.imitate(task, fidelity(clean, [f.detach() for f in wanted]))
            reached = anchors(imitation)
            total = shape.cost(copy) + similarity(reached, clean) - similarity(reached, wanted)
            gradients = torch.autograd.grad(scale * total.sum(), shape.points)
            for point, gradient in zip(shape.points, gradients, strict=True):
                # A picture with a sick gradient keeps its flows and leaves its neighbours alone.
                point.grad = torch.where(gradient.isfinite(), gradient / scale, 0.0)
            adam.step()
            shape.inside()
            followed = (1 + PROXY_STEPS) * len(task)
            anchors.forwards, anchors.gradients = anchors.forwards + followed, anchors.gradients + followed
        return shape

    def imitate(self, task: Task, loss: Loss) -> Tensor:
        """The images after a few sign steps on the loss from the clean ones."""
        x, scale, everyone = task.clean, scale_of(task), range(len(task))
        for _ in range(PROXY_STEPS):
            at = x.detach().requires_grad_(True)
            value = loss(tap(task.segmenter, at, self.layers)[1], at, everyone)
            (gradient,) = torch.autograd.grad(scale * value.sum(), at)
            step = self.size(task) * steepest(gradient, task.threat.norm)
            x = task.threat.project(x - step, task.clean, task.region)
        return x

    def passes_beside(self) -> int:
        """Per iteration the copy, the imitation's steps and a look at it; the clean image and the final copy."""
        return self.iterations * (2 + PROXY_STEPS) + 2

    def parts(self, task: Task) -> Parts:
        """Stage B's steps."""
        return replace(
            super().parts(task), transform=noisy(self.noise) if self.noise else None,
            gradients=(momentum(self.decay),) if self.decay else (),
        )  # fmt: skip


def fidelity(clean: Features, copy: Features) -> Loss:
    """cos(f, f(x)) - cos(f, f(warp(x))), in [-2, 2]: near the copy and far from the clean image is small."""

    def value(features: Features, images: Tensor, active: Sequence[int]) -> Tensor:
        return similarity(features, rows(clean, active)) - similarity(features, rows(copy, active))

    return value


def noisy(size: float) -> Transform:
    """Gaussian noise of this standard deviation, in [0, 1] units, drawn on the CPU from each image's generator."""

    def add(x: Tensor, state: State) -> Tensor:
        noise = torch.stack([torch.randn(x.shape[1:], generator=g) for g in state.generators])
        return x + size * noise.to(x)

    return add


class Deformation:
    """The control points of all images' flows, BxKx36x2 in frame pixels, and what they make of the images."""

    def __init__(self, task: Task, flows: int) -> None:
        grid = control_grid(CONTROL)
        spread = START_NOISE * (SIDE // CONTROL)
        noise = torch.stack(
            [torch.randn(flows, len(grid), 2, generator=g, dtype=torch.float64) for g in task.generators("flows")]
        )
        self.images = task.clean
        self.size = (int(task.clean.shape[-2]), int(task.clean.shape[-1]))
        self.std = task.clean.new_tensor(task.segmenter.frame(*self.size).std)[:, None, None]
        device = task.clean.device if task.clean.device.type != "mps" else "cpu"  # which has no float64
        source = grid.expand_as(noise).to(device).clone()
        self.source = source.requires_grad_(True)
        self.dest = (source.detach() + spread * noise.to(source)).clamp(0, LAST).requires_grad_(True)
        self.points = [self.source, self.dest]
        with torch.no_grad():  # the patches' borders bend with the first flow as it starts
            board = checkerboard(self.size, PATCH).to(task.clean).expand(len(task), -1, -1, -1)
            self.board = warp(board, dense_flow(self.source[:, :1], self.dest[:, :1], self.size))[:, 0]

    def warped(self) -> Tensor:
        """Bx3xHxW, with gradients to the points."""
        return patchwork(warp(self.images, dense_flow(self.source, self.dest, self.size)), self.board)

    def cost(self, warped: Tensor) -> Tensor:
        """B: what the flows are asked for besides fidelity."""
        moved = ((self.images - warped) / self.std).abs().flatten(1).mean(1)
        return CONTROL_WEIGHT * control_loss(self.source, self.dest).to(moved) - moved

    @torch.no_grad()
    def inside(self) -> None:
        """Back into the frame."""
        for point in self.points:
            point.clamp_(0, LAST)
