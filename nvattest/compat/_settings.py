"""What the old SDK read from its environment, read when it is needed and not when something is imported."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nvattest._registry import NRAS_URL, OCSP_URL, RIM_URL
from nvattest.compat._errors import CompatValueError

if TYPE_CHECKING:
    from nvattest.appraisal.policy import EvidencePolicy
    from nvattest.collateral.settings import GatherOptions
    from nvattest.pki.anchors import TrustAnchors

# The old variable, ours and NVAT's, in the order in which they are asked.
_RIM = ("NV_RIM_URL", "NVAT_RIM_SERVICE_BASE_URL")
_OCSP = ("NV_OCSP_URL", "NVAT_OCSP_BASE_URL")
_NRAS_GPU = ("NV_NRAS_GPU_URL", "NVAT_NRAS_BASE_URL")
_NRAS_SWITCH = ("NV_NRAS_NVSWITCH_URL", "NVAT_NRAS_BASE_URL")
_SERVICE_KEY = ("NVIDIA_ATTESTATION_SERVICE_KEY", "NV_ATTESTATION_SERVICE_KEY")
DEFAULT_RIM_URL = f"{RIM_URL}/v1/rim/"
DEFAULT_OCSP_URL = f"{OCSP_URL}/"
DEFAULT_NRAS_GPU_URL = f"{NRAS_URL}/v3/attest/gpu"
DEFAULT_NRAS_SWITCH_URL = f"{NRAS_URL}/v3/attest/switch"
_ANCHORS = "NVATTEST_TRUST_ANCHORS"
_MAXIMUM_ANCHORS = 64 * 1024


@dataclass(slots=True, kw_only=True)
class Settings:
    """What a verification needs to know beside evidence and nonce. None leaves it to the environment."""

    service_key: str | None = None
    rim_url: str | None = None
    ocsp_url: str | None = None
    allow_hold_cert: bool | None = None
    ocsp_nonce_disabled: bool = False
    anchors: TrustAnchors | None = None
    timeout: float = 60.0
    rim_files: tuple[str, ...] = field(default_factory=tuple)

    def key(self) -> str:
        """The service key, or an empty text."""
        return self.service_key if self.service_key is not None else _first(_SERVICE_KEY, "")

    def hold_allowed(self) -> bool:
        """Whether revoked with reason certificateHold counts: exactly ``true``, as NVIDIA's SDK reads it."""
        if self.allow_hold_cert is not None:
            return self.allow_hold_cert
        return os.environ.get("NV_ALLOW_HOLD_CERT", "") == "true"

    @property
    def hold_by_environment(self) -> bool:
        """Whether a hold counts because of the environment alone, and of nothing that the caller said."""
        return self.allow_hold_cert is None and self.hold_allowed()

    def evidence_policy(self) -> EvidencePolicy:
        """The strict policy with the two weakenings that the old SDK has switches for; tokens name them."""
        from nvattest.appraisal.policy import EvidencePolicy

        hold = self.hold_allowed()
        return EvidencePolicy(
            allow_certificate_hold_for_rims=hold,
            allow_certificate_hold_for_devices=hold,
            accept_live_ocsp_without_nonce=self.ocsp_nonce_disabled,
        )

    def trust_anchors(self) -> TrustAnchors:
        """NVIDIA's roots, those that the caller gave, or those of ``NVATTEST_TRUST_ANCHORS``.

        Raises:
            InputError: the file cannot be read or holds no root.
        """
        from nvattest.pki.anchors import NVIDIA_ANCHORS, trust_anchors_from_pem

        if self.anchors is not None:
            return self.anchors
        path = os.environ.get(_ANCHORS, "")
        if not path:
            return NVIDIA_ANCHORS
        from nvattest.collateral.folders import read_bounded

        return trust_anchors_from_pem(read_bounded(path, _MAXIMUM_ANCHORS))

    def gather_options(self) -> GatherOptions:
        """Where RIMs and revocation answers are asked for. Nothing is kept on disk, as in the old SDK.

        Raises:
            InputError: a URL or a key that cannot be used.
        """
        from nvattest.collateral.settings import GatherOptions, HttpSettings

        rim_url = self.rim_url or rim_default()
        ocsp_url = self.ocsp_url or ocsp_default()
        return GatherOptions(
            rim_url=rim_url,
            ocsp_url=ocsp_url,
            http=HttpSettings(service_key=self.key(), key_hosts=(rim_url, ocsp_url)),
            timeout=self.timeout,
        )


def rim_default() -> str:
    """The URL of the RIM service where nobody named one."""
    return _first(_RIM, DEFAULT_RIM_URL)


def ocsp_default() -> str:
    """The URL of the OCSP responder where nobody named one."""
    return _first(_OCSP, DEFAULT_OCSP_URL)


def nras_default(*, switch: bool) -> str:
    """The URL of NRAS where nobody named one."""
    return _first(_NRAS_SWITCH, DEFAULT_NRAS_SWITCH_URL) if switch else _first(_NRAS_GPU, DEFAULT_NRAS_GPU_URL)


def nras_base(url: str) -> str:
    """The base of an NRAS URL: old ones end in ``/v3/attest/gpu``, and the client asks v4.

    Raises:
        CompatValueError: not an https URL, or http to another machine (the client refuses that).
    """
    base = re.sub(r"/v[0-9]+/attest/(gpu|switch)/?$", "", url.rstrip("/"))
    if not base.startswith(("https://", "http://")):
        raise CompatValueError(f"not a URL of NRAS: {url[:200]!r}", code="url", hint=DEFAULT_NRAS_GPU_URL)
    return base


def _first(names: tuple[str, ...], default: str) -> str:
    return next((value for name in names if (value := os.environ.get(name, ""))), default)
