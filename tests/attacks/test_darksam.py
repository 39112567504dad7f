"""DarkSAM's losses and its random prompts, by hand."""

from __future__ import annotations

import pytest
import torch

from redsam.attacks.darksam import DarkSAM, frequency, spatial
from redsam.attacks.scanning import answers, random_prompts, scan
from redsam.attacks.task import Task
from redsam.errors import InputError
from redsam.models import tiny
from redsam.prompts import point
from redsam.threat import Threat


def test_spatial_loss_by_hand() -> None:
    logits = torch.tensor([[[[3.0, -2.0]], [[-1.0, 1.0]]]])  # 1 image, 2 prompts, 1 x 2 pixels
    blueprint = torch.tensor([[[True, False]]])
    # Inside: (3 + 1)^2 and (-1 + 1)^2. Outside, to +1: (-2 - 1)^2 and (1 - 1)^2. Means over 4 values.
    assert spatial(logits, blueprint, -1.0).tolist() == pytest.approx([16 / 4 + 0.1 * 9 / 4])


def test_spatial_loss_pushes_the_inside_down_and_the_outside_up() -> None:
    logits = torch.zeros(1, 1, 2, 2, requires_grad=True)
    blueprint = torch.tensor([[[True, False], [False, True]]])
    spatial(logits, blueprint, -1.0).sum().backward()
    assert logits.grad is not None
    assert ((logits.grad[0, 0] > 0) == blueprint[0]).all()  # descended: down where positive


def test_frequency_loss_by_hand() -> None:
    clean = torch.full((1, 3, 2, 2), 0.5)
    flat = clean + 0.1  # only the average changes: ll = 0.2 in each channel
    rough = clean + 0.1 * torch.tensor([[1.0, -1.0], [-1.0, 1.0]])  # only hh = 0.2
    assert frequency(flat, clean, "sum").item() == pytest.approx(3 * 0.04, rel=1e-5)
    assert frequency(rough, clean, "sum").item() == pytest.approx(-0.01 * 3 * 0.04, rel=1e-5)
    assert frequency(flat, clean, "mean").item() == pytest.approx(3 * 0.04 / 12, rel=1e-5)


def test_random_prompts_lie_inside_and_cover_the_image() -> None:
    generator = torch.Generator().manual_seed(0)
    made = random_prompts((20, 30), 200, "point", generator)
    x, y = zip(*(p.points[0] for p in made), strict=True)
    assert min(x) < 3 and max(x) > 27 and min(y) < 2 and max(y) > 18
    for size in ((20, 30), (2, 2)):
        for prompt in random_prompts(size, 200, "box", generator) + random_prompts(size, 200, "point", generator):
            prompt.check(*size)
    with pytest.raises(InputError, match="'mask'"):
        random_prompts((20, 30), 1, "mask", generator)  # type: ignore[arg-type]


def test_scanning_has_one_point_in_each_region() -> None:
    points = [p.points[0] for p in scan((64, 64), 256, torch.Generator().manual_seed(0))]
    assert {(int(x // 4), int(y // 4)) for x, y in points} == {(i, j) for i in range(16) for j in range(16)}
    wide = [p.points[0] for p in scan((10, 90), 6, torch.Generator().manual_seed(0))]
    assert {(int(x // 30), int(y // 5)) for x, y in wide} == {(i, j) for i in range(3) for j in range(2)}


def test_answers_leave_the_padding_out_and_belong_to_their_prompt() -> None:
    sam = tiny("sam", image_size=64)
    clean = torch.rand(2, 3, 32, 64, generator=torch.Generator().manual_seed(0))
    task = Task(segmenter=sam, clean=clean, prompts=[[], []], threat=Threat(), seeds=[0, 1])
    prompts = [[point(3, 4), point(60, 20)], [point(8, 9), point(1, 30)]]
    with torch.no_grad():
        encoding = task.encode(clean)
        logits = answers(task, encoding, prompts, "iou")
        full = sam.decode(encoding, prompts)
    assert logits.shape == (2, 2, *(n // 2 for n in full.low_res.shape[-2:-1]), full.low_res.shape[-1])
    best = int(full.iou[2].argmax())
    assert torch.equal(logits[1, 0], full.low_res[2, best, : logits.shape[2]])
    with pytest.raises(InputError, match="best"):
        answers(task, encoding, prompts, "best")


def test_bad_options() -> None:
    with pytest.raises(InputError, match="mean or sum"):
        DarkSAM(bands="max")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="at least 1"):
        DarkSAM(samples=0)
