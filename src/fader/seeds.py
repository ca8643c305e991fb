"""Seeds derived by name, so that adding a category shifts no other's stream."""

import hashlib


def derive_seed(seed: int, *names: str) -> int:
    """Independent 63-bit seed of a named stream."""
    text = "/".join((str(seed), *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
