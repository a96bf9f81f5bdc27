"""Verify NVIDIA confidential GPUs and NVSwitches: evidence in, an appraisal with every check out.

    import nvattest

    evidence, bundle = open("evidence.json", "rb").read(), open("bundle.json", "rb").read()
    appraisal = nvattest.verify(evidence, collateral=bundle, nonce="931d…")
    appraisal.require()                          # raises NotTrustedError unless it is trusted

    nvattest.attest(kinds=tuple(nvattest.DeviceKind)).require()             # this machine, over the network
    nvattest.verify_token(token, issuer="…", nonce=nonce, jwks=jwks).require()

``collect``, ``fetch_collateral`` and ``verify`` are the steps of ``attest``; the command line uses them. Results may be
refusals and so have no truth value: ask ``.trusted``, or call ``.require()``. All of it may be called from any thread;
a ``Verifier`` that threads share needs no lock. ``nvattest.testing`` (simulated devices) and ``nvattest.compat``
(fronts for programs of NVIDIA's Python SDK) are public too; everything else may change.

Names are imported when they are used: ``import nvattest`` itself costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nvattest._package import __version__

if TYPE_CHECKING:
    from nvattest.appraisal.check import Check, Outcome
    from nvattest.appraisal.guest import CpuPolicy, GuestAppraisal, Strength
    from nvattest.appraisal.inputs import (
        Collateral,
        EvidencePolicy,
        OcspAnswer,
        RevocationMode,
        RimAnswer,
        Source,
        TopologyRule,
        Unavailable,
    )
    from nvattest.appraisal.results import Appraisal, DeviceAppraisal, appraisal_to_json
    from nvattest.appraisal.verifier import Verifier
    from nvattest.collateral.bundle import dump_bundle, load_bundle, merge_bundles
    from nvattest.collateral.cache import DiskCache
    from nvattest.collateral.cpu import CpuOptions
    from nvattest.collateral.gather import GatherOptions
    from nvattest.collateral.http import HttpSettings
    from nvattest.errors import (
        CollateralError,
        CollectionError,
        InputError,
        NotTrustedError,
        NvattestError,
        ParseError,
        PolicyError,
        ResultCode,
        TokenError,
    )
    from nvattest.evidence import Evidence, EvidenceForm, dump_evidence, load_evidence
    from nvattest.model import Architecture, DeviceKind, Nonce, VerificationTime
    from nvattest.pki.anchors import NVIDIA_ANCHORS, TrustAnchors, trust_anchors_from_pem
    from nvattest.policy.cpu_policy import load_cpu_policy
    from nvattest.session import (
        attest,
        collect,
        fetch_collateral,
        fetch_cpu_collateral,
        issue_token,
        parse_collateral,
        verify,
        verify_token,
    )
    from nvattest.tee.guest import Guest
    from nvattest.tee.recipes import Challenge, ExpectedReportData, recipe_from_inputs
    from nvattest.token.claims import claims_of
    from nvattest.token.ear import sign_ear
    from nvattest.token.eat import sign_detached_eat
    from nvattest.token.keys import PublicKey, SigningKey
    from nvattest.token.verified import TokenKind, VerifiedToken

# Where each name is.
_NAMES = {
    "appraisal.check": "Check Outcome",
    "appraisal.guest": "CpuPolicy GuestAppraisal Strength",
    "appraisal.inputs": "Collateral EvidencePolicy OcspAnswer RevocationMode RimAnswer Source TopologyRule Unavailable",
    "appraisal.results": "Appraisal DeviceAppraisal appraisal_to_json",
    "appraisal.verifier": "Verifier",
    "collateral.bundle": "dump_bundle load_bundle merge_bundles",
    "collateral.cache": "DiskCache",
    "collateral.cpu": "CpuOptions",
    "collateral.gather": "GatherOptions",
    "collateral.http": "HttpSettings",
    "errors": "CollateralError CollectionError InputError NotTrustedError NvattestError ParseError PolicyError "
    "ResultCode TokenError",
    "evidence": "Evidence EvidenceForm dump_evidence load_evidence",
    "model": "Architecture DeviceKind Nonce VerificationTime",
    "pki.anchors": "NVIDIA_ANCHORS TrustAnchors trust_anchors_from_pem",
    "policy.cpu_policy": "load_cpu_policy",
    "session": "attest collect fetch_collateral fetch_cpu_collateral issue_token parse_collateral verify verify_token",
    "tee.guest": "Guest",
    "tee.recipes": "Challenge ExpectedReportData recipe_from_inputs",
    "token.claims": "claims_of",
    "token.ear": "sign_ear",
    "token.eat": "sign_detached_eat",
    "token.keys": "PublicKey SigningKey",
    "token.verified": "TokenKind VerifiedToken",
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names.split()}

__all__ = [  # noqa: RUF022 - plain order, as sorted() gives it
    "Appraisal",
    "Architecture",
    "Challenge",
    "Check",
    "Collateral",
    "CollateralError",
    "CollectionError",
    "CpuOptions",
    "CpuPolicy",
    "DeviceAppraisal",
    "DeviceKind",
    "DiskCache",
    "Evidence",
    "EvidenceForm",
    "EvidencePolicy",
    "ExpectedReportData",
    "GatherOptions",
    "Guest",
    "GuestAppraisal",
    "HttpSettings",
    "InputError",
    "NVIDIA_ANCHORS",
    "Nonce",
    "NotTrustedError",
    "NvattestError",
    "OcspAnswer",
    "Outcome",
    "ParseError",
    "PolicyError",
    "PublicKey",
    "ResultCode",
    "RevocationMode",
    "RimAnswer",
    "SigningKey",
    "Source",
    "Strength",
    "TokenError",
    "TokenKind",
    "TopologyRule",
    "TrustAnchors",
    "Unavailable",
    "VerificationTime",
    "VerifiedToken",
    "Verifier",
    "__version__",
    "appraisal_to_json",
    "attest",
    "claims_of",
    "collect",
    "dump_bundle",
    "dump_evidence",
    "fetch_collateral",
    "fetch_cpu_collateral",
    "issue_token",
    "load_bundle",
    "load_cpu_policy",
    "load_evidence",
    "merge_bundles",
    "parse_collateral",
    "recipe_from_inputs",
    "sign_detached_eat",
    "sign_ear",
    "trust_anchors_from_pem",
    "verify",
    "verify_token",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'nvattest' has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(f"nvattest.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
