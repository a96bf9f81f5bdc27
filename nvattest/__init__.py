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

_HOMES = {
    "Appraisal": "appraisal.results",
    "Architecture": "model",
    "Challenge": "tee.recipes",
    "Check": "appraisal.check",
    "Collateral": "appraisal.inputs",
    "CollateralError": "errors",
    "CollectionError": "errors",
    "CpuOptions": "collateral.cpu",
    "CpuPolicy": "appraisal.guest",
    "DeviceAppraisal": "appraisal.results",
    "DeviceKind": "model",
    "DiskCache": "collateral.cache",
    "Evidence": "evidence",
    "EvidenceForm": "evidence",
    "EvidencePolicy": "appraisal.inputs",
    "ExpectedReportData": "tee.recipes",
    "GatherOptions": "collateral.gather",
    "Guest": "tee.guest",
    "GuestAppraisal": "appraisal.guest",
    "HttpSettings": "collateral.http",
    "InputError": "errors",
    "NVIDIA_ANCHORS": "pki.anchors",
    "Nonce": "model",
    "NotTrustedError": "errors",
    "NvattestError": "errors",
    "OcspAnswer": "appraisal.inputs",
    "Outcome": "appraisal.check",
    "ParseError": "errors",
    "PolicyError": "errors",
    "PublicKey": "token.keys",
    "ResultCode": "errors",
    "RevocationMode": "appraisal.inputs",
    "RimAnswer": "appraisal.inputs",
    "SigningKey": "token.keys",
    "Source": "appraisal.inputs",
    "Strength": "appraisal.guest",
    "TokenError": "errors",
    "TokenKind": "token.verified",
    "TopologyRule": "appraisal.inputs",
    "TrustAnchors": "pki.anchors",
    "Unavailable": "appraisal.inputs",
    "VerificationTime": "model",
    "VerifiedToken": "token.verified",
    "Verifier": "appraisal.verifier",
    "appraisal_to_json": "appraisal.results",
    "attest": "session",
    "claims_of": "token.claims",
    "collect": "session",
    "dump_bundle": "collateral.bundle",
    "dump_evidence": "evidence",
    "fetch_collateral": "session",
    "fetch_cpu_collateral": "session",
    "issue_token": "session",
    "load_bundle": "collateral.bundle",
    "load_cpu_policy": "policy.cpu_policy",
    "load_evidence": "evidence",
    "merge_bundles": "collateral.bundle",
    "parse_collateral": "session",
    "recipe_from_inputs": "tee.recipes",
    "sign_detached_eat": "token.eat",
    "sign_ear": "token.ear",
    "trust_anchors_from_pem": "pki.anchors",
    "verify": "session",
    "verify_token": "session",
}

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
