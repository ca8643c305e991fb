"""Runs that several modules of tests read, made once."""

import contextlib
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def whole(tmp_path_factory) -> Path:
    """Folder of a finished run of ``chain.CONFIG``; no test changes it."""
    import chain

    return _made(chain, chain.CONFIG, tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="session")
def lone(tmp_path_factory) -> Path:
    """Folder of a finished run of ``chain.alone()``; no test changes it."""
    import chain

    return _made(chain, chain.alone(), tmp_path_factory.mktemp("lone"))


def _made(chain, config, folder: Path) -> Path:
    with contextlib.chdir(folder):
        chain.make(config)
    return folder


@pytest.fixture(autouse=True)
def _even_short_stages_are_saved(monkeypatch):
    """Those of tests take seconds at most."""
    from fader.training import loop

    monkeypatch.setattr(loop, "SHORT_SECONDS", -1.0)
