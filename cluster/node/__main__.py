from __future__ import annotations

import sys

from mesaform.node.main import main

sys.exit(main())
