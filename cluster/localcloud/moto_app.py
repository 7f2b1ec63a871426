"""moto's WSGI applications, one a service, called with requests that are whole. Needs moto.

moto's own dispatcher is not used: it chooses the application by host name, path and body, and so
routes moto's control of itself (`/moto-api`). Here the service is the one that the caller signed
for.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from wsgiref.types import WSGIApplication, WSGIEnvironment

from moto.core.request import (
    PRESERVED_HEADER_NAMES_ENVIRON_KEY,
    environ_key_for_header,
    should_preserve_original_header_name,
)
from moto.moto_server.werkzeug_app import create_backend_app
from werkzeug.test import EnvironBuilder, run_wsgi_app

from mesaform.localcloud.aws_request import AwsRequest
from mesaform.localcloud.error_responses import FORM_TYPE, Answer

MODULES = {"elasticloadbalancing": "elbv2"}
"""moto's name of a service, where it is not the one for which callers sign."""
SERVICES = frozenset(
    {"ec2", "elasticloadbalancing", "events", "iam", "logs", "route53", "s3", "sqs", "ssm", "sts"}
)
"""The services of moto that calls reach; the product uses no other."""
_DROPPED_HEADERS = frozenset({"connection", "content-length", "expect", "transfer-encoding"})
"""Headers of the connection; the body that is passed on is whole."""


class MotoApp:
    """Calls moto. An exception that moto does not handle passes through."""

    def __init__(self, create_app: Callable[[str], WSGIApplication] = create_backend_app) -> None:
        self._create_app = create_app
        self._apps: dict[str, WSGIApplication] = {}

    def call(self, service: str, request: AwsRequest) -> Answer:
        """The answer of a service of `SERVICES`."""
        app = self._apps.get(service)
        if app is None:
            app = self._apps[service] = self._create_app(MODULES.get(service, service))
        chunks, status, headers = run_wsgi_app(app, _environ(request), buffered=True)
        return Answer(int(status.split()[0]), list(headers), b"".join(chunks))


def _environ(request: AwsRequest) -> WSGIEnvironment:
    headers = [
        (name, value) for name, value in request.headers if name.lower() not in _DROPPED_HEADERS
    ]
    builder = EnvironBuilder(
        method=request.method,
        path=request.raw_path,
        base_url=f"http://{request.header('Host') or 'localhost'}/",
        query_string=request.query_string,
        headers=headers,
        input_stream=io.BytesIO(request.body),
        environ_overrides={"RAW_URI": request.target, "REQUEST_URI": request.target},
    )
    environ: WSGIEnvironment = builder.get_environ()
    environ[PRESERVED_HEADER_NAMES_ENVIRON_KEY] = {
        environ_key_for_header(name): name
        for name, _ in headers
        if should_preserve_original_header_name(name)
    }
    if request.method == "PUT" and environ.get("CONTENT_TYPE", "").startswith(FORM_TYPE):
        # curl and urllib give every upload this type; moto would read it as a form.
        environ["CONTENT_TYPE"] = "binary/octet-stream"
    return environ
