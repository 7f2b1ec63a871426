"""`python -m mesaform.node`: the node, see `mesaform.node.main`."""

from __future__ import annotations

import sys

from mesaform.node.main import main

sys.exit(main())
