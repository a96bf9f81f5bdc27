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

from nvattest._package import __version__ as __version__

if TYPE_CHECKING:
    from nvattest.appraisal.check import Check as Check
    from nvattest.appraisal.check import Outcome as Outcome
    from nvattest.appraisal.guest import CpuPolicy as CpuPolicy
    from nvattest.appraisal.guest import GuestAppraisal as GuestAppraisal
    from nvattest.appraisal.guest import Strength as Strength
    from nvattest.appraisal.inputs import Collateral as Collateral
    from nvattest.appraisal.inputs import EvidencePolicy as EvidencePolicy
    from nvattest.appraisal.inputs import OcspAnswer as OcspAnswer
    from nvattest.appraisal.inputs import RevocationMode as RevocationMode
    from nvattest.appraisal.inputs import RimAnswer as RimAnswer
    from nvattest.appraisal.inputs import Source as Source
    from nvattest.appraisal.inputs import TopologyRule as TopologyRule
    from nvattest.appraisal.inputs import Unavailable as Unavailable
    from nvattest.appraisal.results import Appraisal as Appraisal
    from nvattest.appraisal.results import DeviceAppraisal as DeviceAppraisal
    from nvattest.appraisal.results import appraisal_to_json as appraisal_to_json
    from nvattest.appraisal.verifier import Verifier as Verifier
    from nvattest.collateral.bundle import dump_bundle as dump_bundle
    from nvattest.collateral.bundle import load_bundle as load_bundle
    from nvattest.collateral.bundle import merge_bundles as merge_bundles
    from nvattest.collateral.cache import DiskCache as DiskCache
    from nvattest.collateral.cpu import CpuOptions as CpuOptions
    from nvattest.collateral.gather import GatherOptions as GatherOptions
    from nvattest.collateral.http import HttpSettings as HttpSettings
    from nvattest.errors import CollateralError as CollateralError
    from nvattest.errors import CollectionError as CollectionError
    from nvattest.errors import InputError as InputError
    from nvattest.errors import NotTrustedError as NotTrustedError
    from nvattest.errors import NvattestError as NvattestError
    from nvattest.errors import ParseError as ParseError
    from nvattest.errors import PolicyError as PolicyError
    from nvattest.errors import ResultCode as ResultCode
    from nvattest.errors import TokenError as TokenError
    from nvattest.evidence import Evidence as Evidence
    from nvattest.evidence import EvidenceForm as EvidenceForm
    from nvattest.evidence import dump_evidence as dump_evidence
    from nvattest.evidence import load_evidence as load_evidence
    from nvattest.model import Architecture as Architecture
    from nvattest.model import DeviceKind as DeviceKind
    from nvattest.model import Nonce as Nonce
    from nvattest.model import VerificationTime as VerificationTime
    from nvattest.pki.anchors import NVIDIA_ANCHORS as NVIDIA_ANCHORS
    from nvattest.pki.anchors import TrustAnchors as TrustAnchors
    from nvattest.pki.anchors import trust_anchors_from_pem as trust_anchors_from_pem
    from nvattest.policy.cpu_policy import load_cpu_policy as load_cpu_policy
    from nvattest.session import attest as attest
    from nvattest.session import collect as collect
    from nvattest.session import fetch_collateral as fetch_collateral
    from nvattest.session import fetch_cpu_collateral as fetch_cpu_collateral
    from nvattest.session import issue_token as issue_token
    from nvattest.session import parse_collateral as parse_collateral
    from nvattest.session import verify as verify
    from nvattest.session import verify_token as verify_token
    from nvattest.tee.guest import Guest as Guest
    from nvattest.tee.recipes import Challenge as Challenge
    from nvattest.tee.recipes import ExpectedReportData as ExpectedReportData
    from nvattest.tee.recipes import recipe_from_inputs as recipe_from_inputs
    from nvattest.token.claims import claims_of as claims_of
    from nvattest.token.claims import sign_detached_eat as sign_detached_eat
    from nvattest.token.ear import sign_ear as sign_ear
    from nvattest.token.jose import PublicKey as PublicKey
    from nvattest.token.jose import SigningKey as SigningKey
    from nvattest.token.verified import TokenKind as TokenKind
    from nvattest.token.verified import VerifiedToken as VerifiedToken

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
    "token.claims": "claims_of sign_detached_eat",
    "token.ear": "sign_ear",
    "token.jose": "PublicKey SigningKey",
    "token.verified": "TokenKind VerifiedToken",
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names.split()}

__all__ = sorted([*_HOMES, "__version__"])  # noqa: PLE0605


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'nvattest' has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(f"nvattest.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
