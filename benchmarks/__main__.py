"""Run one measurement by its name; whatever follows the name is for the measurement."""

from __future__ import annotations

import sys
from importlib import import_module

MEASUREMENTS = (
    "collect",
    "dask",
    "decode",
    "export",
    "fanout",
    "follow",
    "fuzz",
    "gateway",
    "pacing",
    "soak",
    "throughput",
)
"""Modules of this package, each with ``main(arguments)``."""


def main() -> None:
    """Hand the command line to the measurement that it names."""
    name, *arguments = sys.argv[1:] or [""]
    if name not in MEASUREMENTS:
        sys.exit(f"usage: python -m benchmarks {{{','.join(MEASUREMENTS)}}} ...")
    import_module(f"benchmarks.{name}").main(arguments)


if __name__ == "__main__":
    main()
