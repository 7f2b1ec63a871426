"""How much work property tests do: profiles `dev`, `ci` and `nightly`.

`MESAFORM_TEST_PROFILE` selects one; without it, `ci` where the variable CI is set and `dev`
elsewhere. A number of examples in a test is the number for `ci`. Every profile draws random
examples: `make test` passes a seed and prints it, and `make test SEED=<seed>` repeats a run.
"""

from __future__ import annotations

import os

from hypothesis import Phase, settings

SCALES = {"dev": 0.5, "ci": 1.0, "nightly": 20.0}
LEAST = 5


def profile() -> str:
    """The profile of this run.

    Raises:
        ValueError: MESAFORM_TEST_PROFILE names no profile.

    """
    name = os.environ.get("MESAFORM_TEST_PROFILE") or ("ci" if os.environ.get("CI") else "dev")
    if name not in SCALES:
        raise ValueError(f"MESAFORM_TEST_PROFILE is {name!r}; the profiles are {', '.join(SCALES)}")
    return name


def examples(count: int) -> int:
    """The number of examples in this profile for a test that tries `count` in CI."""
    return max(min(LEAST, count), round(count * SCALES[profile()]))


def load_profile() -> None:
    """Make the profile the default of every property test."""
    without_explain = [phase for phase in Phase if phase is not Phase.explain]
    for name, scale in SCALES.items():
        settings.register_profile(
            name,
            max_examples=max(LEAST, round(100 * scale)),
            print_blob=True,
            phases=without_explain,
        )
    settings.load_profile(profile())
