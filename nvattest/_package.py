"""What ships with the code: the version, the XSD profile of the RIMs, and the JSON Schemas of every file format."""

from __future__ import annotations

import os

__version__ = "1.1.0"


def schema_path(name: str) -> str:
    """The path of a schema, in an installed wheel or in a checkout, or a FileNotFoundError."""
    here = os.path.dirname(os.path.abspath(__file__))
    checkout = os.path.dirname(here)
    # Only a checkout has its schemas beside the package; beside an installed package are other packages' files.
    folders = [here, checkout] if os.path.isfile(os.path.join(checkout, "pyproject.toml")) else [here]
    for folder in folders:
        path = os.path.join(folder, "schemas", name)
        if os.path.isfile(path):
            return path
    raise FileNotFoundError(f"nvattest was installed without its schema {name}")


def schema_bytes(name: str) -> bytes:
    """The text of a schema."""
    with open(schema_path(name), "rb") as file:
        return file.read()
