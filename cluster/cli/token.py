"""`mesaform token`: show the operator's token and the frameworks' secrets, and rotate the token."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import TYPE_CHECKING

import typer

from mesaform.cli.context import Context, open_context
from mesaform.cli.options import DEFAULT_FILE, FileOption, JsonOption
from mesaform.common.access import OPERATOR, basic_header
from mesaform.common.errors import Busy

if TYPE_CHECKING:
    from mesaform.common.access import AccessDocument
    from mesaform.common.tls import Trust

HELP = """Show and replace the credentials of a cluster with `access` in its file.

With a token 5050, 8080 and 9550 of the masters take HTTP Basic (user `operator`, the token as
password; a browser asks for it) and `Authorization: Bearer TOKEN`.
"""
READ_TIMEOUT_S = 90.0
"""For the masters to read a new document: they do so every 10 s."""
POLL_S = 0.5
CALL_TIMEOUT_S = 3.0
PROBES = {5050: "/version", 8080: "/v2/leader", 9550: "/metrics"}
"""A path of each port that needs the token."""
UNAUTHORIZED = 401


def register(app: typer.Typer) -> None:
    verbs = typer.Typer(help=HELP, no_args_is_help=True)
    verbs.command("show", help="Print the token, or with --json also the frameworks' secrets.")(
        show
    )
    verbs.command(
        "rotate", help="Replace the token. The old one is valid until all masters have the new one."
    )(rotate)
    app.add_typer(verbs, name="token")


def show(file: FileOption = DEFAULT_FILE, json_: JsonOption = False) -> None:
    """Print the credentials."""
    from mesaform.provision.access import require_access

    context = open_context(file)
    context.enter_cloud()
    _print(require_access(context), as_json=json_)


def _print(document: AccessDocument, *, as_json: bool) -> None:
    if as_json:
        shown = {
            "user": OPERATOR,
            "token": document.tokens[0],
            "frameworks": [
                {"principal": item.principal, "secret": item.secret}
                for item in document.credentials
            ],
        }
        typer.echo(json.dumps(shown, indent=2))
        return
    typer.echo(document.tokens[0])


def rotate(file: FileOption = DEFAULT_FILE, json_: JsonOption = False) -> None:
    """Replace the token."""
    from mesaform import provision
    from mesaform.cli.wiring import wire
    from mesaform.provision import access

    context = open_context(file)
    wire(context)
    provision.require_pinned_account(context)
    store, document = access.access_store(context), access.require_access(context)
    final = access.rotate(store, document, _wait(context))
    if json_:
        _print(final, as_json=True)
        return
    typer.echo("The token is replaced; see it with: mesaform token show")
    if context.spec.engine == "mesos":
        typer.echo("Masters of Apache Mesos read it when they start: mesaform up")


def _wait(context: Context) -> Callable[[str, bool], None]:
    """Wait until every port of every master accepts a token, or refuses it."""
    from mesaform.cli.masters import hosts_of
    from mesaform.cli.trust import cluster_trust

    if not context.spec.access.needs_token:
        return lambda _token, _accepts: None
    ports = dict(PROBES)
    if context.spec.engine == "mesos":
        del ports[5050]
    hosts, trust = hosts_of(context), cluster_trust(context)

    def wait(token: str, accepts: bool) -> None:
        pending = [(host, port) for host in hosts for port in ports]
        ends = time.monotonic() + READ_TIMEOUT_S
        while pending:
            pending = [at for at in pending if accepts_token(*at, token, trust) is not accepts]
            if pending and time.monotonic() > ends:
                raise Busy(
                    f"{', '.join(f'{host}:{port}' for host, port in pending)} did not read the new"
                    f" credentials within {READ_TIMEOUT_S:.0f} s",
                    where=context.spec.name,
                    fix="the former token is valid as well until then; see mesaform status, then"
                    " carry on: mesaform token rotate",
                )
            if pending:
                time.sleep(POLL_S)

    return wait


def accepts_token(host: str, port: int, token: str, trust: Trust | None = None) -> bool | None:
    """Whether a port accepts a token; None if it does not answer."""
    connection = (
        HTTPConnection(host, port, timeout=CALL_TIMEOUT_S)
        if trust is None
        else HTTPSConnection(host, port, timeout=CALL_TIMEOUT_S, context=trust.context())
    )
    try:
        headers = {"Authorization": basic_header(OPERATOR, token)}
        connection.request("GET", PROBES[port], headers=headers)
        return connection.getresponse().status != UNAUTHORIZED
    except (OSError, HTTPException):
        return None
    finally:
        connection.close()
