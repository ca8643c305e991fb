"""fader-bench: from images to the paper's tables and figures. `snakemake --cores all tables`."""

from snakemake.utils import min_version

min_version("9.27")


# Used only with `--sdm apptainer`; otherwise the locked environment of `make env` runs everything.
container: "docker://python:3.11-bookworm"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/masks.smk"
include: "workflow/rules/ear.smk"
include: "workflow/rules/fader.smk"
include: "workflow/rules/detectors.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/check.smk"


localrules:
    all,
    tables,
    check,


rule all:
    default_target: True
    input:
        rules.tables.input,
