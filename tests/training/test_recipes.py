"""The training recipes against something not written here: transformers' own forward, an SVD, planted objects."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import forward
import init
import muon
import numpy as np
import objective
import pack
import packed
import pytest
import recipes
import torch
import transfer
from PIL import Image
from safetensors.torch import save_file

from redsam.models import tiny


@pytest.mark.parametrize("family", ["sam", "sam2"])
@pytest.mark.parametrize("kind", ["point", "box", "mask"])
def test_all_tokens_equal_the_official_forward(family: str, kind: str) -> None:
    segmenter = tiny(family)
    net: Any = segmenter.net  # type: ignore[attr-defined]
    side = int(net.config.prompt_encoder_config.image_size)
    pixels = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    prompt: dict[str, Any] = {}
    if kind == "point":
        prompt = {"points": torch.tensor([[[[9.0, 20.0]]], [[[30.0, 11.0]]]]), "labels": torch.ones(2, 1, 1).int()}
    elif kind == "box":
        prompt = {"boxes": torch.tensor([[[4.0, 5.0, 40.0, 30.0]], [[10.0, 2.0, 60.0, 50.0]]])}
    else:
        height, width = segmenter.mask_size
        prompt = {"masks": torch.randn(2, 1, height, width, generator=torch.Generator().manual_seed(2)) * 5}
    with torch.no_grad():
        logits, iou = forward.decode_all(net, *forward.embed(net, pixels), **prompt)
        official = net(
            pixels,
            input_points=prompt.get("points"),
            input_labels=prompt.get("labels"),
            input_boxes=prompt.get("boxes"),
            input_masks=prompt.get("masks"),
            multimask_output=True,
        )
    assert logits.shape[2] == 4
    assert torch.allclose(logits[:, :, 1:], official.pred_masks, atol=1e-5)
    assert torch.allclose(iou[:, :, 1:], official.iou_scores, atol=1e-5)


@pytest.mark.parametrize("name", ["lab-b", "lab2"])
def test_a_fresh_model_has_one_position_code_for_image_and_prompts(name: str) -> None:
    recipe = recipes.RECIPES[name]
    net: Any = recipes.build(recipe)
    pixels = torch.randn(64, 3, recipe.side, recipe.side, generator=torch.Generator().manual_seed(1))
    init.initialise(net, pixels=pixels, seed=0)
    grid = net.shared_image_embedding.positional_embedding
    prompt = net.prompt_encoder.shared_embedding.positional_embedding
    assert torch.equal(grid, prompt) and not grid.requires_grad
    assert 0.7 < float(grid.std()) < 1.3


def test_half_precision_does_not_move_the_prompts() -> None:
    net: Any = tiny("sam").net  # type: ignore[attr-defined]
    side = int(net.config.prompt_encoder_config.image_size)
    pixels = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(1))
    points, labels = torch.tensor([[[[float(side - 3), 11.0]]]]), torch.ones(1, 1, 1).int()
    with torch.no_grad():
        exact = forward.decode_all(net, *forward.embed(net, pixels), points=points, labels=labels)[0]
        with torch.autocast("cpu", torch.bfloat16):
            half = forward.decode_all(net, *forward.embed(net, pixels), points=points, labels=labels)[0].float()
    assert (half - exact).abs().max() < 0.05 * exact.abs().max()


def test_a_step_teaches_every_part() -> None:
    net: Any = tiny("sam").net  # type: ignore[attr-defined]
    net.requires_grad_(True)
    side = int(net.config.prompt_encoder_config.image_size)
    masks = torch.zeros(2, len(objective.KINDS), side, side, dtype=torch.bool)
    masks[..., 10:40, 20:50] = True
    batch = packed.Batch(pixels=torch.randn(2, 3, side, side), masks=masks, valid=torch.ones(2, 1, side, side))
    loss, log = objective.loss_of(net, batch, gen=torch.Generator().manual_seed(3))
    loss.backward()
    silent = [
        name
        for name, p in net.named_parameters()
        if (p.grad is None or not bool(p.grad.abs().sum() > 0)) and "positional" not in name
    ]
    # Labels 0 (outside) and -1 (none) are not asked for; the last bias of the keys cancels in softmax.
    assert not [n for n in silent if "point_embed.0" not in n and "not_a_point" not in n and "k_proj.bias" not in n]
    assert set(log) == set(objective.KINDS) and all(0 <= v <= 1 for v in log.values())


def test_a_perfect_mask_costs_nothing_and_its_iou_is_one() -> None:
    target = torch.zeros(1, 1, 1, 16, 16)
    target[..., 3:9, 2:12] = 1
    weight = torch.ones(1, 1, 1, 16, 16)
    logits = (target * 2 - 1) * 40
    assert float(objective.mask_loss(logits, target, weight)) == pytest.approx(0, abs=1e-5)
    assert float(objective.true_iou(logits, target, weight)) == 1
    assert float(objective.true_iou(-logits, target, weight)) == 0


@pytest.mark.parametrize("shape", [(3, 24, 24), (2, 16, 40), (1, 40, 16)])
def test_orthogonalised_matrices_keep_their_singular_vectors(shape: tuple[int, int, int]) -> None:
    update = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    found = muon.orthogonalise(update, steps=12)
    u, _, v = torch.linalg.svd(update, full_matrices=False)
    middle = u.mT @ found @ v.mT  # diagonal when found = u diag(s') v
    off = middle - torch.diag_embed(torch.diagonal(middle, dim1=-2, dim2=-1))
    assert float(off.abs().max()) < 1e-3
    values = torch.diagonal(middle, dim1=-2, dim2=-1)
    assert float(values.min()) > 0.6 and float(values.max()) < 1.3


def test_boxes_and_points_of_a_planted_object() -> None:
    masks = torch.zeros(1, 2, 32, 32, dtype=torch.bool)
    masks[0, 0, 5:9, 10:21] = True
    boxes = packed.exact_boxes(masks)
    assert boxes[0, 0].tolist() == [10, 5, 21, 9]
    xy = packed.random_points(masks, count=5, gen=torch.Generator().manual_seed(0))[0, 0].long()
    assert masks[0, 0, xy[:, 1], xy[:, 0]].all() and len(set(map(tuple, xy.tolist()))) == 5


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Eight images, black with one white rectangle that is the only object."""
    path, index = tmp_path / "packed.zip", []
    with zipfile.ZipFile(path, "w") as out:
        for i in range(8):
            labels = np.zeros((60, 80), dtype=np.uint8)
            labels[10 + i : 40, 20:60] = 1
            for name, kind, array in ((f"{i:05d}.webp", "WEBP", labels * 255), (f"{i:05d}_0.png", "PNG", labels)):
                blob = io.BytesIO()
                image = Image.fromarray(array)
                image.convert("RGB").save(blob, kind, lossless=True) if kind == "WEBP" else image.save(blob, kind)
                out.writestr(name, blob.getvalue())
            index.append({"set": "voc", "name": str(i), "size": [60, 80], "maps": ["object"]})
        out.writestr("index.json", json.dumps(index))
    return path


def test_masks_follow_the_pixels_through_every_crop(archive: Path) -> None:
    held_out, trained = packed.load_packed(archive, held_out=True), packed.load_packed(archive)
    assert (len(held_out.images), len(trained.images)) == (1, 7)
    gen = torch.Generator().manual_seed(5)
    batch = packed.draw(trained, count=16, objects=2, side=48, pseudo=0.0, gen=gen, augment=True)
    # jitter moves brightness, not shape: inside the object the image stays brighter than outside
    bright = batch.pixels.mean(1)
    for i in range(16):
        inside, live = batch.masks[i, 0], batch.valid[i, 0] > 0
        if inside.any() and (live & ~inside).any():
            assert bright[i][inside & live].mean() > bright[i][live & ~inside].mean() + 0.5
    again = packed.draw(trained, count=16, objects=2, side=48, pseudo=0.0, gen=torch.Generator().manual_seed(5))
    assert torch.equal(again.pixels, batch.pixels) and torch.equal(again.masks, batch.masks)


def test_a_start_takes_heads_only_from_another_encoder(tmp_path: Path) -> None:
    source: Any = tiny("sam", seed=1).net  # type: ignore[attr-defined]
    other: Any = tiny("sam", seed=2).net  # type: ignore[attr-defined]
    save_file({k: v.clone().contiguous() for k, v in source.state_dict().items()}, tmp_path / "model.safetensors")
    assert transfer.start_from(other, tmp_path) == len(source.state_dict())
    sam2: Any = tiny("sam2", seed=3).net  # type: ignore[attr-defined]
    before = sam2.vision_encoder.state_dict()["backbone.pos_embed"].clone()
    assert transfer.start_from(sam2, tmp_path) > 0
    assert torch.equal(sam2.vision_encoder.state_dict()["backbone.pos_embed"], before)
    key = "transformer.layers.0.self_attn.q_proj.weight"
    assert torch.equal(sam2.mask_decoder.state_dict()[key], source.mask_decoder.state_dict()[key])


def test_classes_become_components() -> None:
    labels = np.zeros((40, 40), dtype=np.uint8)
    labels[2:10, 2:10] = 7
    labels[20:39, 20:39] = 7
    labels[30, 2] = 3  # too small
    labels[0, 0] = 255
    found = pack.components(labels)
    assert sorted(np.unique(found).tolist()) == [0, 1, 2, 255]
    assert found[25, 25] == 1 and found[5, 5] == 2 and found[30, 2] == 0 and found[0, 0] == 255
