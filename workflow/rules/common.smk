# Configuration, file names and the settings that each phase depends on; shared by all rules.

import os
from pathlib import Path

import yaml

from fader.artifacts import Files, figure_paths, manifest_path, table_paths
from fader import config as schema

# One configuration file, complete: params.yaml, or the one given by --configfile.
given = workflow.config_settings.configfiles
PARAMS = Path(given[0]) if given else Path("params.yaml")


def stop(message):
    """End with one line, as the command line does."""
    raise SystemExit(f"fader: {message}")


try:
    plain = yaml.safe_load(PARAMS.read_text())
    if config and config != plain:
        stop(
            "--config overrides and several --configfile are not supported: edit one complete file"
        )
    config.update(plain)
    CONFIG = schema.parse(plain, str(PARAMS))
except FileNotFoundError:
    stop(f"{PARAMS}: no such file; `fader preset demo` writes one")
except (yaml.YAMLError, TypeError, ValueError) as error:
    stop(" ".join(str(error).split()))

# Every `fader` command of a rule reads the same file.
os.environ["FADER_PARAMS"] = str(PARAMS)


envvars:
    "FADER_PARAMS",


FILES = Files.of(CONFIG.run, "{dataset}", "{category}")


def settings(phase):
    """Params of a rule: the keys its phase depends on, each by lookup, so that only they rerun it."""
    return {
        key.replace("{", "")
        .replace("}", "")
        .replace(".", "_"): lookup(within=config, dpath=key.replace(".", "/"))
        for key in schema.PHASES[phase]
    }


def log_file(name):
    """Log of a job of one category; its benchmark lies beside it."""
    return f"logs/{CONFIG.run}/{{dataset}}/{{category}}/{name}.log"


def benchmark_file(name):
    return f"logs/{CONFIG.run}/{{dataset}}/{{category}}/{name}.tsv"


def source_images(wildcards):
    """Images of a category in a folder of the user's own, so that a changed image is noticed."""
    chosen = CONFIG.datasets[wildcards.dataset]
    if chosen.source != "folder":
        return []
    folder = Path(chosen.root) / wildcards.category
    return sorted(str(path) for path in folder.rglob("*") if path.is_file())


def fader_inputs(wildcards):
    """EAR and masks, and the proposed FADeR where a variant inherits its pick."""
    masker, _, variant = wildcards.system.partition("-")
    paths = [
        FILES.packed(),
        FILES.validation(),
        FILES.mask(masker),
        FILES.ear("{seed}"),
        FILES.mosaic("{seed}"),
    ]
    if variant and CONFIG.variants[variant].grid == "inherit":
        paths.append(FILES.fader("{seed}", masker))
    return [path.format(**wildcards) for path in paths]


def evaluated_inputs(wildcards):
    """Images, masks, EAR with its m*, and the trained FADeR for every method but EAR's own."""
    stage, _, system = wildcards.method.partition("-")
    paths = [
        FILES.packed(),
        FILES.mask(system.partition("-")[0]),
        FILES.ear("{seed}"),
        FILES.mosaic("{seed}"),
    ]
    if stage != "ear":
        paths.append(FILES.fader("{seed}", system))
    return [path.format(**wildcards) for path in paths]


def of_run(path):
    """``path`` for every category of the run (categories of two data sets may share a name)."""
    return [
        filled
        for dataset, category in CONFIG.pairs()
        for filled in expand(
            path,
            dataset=dataset,
            category=category,
            seed=CONFIG.seeds,
            method=CONFIG.methods(),
            masker=CONFIG.masks.maskers,
        )
    ]


wildcard_constraints:
    dataset="|".join(CONFIG.datasets),
    category="|".join(category for _, category in CONFIG.pairs()),
    seed=r"\d+",
    masker="|".join(CONFIG.masks.maskers),
    system="|".join(CONFIG.systems()),
    method="|".join(CONFIG.methods()),
