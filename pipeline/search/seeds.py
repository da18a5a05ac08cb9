"""The seed of each training of a study."""

import hashlib


def trial_seed(seed: int, number: int, rung: int) -> int:
    """Return the seed of one training: a hash of the study's seed, the trial and the rung, in [0, 2^31)."""
    digest = hashlib.sha256(f"{seed} {number} {rung}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1
