"""`up` and `down` of several deployments in any order never change what another one owns."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from moto import mock_aws

from mesaform.aws.client import client, discard_clients
from mesaform.common.errors import MesaformError
from tests.integration.provision.checkouts import (
    STACK_OF,
    Account,
    Checkout,
    census,
    open_checkout,
)

pytestmark = pytest.mark.slow

REGIONS = ("us-east-1", "eu-west-1")
FIRST, CLONE, LONGER_NAME, ABROAD, ELSEWHERE = range(5)
"""Checkouts: of `a`; of `a` again; of `a-b`; of `a` in another region; in another account."""
UP, DOWN, WRONG_ACCOUNT = 99, 0, -1
"""Steps of a checkout. Any other number is an `up` that is killed after so many resources."""
STEP = st.tuples(
    st.integers(FIRST, ELSEWHERE),
    st.one_of(st.sampled_from([UP, DOWN, WRONG_ACCOUNT]), st.integers(1, len(STACK_OF) - 1)),
)


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for key in [key for key in os.environ if key.startswith("AWS_")]:
        monkeypatch.delenv(key)
    monkeypatch.setenv("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")
    yield
    discard_clients()


@contextmanager
def two_accounts() -> Iterator[tuple[Account, Account]]:
    """Two empty accounts of moto: it takes the account of a caller from his assumed role."""
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    own = Account(keys)
    with mock_aws():
        with own.entered():
            role = client("sts", REGIONS[0]).assume_role(
                RoleArn="arn:aws:iam::222222222222:role/other", RoleSessionName="other"
            )
        given_keys = role["Credentials"]
        yield (
            own,
            Account(
                {
                    "AWS_ACCESS_KEY_ID": given_keys["AccessKeyId"],
                    "AWS_SECRET_ACCESS_KEY": given_keys["SecretAccessKey"],
                    "AWS_SESSION_TOKEN": given_keys["SessionToken"],
                }
            ),
        )


def checkouts(root: Path, own: Account, other: Account) -> tuple[Checkout, ...]:
    return (
        open_checkout(root / "first", "a", "us-east-1", own),
        open_checkout(root / "clone", "a", "us-east-1", own),
        open_checkout(root / "longer", "a-b", "us-east-1", own),
        open_checkout(root / "abroad", "a", "eu-west-1", own),
        open_checkout(root / "elsewhere", "a", "us-east-1", other),
    )


def whole_world(accounts: tuple[Account, Account]) -> dict[str, str]:
    world: dict[str, str] = {}
    for number, account in enumerate(accounts):
        with account.entered():
            for region in REGIONS:
                world |= {f"{number} {key}": facts for key, facts in census(region).items()}
    return world


def foreign(world: dict[str, str], deployment_id: str) -> dict[str, str]:
    return {
        key: facts for key, facts in world.items() if f'"{deployment_id or "none"}"' not in facts
    }


def take(step: int, checkout: Checkout, accounts: tuple[Account, Account]) -> bool:
    """Take a step; whether it ended well. A refusal is no failure."""
    others = [account for account in accounts if account is not checkout.account]
    account = others[0] if step == WRONG_ACCOUNT else checkout.account
    with account.entered(), suppress(MesaformError):
        work = checkout.down() if step in (DOWN, WRONG_ACCOUNT) else checkout.up(step)
        asyncio.run(work)
        return True
    return False


counter = itertools.count()


@settings(
    max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@example([(FIRST, UP), (CLONE, UP), (CLONE, 2), (CLONE, UP), (CLONE, DOWN)])
@example([(FIRST, UP), (LONGER_NAME, UP), (ABROAD, 6), (ABROAD, DOWN), (FIRST, WRONG_ACCOUNT)])
@given(st.lists(STEP, min_size=3, max_size=5))
def test_no_step_of_a_deployment_changes_a_resource_of_another(tmp_path, steps):
    with two_accounts() as accounts:
        present = checkouts(tmp_path / str(next(counter)), *accounts)
        before = whole_world(accounts)
        for number, step in steps:
            before = check_step(present[number], step, accounts, before)


def check_step(
    checkout: Checkout, step: int, accounts: tuple[Account, Account], before: dict[str, str]
) -> dict[str, str]:
    """Take a step and compare all that is not the checkout's own; the world after it."""
    owner = checkout.deployment_id
    is_done = take(step, checkout, accounts)
    owner = owner or checkout.deployment_id
    after = whole_world(accounts)
    assert foreign(after, owner) == foreign(before, owner)
    if is_done and step == DOWN and owner:
        assert foreign(after, owner) == after, "nothing of it is left"
    if is_done and step == UP:
        assert len(after) - len(foreign(after, owner)) == len(STACK_OF)
    return after
