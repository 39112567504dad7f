"""Published files against the packages that write them: a random model built by an independent package is saved as its
authors save theirs, loaded here, and answers the same. Needs the packages of `make test-extras`; skips without them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from redsam.models import Segmenter, load
from redsam.prompts import Prompt, box, point, points

pytestmark = pytest.mark.extras

# Stated and asserted: max abs difference of low-resolution mask logits, as a share of the largest logit, and of the
# predicted IoU; float32, the same sums in another order.
TOLERANCE = 1e-4
PROMPTS = (
    point(400.0, 300.0),
    points([(400.0, 300.0), (700.0, 650.0)], [1, 0]),
    box(210.0, 150.0, 800.0, 700.0),
    Prompt(points=((500.0, 500.0),), labels=(1,), box=(300.0, 300.0, 900.0, 820.0)),
)


def randomised(model: nn.Module, seed: int) -> nn.Module:
    """Norms, biases and running statistics away from 0 and 1, so that a weight put in the wrong place shows."""
    generator = torch.Generator().manual_seed(seed)
    model.train()  # TinyViT keeps gathered biases in eval mode
    with torch.no_grad():
        for name, value in (*model.named_parameters(), *model.named_buffers()):
            if not value.is_floating_point():
                continue
            noise = torch.randn(value.shape, generator=generator)
            if name.endswith("running_var"):
                value.copy_(1 + 0.2 * noise.abs())
            elif name.endswith("positional_encoding_gaussian_matrix") or name.startswith("pixel_"):
                continue
            else:
                value.add_(0.02 * noise)
    return model.eval()


def picture(side: int) -> Any:
    """uint8 side x side x 3, smooth."""
    coarse = torch.rand(1, 3, 9, 9, generator=torch.Generator().manual_seed(1))
    image = torch.nn.functional.interpolate(coarse, (side, side), mode="bilinear", align_corners=True)[0]
    return (image * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()


def asked(prompt: Prompt, factor: float) -> tuple[Any, Any, Any]:
    """Points, labels and box as the packages' predictors take them."""
    xy = np.array(prompt.points, dtype=np.float32).reshape(-1, 2) * factor if prompt.points else None
    corners = np.array(prompt.box, dtype=np.float32) * factor if prompt.box else None
    return xy, (np.array(prompt.labels) if prompt.points else None), corners


def scaled(prompt: Prompt, factor: float) -> Prompt:
    """The prompt on a picture of another side."""
    corners = prompt.box and tuple(c * factor for c in prompt.box)
    return Prompt(
        points=tuple((x * factor, y * factor) for x, y in prompt.points),
        labels=prompt.labels,
        box=corners,  # type: ignore[arg-type]
    )


def compare(ours: Segmenter, answer: Any, *, side: int) -> float:
    """Largest relative difference of masks, over prompts and both kinds of answer. answer(points, labels, box,
    multimask) gives MxHxW logits and M predicted IoU."""
    array = picture(side)
    image = torch.from_numpy(array).permute(2, 0, 1)[None].float() / 255
    encoding = ours.encode(image, exact=True)
    factor, worst = side / 1024, 0.0
    for prompt in PROMPTS:
        for multimask in (True, False):
            with torch.no_grad():
                found = ours.decode(encoding, [[scaled(prompt, factor)]], multimask=multimask)
                masks, iou = answer(*asked(prompt, factor), multimask)
            masks, iou = torch.as_tensor(masks), torch.as_tensor(iou)
            low_res, scores = found.low_res[0], found.iou[0]
            if len(masks) == 1 < len(low_res):  # SAM-HQ's package gives the best of its masks only
                low_res, scores = low_res[scores.argmax()][None], scores.max()[None]
            assert low_res.shape == masks.shape
            assert masks.abs().max() > 1e-2  # a comparison of zeros would prove nothing
            worst = max(worst, float((low_res - masks).abs().max() / masks.abs().max()))
            worst = max(worst, float((scores - iou).abs().max()))
    return worst


def saved(content: Any, path: Path) -> Path:
    torch.save(content, path)
    return path


def meta_sam(package: Any, *, decoder: Any, side: int, **encoder: Any) -> Any:
    """A small SAM from the classes of segment-anything or segment-anything-hq, 16-pixel patches, 256 wide."""
    m = package.modeling
    cells = side // 16
    sam = m.Sam(
        image_encoder=m.ImageEncoderViT(
            depth=4,
            embed_dim=64,
            img_size=side,
            num_heads=4,
            patch_size=16,
            use_rel_pos=True,
            window_size=5,
            global_attn_indexes=[1, 3],
            out_chans=256,
            norm_layer=lambda n: nn.LayerNorm(n, eps=1e-6),
            **encoder,
        ),
        prompt_encoder=m.PromptEncoder(
            embed_dim=256, image_embedding_size=(cells, cells), input_image_size=(side, side), mask_in_chans=16
        ),
        mask_decoder=decoder(
            transformer_dim=256,
            transformer=m.TwoWayTransformer(depth=2, embedding_dim=256, mlp_dim=2048, num_heads=8),
        ),
    )
    with torch.random.fork_rng(devices=[]):
        return randomised(sam, seed=2)


def predictor_of(package: Any, sam: Any) -> Any:
    """A package's predictor on the picture, as `compare` asks it: (low-resolution logits, predicted IoU)."""
    predictor = package.SamPredictor(sam)
    predictor.set_image(picture(256))

    def answer(xy: Any, labels: Any, corners: Any, multimask: bool) -> tuple[Any, Any]:
        return predictor.predict(xy, labels, corners, multimask_output=multimask, return_logits=True)[2:0:-1]

    return answer


def test_sam_of_metas_package(tmp_path: Path, record_property: Any) -> None:
    package = pytest.importorskip("segment_anything")
    sam = meta_sam(package, decoder=package.modeling.MaskDecoder, side=256)
    ours = load(saved(sam.state_dict(), tmp_path / "sam_vit_x.pth"))
    worst = compare(ours, predictor_of(package, sam), side=256)
    record_property("worst", worst)
    assert ours.family == "sam" and worst < TOLERANCE


def test_sam_hq_of_its_authors_package(tmp_path: Path, record_property: Any) -> None:
    package = pytest.importorskip("segment_anything_hq")
    from segment_anything_hq.modeling.mask_decoder_hq import MaskDecoderHQ

    sam = meta_sam(package, decoder=lambda **k: MaskDecoderHQ(vit_dim=64, **k), side=256)
    ours = load(saved(sam.state_dict(), tmp_path / "sam_hq_vit_x.pth"))
    worst = compare(ours, predictor_of(package, sam), side=256)
    record_property("worst", worst)
    assert ours.family == "sam-hq" and worst < TOLERANCE


@pytest.mark.parametrize("size", ["t", "s", "b+"])
def test_sam2_of_metas_package(size: str, tmp_path: Path, record_property: Any) -> None:
    """SAM 2.1's configuration; a file of SAM 2 lacks only weights that serve video."""
    pytest.importorskip("sam2", reason="Meta's package")
    from sam2.build_sam import build_sam2
    from sam2.sam2_image_predictor import SAM2ImagePredictor

    with torch.random.fork_rng(devices=[]):
        net = build_sam2(f"configs/sam2.1/sam2.1_hiera_{size}.yaml", ckpt_path=None, device="cpu")
        randomised(net, seed=4)
    predictor = SAM2ImagePredictor(net)
    with torch.no_grad():
        predictor.set_image(picture(1024))

    def answer(xy: Any, labels: Any, corners: Any, multimask: bool) -> tuple[Any, Any]:
        return predictor.predict(xy, labels, corners, multimask_output=multimask, return_logits=True)[2:0:-1]

    ours = load(saved({"model": net.state_dict()}, tmp_path / f"sam2.1_hiera_{size}.pt"))
    worst = compare(ours, answer, side=1024)
    record_property("worst", worst)
    assert ours.family == "sam2" and worst < TOLERANCE


def ultralytics_answer(net: Any) -> Any:
    """Answers of a SAM built by ultralytics, through its three parts as its own predictor calls them."""
    mean, std = (torch.tensor(v)[:, None, None] / 255 for v in ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)))
    pixels = torch.from_numpy(picture(1024)).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        features = net.image_encoder((pixels - mean) / std)

    def answer(xy: Any, labels: Any, corners: Any, multimask: bool) -> tuple[Tensor, Tensor]:
        given = None if xy is None else (torch.tensor(xy)[None], torch.tensor(labels)[None])
        boxes = None if corners is None else torch.tensor(corners)[None]
        sparse, dense = net.prompt_encoder(points=given, boxes=boxes, masks=None)
        masks, iou = net.mask_decoder(
            image_embeddings=features,
            image_pe=net.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask,
        )
        return masks[0], iou[0]

    return answer


def test_mobilesam_of_ultralytics(tmp_path: Path, record_property: Any) -> None:
    pytest.importorskip("ultralytics")
    pytest.importorskip("timm")
    from ultralytics.models.sam.build import build_mobile_sam

    with torch.random.fork_rng(devices=[]):
        net = randomised(build_mobile_sam(), seed=5)
    ours = load(saved(net.state_dict(), tmp_path / "mobile_sam.pt"))
    worst = compare(ours, ultralytics_answer(net), side=1024)
    record_property("worst", worst)
    assert ours.family == "mobilesam" and worst < TOLERANCE


def test_sam2_of_ultralytics_has_the_same_names(tmp_path: Path) -> None:
    """The second independent source: every weight of its SAM 2 small finds its place."""
    pytest.importorskip("ultralytics")
    from ultralytics.models.sam.build import build_sam2_s

    from redsam.models.official_sam2 import to_official_key

    with torch.random.fork_rng(devices=[]):
        state = randomised(build_sam2_s(), seed=6).state_dict()
    ours = load(saved({"model": state}, tmp_path / "sam2_s.pt"))
    for key, value in ours.model.state_dict().items():
        if "point_embed." not in key or "not_a" in key:
            official = to_official_key(key) if "shared_image" not in key else None
            assert official is None or torch.equal(state[official], value), key


def test_a_hiera_nobody_published_is_refused_by_name(tmp_path: Path) -> None:
    from redsam.errors import CheckpointError

    state = {
        "image_encoder.trunk.patch_embed.proj.weight": torch.zeros(16, 3, 7, 7),
        "image_encoder.trunk.blocks.0.norm1.weight": torch.zeros(16),
    }
    with pytest.raises(CheckpointError, match="no published SAM 2"):
        load(saved({"model": state}, tmp_path / "own.pt"))
