"""A minute of fuzzing on a small cluster, after every input that ever failed.

The seed is that of the property tests, which `make test` prints.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz.campaign import Campaign, is_expected
from tests.fuzz.inputs import from_json, stored
from tests.fuzz.subject import Subject, own_environment
from tests.fuzz.targets import by_name, in_process, on_ports, on_records

pytestmark = [pytest.mark.slow, pytest.mark.zookeeper, pytest.mark.timeout(600)]
REGRESSIONS = Path(__file__).parent / "regressions"
SECONDS = float(os.environ.get("FUZZ_SECONDS") or 60)
WARM_UP_S = 5.0
STORED_S = 6.0
"""Of each target on stored records, whose inputs take some seconds; one at least is tried."""


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    """The cluster under test, which all tests of this file share."""
    with own_environment(), Subject(tmp_path_factory.mktemp("fuzz")) as subject:
        yield subject


def seed_of(config: pytest.Config) -> int:
    """The seed of the property tests, or a random one."""
    given = str(config.getoption("--hypothesis-seed"))
    return int(given) if given.isdigit() else random.SystemRandom().randrange(2**32)


def test_inputs_that_failed_once_are_answered(subject: Subject) -> None:
    perform = by_name(subject)
    subject.begin_measurement()
    wrong = []
    for path in stored(REGRESSIONS):
        target, value = from_json(path.read_bytes())
        answer = perform[target](value)
        if answer.status >= 500 and not is_expected(target, value, answer):
            wrong.append(f"{path.name}: {answer.status} {answer.body[:200]!r}")
    assert wrong == []
    assert subject.check() == []


def test_no_generated_input_takes_anything_down(
    subject: Subject, pytestconfig: pytest.Config, tmp_path: Path
) -> None:
    seed = seed_of(pytestconfig)
    print(f"fuzzing with seed {seed}; repeat with: make test SEED={seed}")
    targets = [*in_process(), *on_ports(subject)]
    campaign = Campaign(targets, tmp_path / "findings", subject.ended)
    campaign.run(WARM_UP_S, seed + 1)
    subject.begin_measurement()
    campaign.run(SECONDS, seed)
    print("\n".join(campaign.summary()))
    assert campaign.store() == [], f"seed {seed}"
    assert subject.check() == [], f"seed {seed}"
    silent = {target.name for target in targets} - {name for name, _ in campaign.counts}
    assert silent == set(), "these targets had no turn, so they prove nothing"


def test_the_cluster_goes_on_with_any_bytes_in_its_records(
    subject: Subject, pytestconfig: pytest.Config, tmp_path: Path
) -> None:
    targets = on_records(subject)
    campaign = Campaign(targets, tmp_path / "findings", subject.ended)
    seed = seed_of(pytestconfig)
    for target in targets:
        campaign.targets = [target]
        campaign.run(STORED_S, seed)
    campaign.targets = targets
    print("\n".join(campaign.summary()))
    assert campaign.store() == [], f"seed {seed}"
    assert [target.name for target in targets if not campaign.counts[target.name, "2xx"]] == []
