"""Pretrained backbones: the weights of the registry, loaded from wherever they may come from.

A name stands for one set of weights. Its file is looked for (1) in a local directory, (2) in an
installed Python package that ships it, (3) on the model hub; the first that has it is used. What
was used is returned as ``WeightsInfo`` so that every result can record it. Files are safetensors
or ONNX; of a PyTorch file, accepted only where a package ships one of known digest, nothing but
tensors is read. Nothing falls back to random weights: weights that cannot be had are a
``MissingWeights``.

Vision transformers give attention (``load``), convolutional networks a pyramid of features
(``load_pyramid``). The latter need not be in the registry: any model of timm with weights on the
hub will do, by its full name (``resnet50.a1_in1k``). Beware of bare names: timm's default
``wide_resnet50_2`` is not the torchvision V1 that flows and PatchCore were published with; that is
``wide_resnet50_2.tv_in1k``.
"""

from fader.vision.backbones.pyramid import Pyramid, load_pyramid
from fader.vision.backbones.vit import load
from fader.vision.backbones.weights import RANDOM, WeightsInfo, backbone
from fader.vision.registry import BACKBONES, Backbone

__all__ = [
    "BACKBONES",
    "RANDOM",
    "Backbone",
    "Pyramid",
    "WeightsInfo",
    "backbone",
    "load",
    "load_pyramid",
]
