"""Instances with signed identities, for tests of those who verify them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from msgspec import structs

from mesaform.localcloud.instance_identity import IdentityService
from mesaform.localcloud.layout import Layout
from mesaform.localcloud.protocol import Machine
from mesaform.topology.instance_identity import InstanceVerifier, SignedIdentity, public_key

ACCOUNT, REGION = "123456789012", "us-east-1"


@dataclass(frozen=True, slots=True)
class Account:
    """An account with a key of its own below `folder`."""

    folder: Path

    @property
    def certificate(self) -> Path:
        """The certificate, PEM; made if it does not exist."""
        layout = Layout(self.folder)
        IdentityService(layout).prepare()
        return layout.identity_certificate

    @property
    def environment(self) -> dict[str, str]:
        """What makes a master verify agents of this account."""
        return {
            "MESAFORM_IDENTITY_ACCOUNT": ACCOUNT,
            "MESAFORM_IDENTITY_REGION": REGION,
            "MESAFORM_IDENTITY_CERTIFICATE": str(self.certificate),
        }

    @property
    def verifier(self) -> InstanceVerifier:
        return InstanceVerifier(public_key(self.certificate.read_text()), ACCOUNT, REGION)

    def proof(self, instance_id: str, address: str, **facts: str) -> SignedIdentity:
        """The signed identity of an instance; `facts` are fields of `Machine`."""
        service = IdentityService(Layout(self.folder))
        machine = structs.replace(an_instance(instance_id, address), **facts)
        document = service.answer(machine, "document")
        signature = service.answer(machine, "signature")
        assert document is not None
        assert signature is not None
        return SignedIdentity(document, signature)


def an_instance(instance_id: str, address: str) -> Machine:
    return Machine(
        instance_id=instance_id,
        image_id="ami-0123456789abcdef0",
        instance_type="m5.large",
        account_id=ACCOUNT,
        region=REGION,
        zone="us-east-1a",
        address=address,
        public_address="",
        state="running",
        boots=1,
        hard=False,
        launched_at=1_700_000_000.0,
        vcpus=2,
        mem_mib=8192,
        user_data="",
        profile_arn="",
        profile_id="",
        lifecycle="on-demand",
        shutdown_behavior="stop",
        tokens_required=True,
        metadata_tags={},
        notice=None,
    )
