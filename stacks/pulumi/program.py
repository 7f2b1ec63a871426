"""The described stacks as Pulumi resources.

Each described stack is a component. Resources are replaced as Terraform replaces them, the old one
deleted first, because fixed addresses and names exist once.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from ipaddress import ip_network
from typing import Any

import pulumi
import pulumi_aws

from mesaform.common.errors import MesaformError
from mesaform_stacks.base import ClusterStack, Settings, cluster_tags
from mesaform_stacks.cluster import describe
from mesaform_stacks.description import REFERENCE, Block, Renderer, ResourceDescription
from mesaform_stacks.pulumi import kinds
from mesaform_stacks.pulumi.settings import prepare_settings

COMPONENT = "mesaform:stacks:{}"


Outputs = dict[str, dict[str, Any]]
"""Outputs by stack and name; values are Pulumi's outputs, or lists and tables of them."""


def run() -> Outputs:
    """Declare the cluster of the cluster file that Pulumi's configuration `clusterFile` names.

    Without it, `MESAFORM_CLUSTER_FILE` or `cluster.yaml` is the file.

    Raises:
        RunError: the settings are wrong; Pulumi prints the message without a traceback.

    """
    try:
        settings = prepare_settings(pulumi.Config().get("clusterFile"))
    except MesaformError as error:
        raise pulumi.RunError(str(error)) from None
    return declare(settings)


def declare(settings: Settings) -> Outputs:
    """Declare all resources of a cluster in the running Pulumi program; export the outputs."""
    program = PulumiProgram(settings)
    return {stack.name: program.declare(stack) for stack in describe(settings)}


class PulumiProgram:
    """Declares described stacks. References are to what it has declared before."""

    def __init__(self, settings: Settings) -> None:
        self._secret = settings.secret
        self._provider = _provider(settings)
        self._declared: dict[str, object] = {}
        self._values = Renderer(self._text, _block, _call)

    def declare(self, stack: ClusterStack) -> dict[str, Any]:
        """Declare one stack; its outputs are exported as one object under its name."""
        component = pulumi.ComponentResource(
            COMPONENT.format(stack.name.capitalize()),
            stack.name,
            opts=pulumi.ResourceOptions(providers=[self._provider]),
        )
        for resource in stack.resources:
            self._declared[f"{stack.name}/{resource.name}"] = self._resource(resource, component)
        exported = self._values.arguments(stack.outputs)
        component.register_outputs(exported)
        pulumi.export(stack.name, exported)
        return exported

    def _resource(self, resource: ResourceDescription, component: pulumi.Resource) -> object:
        """One resource.

        Raises:
            TypeError: the class has no such argument; the message names the resource.

        """
        kind = resource.kind
        arguments = self._values.arguments(kinds.arguments_of(kind, resource.arguments))
        if kind.is_data:
            function = kinds.load(kinds.FUNCTIONS, kind.class_name)
            return function(**arguments, opts=pulumi.InvokeOptions(provider=self._provider))
        resource_class = kinds.load(kinds.CLASSES, kind.class_name)
        options = pulumi.ResourceOptions(
            parent=component,
            delete_before_replace=True,
            depends_on=[self._declared[place] for place in resource.after],
            ignore_changes=list(resource.ignored_changes),
        )
        try:
            return resource_class(f"{resource.stack}-{resource.name}", **arguments, opts=options)
        except TypeError as error:
            raise TypeError(f"{resource.stack}: {resource.name}: {error}") from error

    def _text(self, text: str) -> object:
        """A text with outputs in place of references; Pulumi encrypts it if it has the secret."""
        parts = _parts(text, self._declared)
        value = parts[0] if len(parts) == 1 else pulumi.Output.concat(*parts)
        if self._secret and self._secret in text:
            return pulumi.Output.secret(value)
        return value


def _provider(settings: Settings) -> pulumi_aws.Provider:
    return pulumi_aws.Provider(
        "aws",
        region=settings.spec.region,
        allowed_account_ids=[settings.account_id] if settings.account_id else None,
        default_tags=pulumi_aws.ProviderDefaultTagsArgs(tags=cluster_tags(settings)),
    )


def _parts(text: str, declared: Mapping[str, object]) -> list[object]:
    """Pieces of a text in turn: plain ones, and the attributes that stand between them."""
    parts: list[object] = []
    end = 0
    for match in REFERENCE.finditer(text):
        if match.start() > end:
            parts.append(text[end : match.start()])
        resource = declared[f"{match['stack']}/{match['name']}"]
        parts.append(getattr(resource, match["attribute"]))
        end = match.end()
    if end < len(text) or not parts:
        parts.append(text[end:])
    return parts


def _block(block: Block, arguments: dict[str, object]) -> object:
    return kinds.load(kinds.BLOCKS, type(block).__name__)(**arguments)


def _call(function: str, arguments: list[object]) -> object:
    return pulumi.Output.all(*arguments).apply(lambda known: FUNCTIONS[function](*known))


def _encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _divide(cidr: str, bits: float, number: float) -> str:
    """Terraform's `cidrsubnet`, of which Pulumi has none; numbers may come as fractions."""
    network = ip_network(cidr)
    step = network.num_addresses >> int(bits)
    prefix = network.prefixlen + int(bits)
    return f"{network.network_address + int(number) * step}/{prefix}"


FUNCTIONS: Mapping[str, Callable[..., str]] = {"base64encode": _encode, "cidrsubnet": _divide}
