"""A campaign: sends generated inputs to targets in turn for a time, counts answers, keeps findings.

Every answer of class 5xx that `EXPECTED_5XX` does not list is a finding, and so is no answer, an
exception in this process, and a process that ended. Depends on hypothesis.
"""

from __future__ import annotations

import contextlib
import random
import re
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from tests.fuzz.exchange import Answer, NoAnswer, Request
from tests.fuzz.inputs import Input, save
from tests.fuzz.variants import variants

BATCH = 10
"""Inputs of one target before the next target's turn; their variants are not counted."""
FIRST = 2
"""Inputs of each target in its first turn, so that every target soon has one."""
FIRST_ROUND_S = 300.0
"""Hang guard of the first turns: on a loaded machine the strategies alone take a minute."""
SHRINK_S = 2.0
"""How long a new kind of failure is made smaller, unless a campaign says otherwise."""


_ACTION = re.compile(rb"Action=([A-Za-z]{3,60})")
_WORD = re.compile(rb"[a-z][a-z0-9_-]{1,20}")


@dataclass(frozen=True)
class Expected:
    """A documented answer of class 5xx: to which target and path, with which text, and why.

    `path` matches the whole path without its query, `text` a part of the body.
    """

    target: str
    status: int
    path: bytes
    text: bytes
    reason: str

    def covers(self, target: str, value: Input, answer: Answer) -> bool:
        """Whether this is the documented answer to the input. That to HEAD has no text."""
        path = value.path.partition(b"?")[0] if isinstance(value, Request) else b""
        has_text = not (isinstance(value, Request) and value.method == "HEAD")
        return (
            (self.target, self.status) == (target, answer.status)
            and re.fullmatch(self.path, path) is not None
            and (not has_text or re.search(self.text, answer.body) is not None)
        )


OPERATOR_API = rb"/+(master/)?api/v1(/.*)?"
AGENT_API = rb"(/slave\(1\))?/api/v1"
AGENT_PROXY = rb"/agents/[^/]+/(state|files/(read|browse|download))"

EXPECTED_5XX = (
    Expected("5050", 501, OPERATOR_API, rb"^The embedded engine has no ", "an absent call"),
    Expected("5050", 501, rb"/+(master/)?api/v1/scheduler(/.*)?", rb"^$", "the call UNKNOWN"),
    Expected("5051", 501, AGENT_API, rb"^The embedded engine's agents do", "an absent call"),
    Expected("8080", 502, AGENT_PROXY, rb"does not answer", "the agent does not answer"),
    Expected("8080", 503, AGENT_PROXY, rb"master does not answer", "no master leads"),
    Expected("8080", 503, rb"(?s).*", rb'^{"message": "No server leads yet; ', "no server leads"),
    Expected("8080", 503, rb"/zookeeper", rb"serves no requests", "none runs at 127.0.0.1"),
    Expected("8080", 503, rb"/health", rb'"able": ?false', "a condition does not hold"),
    Expected("9550", 503, rb"/health", rb'"able": ?false', "a condition does not hold"),
    Expected("9550", 503, rb"/view", rb"no autoscaler leads", "no pass has been made yet"),
    Expected("aws", 503, rb"(?s).*", rb"RequestLimitExceeded", "a fault that a call switched on"),
    Expected("aws", 503, rb"(?s).*", rb"SlowDown", "a fault that a call switched on"),
)
"""Answers of class 5xx that are right. Every other one is a finding."""


@dataclass(frozen=True)
class Target:
    """What is fuzzed: a strategy of inputs, and what to do with one. `perform` may raise."""

    name: str
    inputs: st.SearchStrategy[Any]
    perform: Callable[[Any], Answer]
    weight: int = 1
    has_variants: bool = True


@dataclass(frozen=True)
class Finding:
    """An input with a wrong result; `kind` is equal for inputs that show the same fault."""

    target: str
    kind: str
    value: Input
    detail: str


class Wrong(Exception):
    """Raised to have Hypothesis look for a smaller input of the same kind."""


class TimeOver(BaseException):
    """Raised to end a turn. Hypothesis would go on to generate inputs after an `Exception`."""


@dataclass
class Campaign:
    """Runs targets and collects what they answer.

    Attributes:
        folder: where inputs with wrong results are stored.
        shrink_s: how long a new kind of failure is made smaller, in seconds.
        counts: answers by target and class.
        findings: the smallest input of each kind of fault.
        slowest: the slowest answer of each target, in seconds.
        seconds: how long each target had its turns.

    """

    targets: Sequence[Target]
    folder: Path
    alive: Callable[[], Iterable[str]] = tuple
    shrink_s: float = SHRINK_S
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    findings: dict[tuple[str, str], Finding] = field(default_factory=dict)
    recent: list[tuple[str, Input]] = field(default_factory=list)
    slowest: dict[str, float] = field(default_factory=dict)
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    def run(self, seconds: float, seed: int, is_enough: Callable[[], bool] = lambda: False) -> None:
        """Fuzz for this time, and until each target had a turn.

        Stops early when a process has ended, or when it is enough.
        """
        until = time.monotonic() + seconds
        chance = random.Random(seed)
        turns = chance.sample(self.targets, len(self.targets))  # each once before any again
        number = 0
        first_until = max(until, time.monotonic() + FIRST_ROUND_S)
        while not is_enough():
            limit = until if number >= len(self.targets) else first_until
            if time.monotonic() > limit:
                return
            if number >= len(turns):
                weights = [target.weight for target in self.targets]
                turns += chance.choices(self.targets, weights, k=len(self.targets))
            target = turns[number]
            self.recent.clear()
            examples = FIRST if number < len(self.targets) else BATCH
            began = time.monotonic()
            self._batch(target, hash_of(seed, number), until, examples)
            self.seconds[target.name] += time.monotonic() - began
            number += 1
            if ended := list(self.alive()):
                self._keep_batch(ended)
                return

    def summary(self) -> list[str]:
        """A line for each target: inputs, answers by class, the slowest answer."""
        lines = []
        for target in self.targets:
            groups = {group: n for (name, group), n in self.counts.items() if name == target.name}
            answers = ", ".join(f"{group} {groups[group]}" for group in sorted(groups))
            slowest = self.slowest.get(target.name, 0.0)
            lines.append(
                f"{target.name:12} {sum(groups.values()):7} inputs in "
                f"{self.seconds[target.name]:.0f} s: {answers}; slowest answer {slowest:.2f} s"
            )
        return lines

    def _batch(self, target: Target, seed: int, until: float, examples: int) -> None:
        """Perform inputs of a target until the time is over, but the first one in any case."""
        shrink_until, shrunk = [until], ""

        @hypothesis.seed(seed)
        @settings(
            max_examples=examples,
            database=None,
            deadline=None,
            print_blob=False,
            report_multiple_bugs=False,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        )
        @hypothesis.given(target.inputs)
        def attempt(value: Input) -> None:
            nonlocal shrunk
            if self.recent and time.monotonic() > min(until, shrink_until[0]):
                raise TimeOver
            is_known = set(self.findings)
            kind = self._attempt(target, value)
            if kind is None and target.has_variants and not shrunk:
                for variant in variants(value):
                    self._attempt(target, variant)
            if kind is not None and not shrunk and (target.name, kind) not in is_known:
                shrunk = kind
                shrink_until[0] = time.monotonic() + self.shrink_s
            if kind is not None and kind == shrunk:
                raise Wrong(kind)

        with contextlib.suppress(Exception, TimeOver):  # the finding is kept already
            attempt()

    def _attempt(self, target: Target, value: Input) -> str | None:
        """Perform an input; the kind of its fault, if it has one."""
        self.recent.append((target.name, value))
        try:
            answer = target.perform(value)
        except NoAnswer as error:
            return self._note(target, "no answer", value, str(error))
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            kind = f"{type(error).__name__} at {Path(where.filename).name}:{where.name}"
            return self._note(target, kind, value, traceback.format_exc(limit=-6))
        self.counts[target.name, answer.group] += 1
        self.slowest[target.name] = max(self.slowest.get(target.name, 0.0), answer.seconds)
        if answer.status < 500 or is_expected(target.name, value, answer):
            return None
        kind = f"{answer.status} {kind_of_request(value)}"
        return self._note(target, kind, value, answer.body[:500].decode(errors="replace"))

    def _note(self, target: Target, kind: str, value: Input, detail: str) -> str:
        if not kind[0].isdigit():
            self.counts[target.name, "no answer" if kind == "no answer" else "exception"] += 1
        known = self.findings.get((target.name, kind))
        if known is None or _size(value) < _size(known.value):
            self.findings[target.name, kind] = Finding(target.name, kind, value, detail)
        return kind

    def _keep_batch(self, ended: list[str]) -> None:
        """Keep every input of the batch in which a process ended."""
        for name, value in self.recent:
            save(self.folder / "ended", name, value, "in a batch in which a process ended")
        last_name, last = self.recent[-1]
        kind = "ended " + ", ".join(text.split(":")[0] for text in ended)
        self.findings[last_name, kind] = Finding(last_name, kind, last, "\n".join(ended))

    def store(self) -> list[str]:
        """Store the input of each finding; a line for each with the file's name."""
        lines = []
        for finding in self.findings.values():
            path = save(self.folder, finding.target, finding.value, finding.kind)
            lines.append(f"{finding.target}: {finding.kind}: {path}\n{finding.detail[-800:]}")
        return lines


def hash_of(seed: int, number: int) -> int:
    """A seed of its own for each batch."""
    return (seed * 1_000_003 + number) % 2**63


def is_expected(target: str, value: Input, answer: Answer) -> bool:
    """Whether `EXPECTED_5XX` lists the answer to an input."""
    return any(item.covers(target, value, answer) for item in EXPECTED_5XX)


def kind_of_request(value: Input) -> str:
    """What a finding is called by: the method and the first part of the path."""
    if not isinstance(value, Request):
        return type(value).__name__
    action = _ACTION.search(value.body)
    named = [content for name, content in value.headers if name == "X-Amz-Target"]
    if action or named:
        return (action[1] if action else named[0]).decode(errors="replace")
    words = value.path.partition(b"?")[0].split(b"/")[1:3]
    known = [word.decode() for word in words if _WORD.fullmatch(word)]
    return f"{value.method} /{'/'.join(known)}"


def _size(value: Input) -> int:
    return len(repr(value))
