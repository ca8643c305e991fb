"""What every rule does, one module a phase of ``config.PHASES``.

A phase reads artefacts (each checked against the current configuration), calls the library, and
writes one artefact whose header says what it was made from. Nothing here knows Snakemake or DVC.
A phase imports only what it runs: both engines remake its artefacts when a module among its imports
changes (``fader.pipeline.code``), so that a change of FADeR's code never trains EAR again.
"""
