"""SAM's mask decoder for many prompts on one image: transformers' weights and sums, arranged for less work.

Four things are done differently, none approximately. What all prompts of an image still share in the first block is
projected once, not once for each. Where each prompt has image tokens of its own, they are not projected to keys, values
and queries: the few tokens on the other side are projected back (r (W x) = (r W) x). Eight heads of seven tokens are 56
rows, a projection has 128. The position's part is added afterwards (W (x + p) = W x + W p). The two transposed
convolutions have stride and kernel 2, so they are matrix products on tokens; channels stay last, GELU and layer norm
run over memory in order, and only the masks, of one channel each, are brought into rows and columns.

Shapes: G prompts, T tokens of each (IoU, masks, points), N = h w image tokens of C channels.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.sam.modeling_sam import SamMaskDecoder

from redsam.models.attention import MANY, Attention, official


class QuickDecoder(SamMaskDecoder):
    """Takes the place of a `SamMaskDecoder`'s class; the official forward where an exact answer is wanted, where the
    map is small, or where something was put in for one of its layers."""

    kind: Attention = "auto"

    def forward(
        self,
        image_embeddings: Tensor,
        image_positional_embeddings: Tensor,
        sparse_prompt_embeddings: Tensor | None,
        dense_prompt_embeddings: Tensor,
        multimask_output: bool,
        attention_similarity: Tensor | None = None,
        target_embedding: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """As transformers': (Gx1xMx4hx4w logits, Gx1xM predicted IoU)."""
        sparse, dense, place = sparse_prompt_embeddings, dense_prompt_embeddings, image_positional_embeddings
        count, _, height, width = image_embeddings.shape
        if (
            self._slow(height * width) or attention_similarity is not None or target_embedding is not None
            or (sparse is not None and sparse.shape[1] != 1) or (count > 1 and place.stride(0) != 0)
        ):  # fmt: skip
            return super().forward(
                image_embeddings, place, cast(Tensor, sparse), dense, multimask_output, attention_similarity,
                target_embedding,
            )  # fmt: skip
        tokens = torch.cat([self.iou_token.weight, self.mask_tokens.weight]).expand(count, -1, -1)
        if sparse is not None:
            tokens = torch.cat([tokens, sparse[:, 0]], 1)
        if image_embeddings.stride(0) == 0 and dense.stride(0) == 0:  # one image, no mask prompts
            image_embeddings, dense = image_embeddings[:1], dense[:1]
        image = (image_embeddings + dense).flatten(2).mT.contiguous()
        tokens, image = two_way(self.transformer, tokens, image, place[:1].flatten(2).mT.contiguous())
        wanted = range(1, self.num_mask_tokens) if multimask_output else range(1)
        hyper = torch.stack([self.output_hypernetworks_mlps[i](tokens[:, 1 + i]) for i in wanted], 1)
        masks = self._masks(image.expand(count, -1, -1), hyper, height, width)
        iou = self.iou_prediction_head(tokens[:, 0])[:, wanted.start : wanted.stop]
        return masks[:, None], iou[:, None]

    def _slow(self, tokens: int) -> bool:
        if official() or self.kind == "official" or (self.kind == "auto" and tokens < MANY):
            return True
        return any(
            type(m) is not nn.Linear for m in weighed(self.transformer)
        )  # LoRA and its like stand in their places

    def _masks(self, image: Tensor, hyper: Tensor, height: int, width: int) -> Tensor:
        """GxNxC tokens and GxMxK weights to GxMx4hx4w logits."""
        norm = self.upscale_layer_norm
        fine = spread(image, self.upscale_conv1)
        fine = self.activation(F.layer_norm(fine, fine.shape[-1:], norm.weight, norm.bias, norm.eps))
        fine = self.activation(spread(fine, self.upscale_conv2))
        masks: Tensor = fine.flatten(1, -2) @ hyper.mT
        # (y, x, then two times the row and column inside the parent's 2 x 2) to rows and columns.
        grid = masks.view(len(image), height, width, 2, 2, 2, 2, -1).permute(0, 7, 1, 3, 5, 2, 4, 6)
        return grid.reshape(len(image), -1, 4 * height, 4 * width)


def spread(tokens: Tensor, convolution: nn.ConvTranspose2d) -> Tensor:
    """Gx...xC tokens to Gx...x4xD: what a transposed convolution of kernel and stride 2 makes of each, row by row."""
    weight = convolution.weight.permute(2, 3, 1, 0).flatten(0, 2)  # (2 2 D) x C
    bias = None if convolution.bias is None else convolution.bias.repeat(4)
    made: Tensor = F.linear(tokens, weight, bias)
    return made.view(*made.shape[:-1], 4, -1)


def weighed(net: Any) -> list[nn.Module]:
    """The projections whose weights are used apart from them."""
    found = [net.final_attn_token_to_image.k_proj, net.final_attn_token_to_image.v_proj]
    for layer in net.layers:
        there, back = layer.cross_attn_token_to_image, layer.cross_attn_image_to_token
        found += [there.k_proj, there.v_proj, back.q_proj, back.out_proj]
    return found


def two_way(net: Any, tokens: Tensor, image: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
    """`SamTwoWayTransformer` on GxTxC tokens and GxNxC or 1xNxC image tokens, place 1xNxC; as many rows come out."""
    queries = tokens
    for layer in net.layers:
        if layer.skip_first_layer_pe:
            queries = attention(layer.self_attn, queries, queries, queries)
        else:
            asked = queries + tokens
            queries = queries + attention(layer.self_attn, asked, asked, queries)
        queries = layer.layer_norm1(queries)
        queries = layer.layer_norm2(queries + read(layer.cross_attn_token_to_image, queries + tokens, image, place))
        queries = layer.layer_norm3(queries + layer.mlp(queries))
        image = layer.layer_norm4(tell(layer.cross_attn_image_to_token, queries + tokens, queries, image, place))
    return net.layer_norm_final_attn(
        queries + read(net.final_attn_token_to_image, queries + tokens, image, place)
    ), image


def read(layer: Any, asking: Tensor, image: Tensor, place: Tensor) -> Tensor:
    """Tokens, GxTxC, attend to the image's, GxNxC or 1xNxC; GxTxC."""
    count, some, heads = len(asking), asking.shape[1], layer.num_attention_heads
    if len(image) == 1 or not folds(layer, asking):
        return attention(layer, asking, image + place, image)
    marks = scores(layer.q_proj(asking) * layer.scaling, layer.k_proj, image, place, heads)
    taken = torch.bmm(marks.softmax(-1).view(count, -1, marks.shape[-1]), image).view(count, heads, some, -1)
    value = layer.v_proj.weight.view(heads, -1, taken.shape[-1])
    found = (taken @ value.mT).transpose(1, 2).flatten(2) + layer.v_proj.bias
    return cast(Tensor, layer.out_proj(found))


def tell(layer: Any, asked: Tensor, told: Tensor, image: Tensor, place: Tensor) -> Tensor:
    """The image's tokens attend to the others, keys and values of GxTxC, and add what they find; GxNxC."""
    heads = layer.num_attention_heads
    if not folds(layer, asked):
        return image + attention(layer, image + place, asked, told)
    weights = scores(layer.k_proj(asked) * layer.scaling, layer.q_proj, image, place, heads).softmax(-2)
    value = split(layer.v_proj(told), heads) @ layer.out_proj.weight.T.reshape(heads, -1, image.shape[-1])
    value = value + layer.out_proj.bias / heads  # the weights of a head sum to one
    return torch.baddbmm(image, weights.flatten(1, 2).mT, value.flatten(1, 2))


def folds(layer: Any, tokens: Tensor) -> bool:
    """Whether all heads of GxTxC tokens are fewer rows than the layer's projections have."""
    return bool(layer.num_attention_heads * tokens.shape[1] < layer.internal_dim)


def scores(rows: Tensor, reader: nn.Linear, image: Tensor, place: Tensor, heads: int) -> Tensor:
    """Inner products of GxTxD rows with what `reader` makes of image tokens and places, GxHxTxN.

    r (W (x + p) + b) = (r W) x + r (W p + b): the second is projected once for all prompts, and where the tokens are
    too, the first is as well.
    """
    count, some = rows.shape[:2]
    shared = split(reader(image + place if len(image) == 1 else place), heads)[0]  # HxNxd
    apart = split(rows, heads)  # GxHxTxd
    flat = apart.transpose(0, 1).reshape(heads, count * some, -1)
    marks = torch.bmm(flat, shared.mT).view(heads, count, some, -1).transpose(0, 1)
    if len(image) == 1:
        return marks
    folded = apart @ reader.weight.view(heads, -1, image.shape[-1])
    # In this order, so that the image's gradient comes out in the image's own layout.
    return marks + torch.bmm(image, folded.flatten(1, 2).mT).mT.view(count, heads, some, -1)


def split(x: Tensor, heads: int) -> Tensor:
    """GxLxD to GxHxLxd."""
    return x.view(*x.shape[:2], heads, -1).transpose(1, 2)


def attention(layer: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """`SamAttention` on BxLxC."""
    return look(layer, layer.q_proj(query), layer.k_proj(key), layer.v_proj(value))


def look(layer: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Projected GxLxD on GxSxD, either with one row for all; GxLxC."""
    count, heads = max(len(query), len(key)), layer.num_attention_heads
    together = len(key) == 1 < count  # one image is asked by all prompts: their tokens stand in one row
    if together:
        query = query.flatten(0, 1)[None]
    q, k, v = (x.reshape(*x.shape[:2], heads, -1).transpose(1, 2) for x in (query, key, value))
    out = F.scaled_dot_product_attention(q.expand(len(k), -1, -1, -1), k, v, scale=layer.scaling)
    flat = out.transpose(1, 2).flatten(2)
    return cast(Tensor, layer.out_proj(flat.view(count, -1, flat.shape[-1]) if together else flat))
