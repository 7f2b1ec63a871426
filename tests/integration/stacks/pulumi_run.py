"""Runs the Pulumi program with Pulumi's mocks and prints what it declares.

`python -m tests.integration.stacks.pulumi_run`: standard input is a request as `test_pulumi.py`
writes it, output what `declared` returns for the program, and for the program with another rule.
With a file as argument that program runs, on the environment's cluster file.
"""

from __future__ import annotations

import dataclasses
import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pulumi
import pulumi.runtime.mocks
from pulumi.runtime import rpc

from mesaform.config.parser import parse
from mesaform.provision.image import BootImage, BootImages
from mesaform.topology import ports
from mesaform_stacks.base import Settings
from mesaform_stacks.pulumi import program


class Recorder(pulumi.runtime.mocks.Mocks):
    """The engine of a test: keeps each resource; `attributes` are what references resolve to."""

    def __init__(self, attributes: dict[str, dict[str, str]]) -> None:
        self.resources: list[dict[str, Any]] = []
        self._attributes = attributes

    def new_resource(self, args: pulumi.runtime.mocks.MockResourceArgs):
        secret = sorted(key for key, value in args.inputs.items() if rpc.is_rpc_secret(value))
        inputs = {key: rpc.unwrap_rpc_secret(value) for key, value in args.inputs.items()}
        self.resources.append(
            {
                "name": args.name,
                "type": args.typ,
                "inputs": inputs,
                "provider": args.provider or "",
                "secret": secret,
            }
        )
        known = self._attributes.get(args.name, {})
        return known.get("id", f"id of {args.name}"), {**inputs, **known}

    def call(self, args: pulumi.runtime.mocks.MockCallArgs):
        assert args.provider, "calls go to the program's own provider"
        zones = [
            value
            for item in args.args.get("filters", ())
            if item["name"] == "availability-zone"
            for value in item["values"]
        ]
        return self._attributes.get(" ".join([args.token, *zones]), {})


def declared(attributes: dict, declare: Callable[[], object]) -> dict[str, Any]:
    """Resources, outputs, and names of resources that are deleted before they are replaced."""
    recorder = Recorder(attributes)
    pulumi.runtime.set_mocks(recorder, project="mesaform", stack="test", preview=False)
    deleted_first: list[str] = []
    exported: dict[str, Any] = {}

    def note(args: pulumi.ResourceTransformationArgs) -> None:
        if args.opts.delete_before_replace:
            deleted_first.append(args.name)

    @pulumi.runtime.test
    def run():
        pulumi.runtime.register_stack_transformation(note)
        declare()
        outputs = dict(pulumi.runtime.get_root_resource().outputs)
        return pulumi.Output.all(**outputs).apply(exported.update)

    run()
    return {
        "resources": recorder.resources,
        "deleted_first": deleted_first,
        "outputs": exported,
    }


def settings(request: dict) -> Settings:
    """The settings that the CDKTF program is given by `conftest.synthesize`."""
    images = {name: BootImage(*image) for name, image in request["images"].items()}
    return Settings(
        spec=parse(request["cluster_file"]),
        images=BootImages(images, "digest"),
        folder=Path("/nowhere"),
        **request["deployment"],
    )


def both(request: dict) -> list[dict[str, Any]]:
    """The program, and the program with the first rule of a group open for one port more."""
    rules = ports.ingress_rules

    def changed(spec):
        first, *others = rules(spec)
        return [dataclasses.replace(first, last_port=first.last_port + 1), *others]

    def declare() -> None:
        program.declare(settings(request))

    usual = declared(request["attributes"], declare)
    with mock.patch.object(ports, "ingress_rules", changed):
        return [usual, declared(request["attributes"], declare)]


def each(requests: list[dict]) -> list[dict[str, Any]]:
    """The program on each of several clusters."""
    return [
        declared(request["attributes"], lambda item=request: program.declare(settings(item)))  # type: ignore[misc]
        for request in requests
    ]


def of_standard_input() -> list[dict[str, Any]]:
    request = json.load(sys.stdin)
    return each(request) if isinstance(request, list) else both(request)


def of_file(path: str) -> dict[str, Any]:
    """A program as Pulumi runs it; each attribute of a resource is a text."""

    class Anything(dict[str, dict[str, str]]):
        def get(self, name: str, _: object = None) -> dict[str, str]:
            known = ("id", "arn", "name", "url", "privateIp", "publicIp", "accountId")
            return {key: f"{key} of {name}" for key in known}

    return declared(Anything(), lambda: runpy.run_path(path, run_name="__main__"))


if __name__ == "__main__":
    result = of_file(sys.argv[1]) if sys.argv[1:] else of_standard_input()
    json.dump(result, sys.stdout)
