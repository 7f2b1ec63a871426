"""`python -m tests.fuzz`: fuzz for FUZZ_SECONDS, print a summary, exit 1 after a finding."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil

from tests.fuzz.campaign import Campaign
from tests.fuzz.subject import Subject, own_environment
from tests.fuzz.targets import in_process, on_ports, on_records

WARM_UP_S = 10.0
STORED_SHARE = 0.1
"""The part of the time for stored records, where each input takes seconds."""
GUIDED_SHARE = 0.2
"""The part of the time for inputs that are guided by coverage."""
FOUND = Path(__file__).parents[2] / ".fuzz"


def main() -> int:
    """Fuzz every target in turn."""
    seconds = float(os.environ.get("FUZZ_SECONDS") or 3600)
    seed = int(os.environ.get("FUZZ_SEED") or random.SystemRandom().randrange(2**32))
    only = set(filter(None, os.environ.get("FUZZ_TARGETS", "").split(",")))
    print(f"fuzzing for {seconds:g} s with seed {seed}; repeat with: make fuzz FUZZ_SEED={seed}")
    wrong = [] if only else guided(seconds * GUIDED_SHARE, seed)
    with (
        own_environment(),
        tempfile.TemporaryDirectory(prefix="fuzz-") as folder,
        Subject(Path(folder)) as subject,
    ):
        wrong += on_cluster(subject, seconds * (1 - GUIDED_SHARE), seed, only)
    print("\n\n".join(wrong) or "nothing wrong")
    return 1 if wrong else 0


def guided(seconds: float, seed: int) -> list[str]:
    """Run each target of this process guided by coverage; what was wrong."""
    if importlib.util.find_spec("atheris") is None:
        print("atheris is not installed: no inputs are guided by coverage")
        return []
    targets, wrong = in_process(), []
    for target in targets:
        share = str(max(1, int(seconds / len(targets))))
        corpus = str(FOUND / "corpus" / target.name)
        command = [sys.executable, "-m", "tests.fuzz.guided", target.name, share, str(seed), corpus]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        counts = re.findall(r"^stat::(number_of_executed_units|new_units_added):\s+(\d+)",
                            ended.stderr, re.MULTILINE)  # fmt: skip
        print(f"guided {target.name}:", ", ".join(f"{name} {count}" for name, count in counts))
        if ended.returncode:
            wrong.append(f"guided {target.name}: {ended.stdout}{ended.stderr[-3000:]}")
    return wrong


def on_cluster(subject: Subject, seconds: float, seed: int, only: set[str]) -> list[str]:
    """Fuzz the cluster's ports and records, and print the summary; what was wrong."""
    every = [*in_process(), *on_ports(subject)]
    targets = [target for target in every if not only or target.name in only]
    campaign = Campaign(targets, FOUND, subject.ended)
    if targets:
        campaign.run(min(WARM_UP_S, seconds / 4), seed + 1)
    subject.begin_measurement()
    before = subject.memory_mib()
    if targets:
        campaign.run(seconds * (1 - STORED_SHARE), seed)
    after = subject.memory_mib()
    wrong = subject.check()
    stored = [target for target in on_records(subject) if not only or target.name in only]
    campaign.targets = [*targets, *stored]
    if stored and not subject.ended():
        records = Campaign(stored, FOUND, subject.ended)
        records.counts, records.findings = campaign.counts, campaign.findings
        records.slowest, records.seconds = campaign.slowest, campaign.seconds
        records.run(seconds * STORED_SHARE if targets else seconds, seed)
        wrong += [line for line in subject.check() if line not in wrong]
    print("\n".join(campaign.summary()))
    print(
        "memory MiB:", ", ".join(f"{name} {before[name]} to {after.get(name)}" for name in before)
    )
    return [*campaign.store(), *wrong]


class Ended(KeyboardInterrupt):
    """A signal that ends the run. Hypothesis repeats an input for other exceptions."""


def end_on_signals() -> None:
    """Have SIGTERM and SIGINT end the run, and with it what it started; further ones are ignored.

    A shell starts programs in the background with SIGINT ignored.
    """

    def end(number: int, _frame: object) -> None:
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, signal.SIG_IGN)
        raise Ended(number)

    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, end)


def end_processes() -> None:
    """Kill the processes of this run that are left.

    A signal may come between the start of a process and the moment at which its starter knows it.
    """
    while left := psutil.Process().children(recursive=True):
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left)


if __name__ == "__main__":
    end_on_signals()
    try:
        sys.exit(main())
    except Ended as signalled:
        end_processes()
        sys.exit(128 + signalled.args[0])
