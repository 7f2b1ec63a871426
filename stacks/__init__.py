"""CDKTF stacks of a cluster, one per rate of change. Imported by the app that cdktf runs."""

import os
from pathlib import Path

# All before jsii starts its Node, which the first import of cdktf does.
# A list of majors, of which this jsii calls only 20 too old.
os.environ.setdefault("JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION", "20")
# The provider's 400 MB of JavaScript are unpacked once, beside this checkout's tools.
_tools = Path(__file__).resolve().parents[1] / "node_modules"
if _tools.is_dir():
    os.environ.setdefault("JSII_RUNTIME_PACKAGE_CACHE_ROOT", str(_tools / ".cache" / "jsii"))
# Node reads the path as a quoted string, in which a backslash escapes.
_lazy_provider = str(Path(__file__).resolve().with_name("lazy_provider.cjs"))
_quoted = _lazy_provider.replace("\\", "\\\\").replace('"', '\\"')
_options = os.environ.get("NODE_OPTIONS", "")
if _quoted not in _options:
    os.environ["NODE_OPTIONS"] = f'{_options} --require "{_quoted}"'.strip()
