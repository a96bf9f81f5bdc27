"""Counting what a run reads and validates: in this process, or in a hook that imports this file first."""

from __future__ import annotations

import functools
import hashlib
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

READERS = {
    "report": ("nvattest.spdm.report", "parse_report"),
    "certificate": ("nvattest.pki.certificate", "read_pem_block"),
    "RIM": ("nvattest.rim.document", "parse_rim"),
    "answer": ("nvattest.pki.ocsp", "parse_ocsp_response"),
    "chain": ("nvattest.pki.chain", "validate_chain"),
}


def digest(value: Any) -> str:
    """Of bytes, or of a chain of certificates."""
    return hashlib.sha256(value if isinstance(value, bytes) else b"".join(item.der for item in value)).hexdigest()


def counted(note: Callable[[str], None]) -> Iterator[tuple[Any, str, Any]]:
    """Each module of nvattest that has a reader, its name there, and the reader that notes a word and a digest."""
    for word, (home, name) in READERS.items():
        function = getattr(import_module(home), name)

        @functools.wraps(function)
        def reader(value: Any, *more: Any, _word: str = word, _read: Any = function, **named: Any) -> Any:
            note(f"{_word} {digest(value)}")
            return _read(value, *more, **named)

        for module in [module for key, module in sys.modules.items() if key.startswith("nvattest.")]:
            for attribute, value in list(vars(module).items()):
                if value is function:
                    yield module, attribute, reader


def into(path: str) -> None:
    """Append a line to this file for each reading of this process."""

    def note(line: str) -> None:
        with open(path, "a", encoding="ascii") as file:
            file.write(f"{line}\n")

    for module, name, reader in list(counted(note)):
        setattr(module, name, reader)
