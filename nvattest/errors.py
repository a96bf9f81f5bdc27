"""Every error that nvattest raises, and the result codes that name an outcome to a shell.

    NvattestError                 (abstract)
    ├── InputError                an argument or a file that the caller gave is unusable
    │   └── ParseError            bytes that do not follow their format: source and offset
    ├── CollectionError           the driver or the fabric library did not give evidence
    ├── CollateralError           a RIM or a revocation answer could not be obtained
    ├── PolicyError               a policy that cannot be read or evaluated
    ├── TokenError                a token that must not be believed
    └── NotTrustedError           ``require()`` of an appraisal or a token that is not trusted

Evidence that is merely bad raises nothing: it becomes an Appraisal whose checks failed.

Each error carries ``code``, a short stable word for programs; ``result_code``, the number that NVIDIA's tools use for
the same thing; and ``hint``, what to do next (possibly empty). Programs compare ``code`` and never parse messages.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from nvattest._text import clean

__all__ = [
    "CollateralError",
    "CollectionError",
    "InputError",
    "NotTrustedError",
    "NvattestError",
    "ParseError",
    "PolicyError",
    "ResultCode",
    "TokenError",
]


class ResultCode(IntEnum):
    """NVIDIA's result codes (NVAT 1.2.2 and 2.0.0). ``message`` is their text, ``exit_status`` what a shell sees."""

    OK = 0
    UNKNOWN = 1
    INTERNAL_ERROR = 2
    NOT_INITIALIZED = 3
    BAD_ARGUMENT = 4
    ALLOCATION_FAILED = 5
    FEATURE_NOT_ENABLED = 6
    XML_INIT_FAILED = 7
    CURL_INIT_FAILED = 8
    LIBXML2_ERROR = 10
    RP_POLICY_MISMATCH = 11
    OVERALL_RESULT_FALSE = 12
    JSON_SERIALIZATION_ERROR = 13
    CACHE_OBJECT_NOT_FOUND = 14
    RATE_LIMITED = 15
    EVIDENCE_MALFORMED = 16
    EVIDENCE_INVALID_SIGNATURE = 17
    EVIDENCE_NONCE_MISMATCH = 18
    NONCE_MISMATCH = 19
    EAR_SIGNING_FAILED = 20
    VERIFIER_JWKS_ERROR = 21
    RIM_FORBIDDEN = 101
    RIM_INTERNAL_ERROR = 102
    RIM_CONNECTION_ERROR = 103
    RIM_NOT_FOUND = 104
    RIM_INVALID_SIGNATURE = 105
    RIM_INVALID_SCHEMA = 106
    RIM_MEASUREMENT_NOT_FOUND = 107
    RIM_MEASUREMENT_CONFLICT = 108
    OCSP_INVALID_RESPONSE = 201
    OCSP_SERVER_ERROR = 202
    OCSP_INVALID_REQUEST = 203
    OCSP_STATUS_NOT_GOOD = 204
    OCSP_FORBIDDEN = 205
    POLICY_EVALUATION_ERROR = 301
    SPDM_PARSE_ERROR = 401
    SPDM_OPAQUE_DATA_PARSE_ERROR = 402
    SPDM_MEASUREMENT_RECORD_PARSE_ERROR = 403
    SPDM_REQUEST_PARSE_ERROR = 404
    SPDM_FIELD_NOT_FOUND = 405
    NVML_INIT_FAILED = 500
    NVML_ERROR = 501
    GPU_ARCHITECTURE_NOT_SUPPORTED = 502
    GPU_EVIDENCE_INVALID = 503
    GPU_EVIDENCE_NONCE_MISMATCH = 504
    GPU_DRIVER_RIM_VERSION_MISMATCH = 505
    GPU_VBIOS_RIM_VERSION_MISMATCH = 506
    GPU_FWID_MISMATCH = 507
    GPU_INVALID_SIGNATURE = 508
    GPU_MODE_NOT_SUPPORTED = 509
    GPU_FW_NOT_SUPPORTED = 510
    NSCQ_INIT_FAILED = 600
    NSCQ_ERROR = 601
    SWITCH_ARCHITECTURE_NOT_SUPPORTED = 602
    SWITCH_NONCE_MISMATCH = 603
    SWITCH_VBIOS_RIM_VERSION_MISMATCH = 604
    SWITCH_FWID_MISMATCH = 605
    SWITCH_INVALID_SIGNATURE = 606
    CORELIB_INIT_FAILED = 607
    CORELIB_ERROR = 608
    NRAS_ATTESTATION_ERROR = 700
    NRAS_TOKEN_INVALID = 701
    NRAS_FORBIDDEN = 702
    CERT_FWID_NOT_FOUND = 800
    CERT_NOT_FOUND = 801
    CERT_CHAIN_VERIFICATION_FAILURE = 802

    @property
    def message(self) -> str:
        """NVIDIA's text for this code."""
        return _MESSAGES[self]

    @property
    def exit_status(self) -> int:
        """What a shell sees: the code modulo 256, as NVIDIA's tools return it."""
        return self.value % 256


_MESSAGES: dict[ResultCode, str] = {
    ResultCode.OK: "Ok",
    ResultCode.UNKNOWN: "Unknown",
    ResultCode.INTERNAL_ERROR: "Internal Error",
    ResultCode.NOT_INITIALIZED: "Not initialized",
    ResultCode.BAD_ARGUMENT: "Bad Argument",
    ResultCode.ALLOCATION_FAILED: "Allocation Failed",
    ResultCode.FEATURE_NOT_ENABLED: "Feature is not enabled",
    ResultCode.XML_INIT_FAILED: "XML Initialization Failed",
    ResultCode.CURL_INIT_FAILED: "Curl Initialization Failed",
    ResultCode.LIBXML2_ERROR: "LibXml2 Error",
    ResultCode.RP_POLICY_MISMATCH: "Relying Party Policy Mismatch",
    ResultCode.OVERALL_RESULT_FALSE: "Overall Attestation Result is False",
    ResultCode.JSON_SERIALIZATION_ERROR: "JSON Serialization Error",
    ResultCode.CACHE_OBJECT_NOT_FOUND: "Cache Object Not Found",
    ResultCode.RATE_LIMITED: "Rate Limited",
    ResultCode.EVIDENCE_MALFORMED: "Evidence Malformed",
    ResultCode.EVIDENCE_INVALID_SIGNATURE: "Evidence Invalid Signature",
    ResultCode.EVIDENCE_NONCE_MISMATCH: "Evidence Nonce Mismatch",
    ResultCode.NONCE_MISMATCH: "Nonce Mismatch",
    ResultCode.EAR_SIGNING_FAILED: "EAR Signing Failed",
    ResultCode.VERIFIER_JWKS_ERROR: "Verifier JWKS Error",
    ResultCode.RIM_FORBIDDEN: "RIM Forbidden",
    ResultCode.RIM_INTERNAL_ERROR: "RIM Internal Error",
    ResultCode.RIM_CONNECTION_ERROR: "RIM Connection Error",
    ResultCode.RIM_NOT_FOUND: "RIM Not Found",
    ResultCode.RIM_INVALID_SIGNATURE: "RIM Invalid Signature",
    ResultCode.RIM_INVALID_SCHEMA: "RIM Invalid Schema",
    ResultCode.RIM_MEASUREMENT_NOT_FOUND: "RIM Measurement Not Found",
    ResultCode.RIM_MEASUREMENT_CONFLICT: "RIM Measurement Conflict",
    ResultCode.OCSP_INVALID_RESPONSE: "OCSP Invalid Response",
    ResultCode.OCSP_SERVER_ERROR: "OCSP Server Error",
    ResultCode.OCSP_INVALID_REQUEST: "OCSP Invalid Request",
    ResultCode.OCSP_STATUS_NOT_GOOD: "OCSP Status Not Good",
    ResultCode.OCSP_FORBIDDEN: "OCSP Forbidden",
    ResultCode.POLICY_EVALUATION_ERROR: "Policy Evaluation Error",
    ResultCode.SPDM_PARSE_ERROR: "SPDM Parse Error",
    ResultCode.SPDM_OPAQUE_DATA_PARSE_ERROR: "SPDM Opaque Data Parse Error",
    ResultCode.SPDM_MEASUREMENT_RECORD_PARSE_ERROR: "SPDM Measurement Record Parse Error",
    ResultCode.SPDM_REQUEST_PARSE_ERROR: "SPDM Request Parse Error",
    ResultCode.SPDM_FIELD_NOT_FOUND: "SPDM Field Not Found",
    ResultCode.NVML_INIT_FAILED: "NVML Initialization Failed",
    ResultCode.NVML_ERROR: "NVML Error",
    ResultCode.GPU_ARCHITECTURE_NOT_SUPPORTED: "GPU Architecture Not Supported",
    ResultCode.GPU_EVIDENCE_INVALID: "GPU Evidence Invalid",
    ResultCode.GPU_EVIDENCE_NONCE_MISMATCH: "GPU Evidence Nonce Mismatch",
    ResultCode.GPU_DRIVER_RIM_VERSION_MISMATCH: "GPU Evidence Driver RIM Version Mismatch",
    ResultCode.GPU_VBIOS_RIM_VERSION_MISMATCH: "GPU Evidence VBios RIM Version Mismatch",
    ResultCode.GPU_FWID_MISMATCH: "GPU Evidence FWID Mismatch",
    ResultCode.GPU_INVALID_SIGNATURE: "GPU Evidence Invalid Signature",
    ResultCode.GPU_MODE_NOT_SUPPORTED: "GPU is neither in CC nor in PPCIe mode",
    ResultCode.GPU_FW_NOT_SUPPORTED: "GPU FW version exceeds SDK support",
    ResultCode.NSCQ_INIT_FAILED: "NSCQ Initialization Failed",
    ResultCode.NSCQ_ERROR: "NSCQ Error",
    ResultCode.SWITCH_ARCHITECTURE_NOT_SUPPORTED: "NVSwitch Architecture Not Supported",
    ResultCode.SWITCH_NONCE_MISMATCH: "NVSwitch Evidence Nonce Mismatch",
    ResultCode.SWITCH_VBIOS_RIM_VERSION_MISMATCH: "NVSwitch Evidence VBIOS RIM Version Mismatch",
    ResultCode.SWITCH_FWID_MISMATCH: "NVSwitch Evidence FWID Mismatch",
    ResultCode.SWITCH_INVALID_SIGNATURE: "NVSwitch Evidence Invalid Signature",
    ResultCode.CORELIB_INIT_FAILED: "Corelib Initialization Failed",
    ResultCode.CORELIB_ERROR: "Corelib Error",
    ResultCode.NRAS_ATTESTATION_ERROR: "NRAS Attestation Error",
    ResultCode.NRAS_TOKEN_INVALID: "NRAS Token Invalid",
    ResultCode.NRAS_FORBIDDEN: "NRAS Forbidden",
    ResultCode.CERT_FWID_NOT_FOUND: "Certificate FWID Not Found",
    ResultCode.CERT_NOT_FOUND: "Certificate Not Found",
    ResultCode.CERT_CHAIN_VERIFICATION_FAILURE: "Certificate Chain Verification Failure",
}


_MAXIMUM_MESSAGE: Final = 4000


class NvattestError(Exception):
    """Base of all errors of this package; it is never raised itself."""

    default_code: str = "error"
    default_result_code: ResultCode = ResultCode.INTERNAL_ERROR

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        result_code: ResultCode | None = None,
        hint: str = "",
    ) -> None:
        if type(self) is NvattestError:
            raise TypeError("NvattestError is abstract: raise one of its subclasses")
        # Messages quote untrusted files and answers; a printed error is one harmless line.
        message = clean(message, _MAXIMUM_MESSAGE)
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.result_code = self.default_result_code if result_code is None else result_code
        self.hint = clean(hint, _MAXIMUM_MESSAGE)

    def __str__(self) -> str:
        # An error that is a KeyError too, as in ``compat``, would quote its message.
        return self.message

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword arguments are state: without this, pickle could not restore an error in another process.
        return _restore, (type(self), self.args, self.__dict__.copy())


def _restore(kind: type[NvattestError], args: tuple[object, ...], state: dict[str, object]) -> NvattestError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


class InputError(NvattestError):
    """An argument or a file that the caller gave cannot be used."""

    default_code = "input"
    default_result_code = ResultCode.BAD_ARGUMENT


class ParseError(InputError):
    """Bytes that do not follow their format.

    ``source`` says which bytes ("SPDM response", "RIM", "bundle"), ``offset`` where in them the fault lies (bytes from
    the start of that source), or None where the format has no useful offset.
    """

    default_code = "parse"
    default_result_code = ResultCode.EVIDENCE_MALFORMED

    def __init__(
        self,
        message: str,
        *,
        source: str,
        offset: int | None = None,
        code: str | None = None,
        result_code: ResultCode | None = None,
        hint: str = "",
    ) -> None:
        where = source if offset is None else f"{source}, byte {offset}"
        super().__init__(f"{where}: {message}", code=code, result_code=result_code, hint=hint)
        self.source = source
        self.offset = offset


class CollectionError(NvattestError):
    """The driver, the fabric library or a recorded source did not give evidence."""

    default_code = "collection"
    default_result_code = ResultCode.NVML_ERROR


class CollateralError(NvattestError):
    """A RIM, a revocation answer or a remote verdict could not be obtained.

    ``passing``: a later attempt may fare better, since there was no connection, or the server itself failed (5xx).
    """

    passing: bool = False
    default_code = "collateral"
    default_result_code = ResultCode.RIM_INTERNAL_ERROR


class PolicyError(NvattestError):
    """A policy that cannot be read, compiled or evaluated. Never a verdict."""

    default_code = "policy"
    default_result_code = ResultCode.POLICY_EVALUATION_ERROR


class TokenError(NvattestError):
    """A token that must not be believed; ``code`` says which rule it broke."""

    default_code = "token"
    default_result_code = ResultCode.NRAS_TOKEN_INVALID


class NotTrustedError(NvattestError):
    """Raised by ``require()`` of an appraisal or a verified token; ``result_code`` is theirs."""

    default_code = "not-trusted"
    default_result_code = ResultCode.OVERALL_RESULT_FALSE
