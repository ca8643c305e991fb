"""What tables say of how long the trainings behind them were."""

from factory import BOLT, NUT, ok, records, tiny

from fader.report.lengths import note


def trained(pair, method, seed=0, **stages):
    length = {name: {"steps": s, "epochs": e} for name, (s, e) in stages.items()}
    return ok(pair, method, seed, length=length)


def test_steps_and_epochs_over_categories_and_seeds():
    config = tiny((BOLT, NUT), seeds=(0, 1), detectors=("riad", "pca"))
    base = config.masks.base
    given = [
        trained(pair, method, seed, **{stage: (steps, epochs)})
        for pair, epochs in ((BOLT, 11), (NUT, 14))
        for seed in (0, 1)
        for method, stage, steps in (
            (f"ear-{base}", "ear", 1600),
            (f"fader-{base}", "fader", 15 * epochs),
            ("riad", "reconstruction", 300),
        )
    ]
    made = records(config, [*given, ok(BOLT, "pca")])
    assert note(made, made.methods, made.places) == [
        "Trained for (optimiser steps): EAR 1,600 (11 to 14 epochs); FADeR 165 to 210 (11 to 14"
        " epochs); RIAD 300 (11 to 14 epochs)."
    ]


def test_stages_are_added_and_nothing_is_said_of_what_is_not_trained():
    config = tiny((BOLT,), detectors=("riad", "pca"))
    both = trained(BOLT, "riad", first=(300, 3), second=(120, 2))
    made = records(config, [both, ok(BOLT, "pca")])
    riad, pca = (m for m in made.methods if m.stage == "detector")
    assert note(made, [riad, pca], made.places) == [
        "Trained for (optimiser steps): RIAD 300 + 120 (3 + 2 epochs)."
    ]
    assert note(made, [pca], made.places) == []
