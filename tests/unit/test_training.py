"""The training loop: schedules by hand, and the promise that a resumed run makes the same bytes."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save, save_file
from torch import nn

from fader.errors import FaderError
from fader.training import loop as training
from fader.training.checkpoint import Checkpoint
from fader.training.loop import Optimizer, Stage, batches_per_epoch
from fader.training.schedules import fixed, one_cycle, sgdr, step_decay, warmup

COUNT, BATCH, EPOCHS = 9, 4, 5  # batches of 4 and 4 images; the ninth is left out


@pytest.fixture(autouse=True)
def _every_epoch_is_saved_and_reported(monkeypatch):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1.0)
    monkeypatch.setattr(training, "interactive", lambda: False)


class Killed(Exception):
    pass


class Run:
    """A small run with everything the real ones have: batch normalisation, channels last, bf16,
    fused Adam with two learning rates, randomness inside the step."""

    def __init__(self, folder: Path, key: str = "run", bf16: bool = True):
        torch.manual_seed(0)
        self.images = torch.rand(COUNT, 3, 8, 8).contiguous(memory_format=torch.channels_last)
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6))
        self.head = nn.Conv2d(6, 3, 3, padding=1)
        for module in self.modules.values():
            module.to(memory_format=torch.channels_last)
        groups = [
            {"params": self.body.parameters(), "lr": 1e-2},
            {"params": self.head.parameters(), "lr": 1e-3},
        ]
        self.optimizer = torch.optim.Adam(groups, fused=True)
        self.checkpoint = Checkpoint(folder / "run.ckpt", key)
        self.bf16 = bf16
        self.reports: list[dict] = []
        self.batches: list[list[int]] = []
        self.rates: list[tuple[float, float]] = []

    @property
    def modules(self) -> dict[str, nn.Module]:
        return {"body": self.body, "head": self.head}

    def losses(self, indices, random):
        self.batches.append(indices.tolist())
        self.rates.append(tuple(group["lr"] for group in self.optimizer.param_groups))
        target = self.images[indices]
        noisy = target + 0.1 * torch.randn(target.shape, generator=random)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            made = self.head(self.body(noisy))
        loss = (made.float() - target).square().mean()
        return {"loss": loss, "l2": loss.detach()}

    def train(self, losses=None, multiplier=None, count=COUNT, epochs=EPOCHS, **more):
        losses = losses or self.losses

        def step(indices, random, update):
            update("adam", losses(indices, random))

        schedule = multiplier or one_cycle(EPOCHS * 2)
        return training.train(
            Stage("ear bottle", 3, self.checkpoint, "lower ear.lr"),
            modules=self.modules,
            optimizers={"adam": Optimizer(self.optimizer, schedule)},
            step=step,
            count=count,
            batch=BATCH,
            steps=epochs * training.batches_per_epoch(count, BATCH),
            report=lambda line: self.reports.append(json.loads(line)),
            **more,
        )

    def train_until(self, steps: int) -> None:
        """Train and be killed inside the step after ``steps``."""

        def step(indices, random):
            if len(self.batches) == steps:
                raise Killed
            return self.losses(indices, random)

        with pytest.raises(Killed):
            self.train(step)

    def contents(self) -> bytes:
        tensors = {
            f"{name}.{key}": value.contiguous()
            for name, module in self.modules.items()
            for key, value in module.state_dict().items()
        }
        return save(tensors)


# Schedules.


def test_fixed_is_one():
    assert [fixed()(i) for i in (0, 7, 10**6)] == [1, 1, 1]


@given(k=st.integers(1, 10**6))
@settings(max_examples=25, deadline=None)
def test_step_decay_falls_to_a_tenth_at_five_sixths(k):
    multiplier = step_decay(6 * k)
    assert (multiplier(5 * k - 1), multiplier(5 * k), multiplier(6 * k - 1)) == (1, 0.1, 0.1)


@given(total=st.integers(1, 500))
@settings(max_examples=25, deadline=None)
def test_one_cycle_rises_from_a_twenty_fifth_to_one_and_falls_to_zero(total):
    multiplier = one_cycle(total)
    values = [multiplier(i) for i in range(total)]
    top = max(1, round(0.3 * total))
    assert values[0] == pytest.approx(1 / 25)
    assert all(0 < value <= 1 for value in values)
    assert values[:top] == sorted(values[:top])
    assert values[top:] == sorted(values[top:], reverse=True)
    assert multiplier(top) == 1
    if total > 1:
        assert multiplier(total) == pytest.approx(0, abs=1e-12)


def test_one_cycle_by_hand():
    multiplier = one_cycle(10)  # up over 3 iterations, down over 7
    assert multiplier(1) == pytest.approx(0.04 + 0.96 * (1 - math.cos(math.pi / 3)) / 2)
    assert multiplier(3) == 1
    assert multiplier(10 - 7 / 2) == pytest.approx(0.5)


def test_warmup_is_linear_and_does_not_overshoot():
    values = [warmup(5)(i) for i in range(20)]
    assert values[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert values[5:] == [1] * 15


@pytest.mark.parametrize("per_epoch", [1, 13])
def test_sgdr_restarts_at_epochs_25_and_65_and_stays_above_a_fifth(per_epoch):
    multiplier = sgdr(5 * per_epoch, 20 * per_epoch)
    values = [multiplier(i) for i in range(100 * per_epoch)]
    warm = 5 * per_epoch
    assert values[:warm] == [(i + 1) / warm for i in range(warm)]
    assert max(values) == 1
    assert min(values[warm:]) >= 0.2
    rises = [i for i in range(warm, len(values)) if values[i] > values[i - 1]]
    assert rises == [25 * per_epoch, 65 * per_epoch]
    assert [values[i] for i in rises] == [1, 1]
    # Halfway through a cycle of 20, 40 and 80 epochs: 0.2 + 0.8 / 2.
    for epoch in (15, 45, 105):
        assert multiplier(epoch * per_epoch) == pytest.approx(0.6)
    # Epoch 100 is 35 epochs into the cycle of 80. The authors' code restarts an epoch later, at 26
    # and 66, and so ends a little higher, 34 epochs into its cycle.
    assert multiplier(100 * per_epoch) == pytest.approx(0.678, abs=5e-4)
    assert multiplier(99 * per_epoch) == pytest.approx(0.693, abs=5e-4)


# Batches.


@given(count=st.integers(0, 100), batch=st.integers(2, 20))
@settings(max_examples=25, deadline=None)
def test_batches_per_epoch_leaves_out_a_single_last_image(count, batch):
    expected = count // batch + (count % batch > 1)
    assert batches_per_epoch(count, batch) == expected


def test_an_epoch_is_a_permutation_without_a_batch_of_one(tmp_path):
    run = Run(tmp_path)
    run.train()
    assert [len(batch) for batch in run.batches] == [4, 4] * EPOCHS
    epochs = [a + b for a, b in zip(run.batches[::2], run.batches[1::2], strict=True)]
    assert all(len(set(epoch)) == 8 and set(epoch) <= set(range(COUNT)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == EPOCHS  # another order every time


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_images_are_refused(tmp_path, count):
    with pytest.raises(FaderError, match=rf"^ear bottle: {count} training image\(s\)"):
        Run(tmp_path).train(count=count)


# The loop.


def test_the_multiplier_scales_every_groups_own_rate_once_per_iteration(tmp_path):
    run, seen = Run(tmp_path), []

    def multiplier(iteration: int) -> float:
        seen.append(iteration)
        return 0.5**iteration

    history = run.train(multiplier=multiplier)
    assert seen == list(range(2 * EPOCHS))
    assert run.rates == [(1e-2 * 0.5**i, 1e-3 * 0.5**i) for i in seen]
    assert [group["lr"] for group in run.optimizer.param_groups] == [1e-2, 1e-3]
    assert [epoch["lr"] for epoch in history] == [1e-2 * 0.5 ** (2 * e + 1) for e in range(EPOCHS)]


def test_history_is_the_mean_loss_of_every_epoch_and_the_loss_falls(tmp_path):
    run, losses = Run(tmp_path), []

    def step(indices, random):
        made = run.losses(indices, random)
        losses.append(made["loss"].item())
        return made

    history = run.train(step)
    assert [epoch["epoch"] for epoch in history] == [1, 2, 3, 4, 5]
    for e, epoch in enumerate(history):
        assert epoch["loss"] == pytest.approx(sum(losses[2 * e : 2 * e + 2]) / 2)
        assert epoch["l2"] == epoch["loss"]
    assert history[-1]["loss"] < history[0]["loss"]


def test_one_json_line_an_epoch(tmp_path):
    run = Run(tmp_path)
    history = run.train()
    assert [r | {"seconds": 0} for r in run.reports] == [
        {"label": "ear bottle", **epoch, "seconds": 0} for epoch in history
    ]
    assert all(r["seconds"] >= 0 for r in run.reports)


def test_a_terminal_gets_a_progress_bar_instead(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training, "interactive", lambda: True)
    run = Run(tmp_path)
    run.train()
    assert run.reports == []
    assert "ear bottle" in capsys.readouterr().err


@pytest.mark.parametrize("bf16", [True, False])
def test_the_same_run_twice_makes_the_same_bytes(tmp_path, bf16):
    one, two = Run(tmp_path / "1", bf16=bf16), Run(tmp_path / "2", bf16=bf16)
    assert one.contents() == two.contents()
    assert one.train() == two.train()
    assert one.contents() == two.contents()


# The gradient's norm.


def step_lengths(gradients: list[float], clip: float | None, folder: Path) -> list[float]:
    """How far one step of SGD at rate 1 moves each weight of the linear loss Σ g·w, every weight
    in a module and a parameter group of its own."""
    modules = {f"w{i}": nn.Linear(1, 1, bias=False) for i in range(len(gradients))}
    before = {name: module.weight.item() for name, module in modules.items()}

    def step(indices, random, update):
        weights = (module.weight.sum() for module in modules.values())
        update("sgd", sum(g * w for g, w in zip(gradients, weights, strict=True)))

    sgd = torch.optim.SGD([{"params": m.parameters()} for m in modules.values()], lr=1.0)
    training.train(
        Stage("linear", 0, Checkpoint(folder / "linear.ckpt", "run"), ""),
        modules=modules,
        optimizers={"sgd": Optimizer(sgd, clip=clip)},
        step=step,
        count=2,
        batch=2,
        steps=1,
        report=lambda line: None,
    )
    return [before[name] - module.weight.item() for name, module in modules.items()]


@pytest.mark.parametrize(
    ("clip", "expected"),
    [(None, [3, 4]), (10.0, [3, 4]), (5.0, [3, 4]), (2.5, [1.5, 2]), (0.5, [0.3, 0.4])],
)
def test_clip_limits_the_norm_of_all_gradients_together(tmp_path, clip, expected):
    # The gradient (3, 4) has norm 5, though neither weight's own has.
    assert step_lengths([3.0, 4.0], clip, tmp_path) == pytest.approx(expected, abs=1e-5)


@given(
    gradients=st.lists(st.integers(-9, 9).filter(bool), min_size=1, max_size=4),
    clip=st.floats(0.1, 20),
)
@settings(max_examples=15, deadline=None)
def test_a_clipped_step_keeps_its_direction_and_is_no_longer_than_clip(
    tmp_path_factory, gradients, clip
):
    moved = step_lengths([float(g) for g in gradients], clip, tmp_path_factory.mktemp("clip"))
    norm = math.hypot(*gradients)
    assert math.hypot(*moved) == pytest.approx(min(norm, clip), rel=1e-4)
    ratio = min(norm, clip) / norm
    assert moved == pytest.approx([g * ratio for g in gradients], rel=1e-4, abs=1e-5)


# Several optimisers.


def test_two_optimisers_take_turns_each_at_its_own_schedule(tmp_path):
    first, second = (nn.Linear(1, 1, bias=False) for _ in range(2))
    starts, rates = (first.weight.item(), second.weight.item()), []

    def step(indices, random, update):
        # Both weights have gradient 1 of the one loss, and 10 of the other.
        update("first", {"loss": first.weight.sum() + second.weight.sum(), "half": torch.ones(())})
        update("second", 10 * (first.weight.sum() + second.weight.sum()))
        rates.append([sgd[name].param_groups[0]["lr"] for name in sgd])

    sgd = {
        "first": torch.optim.SGD(first.parameters(), lr=1.0),
        "second": torch.optim.SGD(second.parameters(), lr=0.1),
    }
    history = training.train(
        Stage("both", 0, Checkpoint(tmp_path / "both.ckpt", "run"), ""),
        modules={"first": first, "second": second},
        optimizers={
            "first": Optimizer(sgd["first"], step_decay(4, at=0.5, factor=0.5)),
            "second": Optimizer(sgd["second"]),
        },
        step=step,
        count=4,
        batch=2,
        steps=4,
        report=lambda line: None,
    )
    assert rates == [[1, 0.1], [1, 0.1], [0.5, 0.1], [0.5, 0.1]]
    # Each moves by its own loss only, with gradients of no step but its own.
    assert first.weight.item() == pytest.approx(starts[0] - (1 + 1 + 0.5 + 0.5))
    assert second.weight.item() == pytest.approx(starts[1] - 4 * 0.1 * 10, abs=1e-5)
    keys = {"epoch", "step", "lr", "loss", "half", "second_loss"}
    assert [set(epoch) for epoch in history] == [keys] * 2
    assert [epoch["lr"] for epoch in history] == [1, 0.5]
    assert [group["lr"] for name in sgd for group in sgd[name].param_groups] == [1, 0.1]


# What is observed.


def test_observe_is_called_after_every_epochs_last_step_and_kept_in_its_history(tmp_path):
    run, plain, weights = Run(tmp_path / "1"), Run(tmp_path / "2"), []

    def observe():
        assert len(run.batches) == 2 * (len(weights) + 1)
        weights.append(run.head.weight.flatten()[:3].tolist())
        return {"seen": weights[-1]}

    history = run.train(observe=observe)
    assert [epoch.pop("seen") for epoch in history] == weights
    assert len({tuple(row) for row in weights}) == EPOCHS
    assert weights[-1] == run.head.weight.flatten()[:3].tolist()
    # Looking changes neither the run nor its lines in the log.
    assert plain.train() == history
    assert run.contents() == plain.contents()
    assert [r | {"seconds": 0} for r in run.reports] == [r | {"seconds": 0} for r in plain.reports]


@pytest.mark.parametrize("epoch", [1, 3, 5])
def test_what_was_observed_survives_a_checkpoint(tmp_path, epoch):
    def observer(run, killed_in=None):
        def observe():
            if len(run.batches) == 2 * (killed_in or 0):
                raise Killed
            return {"seen": run.head.weight.flatten().tolist()}

        return observe

    whole = Run(tmp_path / "whole")
    history = whole.train(observe=observer(whole))
    first = Run(tmp_path / "killed")
    with pytest.raises(Killed):
        first.train(observe=observer(first, killed_in=epoch))
    resumed = Run(tmp_path / "killed")
    assert resumed.train(observe=observer(resumed)) == history
    assert len(resumed.batches) == 2 * (EPOCHS - epoch + 1)
    assert resumed.contents() == whole.contents()
    finished = Run(tmp_path / "killed")
    assert finished.train(observe=observer(finished, killed_in=1)) == history
    assert finished.batches == []


def test_an_epoch_that_ends_the_run_is_not_observed(tmp_path):
    run, observed = Run(tmp_path), []

    def step(indices, random):
        losses = run.losses(indices, random)
        return losses | {"loss": losses["loss"] * math.nan} if len(run.batches) == 5 else losses

    with pytest.raises(FaderError, match="not finite in epoch 3"):
        run.train(step, observe=lambda: observed.append(len(run.batches)) or {})
    assert observed == [2, 4]


# Checkpoints.


@pytest.mark.parametrize("bf16", [True, False])
@pytest.mark.parametrize("steps", [2, 5, 9])
def test_killed_and_resumed_makes_the_bytes_of_an_uninterrupted_run(tmp_path, steps, bf16):
    whole = Run(tmp_path / "whole", bf16=bf16)
    history = whole.train()
    Run(tmp_path / "killed", bf16=bf16).train_until(steps)
    resumed = Run(tmp_path / "killed", bf16=bf16)
    assert resumed.train() == history
    assert resumed.contents() == whole.contents()
    done = steps // 2
    assert [r["epoch"] for r in resumed.reports] == list(range(done + 1, EPOCHS + 1))
    assert resumed.batches == whole.batches[2 * done :]
    assert resumed.rates == whole.rates[2 * done :]


def test_a_run_killed_twice_makes_the_same_bytes_too(tmp_path):
    whole = Run(tmp_path / "whole")
    whole.train()
    Run(tmp_path / "killed").train_until(3)
    Run(tmp_path / "killed").train_until(3)
    resumed = Run(tmp_path / "killed")
    resumed.train()
    assert resumed.contents() == whole.contents()


def test_a_finished_run_is_not_trained_again(tmp_path):
    first, again = Run(tmp_path), Run(tmp_path)
    assert first.train() == again.train()
    assert again.batches == []
    assert again.contents() == first.contents()


def test_the_run_of_another_key_is_never_resumed(tmp_path):
    Run(tmp_path, key="old").train_until(5)
    fresh = Run(tmp_path / "fresh", key="new")
    other = Run(tmp_path, key="new")
    assert other.train() == fresh.train()
    assert other.reports[0]["epoch"] == 1
    assert other.contents() == fresh.contents()


def test_checkpoints_are_seldom_saved_and_the_last_epoch_where_it_was_not_short(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 3600.0)
    run = Run(tmp_path)
    run.train_until(7)
    assert not run.checkpoint.path.exists()
    run = Run(tmp_path)
    run.train()
    assert run.checkpoint.path.exists()
    run.checkpoint.path.unlink()
    monkeypatch.setattr(training, "SHORT_SECONDS", 3600.0)
    run = Run(tmp_path)
    run.train()
    assert not run.checkpoint.path.exists()


def test_a_checkpoint_is_plain_safetensors_and_leaves_nothing_beside_it(tmp_path):
    run = Run(tmp_path)
    history = run.train()
    assert [path.name for path in tmp_path.iterdir()] == ["run.ckpt"]
    with safe_open(run.checkpoint.path, framework="pt") as stream:
        about = json.loads(stream.metadata()["checkpoint"])
        assert about == {"key": "run", "epoch": EPOCHS, "history": history}
        kept = {key: stream.get_tensor(key) for key in stream.keys()}  # noqa: SIM118
    assert torch.equal(kept["module/head/weight"], run.head.weight)
    assert kept["module/body/1.num_batches_tracked"] == 2 * EPOCHS
    # Six parameters, two moments and a count each.
    assert sum(key.startswith("optimizer/") for key in kept) == 3 * 6


def _not_ours(path: Path) -> None:
    save_file({"x": torch.zeros(1)}, path)


def _edited(old: bytes, new: bytes):
    def edit(path: Path) -> None:
        whole = path.read_bytes()
        assert whole.count(old) == 1
        path.write_bytes(whole.replace(old, new))

    return edit


def _turned(share: float):
    def turn(path: Path) -> None:
        whole = bytearray(path.read_bytes())
        whole[int(share * len(whole))] ^= 1
        path.write_bytes(whole)

    return turn


def _zeroed(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[:-600] + bytes(500) + whole[-100:])


def _of_another_stage(path: Path) -> None:
    other = Run(path.parent)
    other.checkpoint = Checkpoint(path.with_name("other.ckpt"), "run")
    other.train_until(3)
    other.checkpoint.path.replace(path)


DAMAGES = {
    "tail lost": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "header lost": lambda path: path.write_bytes(path.read_bytes()[:20]),
    "appended": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "empty": lambda path: path.write_bytes(b""),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "a zeroed block": _zeroed,
    "a pickle": lambda path: path.write_bytes(b"\x80\x04K\x01."),
    "other safetensors": _not_ours,
    "key": _edited(rb"\"key\": \"run\"", rb"\"key\": \"ruN\""),
    "epoch": _edited(rb"\"epoch\": 2, \"history", rb"\"epoch\": 1, \"history"),
    "weights swapped": _edited(b'"module/head/bias"', b'"module/body/bias"'),
    "of another stage": _of_another_stage,
} | {f"bit at {share}": _turned(share) for share in (0.0, 0.01, 0.1, 0.3, 0.5, 0.8, 0.999)}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_ends_with_one_line_that_names_it(tmp_path, damage):
    run = Run(tmp_path)
    run.train_until(5)
    damage(run.checkpoint.path)
    with pytest.raises(FaderError, match=r"damaged checkpoint.*delete it to start again") as error:
        Run(tmp_path).train()
    assert str(run.checkpoint.path) in str(error.value)
    assert "\n" not in str(error.value)
    run.checkpoint.path.unlink()
    whole, again = Run(tmp_path / "whole"), Run(tmp_path)
    assert whole.train() == again.train()
    assert whole.contents() == again.contents()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_last_good_checkpoint(tmp_path, value):
    run = Run(tmp_path)

    def step(indices, random):
        losses = run.losses(indices, random)
        return losses | {"loss": losses["loss"] * value} if len(run.batches) == 5 else losses

    with pytest.raises(FaderError) as error:
        run.train(step)
    assert (
        str(error.value)
        == "ear bottle: the loss or a weight is not finite in epoch 3; lower ear.lr"
    )
    assert [r["epoch"] for r in run.reports] == [1, 2]
    good = Run(tmp_path)
    epoch, history = good.checkpoint.load(good.modules, {"adam": good.optimizer})
    assert (epoch, len(history)) == (2, 2)
    assert all(p.isfinite().all() for m in good.modules.values() for p in m.parameters())


@pytest.mark.parametrize(
    ("steps", "epochs", "lengths"),
    [
        (4, None, [2, 2]),  # two epochs of two steps
        (5, None, [2, 2, 1]),
        (1, None, [1]),
        (None, 3, [2, 2, 2]),
    ],
)
def test_a_training_lasts_the_steps_or_epochs_that_it_is_told(tmp_path, steps, epochs, lengths):
    """The last epoch ends with the last step; the schedule sees every step once."""
    settings = SimpleNamespace(steps=steps, epochs=epochs, batch=2)
    seen, weight = [], torch.nn.Linear(1, 1)
    sgd = torch.optim.SGD(weight.parameters(), lr=1.0)

    def step(indices, random, update):
        update("sgd", weight.weight.sum())

    history = training.train(
        Stage("x", 0, Checkpoint(tmp_path / "x.ckpt", "run"), ""),
        modules={"weight": weight},
        optimizers={"sgd": Optimizer(sgd, lambda iteration: seen.append(iteration) or 1.0)},
        step=step,
        count=4,
        batch=2,
        steps=training.steps_of(settings, 4),
        report=lambda line: None,
    )
    assert [row["step"] for row in history] == np.cumsum(lengths).tolist()
    assert seen == list(range(sum(lengths)))


@pytest.mark.parametrize(
    ("steps", "epochs", "share", "expected"),
    [
        (100, None, 1, 100),
        (100, None, 0.4, 40),
        (None, 5, 0.4, 6),
        (1, None, 0.1, 1),
        (None, 1, 0.1, 3),
    ],
)
def test_a_share_of_a_length_is_counted_in_its_unit(steps, epochs, share, expected):
    settings = SimpleNamespace(steps=steps, epochs=epochs, batch=4)
    assert training.steps_of(settings, 11, share) == expected  # three steps an epoch
