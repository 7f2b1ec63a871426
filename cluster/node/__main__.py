from __future__ import annotations

import sys

from cluster.node.main import main

sys.exit(main())
