"""A verb whose credentials expire says one thing: what expired, what is left, how to go on."""

from __future__ import annotations

import pytest

from mesaform.cli.context import Context, open_context
from mesaform.cli.expired_credentials import explain_expiry
from mesaform.common.errors import CloudError, CredentialsExpired, Exit, MesaformError, Permanent
from mesaform.provision.state_folders import ERRORED, stack_dir
from tests.support.terraform_state import write_state


@pytest.fixture
def place(tmp_path) -> Context:
    (tmp_path / "cluster.yaml").write_text("name: a\n")
    return open_context(str(tmp_path / "cluster.yaml"))


TERRAFORM = CloudError(
    "creating VPC: operation error EC2: CreateVpc, api error RequestExpired: Request has expired",
    where="network: aws_vpc.vpc",
)


def said(place: Context, error: MesaformError) -> MesaformError:
    with pytest.raises(MesaformError) as caught, explain_expiry(place, "mesaform up"):
        raise error
    return caught.value


@pytest.mark.parametrize("error", [CredentialsExpired("ExpiredToken: it ended"), TERRAFORM])
def test_calls_of_this_program_and_of_terraform_give_the_same_text(place, error):
    write_state(place.cluster_dir, "network", [("aws_vpc", {"id": "vpc-1"})])
    folder = stack_dir(place.cluster_dir, "masters")
    write_state(folder, "masters", [("aws_instance", {"id": "i-1"})]).rename(folder / ERRORED)
    text = said(place, error)
    assert isinstance(text, CredentialsExpired)
    assert text.exit_code == Exit.MISSING_PREREQUISITE
    assert text.what.startswith("the AWS credentials expired during mesaform up: ")
    assert "2 resources (network 1, masters 1); of these 1 are machines" in text.fix
    assert text.fix.endswith("then go on: mesaform up")


def test_other_errors_stay_as_they_are(place):
    error = Permanent("AccessDenied: no right")
    assert said(place, error) is error
