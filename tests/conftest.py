"""What holds for every test."""

import pytest


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """As the presets say: on images this small, more threads only wait for each other."""
    import torch

    torch.set_num_threads(1)
