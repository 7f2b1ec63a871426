"""What a verb says when the credentials expire under it: what expired, what is left, what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mesaform.cli.context import Context
from mesaform.common.errors import CredentialsExpired, MesaformError


@contextmanager
def explain_expiry(context: Context, verb: str) -> Iterator[None]:
    """Turn every error that expired credentials cause into the same one, for people.

    A verb ends at the first call that AWS refuses for this reason. What was carried out before is
    in Terraform's state or in the journal of the teardown, so the same verb continues it.

    Raises:
        CredentialsExpired: a call of this program or of Terraform was refused for this reason.

    """
    try:
        yield
    except MesaformError as error:
        if not is_caused_by_expiry(error):
            raise
        raise CredentialsExpired(
            f"the AWS credentials expired during {verb}: {error.what.partition(chr(10))[0]}",
            where=error.where,
            fix=f"{_what_is_left(context)}\n  {_resumption(context, verb)}",
        ) from error


def is_caused_by_expiry(error: MesaformError) -> bool:
    """Whether AWS refused a call of this program, or of Terraform, with expired credentials."""
    from mesaform.aws.errors import names_expired_credentials

    return isinstance(error, CredentialsExpired) or names_expired_credentials(error.what)


def _what_is_left(context: Context) -> str:
    """What Terraform's state lists now. The account cannot be asked."""
    from mesaform.provision.state_folders import STACKS
    from mesaform.provision.terraform_state import read_latest_state

    states = [read_latest_state(context.cluster_dir, stack) for stack in STACKS]
    kinds = [resource.kind for state in states for resource in state.resources]
    if not kinds:
        return "Terraform's state lists nothing; what was created lately is found by its tags"
    counts = (f"{state.stack} {len(state.resources)}" for state in states if state.resources)
    listed, machines = ", ".join(counts), kinds.count("aws_instance")
    billed = f"; of these {machines} are machines, which are billed" if machines else ""
    return f"left in the account, by Terraform's state: {len(kinds)} resources ({listed}){billed}"


def _resumption(context: Context, verb: str) -> str:
    file = "" if context.file.name == "cluster.yaml" else f" --file {context.file.name}"
    return (
        "renew the credentials (aws sso login, or a new session of the role), then go on:"
        f" {verb}{file}"
    )
