"""Names of the RIM profile: namespaces and expanded element and attribute names, in lxml's ``{uri}local`` form."""

from __future__ import annotations

from typing import Final

# ISO/IEC 19770-2:2015
SWID: Final = "{http://standards.iso.org/iso/19770/-2/2015/schema.xsd}"
# TCG Reference Integrity Manifest Information Model 1.01
TCG: Final = "{https://trustedcomputinggroup.org/resource/tcg-reference-integrity-manifest-rim-information-model/}"
# Hash<n> attributes; a name of an algorithm used as a namespace
SHA384: Final = "{http://www.w3.org/2001/04/xmlenc#sha384}"
# NVIDIA's Opaque Data RIM Attributes; the namespace is the address of their page
OPAQUE: Final = "{https://docs.nvidia.com/attestation/specs/latest/opaque-data.html}"
# XML Signature Syntax and Processing 1.1
DS: Final = "{http://www.w3.org/2000/09/xmldsig#}"

ROOT: Final = SWID + "SoftwareIdentity"
ENTITY: Final = SWID + "Entity"
META: Final = SWID + "Meta"
PAYLOAD: Final = SWID + "Payload"
RESOURCE: Final = SWID + "Resource"
SIGNATURE: Final = DS + "Signature"

FIRMWARE_MANUFACTURER_ID: Final = TCG + "FirmwareManufacturerId"
MIN_SVN: Final = OPAQUE + "minSvn"
INCLUDE_IN_RESULT: Final = OPAQUE + "includeInResult"
