"""Attention maskers (dino, vit, dinov2): EAR's saliency, the CLS-to-patches attention of a block.

EAR and FADeR mask what an ImageNet-pretrained DINO ViT attends to. Neither paper says which
attention: by default DINO's practice is taken (last block, CLS row), averaged over heads since one
deterministic map is needed. The last blocks of a ViT that was fine-tuned for whole objects attend
to the object, and an earlier block to what is unusual on it: hence ``block``.

Only the CLS row is computed, softmax(scale * q_cls k^T) in fp32: the blocks before keep their fused
attention, of the block itself only its queries and keys are needed, and no later one runs. Memory
grows with the number of tokens, not with its square.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fader.config import Attention
from fader.errors import FaderError
from fader.maskers import Context
from fader.vision import backbones


def cls_attention(
    vit: Any,
    images: Tensor,
    autocast: Callable[[], AbstractContextManager] = nullcontext,
    block: int | None = None,
) -> Tensor:
    """Attention of the CLS token to the patches in one block, mean over heads.

    Parameters
    ----------
    vit : a timm ``VisionTransformer`` with at least two blocks.
    images : (N, 3, H, W), normalised, sides multiples of the patch size p.
    autocast : precision context of the blocks; the softmax is in fp32 whatever it is.
    block : which one, from 1, counted from 0; None takes the last.

    Returns
    -------
    (N, H/p, W/p) fp32 in [0, 1]. A map sums to at most 1; the rest goes to the prefix tokens.
    """
    number = len(vit.blocks) - 1 if block is None else block
    chosen = vit.blocks[number]
    attention = chosen.attn
    with autocast():
        (patches, prefix), *_ = vit.forward_intermediates(
            images,
            indices=[number - 1],
            return_prefix_tokens=True,
            stop_early=True,
            output_fmt="NLC",
            intermediates_only=True,
        )
        tokens = chosen.norm1(torch.cat([prefix, patches], dim=1))
        weight_q, weight_k, _ = attention.qkv.weight.chunk(3)
        bias_q, bias_k, _ = (
            (None, None, None) if attention.qkv.bias is None else attention.qkv.bias.chunk(3)
        )
        query = F.linear(tokens[:, :1], weight_q, bias_q)
        key = F.linear(tokens, weight_k, bias_k)

    def heads(x: Tensor) -> Tensor:
        return x.float().unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)

    query, key = attention.q_norm(heads(query)), attention.k_norm(heads(key))
    row = (attention.scale * query @ key.transpose(-2, -1)).softmax(dim=-1)  # (N, heads, 1, tokens)
    grid_h, grid_w = vit.patch_embed.dynamic_feat_size(images.shape[-2:])
    return row[:, :, 0, prefix.shape[1] :].mean(dim=1).unflatten(1, (grid_h, grid_w))


class AttentionMasker:
    """Zero-shot masker from a pretrained ViT.

    Parameters
    ----------
    name : the masker, for messages.
    settings : ``input_size`` is the side of the square the images are resized to (bilinear,
        antialiased), a multiple of the patch size; ``block`` as in ``cls_attention``.
    context : as in ``fader.maskers.create``.

    Raises
    ------
    FaderError : input_size is no multiple of the patch size, no such block, or no weights to be
        had.
    """

    def __init__(self, name: str, settings: Attention, context: Context) -> None:
        entry = backbones.backbone(settings.backbone)
        self.input_size, self.batch = settings.input_size, settings.batch
        if entry.patch_size is None:
            raise FaderError(
                f"masker {name!r}: backbone {settings.backbone!r} is no vision transformer and has"
                " no attention"
            )
        if self.input_size < entry.patch_size or self.input_size % entry.patch_size:
            raise FaderError(
                f"masker {name!r}: input_size {self.input_size} is no multiple of the patch size "
                f"{entry.patch_size}; for example {entry.input_size}"
            )
        self.machine = context.machine
        model, info = backbones.load(settings.backbone, context.weights_dir, random=context.random)
        blocks = len(model.blocks)  # type: ignore[arg-type]  # a sequence
        if settings.block is not None and settings.block >= blocks:
            raise FaderError(
                f"masker {name!r}: block {settings.block} of {settings.backbone!r}, which has"
                f" {blocks}; give 1 to {blocks - 1}, or null for the last"
            )
        self.block = settings.block
        device = self.machine.device
        self.model = model.to(device)
        self.trained, self.frozen = (), (self.model,)
        self.weights = str(info)
        self.mean = torch.tensor(entry.mean, device=device).view(3, 1, 1)
        self.std = torch.tensor(entry.std, device=device).view(3, 1, 1)

    @torch.no_grad()
    def saliency(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [0, 1] → (N, g, g) fp32, g = input_size / patch size, same
        device."""
        size = (self.input_size, self.input_size)
        maps = []
        for part in images.split(self.batch):
            part = part.to(self.mean.device, torch.float32)
            part = F.interpolate(part, size, mode="bilinear", antialias=True)
            part = (part - self.mean) / self.std
            found = cls_attention(self.model, part, self.machine.autocast, self.block)
            maps.append(found.to(images.device))
        return torch.cat(maps)


def create(name: str, settings: Attention, context: Context) -> AttentionMasker:
    """As ``fader.maskers.create``."""
    return AttentionMasker(name, settings, context)
