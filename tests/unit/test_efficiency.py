"""Cost: counts against closed formulas and an independent count; the measured maskers are the real
ones but for their weights; systems are sums."""

import json
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import open_clip
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fader import config, maskers
from fader.config import Config
from fader.detectors.fader.predictor import Mlp
from fader.errors import FaderError
from fader.evaluation import cost, timing
from fader.evaluation.cost import components, count_macs, counts
from fader.maskers import Context, winclip
from fader.runtime import Machine
from fader.vision import backbones
from fader.vision.registry import CLIP
from fader.vision.unet import UNet
from fader.vision.vqvae import VQVAE

PRESETS = Path(__file__).parents[2] / "presets"
CPU = Machine(torch.device("cpu"), "fp32")
PYRAMID = "test_resnet.r160_in1k"  # timm's smallest network with a pyramid


def meta(*shape: int) -> Tensor:
    return torch.empty(*shape, device="meta")


def on_meta(make, *arguments, **options) -> nn.Module:
    with torch.device("meta"):
        return make(*arguments, **options).eval()


# --- counting -------------------------------------------------------------------------------------


def block_macs(tokens: int, width: int, hidden: int) -> int:
    """Query, key, value and projection; two layers of the MLP; q kᵀ and its product with v."""
    return tokens * (4 * width**2 + 2 * width * hidden) + 2 * tokens**2 * width


def by_hooks(network: nn.Module, run) -> int:
    """Independent count of convolutions and linear layers: outputs times what each sums over."""
    total = 0

    def hook(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        nonlocal total
        if isinstance(layer, nn.ConvTranspose2d):
            total += inputs[0].numel() * layer.weight[0].numel()
        else:
            total += output.numel() * layer.weight[0].numel()

    handles = [
        layer.register_forward_hook(hook)
        for layer in network.modules()
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)
    ]
    with torch.no_grad():
        run()
    for handle in handles:
        handle.remove()
    return total


def test_the_u_net_against_the_independent_count():
    network = UNet((4, 8, 16)).eval()
    images = torch.rand(2, 3, 16, 16)
    expected = by_hooks(network, lambda: network(images))
    assert count_macs(network.to("meta"), images.to("meta")) == expected


# --- figures known from elsewhere -----------------------------------------------------------------


def test_the_papers_u_net_has_25_9_million_parameters_and_63_gmacs():
    network = on_meta(UNet)
    assert cost.parameters([network]) / 1e6 == pytest.approx(25.86, abs=0.005)
    assert count_macs(network, meta(1, 3, 256, 256)) / 1e9 == pytest.approx(63.0, abs=0.05)


def test_dino_has_21_8_gmacs_in_its_layers_and_9_7_in_the_products_of_its_attention():
    vit = on_meta(
        timm.create_model, "vit_small_patch8_224.dino", num_classes=0, dynamic_img_size=True
    )
    images = meta(1, 3, 256, 256)
    tokens, width = 32 * 32 + 1, 384
    patches, products = 32 * 32 * 3 * 8 * 8 * width, 12 * 2 * tokens**2 * width
    total = count_macs(vit, images)
    assert total == patches + 12 * block_macs(tokens, width, 4 * width)
    assert by_hooks(vit, lambda: vit(images)) == total - products
    assert (total - products) / 1e9 == pytest.approx(21.8, abs=0.05)
    assert products / 1e9 == pytest.approx(9.7, abs=0.05)


@pytest.mark.parametrize(
    ("patch", "expected"),
    [(2, 1_793), (4, 6_401), (8, 24_833), (16, 98_561), (32, 393_473), (64, 1_573_121)],
)
def test_phi_by_mosaic_scale(patch, expected):
    phi = on_meta(Mlp, patch, 128)
    assert cost.parameters([phi]) == expected
    assert 25e6 < count_macs(phi, meta(1, 3, 256, 256)) < 27.5e6


@cache
def paper() -> dict[str, dict]:
    return {row["name"]: row for row in counts(config.load(PRESETS / "paper.yaml"))}


@pytest.mark.parametrize(
    ("name", "total", "trained"),
    [
        ("mask-dino", 21.67, 0),
        ("mask-vit", 85.8, 0),
        ("mask-winclip", 208.4, 0),
        # 2 × 7.8 + 9.4 + 5.6 + 5.6, 1.9 of the VQ-VAE, 2 codebooks of 4096 × 128
        ("mask-dsr", 39.2, 36.3),
        # 24.9 of Wide ResNet-50-2 up to level 3
        ("mask-msflow", 124.4, 99.6),
        ("mask-aminet", 154.8, 129.9),
        ("network", 25.86, 25.86),
        ("phi-mlp", 0.0986, 0.0986),
        ("fader-dino", 47.63, 25.96),
    ],
)
def test_parameters_of_the_papers_systems_in_millions(name, total, trained):
    assert paper()[name]["parameters"] / 1e6 == pytest.approx(total, rel=2e-3)
    assert paper()[name]["trained"] / 1e6 == pytest.approx(trained, rel=2e-3)


def test_the_dino_masker_stops_at_the_last_blocks_queries_and_keys():
    tokens, width = 32 * 32 + 1, 384
    patches = 32 * 32 * 3 * 8 * 8 * width
    row = width**2 + tokens * width**2 + tokens * width  # q of CLS, k of all, their products
    assert paper()["mask-dino"]["macs"] == patches + 11 * block_macs(tokens, width, 1536) + row


def test_winclip_encodes_the_image_and_365_windows():
    width, embedding, layers, patches = 896, 640, 12, 15 * 15
    sequences = {1 + patches: 1, 1 + 4: 14**2, 1 + 9: 13**2}
    assert sum(sequences.values()) == 366
    encoded = layers * sum(n * block_macs(t, width, 4 * width) for t, n in sequences.items())
    read_out = 366 * (width * embedding + 2 * embedding)
    expected = patches * 3 * 16**2 * width + encoded + read_out
    assert paper()["mask-winclip"]["macs"] == expected


def test_phi_is_tiny_beside_the_u_net_and_the_vit():
    rows = paper()
    assert rows["phi-mlp"]["macs"] / rows["network"]["macs"] == pytest.approx(4e-4, rel=0.01)
    assert rows["phi-vit"]["macs"] > 900 * rows["phi-mlp"]["macs"]


# --- the run's rows -------------------------------------------------------------------------------


def tiny(**changes) -> Config:
    """The demo with a masker and a baseline of each kind, as small as they come."""
    values = config.load(PRESETS / "demo.yaml").model_dump(mode="json")
    values["image"]["size"] = 64
    values["unet"]["widths"] = [4, 8, 8]
    values["ear"]["scales"] = [8]
    values["fader"]["vit"] |= {"width": 12, "heads": 3, "patch": None}
    values["codebook"] |= {"channels": 8, "codes": 16}
    pyramid = {"backbone": PYRAMID, "layers": [1, 2, 3], "input_size": 64, "batch": 2}
    values["masks"] |= {"base": "dino", "optional": []}
    values["masks"]["maskers"] = {
        "dino": {"kind": "attention", "backbone": "tiny", "input_size": 64, "batch": 2},
        "winclip": {"kind": "winclip", "names": {}, "batch": 400},
        "dsr": values["masks"]["maskers"]["dsr"] | {"input_size": 64, "width": 4},
        "msflow": values["masks"]["maskers"]["msflow"] | pyramid,
        "aminet": values["masks"]["maskers"]["aminet"] | pyramid | {"width": 16, "heads": 2},
    }
    values["detectors"] = config.load(PRESETS / "paper.yaml").plain["detectors"]
    values["detectors"]["ganomaly"] |= {"width": 4, "latent": 5}
    values["detectors"]["scadn"] |= {"width": 4, "blocks": 2}
    values["detectors"]["mscam"] |= {"width": 4, "latent": 5}
    values["detectors"]["patchcore"] |= {"backbone": "tiny", "blocks": [1], "input_size": 80}
    values["detectors"]["patchcore"] |= {"most": 50, "sigma": 1.0}
    values["detectors"]["pca"] |= {"components": 3}
    for name, change in changes.items():
        values["masks"]["maskers"][name] |= change
    return config.parse(values, "tiny")


@pytest.fixture
def narrow(monkeypatch):
    """CLIP narrow, and a vision transformer of a few thousand parameters in the registry."""
    small = {"width": 32, "layers": 2}
    vision = {"image_size": 240, "patch_size": 16, "head_width": 16} | small
    text = {"context_length": 77, "vocab_size": 49408, "heads": 2} | small
    monkeypatch.setattr(
        winclip, "ARCHITECTURE", {"embed_dim": 8, "vision_cfg": vision, "text_cfg": text}
    )
    vit = backbones.Backbone("test_vit", "tiny", "", 0, "tiny.safetensors", None, None, None, 16)
    monkeypatch.setitem(backbones.BACKBONES, "tiny", vit)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(timing, "BUDGET_S", 0.0)


@cache
def counted(patch: int | None = None) -> dict[str, dict]:
    """Counts of ``tiny``, of use under ``narrow`` only."""
    return {row["name"]: row for row in counts(tiny(), patch)}


def real(name: str, settings: Config, folder: Path) -> maskers.Masker:
    """The masker as the pipeline makes it, from weight files written here, freshly initialised
    where it learns."""
    chosen = settings.masks.maskers[name]
    if name == "winclip":
        state, file = open_clip.CLIP(**winclip.ARCHITECTURE).state_dict(), CLIP.files[0]
    else:
        architecture = "test_vit" if name == "dino" else PYRAMID
        model = timm.create_model(architecture, num_classes=0 if name == "dino" else 1000)
        state = model.state_dict()
        file = "tiny.safetensors" if name == "dino" else f"{PYRAMID}.safetensors"
    save_file({key: value.contiguous() for key, value in state.items()}, folder / file)
    codebook = VQVAE(settings.codebook.channels, settings.codebook.codes).state_dict()
    masker = maskers.create(name, chosen, Context("bolt", CPU, folder, codebook))
    if settings.masks.trained(name):
        masker.initialise(0)
    return masker


@pytest.mark.parametrize("name", ["dino", "winclip", "dsr", "msflow", "aminet"])
def test_random_weights_have_the_shapes_of_those_that_are_loaded(name, narrow, tmp_path):
    settings = tiny()
    loaded = real(name, settings, tmp_path)
    codebook = VQVAE(settings.codebook.channels, settings.codebook.codes).state_dict()
    place = Context("bolt", CPU, codebook=codebook, random=True)
    drawn = maskers.create(name, settings.masks.maskers[name], place)
    if settings.masks.trained(name):
        drawn.initialise(0)
    for ours, theirs in (drawn.trained, loaded.trained), (drawn.frozen, loaded.frozen):
        assert [shapes(module) for module in ours] == [shapes(module) for module in theirs]
    images = torch.rand(3, 3, 64, 64)
    assert drawn.saliency(images).shape == loaded.saliency(images).shape
    assert "random" in drawn.weights and "random" not in loaded.weights


@pytest.mark.parametrize("name", ["dino", "winclip", "dsr", "msflow", "aminet"])
def test_images_may_come_in_several_calls_cut_between_batches(name, narrow, tmp_path):
    masker = real(name, tiny(), tmp_path)
    images = torch.rand(masker.batch + 1, 3, 64, 64)
    parts = [masker.saliency(batch) for batch in images.split(masker.batch)]
    assert torch.cat(parts).equal(masker.saliency(images))


def shapes(module: nn.Module) -> dict:
    return {key: (tensor.shape, tensor.dtype) for key, tensor in module.state_dict().items()}


@pytest.mark.parametrize("name", ["dsr", "msflow", "aminet"])
def test_what_is_counted_on_meta_is_what_the_real_masker_does(name, narrow, tmp_path):
    settings = tiny()
    masker = real(name, settings, tmp_path)
    expected = count_macs(masker.saliency, torch.rand(1, 3, 64, 64))
    assert counted()[f"mask-{name}"]["macs"] == expected > 0


def test_systems_are_sums_of_their_components(narrow):
    rows = counted()
    network, phi, score = rows["network"], rows["phi-mlp"], rows["map"]
    assert score["parameters"] == 0 and score["macs"] < 0.1 * network["macs"]
    for name in tiny().masks.maskers:
        mask, ear, fader = (rows[f"{stage}-{name}"] for stage in ("mask", "ear", "fader"))
        for key in ("parameters", "trained", "macs", "bytes"):
            assert ear[key] == mask[key] + network[key] + score[key]
            assert fader[key] == ear[key] + phi[key]


def test_baselines_are_counted_whole(narrow):
    rows, size = counted(), 64
    network, score = rows["network"], rows["map"]
    assert rows["unet"]["macs"] == network["macs"] + score["macs"]
    # 4 sizes of cells, 3 disjoint sets each; a map for each size.
    assert rows["riad"]["macs"] == 4 * (3 * network["macs"] + score["macs"])
    for name in ("unet", "riad"):
        assert rows[name]["parameters"] == rows[name]["trained"] == network["parameters"]
        assert rows[name]["bytes"] == network["bytes"]
    # Two encoders and a decoder, of 4 → 8 → 16 → 32 channels from 32² to 4²; no biases.
    links = ((3, 4, 32), (4, 8, 16), (8, 16, 8), (16, 32, 4))
    convolutions = sum(4 * 4 * a * b * side**2 for a, b, side in links)
    head = 4 * 4 * 32 * 5
    # The decoder spreads as many products; the generator runs for the map and for the score.
    assert rows["ganomaly"]["macs"] == 2 * 3 * (convolutions + head)
    # Two convolutions 7 × 7 at 64², three halvings and doublings, two blocks of two at 8²; behind 4
    # masks of 3 scales.
    ends = 2 * 7 * 7 * 3 * 4 * 64**2
    halvings = sum(4 * 4 * a * b * side**2 for a, b, side in ((4, 8, 32), (8, 16, 16), (16, 32, 8)))
    doublings = sum(
        3 * 3 * a * b * side**2 for a, b, side in ((4, 8, 64), (8, 16, 32), (16, 32, 16))
    )
    blocks = 2 * 2 * 3 * 3 * 32**2 * 8**2
    assert rows["scadn"]["macs"] == 12 * (ends + halvings + doublings + blocks)
    # As GANomaly's encoder and decoder, once, and the attention of four stages: two convolutions of
    # pixels and two of means to a quarter of the channels and back, one of pixels to one.
    attention = sum(b * b // 4 * 2 * (side**2 + 1) + b * side**2 for _, b, side in links)
    assert rows["mscam"]["macs"] == 2 * (convolutions + head) + attention
    # The network up to its second block, as it was pretrained, and a bank of 50 patches, compared
    # with the 25 of an image and with the one nearest to the most anomalous of these.
    vit = backbones.load("tiny", random=True)[0]
    width = vit.embed_dim
    patchcore, network = rows["patchcore"], sum(p.numel() for p in vit.parameters())
    assert patchcore["trained"] == 50 * width
    assert patchcore["parameters"] == patchcore["bytes"] / 4 == network + 50 * width
    hidden = vit.blocks[0].mlp.fc1.out_features
    blocks = 2 * block_macs(25 + vit.num_prefix_tokens, width, hidden)
    compared, smoothed = (25 + 1) * 50 * width, 7 * 7 * size**2
    assert patchcore["macs"] == 25 * 3 * 16**2 * width + blocks + compared + smoothed
    values = 3 * size**2
    assert rows["pca"]["parameters"] == values * (1 + 3)
    assert rows["pca"]["macs"] == 2 * 3 * values + score["macs"]
    assert rows["pca"]["bytes"] == 4 * rows["pca"]["parameters"]


def test_bytes_are_those_of_a_file_of_the_weights(tmp_path):
    network = UNet((4, 8))
    path = tmp_path / "weights.safetensors"
    save_file(network.state_dict(), path)
    header = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    assert cost.stored_bytes([network]) == path.stat().st_size - header


def test_phi_is_counted_at_the_given_scale(narrow):
    fixed, wide = counted(), counted(16)
    assert fixed["phi-mlp"]["patch"] == fixed["phi-vit"]["patch"] == tiny().mosaic.fixed == 8
    assert wide["phi-mlp"]["patch"] == wide["phi-vit"]["patch"] == 16
    assert wide["phi-mlp"]["parameters"] == 128 * (3 * 16**2 + 2) + 1
    assert wide["network"] == fixed["network"]


def test_counting_needs_no_weights_leaves_autocast_alone_and_repeats(narrow, monkeypatch):
    monkeypatch.delenv("FADER_WEIGHTS", raising=False)
    before = torch.autocast
    assert counts(tiny()) == list(counted().values())
    assert torch.autocast is before


@pytest.mark.parametrize(
    "change", [{"msflow": {"layers": [1, 2, 9]}}, {"dino": {"input_size": 65}}], ids=str
)
def test_settings_of_no_network_are_said_in_a_line(change, narrow):
    before = torch.autocast
    with pytest.raises(FaderError, match=f"mask-{next(iter(change))}: no such network") as error:
        counts(tiny(**change))
    assert "\n" not in str(error.value)
    assert torch.autocast is before


def test_components_are_plain_facts_with_times_of_every_row(narrow, quick):
    settings = tiny()
    rows = components(settings, CPU)
    assert json.loads(json.dumps(rows)) == rows
    assert [{k: v for k, v in row.items() if k != "timings"} for row in rows] == list(
        counted().values()
    )
    of = {row["name"]: row for row in rows}
    for row in rows:
        assert [each["batch"] for each in row["timings"]] == [1, 16]
        for i, each in enumerate(row["timings"]):
            assert each["device"] == "cpu" and each["precision"] == "fp32"
            assert each["threads"] == torch.get_num_threads()
            assert each["passes"] == 1 and each["note"] is None
            expected = sum(
                n * of[part]["timings"][i]["milliseconds"] for part, n in row["parts"].items()
            )
            assert each["milliseconds"] == pytest.approx(expected, abs=1e-3) and expected > 0


def test_a_batch_that_would_take_too_long_is_left_out_with_the_reason(narrow, quick, monkeypatch):
    monkeypatch.setattr(timing, "LIMIT_S", 0.0)
    rows = {row["name"]: row for row in components(tiny(), CPU)}
    for name, reason in (("mask-winclip", ""), ("ear-winclip", "mask-winclip: ")):
        single, many = rows[name]["timings"]
        assert single["milliseconds"] > 0 and single["note"] is None
        assert many["milliseconds"] is None and many["passes"] == 0
        assert many["note"].startswith(f"{reason}one image takes ")


@pytest.mark.parametrize(
    ("first", "later", "expected"),
    [
        (1.9, 0.125, [0.125] * 3),  # until they add up to the budget
        (1.9, 1.5, [1.5]),
        (2.1, 0.4, [2.1]),  # slow: the first one is the measurement
        (0.1, 0.001, [0.001] * timing.PASSES),
    ],
)
def test_passes_fill_the_budget_after_a_warm_up(first, later, expected, monkeypatch):
    now = 0.0
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: now))

    def run() -> None:
        nonlocal now
        now += later if now else first

    assert timing._passes(run, CPU.device) == pytest.approx(expected)


def test_a_gpu_is_measured_beside_the_cpu():
    machines = timing.machines(Machine(torch.device("cuda"), "fp32"))
    assert [m.device.type for m in machines] == ["cpu", "cuda"]
    assert {m.precision for m in machines} == {"fp32"}
    assert timing.machines(CPU) == [CPU]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_times_on_a_gpu(narrow, quick):
    rows = components(tiny(), Machine(torch.device("cuda"), "fp32"))
    for row in rows:
        found = [(t["device"], t["batch"]) for t in row["timings"]]
        assert found == [("cpu", 1), ("cpu", 16), ("cuda", 1), ("cuda", 16)]
        assert all(t["milliseconds"] > 0 for t in row["timings"])
