"""The program that Pulumi runs (`Pulumi.yaml`): the cluster of the cluster file, declared."""

from __future__ import annotations

from mesaform_stacks.pulumi.program import run

run()
