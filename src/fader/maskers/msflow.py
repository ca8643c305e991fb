"""MSFlow (Zhou et al., TNNLS 2024): suspected defects are features unlikely under a normalising
flow of normal images.

Frozen levels of a convolutional network, averaged 3 × 3 with stride 2, go through a flow of each
level and a fusion flow (``fader.vision.flows``). Written from the published facts; the numbers
below are those of the authors' code where nothing else is said.

Loss. The exact negative log-likelihood of all levels together, (Σ_i ½‖z_i‖² − log|J|) / positions,
without its constant: the sum over an image divided by Σ_i h_i w_i, so that it does not depend on
the input size. The authors' loss is ½‖z‖² − log|J|. Adam does not notice the factor but the clip
does: with either loss the gradient was longer than 2 in every step measured, so that the clip
normalises it. Divided by the channels too it is mostly shorter, and the maps were no better.

Saliency. l_i = −½ mean_c z_i² is the log-probability per channel of a position of level i. The
authors exponentiate its difference to the largest value *of the same image*, add the levels and
invert, which makes the most normal position of any image 0 and the maps of two images
incomparable. Here the reference r_i is a quantile of l_i over all positions of the fitted normals,
the median, learnt once:

    saliency = Σ_i 1 − exp(min(l_i − r_i, 0)),   between 0 and the number of levels,

l_i being resized to input_size / 4 first. A mean over channels, as theirs, not the sum: a sum
differs from its reference by hundreds of nats and would saturate everywhere.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fader.config import MsFlow
from fader.errors import FaderError
from fader.maskers import Context
from fader.seeds import derive_seed
from fader.training import schedules
from fader.training.loop import History, Optimizer, Run, Update, steps_of, train
from fader.vision.backbones import load_pyramid
from fader.vision.flows import MultiScaleFlow

GRADIENT_NORM = 2.0
WARMUP_START, WARMUP_SHARE = 0.1, 0.12  # of the learning rate; of the run
DECAY, DECAY_AT = 0.33, (0.7, 0.9)
# Share of the fitted normals' positions less likely than the reference; our choice: the typical
# normal position is where suspicion starts. Towards the largest value everything is suspicious to
# some degree (on test images of MVTec's bottle and the synthetic bolt, one seed, `mass` 0.6 then
# masks 46 % of a defective image, with the median 29 to 35 %, at 0.95 to 1 of the defect); towards
# the smallest little is left of a map (the 0.1 quantile: 16 to 26 %, at 0.83 to 0.86).
REFERENCE_QUANTILE = 0.5
# Share of the fitted normals' positions whose saliency is below that of the method's own mask;
# MSFlow gives maps alone, so the rule is our choice.
NATIVE_QUANTILE = 0.99
# Largest cache of the training images' pooled features; beyond it they are computed anew for every
# batch. 4 GiB hold 1100 images at 512 × 512 with Wide ResNet-50-2; our choice.
CACHE_BYTES = 4 * 2**30
LEARNT = ("reference", "threshold")  # of the fitted normals, beside the flow


def schedule(total: int) -> schedules.Multiplier:
    """Linear from 0.1 to 1 over the first 12 % of ``total`` iterations; × 0.33 at 70 % and 90 %."""
    rise = max(1.0, WARMUP_SHARE * total)

    def multiplier(iteration: int) -> float:
        warm = WARMUP_START + (1 - WARMUP_START) * min(1.0, iteration / rise)
        return warm * DECAY ** sum(iteration >= at * total for at in DECAY_AT)

    return multiplier


def negative_log_likelihood(latents: list[Tensor], log_det: Tensor) -> Tensor:
    """Latents (N, C_i, h_i, w_i), log-determinant (N,) → (N,) nats per position, less the constant
    ½ log 2π per channel."""
    positions = sum(z.shape[-2] * z.shape[-1] for z in latents)
    return (sum(0.5 * z.square().flatten(1).sum(1) for z in latents) - log_det) / positions


def log_probabilities(latents: list[Tensor]) -> list[Tensor]:
    """l_i = −½ mean_c z_i²: (N, C_i, h_i, w_i) → (N, h_i, w_i) each level."""
    return [-0.5 * z.square().mean(1) for z in latents]


def suspicion(maps: list[Tensor], reference: Tensor, size: int) -> Tensor:
    """Σ_i 1 − exp(min(l_i − r_i, 0)): maps (N, h_i, w_i), r (levels,) → (N, size, size)."""
    total = maps[0].new_zeros(len(maps[0]), size, size)
    for level, r in zip(maps, reference, strict=True):
        level = F.interpolate(level[:, None], (size, size), mode="bilinear", align_corners=False)
        total = total - torch.expm1((level[:, 0] - r).clamp_max(0))
    return total


class MsFlowMasker:
    """Trained masker on a frozen pyramid.

    Parameters
    ----------
    name : the masker, for messages.
    settings : ``input_size`` is the side of the square the images are resized to (bilinear,
        antialiased).
    context : as in ``fader.maskers.create``.

    Raises
    ------
    FaderError : no weights to be had, or levels that the backbone has not.
    """

    def __init__(self, name: str, settings: MsFlow, context: Context) -> None:
        self.name, self.settings, self.machine = name, settings, context.machine
        self.batch = settings.batch
        pyramid = load_pyramid(
            settings.backbone, settings.layers, context.weights_dir, random=context.random
        )
        self.weights = str(pyramid.info)
        self.pyramid = pyramid.to(self.machine.device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch declares no such pair
        # Set by initialise and load.
        self.flow: MultiScaleFlow
        self.reference: Tensor  # r (levels,)
        self.threshold: Tensor  # () of ``native``

    @property
    def trained(self) -> tuple[nn.Module, ...]:
        """The flow."""
        return (self.flow,)

    @property
    def frozen(self) -> tuple[nn.Module, ...]:
        """The pyramid."""
        return (self.pyramid,)

    def initialise(self, seed: int) -> None:
        """Draw the flow's weights; the reference and the threshold are zero."""
        self.flow = self._new_flow(seed).eval()
        self.reference = torch.zeros(len(self.settings.layers), device=self.machine.device)
        self.threshold = torch.zeros((), device=self.machine.device)

    def _new_flow(self, seed: int) -> MultiScaleFlow:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            flow = MultiScaleFlow(self.pyramid.channels, self.settings.blocks)
        return flow.to(self.machine.device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch declares no such pair

    @torch.no_grad()
    def _features(self, images: Tensor) -> list[Tensor]:
        """Images (N, 3, H, W) in [0, 1] on the device → pooled levels, fp16.

        The network runs in fp32, for a density model takes rounding for signal; the result is
        rounded alike in training and in use.
        """
        size = (self.settings.input_size, self.settings.input_size)
        levels = self.pyramid(F.interpolate(images, size, mode="bilinear", antialias=True))
        return [F.avg_pool2d(level, 3, 2, 1).half() for level in levels]

    def _latents(self, features: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        xs = [x.float().contiguous(memory_format=torch.channels_last) for x in features]
        with self.machine.autocast():
            return self.flow(xs)

    def _training_features(self, normal: Tensor) -> Callable[[Tensor], list[Tensor]]:
        """Indices → features of these images, from a cache where it fits ``CACHE_BYTES``."""

        def compute(indices: Tensor) -> list[Tensor]:
            return self._features(self.machine.images(normal[indices]))

        size = sum(x.numel() * x.element_size() for x in compute(torch.tensor([0])))
        if size * len(normal) > CACHE_BYTES:
            return compute
        parts = [compute(part) for part in torch.arange(len(normal)).split(self.settings.batch)]
        cache = [torch.cat(level) for level in zip(*parts, strict=True)]
        return lambda indices: [level[indices.to(level.device)] for level in cache]

    def fit(self, normal: Tensor, run: Run) -> dict[str, History]:
        """Normal images (N, 3, H, W) uint8; the history's ``loss`` is in nats per position."""
        settings = self.settings
        self.initialise(derive_seed(run.seed, "flow", "weights"))
        self.flow.train()
        features = self._training_features(normal)

        def step(indices: Tensor, random: torch.Generator, update: Update) -> None:
            update("adam", negative_log_likelihood(*self._latents(features(indices))).mean())

        total = steps_of(settings, len(normal))
        adam = torch.optim.Adam(self.flow.parameters(), settings.lr, fused=True)
        history = train(
            run.stage("flow", f"lower masks.maskers.{self.name}.lr"),
            modules={"flow": self.flow},
            optimizers={"adam": Optimizer(adam, schedule(total), clip=GRADIENT_NORM)},
            step=step,
            count=len(normal),
            batch=settings.batch,
            steps=total,
        )
        batches = torch.arange(len(normal)).split(settings.batch)
        maps = [self._maps(features(part)) for part in batches]
        levels = [torch.cat(level) for level in zip(*maps, strict=True)]
        self.reference = torch.stack([_quantile(level, REFERENCE_QUANTILE) for level in levels])
        normal_saliency = torch.cat([self._suspicion(part) for part in maps])
        self.threshold = _quantile(normal_saliency, NATIVE_QUANTILE)
        return {"flow": history}

    @torch.no_grad()
    def _maps(self, features: list[Tensor]) -> list[Tensor]:
        return log_probabilities(self._latents(features)[0])

    def state(self) -> dict[str, Tensor]:
        """The flow, its permutations included, the reference and the threshold."""
        found = {f"flow.{key}": value for key, value in self.flow.state_dict().items()}
        found |= {name: getattr(self, name) for name in LEARNT}
        return {key: value.cpu().contiguous() for key, value in found.items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over what ``state`` gave; FaderError when it is not of these settings."""
        flow = self._new_flow(seed=0)
        shapes = {f"flow.{key}": value.shape for key, value in flow.state_dict().items()}
        shapes |= {"reference": torch.Size([len(self.settings.layers)]), "threshold": torch.Size()}
        if {key: value.shape for key, value in state.items()} != shapes:
            raise FaderError(
                f"masker {self.name!r}: the saved flow is of another backbone, layers or blocks;"
                " train it again"
            )
        flow.load_state_dict(
            {k.removeprefix("flow."): v for k, v in state.items() if k not in LEARNT}
        )
        self.flow = flow
        self.reference, self.threshold = (state[name].to(self.machine.device) for name in LEARNT)

    def saliency(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [0, 1] → (N, g, g) fp32 in [0, levels], g = input_size / 4, same
        device."""
        found = []
        for part in images.split(self.batch):
            features = self._features(part.to(self.machine.device, torch.float32))
            found.append(self._suspicion(self._maps(features)).to(images.device))
        return torch.cat(found)

    def _suspicion(self, maps: list[Tensor]) -> Tensor:
        return suspicion(maps, self.reference, self.settings.input_size // 4)

    def native(self, images: Tensor, saliency: Tensor) -> Tensor:
        """Where the saliency exceeds all but one hundredth of the fitted normals' positions."""
        return saliency > self.threshold.to(saliency.device)


def _quantile(values: Tensor, share: float) -> Tensor:
    """The value that a ``share`` of all does not exceed; on the CPU, where it is deterministic."""
    flat = values.flatten().cpu()
    rank = max(1, round(share * len(flat)))
    return flat.kthvalue(rank).values.to(values.device)


def create(name: str, settings: MsFlow, context: Context) -> MsFlowMasker:
    """As ``fader.maskers.create``."""
    return MsFlowMasker(name, settings, context)
