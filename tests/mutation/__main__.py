"""Plant every mistake and print which fall.

    python -m tests.mutation [module ...] [--sample N]

`--sample N` takes at most N mistakes per function. Exit status 1 if one survives that
`equivalent.py` does not explain.
"""

from __future__ import annotations

import argparse
import sys

from tests.mutation.runner import MODULES, run, unexplained


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation")
    parser.add_argument("modules", nargs="*", default=MODULES, metavar="module")
    parser.add_argument("--sample", type=int, metavar="N", help="mistakes per function at most")
    arguments = parser.parse_args()
    unknown = set(arguments.modules) - set(MODULES)
    if unknown:
        parser.error(f"no kernel module {', '.join(sorted(unknown))}; there are {MODULES}")
    survivors = unexplained(run(arguments.modules, arguments.sample))
    for mutant in survivors:
        print(f"not explained: {mutant.name}")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
