"""The described stacks as a CDKTF app: constructs, provider, and the places of states.

Both targets use the same provider; `AWS_ENDPOINT_URL` in the environment names the API.
"""

from __future__ import annotations

import re

from cdktf import (
    App,
    Fn,
    LocalBackend,
    S3Backend,
    TerraformElement,
    TerraformLocal,
    TerraformOutput,
    TerraformResourceLifecycle,
    TerraformStack,
)
from constructs import Construct

from mesaform.provision.state_folders import state_file
from mesaform.topology import names
from mesaform_stacks import generated
from mesaform_stacks.base import ClusterStack, Settings, cluster_tags
from mesaform_stacks.cluster import describe
from mesaform_stacks.description import REFERENCE, Block, Kind, Renderer, ResourceDescription

PROVIDER = Kind("aws_provider", "AwsProvider")
Constructs = dict[str, TerraformElement]
"""Constructs by `<stack>/<name>`."""


def build(settings: Settings, outdir: str | None = None) -> App:
    """The app with all stacks of a cluster."""
    app = App(outdir=outdir) if outdir else App()
    constructs: Constructs = {}
    for stack in describe(settings):
        CdktfStack(app, stack, constructs)
    return app


class CdktfStack(TerraformStack):
    """One described stack. References to other stacks become reads of their states."""

    def __init__(self, scope: Construct, stack: ClusterStack, constructs: Constructs) -> None:
        super().__init__(scope, stack.name)
        self._constructs = constructs
        self._locals = 0
        self._provider(stack.settings)
        self._backend(stack)
        for resource in stack.resources:
            constructs[f"{stack.name}/{resource.name}"] = self._resource(resource)
        values = Renderer(self._text, _no_block, self._call)
        for name, value in stack.outputs.items():
            output = TerraformOutput(self, f"out-{name}", value=values.render(value))
            output.override_logical_id(name)

    def _provider(self, settings: Settings) -> None:
        module = generated.load(PROVIDER)
        module.AwsProvider(
            self,
            "aws",
            region=settings.spec.region,
            allowed_account_ids=[settings.account_id] if settings.account_id else None,
            default_tags=[module.AwsProviderDefaultTags(tags=cluster_tags(settings))],
        )

    def _backend(self, stack: ClusterStack) -> None:
        """State in the account's bucket with S3's own lock (Terraform 1.10), or in the folder."""
        settings = stack.settings
        if not settings.state_bucket:
            LocalBackend(self, path=str(state_file(settings.folder, stack.name)))
            return
        S3Backend(
            self,
            bucket=settings.state_bucket,
            key=f"{names.state_prefix(stack.spec.name)}{stack.name}.tfstate",
            region=stack.spec.region,
            encrypt=True,
        )
        self.add_override("terraform.backend.s3.use_lockfile", True)  # cdktf knows neither of them
        self.add_override(
            "terraform.backend.s3.allowed_account_ids",
            [settings.account_id],
        )

    def _resource(self, resource: ResourceDescription) -> TerraformElement:
        """The construct of a resource.

        Raises:
            TypeError: the generated class rejects an argument; the message names the resource.

        """
        module = generated.load(resource.kind)

        def block(described: Block, arguments: dict[str, object]) -> object:
            return getattr(module, type(described).__name__)(**arguments)

        arguments = Renderer(self._text, block, self._call).arguments(resource.arguments)
        if resource.after:
            arguments["depends_on"] = [self._constructs[place] for place in resource.after]
        if resource.ignored_changes:
            ignored = list(resource.ignored_changes)
            arguments["lifecycle"] = TerraformResourceLifecycle(ignore_changes=ignored)
        try:
            construct: TerraformElement = getattr(module, resource.kind.class_name)(
                self, resource.name, **arguments
            )
        except TypeError as error:
            raise TypeError(f"{resource.stack}: {resource.name}: {error}") from error
        return construct

    def _text(self, text: str) -> str:
        """A text with CDKTF's tokens in place of references."""

        def token(match: re.Match[str]) -> str:
            construct = self._constructs[f"{match['stack']}/{match['name']}"]
            return str(getattr(construct, match["attribute"]))

        return REFERENCE.sub(token, text)

    def _call(self, function: str, arguments: list[object]) -> str:
        """A call that Terraform evaluates; texts with quotes are locals, which need no escapes."""
        self._locals += 1
        text = TerraformLocal(self, f"argument-{self._locals}", arguments[0]).as_string
        if function == "base64encode":
            return str(Fn.base64encode(text))
        return str(Fn.cidrsubnet(text, *arguments[1:]))


def _no_block(described: Block, _: dict[str, object]) -> object:
    raise TypeError(f"{type(described).__name__}: an output has no blocks")
