"""What exists in the cloud, declaratively; one stack a rate of change."""

import os

# Before jsii starts its Node: a list of majors, of which this jsii calls only 20 too old.
os.environ.setdefault("JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION", "20")
