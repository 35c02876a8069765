"""``python -m minitransformer`` is the command ``minitransformer``."""

from __future__ import annotations

import sys

from minitransformer.cli import main

if __name__ == "__main__":
    sys.exit(main())
