"""``hwmodel`` in its two spellings: the local verifiers write a certificate's whole name, NVIDIA's service the chip."""

from __future__ import annotations

from nvattest._documents import JsonObject


def short_hwmodel(hwmodel: str) -> str:
    """``GH100`` of ``GH100 A01 GSP BROM``, ``LS_10`` of ``LS_10 A01 FSP BROM``; a short one stays as it is."""
    return hwmodel.split(" ", 1)[0]


def with_short_hwmodel(claims: JsonObject) -> JsonObject:
    """The same claims with ``hwmodel`` as NVIDIA's service has it, for comparing with its answers."""
    hwmodel = claims.get("hwmodel")
    return {**claims, "hwmodel": short_hwmodel(hwmodel)} if isinstance(hwmodel, str) else dict(claims)
