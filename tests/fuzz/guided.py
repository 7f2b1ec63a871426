"""`python -m tests.fuzz.guided TARGET SECONDS SEED CORPUS`: one target guided by coverage.

Atheris (libFuzzer) measures which branches of the product each input reaches, and changes inputs
that reach new ones. Hypothesis turns its bytes into inputs of the target's strategy. The target
runs in this process. The first wrong input is stored, and ends the process with an error.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import atheris
from hypothesis import HealthCheck, given, settings

FOUND = Path(__file__).parents[2] / ".fuzz"
INSTRUMENTED = [
    "mesaform.common",
    "mesaform.engine",
    "mesaform.http",
    "mesaform.mesos",
    "mesaform.services",
]


def main(name: str, seconds: str, seed: str, corpus: str) -> None:
    """Fuzz until the time is over or an input is wrong. Does not return."""
    with atheris.instrument_imports(include=INSTRUMENTED):
        from tests.fuzz.targets import in_process

        targets = {target.name: target for target in in_process()}
    from tests.fuzz.inputs import save

    target = targets[name]

    @settings(database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(target.inputs)
    def attempt(value: Any) -> None:
        try:
            target.perform(value)
        except Exception as error:
            path = save(FOUND, name, value, f"{type(error).__name__}: {error}"[:300])
            print(f"wrong: {path}", flush=True)
            raise

    Path(corpus).mkdir(parents=True, exist_ok=True)
    options = [f"-max_total_time={seconds}", f"-seed={seed}", "-max_len=8192", "-len_control=0"]
    quiet = ["-print_final_stats=1", "-verbosity=0", "-rss_limit_mb=2048"]
    hypothesis_test: Any = attempt
    run_once = hypothesis_test.hypothesis.fuzz_one_input
    atheris.Setup([sys.argv[0], *options, *quiet, corpus], run_once)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
