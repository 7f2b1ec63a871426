"""The cluster of cluster.yaml as a part of a Pulumi program of your own.

`pip install 'mesaform[pulumi]'`, `mesaform bake`, `pulumi stack init demo`, `pulumi preview`.
"""

from __future__ import annotations

import pulumi

from mesaform_stacks.pulumi.program import run

outputs = run()
pulumi.export(
    "engine", pulumi.Output.format("http://{0}:5050", outputs["masters"]["public_addresses"][0])
)
