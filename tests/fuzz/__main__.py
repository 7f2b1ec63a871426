"""`python -m tests.fuzz`: fuzz for FUZZ_SECONDS, print a summary, exit 1 after a finding."""

from __future__ import annotations

import os
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.campaign import Campaign
from tests.fuzz.subject import Subject, own_environment
from tests.fuzz.targets import in_process, on_ports

WARM_UP_S = 10.0
NET = 133
FOUND = Path(__file__).parents[2] / ".fuzz"


def main() -> int:
    """Fuzz every target in turn."""
    seconds = float(os.environ.get("FUZZ_SECONDS") or 3600)
    seed = int(os.environ.get("FUZZ_SEED") or random.SystemRandom().randrange(2**32))
    only = set(filter(None, os.environ.get("FUZZ_TARGETS", "").split(",")))
    print(f"fuzzing for {seconds:g} s with seed {seed}; repeat with: make fuzz FUZZ_SEED={seed}")
    with (
        own_environment(),
        tempfile.TemporaryDirectory(prefix="fuzz-") as folder,
        Subject(Path(folder), NET) as subject,
    ):
        targets = [*in_process(), *on_ports(subject)]
        campaign = Campaign(
            [target for target in targets if not only or target.name in only],
            FOUND,
            subject.ended,
        )
        began = time.monotonic()
        campaign.run(min(WARM_UP_S, seconds / 4), seed + 1)
        subject.begin_measurement()
        before = subject.memory_mib()
        campaign.run(seconds - (time.monotonic() - began), seed)
        after = subject.memory_mib()
        wrong = [*campaign.store(), *subject.check()]
    print("\n".join(campaign.summary()))
    print(
        "memory MiB:", ", ".join(f"{name} {before[name]} to {after.get(name)}" for name in before)
    )
    print("\n\n".join(wrong) or "nothing wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
