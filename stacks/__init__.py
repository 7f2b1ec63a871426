"""What exists in the cloud, declaratively; one stack a rate of change."""

import os
from pathlib import Path

# Both before jsii starts its Node, which the first import of cdktf does.
# A list of majors, of which this jsii calls only 20 too old.
os.environ.setdefault("JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION", "20")
# The provider's 400 MB of JavaScript are unpacked once, beside the tools of this checkout instead of in the home folder.
_tools = Path(__file__).resolve().parents[1] / "node_modules"
if _tools.is_dir():
    os.environ.setdefault("JSII_RUNTIME_PACKAGE_CACHE_ROOT", str(_tools / ".cache" / "jsii"))
