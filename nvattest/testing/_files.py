"""Writes a simulated platform to files, for use by hand."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from nvattest.model import DeviceKind

if TYPE_CHECKING:
    from nvattest.testing.platform import Platform

__all__ = ["write_platform"]


def write_platform(platform: Platform, folder: str, nonce: bytes) -> list[str]:
    """Write evidence, ``rims/<id>.xml``, ``ocsp/<name>.der``, ``anchors.pem``, ``bundle.json`` and ``nonce.hex``.

    Raises:
        OSError: the folder cannot be made or written.
        InputError: the nonce does not have exactly 32 bytes.
    """
    files: dict[str, bytes] = {"gpu-evidence.json": platform.evidence_json(DeviceKind.GPU, nonce).encode()}
    if platform.switches:
        files["switch-evidence.json"] = platform.evidence_json(DeviceKind.NVSWITCH, nonce).encode()
    files.update({os.path.join("rims", f"{name}.xml"): xml for name, xml in platform.rims().items()})
    files.update({os.path.join("ocsp", f"{name}.der"): der for name, der in platform.ocsp_answers().items()})
    files["anchors.pem"] = platform.anchors_pem
    files["bundle.json"] = (json.dumps(platform.bundle(), indent=1) + "\n").encode()
    files["nonce.hex"] = nonce.hex().encode() + b"\n"
    for name in ("rims", "ocsp"):
        os.makedirs(os.path.join(folder, name), exist_ok=True)
    paths = []
    for name, content in files.items():
        path = os.path.join(folder, name)
        with open(path, "wb") as out:
            out.write(content)
        paths.append(path)
    return paths
