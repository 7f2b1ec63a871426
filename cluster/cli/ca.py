"""`mesaform ca`: show the certificate of the cluster's CA, and rotate the CA."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from ssl import get_server_certificate as read_server_certificate  # not the call of IAM
from typing import TYPE_CHECKING

import typer

from mesaform.cli.context import open_context
from mesaform.cli.masters import hosts_of
from mesaform.cli.options import DEFAULT_FILE, FileOption, JsonOption
from mesaform.common.errors import Busy
from mesaform.topology.ports import Port

if TYPE_CHECKING:
    from mesaform.common.certificates import AuthorityDocument

HELP = """Show and replace the CA of a cluster with `tls: true` in its file.

`mesaform ca show > ca.pem` writes the certificate for `curl --cacert ca.pem`, browsers and
frameworks.
"""
ANSWER_WITHIN_S = 10.0
NEXT_STEPS = {
    "added": "The new CA is trusted beside the present one once every machine has it in its user"
    " data: mesaform up --upgrade; then: mesaform ca rotate",
    "switched": "The new CA issues from now on. Every machine has a certificate of it after a day;"
    " then: mesaform ca rotate",
    "dropped": "The former CA is dropped. Machines trust it until they are replaced:"
    " mesaform up --upgrade",
}


def register(app: typer.Typer) -> None:
    verbs = typer.Typer(help=HELP, no_args_is_help=True)
    verbs.command("show", help="Print the certificate, or with --json what it says.")(show)
    verbs.command("rotate", help="Carry out the next of the three steps that replace the CA.")(
        rotate
    )
    app.add_typer(verbs, name="ca")


def show(file: FileOption = DEFAULT_FILE, json_: JsonOption = False) -> None:
    """Print the certificates of the CA."""
    from mesaform.provision.authority import require_authority

    context = open_context(file)
    context.enter_cloud()
    document = require_authority(context)
    typer.echo(_summary(document) if json_ else document.certificates, nl=json_)


def _summary(document: AuthorityDocument) -> str:
    from mesaform.common.certificates import ends_at, fingerprint

    items = [
        {
            "certificate": item.certificate,
            "sha256": fingerprint(item.certificate),
            "ends": datetime.fromtimestamp(ends_at(item.certificate), UTC).isoformat(),
            "issues": index == 0,
        }
        for index, item in enumerate(document.authorities)
    ]
    return json.dumps({"authorities": items}, indent=2)


def rotate(file: FileOption = DEFAULT_FILE) -> None:
    """Carry out the next step of a rotation."""
    from mesaform import provision
    from mesaform.cli.wiring import wire
    from mesaform.common.certificates import create_authority
    from mesaform.provision import authority
    from mesaform.provision.deployment import require_deployment

    context = open_context(file)
    wire(context)
    provision.require_pinned_account(context)
    document = authority.require_authority(context)
    deployment = require_deployment(context.cluster_dir)
    following, step = authority.rotate(
        document,
        lambda: create_authority(
            context.spec.name,
            deployment.deployment_id,
            time.time(),
            former=document.authorities[0],
        ),
    )
    if step == authority.Rotation.DROPPED:
        require_renewed(document, hosts_of(context))
    authority.authority_store(context).replace(following)
    authority.refresh_copy(context)
    typer.echo(NEXT_STEPS[step])


def require_renewed(document: AuthorityDocument, hosts: Sequence[str]) -> None:
    """Check that every master serves a certificate of the CA that issues now.

    Verbs trust no other once the former CA is dropped.

    Raises:
        Busy: a master has one of the former CA, or does not answer.

    """
    from mesaform.common.certificates import key_id

    present = key_id(document.authorities[0].certificate)
    behind = [host for host in hosts if _issuer(host) != present]
    if behind:
        raise Busy(
            "masters without a certificate of the new CA: " + ", ".join(behind),
            fix="nothing was changed; masters renew within 10 min and agents within a day, then:"
            " mesaform ca rotate",
        )


def _issuer(host: str) -> bytes:
    """The key id of the CA that issued a master's certificate; empty if it shows none."""
    from mesaform.common.certificates import read_certificate

    try:
        shown = read_server_certificate((host, Port.ENGINE_MASTER), timeout=ANSWER_WITHIN_S)
        return read_certificate(shown).issuer_key_id
    except (OSError, ValueError):
        return b""
