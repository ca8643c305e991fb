# Configuration, file names and the settings that each phase depends on; shared by all rules.

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
        stop("--config overrides and several --configfile are not supported: edit one complete file")
    config.update(plain)
    CONFIG = schema.parse(plain, str(PARAMS))
except FileNotFoundError:
    stop(f"{PARAMS}: no such file; `fader preset demo` writes one")
except (yaml.YAMLError, TypeError, ValueError) as error:
    stop(" ".join(str(error).split()))

RUN = f"results/{CONFIG.run}"
CATEGORY = RUN + "/{dataset}/{category}"
LOGS = f"logs/{CONFIG.run}/{{dataset}}/{{category}}"
FILES = Files(CATEGORY)


def settings(phase):
    """Params of a rule: the keys its phase depends on, each by lookup, so that only they rerun it."""
    return {
        key.replace("{", "").replace("}", "").replace(".", "_"): lookup(
            within=config, dpath=key.replace(".", "/")
        )
        for key in schema.PHASES[phase]
    }


def of_category(path, **values):
    """Input function: ``path`` with the job's wildcards and ``values`` filled in."""
    return lambda wildcards: path.format(**wildcards, **values)


wildcard_constraints:
    dataset="|".join(CONFIG.datasets),
    category="|".join(category for _, category in CONFIG.pairs()),
    seed=r"\d+",
    masker="|".join(CONFIG.masks.maskers),
    system="|".join(CONFIG.systems()),
    method="|".join(CONFIG.methods()),
