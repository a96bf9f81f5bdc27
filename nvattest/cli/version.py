"""``nvattest version``."""

from __future__ import annotations

import argparse
import platform

from nvattest._package import __version__


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """It has none."""


def run(options: argparse.Namespace) -> int:
    """Print the version, as a line or as JSON."""
    if options.format == "json":
        print(f'{{"format": "nvattest-version", "version": 1, "nvattest": "{__version__}"}}')
    else:
        print(f"nvattest {__version__} ({platform.system()}/{platform.machine()})")
    return 0
