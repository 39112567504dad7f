"""Square against torchattacks' (the code of AutoAttack), from the same draws, through the same closure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from redsam.attacks import square
from redsam.attacks.square import Square
from redsam.models import Segmenter, tiny
from redsam.prompts import Prompt, box, point
from redsam.threat import Threat
from redsam.types import from_uint8, to_uint8

torchattacks = pytest.importorskip("torchattacks")

SIZE, QUERIES = 40, 120
PROMPTS: list[list[Prompt]] = [[point(20, 20), box(10, 10, 30, 35)]]


def picture() -> Tensor:
    coarse = torch.rand(1, 3, 5, 5, generator=torch.Generator().manual_seed(3))
    smooth = nn.functional.interpolate(coarse, (SIZE, SIZE), mode="bicubic").clamp(0, 1)
    return from_uint8(to_uint8(smooth * 0.6 + 0.2))  # away from 0 and 1, where an l2 ball and the box interfere


def vanish(segmenter: Segmenter) -> Callable[[Tensor], Tensor]:
    """Attack-SAM's loss from the paper, mean over prompts and pixels."""

    def loss(images: Tensor) -> Tensor:
        logits = segmenter.decode(segmenter.encode(images), PROMPTS * len(images)).logits()
        return torch.stack([(torch.relu(rows + 10) ** 2).mean() for rows in logits])

    return loss


def peer(segmenter: Segmenter, threat: Threat, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, list[float]]:
    """Their attack on our loss, drawing from one stream that our functions are given too (seeded anew for each)."""
    norm = "Linf" if threat.norm == "linf" else "L2"
    attack = torchattacks.Square(nn.Identity(), norm=norm, eps=threat.eps, n_queries=QUERIES,
                                 p_init=square.FIRST[threat.norm], seed=0)  # fmt: skip
    attack.rescale_schedule, seen, loss = True, [], vanish(segmenter)

    def judged(images: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        values = loss(images)
        seen.append(float(values[0]))
        return torch.ones_like(values), values  # a margin above 0: never done

    stream = torch.Generator()

    def signs(shape: Any, _: Any = None) -> Tensor:
        return torch.rand(tuple(shape), generator=stream).round() * 2 - 1

    def whole(room: int) -> int:  # as their code draws: the last place is never chosen
        return int(torch.rand((), generator=stream) * room)

    def turned(_: Any = None) -> bool:
        return bool(torch.rand((), generator=stream) > 0.5)

    original = torchattacks.Square.eta

    def eta(side: int) -> Tensor:
        drawn = torch.tensor([1.0 if turned() else 0.0])
        with monkeypatch.context() as patch:  # their only draw outside the two methods
            patch.setattr(torch, "rand", lambda *_: drawn)
            return original(attack, side)  # type: ignore[no-any-return]

    attack.margin_and_loss, attack.random_choice, attack.eta = judged, signs, eta
    attack.random_int = lambda low, high, shape=(1,): torch.tensor([whole(high)])
    attack.stream = stream
    for name, draw in (("signs", signs), ("place", lambda room, _: whole(room)), ("turned", turned)):
        monkeypatch.setattr(square, name, draw)
    return attack, seen


@pytest.mark.parametrize("threat", [Threat(eps=8 / 255), Threat(norm="l2", eps=2.0)], ids=["linf", "l2"])
def test_square_equals_torchattacks_from_the_same_draws(threat: Threat, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every query within 1e-5 of theirs; every delivered value within one 8-bit level and nearly all equal (in l2 ours
    is rounded so that the file stays inside the ball, theirs to nearest)."""
    segmenter, clean = tiny("sam", image_size=32, dtype=torch.float64), picture()
    attack, seen = peer(segmenter, threat, monkeypatch)
    attack.init_hyperparam(clean)
    if threat.norm == "l2":
        # Their norm of the two windows sums all channels where algorithm 3 and the authors' first code take each alone;
        # it is the second of three norms in an iteration.
        calls, whole_norm = [0], attack.lp_norm

        def lp_norm(x: Tensor) -> Tensor:
            calls[0] += 1
            return x.square().sum((2, 3), keepdim=True).sqrt() if calls[0] % 3 == 2 else whole_norm(x)

        attack.lp_norm = lp_norm
    attack.stream.manual_seed(5)
    theirs = attack.attack_single_run(clean, torch.zeros(1, dtype=torch.long))[1]
    attack.stream.manual_seed(5)
    result = Square(queries=QUERIES + 1).run(segmenter, clean, PROMPTS, threat=threat)
    lowest = torch.tensor(seen, dtype=torch.float64).cummin(0).values
    assert torch.allclose(result.losses[:, 0].double(), lowest, rtol=1e-5)
    gap = (result.images.int() - to_uint8(theirs).int()).abs()
    assert int(gap.max()) <= 1 and float((gap == 0).float().mean()) > (0.99 if threat.norm == "linf" else 0.95)
    assert float(lowest[-1]) < float(lowest[0]) and float((result.images != to_uint8(clean)).float().mean()) > 0.5
