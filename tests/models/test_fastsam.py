"""FastSAM against ultralytics' own predictor on random weights, its choice by prompts, attacks on it, and trust.
Needs ultralytics (make test-extras); skips without it."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from redsam import registry
from redsam.errors import CheckpointError, InputError
from redsam.models import load, tiny
from redsam.models.fastsam import FastSam
from redsam.prompts import Prompt, box, point, points, text
from redsam.threat import Threat
from redsam.types import from_uint8, to_uint8

pytest.importorskip("ultralytics", reason="FastSAM is a model of ultralytics")
pytestmark = pytest.mark.extras

Picture = Callable[..., Tensor]
SIDE = 256
# With bars above or beside, odd and even, without any; enlarged and shrunk; the longest letterbox has next to no width.
SIZES = ((180, 256), (300, 200), (256, 256), (480, 640), (97, 641))
# Stated and asserted: share of the pixels in which an instance differs from ultralytics', in original pixels. It merges
# norms into convolutions, so logits differ by 2e-5: one pixel of an instance, where it is not none.
PIXELS = 5e-5


def model(seed: int = 3) -> FastSam:
    """Random weights, with so high a bar that a few dozen instances pass it."""
    made = tiny("fastsam", seed=seed, image_size=SIDE)
    assert isinstance(made, FastSam)
    return made


def bar(made: FastSam, image: Tensor, count: int = 40) -> float:
    """A confidence that about `count` candidates pass."""
    scores = made.encode(image[None], exact=True).extra[0][0, :, 4].sort(descending=True).values
    return float((scores[count - 1] + scores[count]) / 2)


def theirs(made: FastSam, image: Tensor, prompts: dict[str, Any] | None = None) -> tuple[Any, Any]:
    """ultralytics' predictor and what it answers."""
    from ultralytics.models.fastsam import FastSAMPredictor

    chosen = {"conf": made.confidence, "iou": made.overlap, "imgsz": SIDE, "retina_masks": True, "rect": True}
    quiet = {"save": False, "verbose": False, "device": "cpu", "mode": "predict", "task": "segment"}
    predictor = FastSAMPredictor(overrides={**chosen, **quiet, "model": "fastsam.pt"})
    array = to_uint8(image).permute(1, 2, 0).flip(-1).contiguous().numpy()
    predictor.set_prompts(prompts or {})
    return predictor, predictor(source=[array], model=copy.deepcopy(made.net.yolo))[0]


def drawn(result: Any) -> Tensor:
    """bool NxHxW of an answer of ultralytics; one without masks has none."""
    if len(result):
        return torch.as_tensor(result.masks.data > 0)
    return torch.zeros((0, *result.orig_shape), dtype=torch.bool)


@pytest.mark.parametrize("size", SIZES)
def test_instances_equal_ultralytics(size: tuple[int, int], make_picture: Picture, record_property: Any) -> None:
    made, image = model(), make_picture(*size, seed=7)
    made.confidence = bar(made, image)
    _, result = theirs(made, image)
    encoding = made.encode(image[None], exact=True)
    found = made.instances(encoding.features[0], encoding.extra[0][0], encoding.frames[0])
    assert len(result) == len(found.masks) > 5
    torch.testing.assert_close(encoding.extra[0][0][found.rows, 4], result.boxes.conf, rtol=0, atol=1e-4)
    worst = float((found.masks ^ drawn(result)).flatten(1).float().mean(1).max())
    record_property("worst_share_of_pixels", worst)
    assert worst <= PIXELS


@pytest.mark.parametrize("size", SIZES)
def test_prompts_choose_as_ultralytics(size: tuple[int, int], make_picture: Picture, record_property: Any) -> None:
    """Which instances are chosen, told by the union of theirs."""
    made, (height, width) = model(), size
    image = make_picture(height, width, seed=8)
    made.confidence = bar(made, image)
    predictor, everything = theirs(made, image)
    asked: list[tuple[Prompt, dict[str, Any]]] = []
    other = (int(width * 0.8), int(height * 0.2))
    for fx, fy in itertools.product((0.3, 0.5, 0.7), (0.2, 0.5, 0.8)):
        x, y = int(width * fx), int(height * fy)
        asked.append((point(x + 0.9, y), {"points": [[x + 0.9, y]], "labels": [1]}))
        asked.append((points([(x, y), other], [1, 0]), {"points": [[x, y], other], "labels": [1, 0]}))
        corners = [x / 2, y / 2, x / 2 + width / 3, y / 2 + height / 3]
        asked.append((box(*corners), {"bboxes": [corners]}))
    ours = made.predict(image[None], [[prompt for prompt, _ in asked]])[0].masks
    shares, full = [], 0
    for mask, (_, given) in zip(ours, asked, strict=True):
        official = drawn(predictor.prompt(everything, **given)[0]).any(0)
        full += int(official.any())
        shares.append(float((mask ^ official).float().mean()))
    record_property("worst_share_of_pixels", max(shares))
    assert max(shares) <= PIXELS and full > 9  # every box finds something; of the points, some


def test_images_of_several_sizes_are_answered_together(make_picture: Picture) -> None:
    made, images = model(), [make_picture(90, 128, seed=1), make_picture(200, 70, seed=2)]
    made.confidence = bar(made, images[0])
    prompts = [[point(60, 40), box(10, 10, 90, 70)], [box(5, 5, 60, 150)]]
    together = made.predict(images, prompts)
    for image, asked, found in zip(images, prompts, together, strict=True):
        assert found.masks.shape[1:] == image.shape[1:]
        alone = made.predict([image], [asked])[0]
        torch.testing.assert_close(found.logits, alone.logits, rtol=0, atol=2e-5)


def test_nothing_found_is_empty_and_still_has_a_gradient(make_picture: Picture) -> None:
    made = model()
    made.confidence = 0.999999
    image = make_picture(180, 256)[None].requires_grad_()
    prediction = made.decode(made.encode(image), [[point(100, 90), box(20, 20, 90, 120)]])
    assert not (prediction.low_res > 0).any() and (prediction.iou == 0).all()
    (gradient,) = torch.autograd.grad(prediction.low_res.mean(), image)
    assert torch.isfinite(gradient).all() and gradient.abs().sum() > 0


@pytest.mark.parametrize("name", ["pgd", "square"])
def test_attacks_white_box_and_black_box(name: str, make_picture: Picture) -> None:
    made, image = model(), make_picture(180, 256, seed=8)
    made.confidence = bar(made, image)
    prompt = next(
        p for p in (point(60, 50), point(128, 90), point(200, 140), box(20, 20, 200, 150))
        if made.predict(image[None], [[p]])[0].masks[0].any()
    )  # fmt: skip
    if name == "pgd":
        attack, threat = registry.create("attack", name, steps=8), Threat(eps=16 / 255)
    else:
        attack, threat = registry.create("attack", name), Threat(eps=16 / 255, knowledge="score", queries=30)
    result = attack.run(made, image[None], [[prompt]], threat=threat)
    before = made.predict(image[None], [[prompt]])[0].masks[0]
    attacked = from_uint8(result.images)
    after = made.predict(attacked, [[prompt]])[0].masks[0]
    assert (attacked[0] - image).abs().max() <= 16 / 255 + 1e-6
    if name == "pgd":
        assert (before & after).sum() / (before | after).sum().clamp(min=1) < 0.9
    else:
        assert result.gradients == 0


class _Bomb(torch.nn.Module):
    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("raise SystemExit('code of a pickle ran')",)


def test_nothing_is_unpickled_without_trust(tmp_path: Path) -> None:
    torch.save({"model": _Bomb()}, tmp_path / "evil.pt")
    with pytest.raises(CheckpointError, match="evil.pt is a pickle"):
        load(f"fastsam:{tmp_path / 'evil.pt'}")
    with pytest.raises(CheckpointError, match="never run"):  # not by another door either
        load(tmp_path / "evil.pt")


def test_what_ultralytics_saves_loads_when_trusted(tmp_path: Path, make_picture: Picture) -> None:
    made = model()
    torch.save({"model": None, "ema": made.net.yolo, "train_args": {"imgsz": SIDE}}, tmp_path / "last.pt")
    loaded = load(f"fastsam:{tmp_path / 'last.pt'}", trust=True)
    assert loaded.family == "fastsam" and loaded.name == "last.pt"
    image = make_picture(180, 256)[None]
    one, two = (m.predict(image, [[point(100, 90)]])[0].logits for m in (made, loaded))
    assert torch.equal(one, two)


def test_a_folder_whose_description_would_run_code_is_refused(tmp_path: Path) -> None:
    made = model()
    made.net.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["yolo"]["activation"] = "print('ran')"
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="activation"):
        load(tmp_path)


def test_a_text_needs_clip(make_picture: Picture) -> None:
    with pytest.raises(InputError, match="takes no text prompt"):
        model().predict(make_picture(90, 128)[None], [[text("a dog")]])


def test_text_takes_the_nearest_cut_out_as_ultralytics(make_picture: Picture, monkeypatch: Any) -> None:
    """The same similarity given to both: cut-outs and choice must agree."""
    from ultralytics.models.fastsam import FastSAMPredictor

    from redsam.models import fastsam_text

    def bright(cuts: Any) -> Tensor:
        return torch.tensor([float(torch.as_tensor(c.copy()).float().mean()) for c in cuts])

    made, image = model(), make_picture(180, 256, seed=8)
    made.confidence = bar(made, image)
    made.takes_text = True
    monkeypatch.setattr(fastsam_text, "similarity", lambda clip, cuts, what: bright(cuts))
    monkeypatch.setattr(
        FastSAMPredictor, "_clip_inference", lambda self, images, texts: bright([np.array(i) for i in images])[None]
    )
    _, result = theirs(made, image, {"texts": ["a thing"]})
    ours = made.predict(image[None], [[text("a thing")]])[0].masks[0]
    assert ours.any() and float((ours ^ drawn(result)[0]).float().mean()) <= PIXELS


def test_clip_of_transformers_reads_text_and_cut_outs() -> None:
    from transformers import CLIPConfig, CLIPModel

    from redsam.models.fastsam_text import similarity

    parts = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        clip: Any = CLIPModel(
            CLIPConfig(
                text_config={**parts, "vocab_size": 64, "max_position_embeddings": 8},
                vision_config={**parts, "image_size": 32, "patch_size": 16},
                projection_dim=16,
            )
        ).eval()

    class Words:
        def __call__(self, given: Any, **_: Any) -> Any:
            many = given if isinstance(given, list) else [given]
            ids = torch.tensor([[1, 2 + len(t) % 50, 49] for t in many])
            rows = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            return rows if isinstance(given, list) else {"input_ids": ids[0].tolist()}

    object.__setattr__(clip, "tokenizer", Words())
    cuts = [torch.randint(0, 255, (40, 60, 3), dtype=torch.uint8).numpy() for _ in range(3)]
    found = similarity(clip, cuts, "a dog")
    assert found.shape == (3,) and torch.isfinite(found).all() and found.abs().max() <= 1
