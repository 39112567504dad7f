"""Random networks in the published sizes, and one attack step on them as redsam and as others write it.

Speed and memory do not depend on the weights; transformers' start (std 1e-10, relative positions zero) would make the
gradients vanish, so that nothing could be compared. A step: encode the image, decode every prompt, loss on the chosen
mask in original pixels, gradient with regard to the image, signed step, projection.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from redsam.models import load
from redsam.models.base import Segmenter
from redsam.prompts import point

SIZES: dict[str, dict[str, Any]] = {
    "b": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "global_attn_indexes": [2, 5, 8, 11]},
    "l": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16,
          "global_attn_indexes": [5, 11, 17, 23]},
    "h": {"hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 16,
          "global_attn_indexes": [7, 15, 23, 31]},
}  # fmt: skip
# Hiera as published (SAM 2.1): blocks and width of the four stages.
HIERA: dict[str, dict[str, Any]] = {
    "2t": {"hidden_size": 96, "blocks_per_stage": [1, 2, 7, 2], "embed_dim_per_stage": [96, 192, 384, 768],
           "num_attention_heads_per_stage": [1, 2, 4, 8], "global_attention_blocks": [5, 7, 9],
           "window_positional_embedding_background_size": [7, 7]},
    "2b+": {"hidden_size": 112, "blocks_per_stage": [2, 3, 16, 3], "embed_dim_per_stage": [112, 224, 448, 896],
            "num_attention_heads_per_stage": [2, 4, 8, 16], "global_attention_blocks": [12, 16, 20],
            "window_positional_embedding_background_size": [14, 14]},
}  # fmt: skip
EPS, STEP = 8 / 255, 2 / 255
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def network(size: str, *, side: int = 1024, device: str = "cpu", depth: int | None = None) -> nn.Module:
    """A random SAM ("b", "l", "h") or SAM 2 ("2t", "2b+") for images of this side. depth: fewer blocks than published,
    of a SAM."""
    import transformers as hf

    with torch.random.fork_rng(devices=[]), torch.no_grad(), torch.device(device):
        torch.manual_seed(0)
        if size in HIERA:
            backbone = hf.Sam2HieraDetConfig(image_size=[side, side], **HIERA[size])
            grids = [[side // s, side // s] for s in (4, 8, 16)]
            vision = hf.Sam2VisionConfig(
                backbone_config=backbone, backbone_channel_list=HIERA[size]["embed_dim_per_stage"][::-1],
                backbone_feature_sizes=grids,
            )  # fmt: skip
            config = hf.Sam2Config(vision_config=vision, prompt_encoder_config={"image_size": side})
            model: nn.Module = hf.Sam2Model(config)
        else:
            given = SIZES[size] | ({"num_hidden_layers": depth, "global_attn_indexes": [depth - 1]} if depth else {})
            vision = hf.SamVisionConfig(
                **given, mlp_dim=4 * given["hidden_size"], image_size=side, initializer_range=0.02
            )
            config = hf.SamConfig(vision_config=vision, prompt_encoder_config={"image_size": side})
            model = hf.SamModel(config)
        for name, parameter in model.named_parameters():
            if "rel_pos" in name:
                parameter.normal_(std=0.02)
    return model.eval()


def picture(side: int, count: int = 1, device: str = "cpu") -> Tensor:
    """Random images on the 8-bit lattice."""
    random = torch.Generator().manual_seed(0)
    return (torch.randint(0, 256, (count, 3, side, side), generator=random) / 255).to(device)


def places(count: int, side: int) -> list[tuple[float, float]]:
    """Clicks, all different."""
    random = torch.Generator().manual_seed(1)
    return [(float(x), float(y)) for x, y in torch.rand(count, 2, generator=random) * (side - 1)]


def vanish(logits: Tensor) -> Tensor:
    """Attack-SAM's ClipMSE per mask (as redsam.objectives.vanish), ...xHxW."""
    return (logits.clamp_min(-10) + 10).square().mean((-2, -1))


def moved(x: Tensor, clean: Tensor, gradient: Tensor) -> Tensor:
    """A signed step, projected into the ball and the range."""
    with torch.no_grad():
        return (x - STEP * gradient.sign()).clamp(clean - EPS, clean + EPS).clamp(0, 1)


# --- steps ---------------------------------------------------------------------------------------------------------
Step = Callable[[Tensor, Tensor], Tensor]  # (iterate, clean) Bx3xHxW to the next iterate


def with_redsam(segmenter: Segmenter, clicks: list[tuple[float, float]]) -> Step:
    """All prompts of an image in one step."""

    def step(x: Tensor, clean: Tensor) -> Tensor:
        leaf = x.detach().requires_grad_()
        prompts = [[point(*p) for p in clicks]] * len(x)
        logits = segmenter.decode(segmenter.encode(leaf), prompts).logits()
        loss = torch.stack([vanish(one).mean() for one in logits]).sum()
        return moved(x, clean, torch.autograd.grad(loss, leaf)[0])

    return step


def with_transformers(model: Any, clicks: list[tuple[float, float]], *, backward: bool) -> Step:
    """What a user writes: the model's forward, one prompt at a time, the gradients of the prompts added. backward: by
    `loss.backward()`, which also fills the gradients of weights; else by `autograd.grad` for the image alone."""

    def step(x: Tensor, clean: Tensor) -> Tensor:
        total = torch.zeros_like(x)
        mean, std = (x.new_tensor(v)[:, None, None] for v in (MEAN, STD))
        for place in clicks:
            leaf = x.detach().requires_grad_()
            where = torch.tensor(place, device=x.device).expand(len(x), 1, 1, 2)
            out = model(pixel_values=(leaf - mean) / std, input_points=where, multimask_output=True)
            loss = vanish(chosen(out.pred_masks[:, 0], out.iou_scores[:, 0], x.shape[-1])).sum()
            if backward:
                loss.backward()
                assert leaf.grad is not None
                total += leaf.grad
                model.zero_grad(set_to_none=True)
            else:
                total += torch.autograd.grad(loss, leaf)[0]
        return moved(x, clean, total)

    return step


def chosen(masks: Tensor, scores: Tensor, side: int) -> Tensor:
    """BxMxhxw and BxM: the mask of the highest score in original pixels, BxHxW."""
    best = masks[torch.arange(len(masks)), scores.detach().argmax(1)]
    return F.interpolate(best[:, None], (side, side), mode="bilinear", align_corners=False)[:, 0]


def with_meta(clicks: list[tuple[float, float]], *, side: int = 1024, depth: int | None = None) -> Step:
    """Meta's segment_anything, SAM-B: `Sam.forward` runs under no_grad, so its modules are called one by one."""
    sam = meta_network(side, depth).requires_grad_(False)

    def step(x: Tensor, clean: Tensor) -> Tensor:
        total = torch.zeros_like(x)
        for place in clicks:
            leaf = x.detach().requires_grad_()
            features = sam.image_encoder(sam.preprocess(leaf[0] * 255)[None])
            where = torch.tensor(place, device=x.device).view(1, 1, 2)
            sparse, dense = sam.prompt_encoder(points=(where, torch.ones(1, 1)), boxes=None, masks=None)
            masks, scores = sam.mask_decoder(
                image_embeddings=features, image_pe=sam.prompt_encoder.get_dense_pe(), sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense, multimask_output=True,
            )  # fmt: skip
            total += torch.autograd.grad(vanish(chosen(masks, scores, side)).sum(), leaf)[0]
        return moved(x, clean, total)

    return step


def meta_network(side: int, depth: int | None) -> Any:
    """SAM-B of Meta's package, random. The package's head imports torchvision for its predictor; its modules do not
    need it, so they are imported past the head."""
    found = importlib.util.find_spec("segment_anything")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("This needs Meta's package. Type: pip install --no-deps segment-anything")
    if "segment_anything" not in sys.modules:
        head = types.ModuleType("segment_anything")
        head.__path__ = list(found.submodule_search_locations)
        sys.modules["segment_anything"] = head
    from functools import partial

    from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        grid = side // 16
        encoder = ImageEncoderViT(
            depth=depth or 12, embed_dim=768, img_size=side, mlp_ratio=4, num_heads=12, patch_size=16, qkv_bias=True,
            norm_layer=partial(nn.LayerNorm, eps=1e-6), use_rel_pos=True, window_size=14, out_chans=256,
            global_attn_indexes=[depth - 1] if depth else [2, 5, 8, 11],
        )  # fmt: skip
        prompt = PromptEncoder(
            embed_dim=256, image_embedding_size=(grid, grid), input_image_size=(side, side), mask_in_chans=16
        )
        transformer = TwoWayTransformer(depth=2, embedding_dim=256, mlp_dim=2048, num_heads=8)
        decoder = MaskDecoder(
            num_multimask_outputs=3, transformer=transformer, transformer_dim=256, iou_head_depth=3,
            iou_head_hidden_dim=256,
        )  # fmt: skip
        sam = Sam(encoder, prompt, decoder)
        for name, parameter in sam.named_parameters():
            if "rel_pos" in name:
                parameter.normal_(std=0.02)
    return sam.eval()


def with_torchattacks(model: Any, clicks: list[tuple[float, float]]) -> Step:
    """torchattacks' PGD on a closure that answers with two logits a pixel; its loss is the cross-entropy."""
    import torchattacks

    class Closure(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, x: Tensor) -> Tensor:
            mean, std = (x.new_tensor(v)[:, None, None] for v in (MEAN, STD))
            logits = []
            for place in clicks:
                where = torch.tensor(place, device=x.device).expand(len(x), 1, 1, 2)
                out = self.inner(pixel_values=(x - mean) / std, input_points=where, multimask_output=True)
                logits.append(chosen(out.pred_masks[:, 0], out.iou_scores[:, 0], x.shape[-1]))
            flat = torch.stack(logits, 1).flatten(1, 2)
            return torch.stack([torch.zeros_like(flat), flat], 1)

    def step(x: Tensor, clean: Tensor) -> Tensor:
        attack = torchattacks.PGD(Closure().eval(), eps=EPS, alpha=STEP, steps=1, random_start=False)
        truth = torch.ones(len(x), len(clicks) * x.shape[-2], x.shape[-1], dtype=torch.long, device=x.device)
        out: Tensor = attack(x.clamp(0, 1), truth)
        return out

    return step


def redsam_model(size: str, *, official: bool = False, **more: Any) -> Segmenter:
    """The same random network behind redsam's interface. official: with the switches off."""
    return load(network(size, **more), attention="official" if official else "auto", name=f"random-{size}")
