"""Vendor facts as data: services, opaque field ids, object identifiers, RIM id templates, golden exemptions.

Sources: NVIDIA's published formats, DMTF DSP0274 (SPDM), TCG DICE Attestation Architecture, RFC 6960, RFC 5280.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

# --- NVIDIA's services ------------------------------------------------------------------------------------------------

RIM_URL: Final = "https://rim.attestation.nvidia.com"
OCSP_URL: Final = "https://ocsp.ndis.nvidia.com"
NRAS_URL: Final = "https://nras.attestation.nvidia.com"

# --- the services of the makers of CPUs -------------------------------------------------------------------------------

# What results call the pinned roots of both makers.
CPU_MAKERS: Final = "Intel and AMD"
# Intel's provisioning certification service and the revocation list of its root; AMD's key distribution service.
PCS_URL: Final = "https://api.trustedservices.intel.com"
INTEL_ROOT_CRL_URL: Final = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"
KDS_URL: Final = "https://kdsintf.amd.com"

# --- opaque data of the MEASUREMENTS response -------------------------------------------------------------------------

OPAQUE_MAGIC: Final = b"NVDAOD"
OPAQUE_PROFILE: Final = 0
OPAQUE_MAJOR_MAX: Final = 2


class GpuField(IntEnum):
    """Ids of opaque entries in GPU reports. Ids that are not here are kept under their number."""

    CERT_ISSUER_NAME = 1
    CERT_AUTHORITY_KEY_IDENTIFIER = 2
    DRIVER_VERSION = 3
    GPU_INFO = 4
    SKU = 5
    VBIOS_VERSION = 6
    MANUFACTURER_ID = 7
    TAMPER_DETECTION = 8
    SMC = 9
    VPR = 10
    NVDEC0_STATUS = 11
    MSRSCNT = 12
    CPRINFO = 13
    BOARD_ID = 14
    CHIP_SKU = 15
    CHIP_SKU_MOD = 16
    PROJECT = 17
    PROJECT_SKU = 18
    PROJECT_SKU_MOD = 19
    FWID = 20
    PROTECTED_PCIE_STATUS = 21
    SWITCH_PDI = 22
    FLOORSWEPT_PORTS = 23
    POSITION_ID = 24
    LOCK_SWITCH_STATUS = 25
    GPU_LINK_CONN = 32
    SYS_ENABLE_STATUS = 33
    OPAQUE_DATA_VERSION = 34
    CHIP_INFO = 35
    FEATURE_FLAG = 36
    FSP_UCODE_SVN = 37


class SwitchField(IntEnum):
    """Ids of opaque entries in LS10 reports; 1 to 21 mean what they mean in GPU reports."""

    BIOS_VERSION = 6
    MSRSCNT = 12
    FWID = 20
    DEVICE_PDI = 22
    DISABLED_PORTS = 23
    SWITCH_POSITION_ID = 24
    SWITCH_LOCK_STATUS = 25
    SWITCH_GPU_PDIS = 26
    SWITCH_PORTS = 27


NVDEC0_ENABLED: Final = 0xAA
NVDEC0_DISABLED: Final = 0x55
PPCIE_ENABLED: Final = 0xAA
SWITCH_LOCKED: Final = 1
# What drivers say beside reports: NVML's multi-GPU mode of a GPU, NSCQ's protected PCIe mode of a switch.
MULTI_GPU_PROTECTED: Final = "protected-pcie"
SWITCH_MODE_UNKNOWN: Final = "-1"
SWITCH_MODE_LOCKED: Final = "3"
VALUE_TYPE_RAW_SVN: Final = 0x87
PDI_SIZE: Final = 8
# What a report names at the far end of a link that is disabled: all H800 have ten of eighteen.
NO_PDI: Final = "00" * PDI_SIZE
FWID_SIZE: Final = 48
SWITCH_GPU_COUNT: Final = 8

# --- measurements -----------------------------------------------------------------------------------------------------

# Golden values count from 0 and SPDM blocks from 1: golden index i describes block i + 1.
GOLDEN_TO_BLOCK: Final = 1
# The one golden value that a GPU may leave unmatched, and only while its NVDEC0 engine is off.
NVDEC0_GOLDEN_INDEX: Final = 35
# RIM indices from here on are opaque records (MIN_SVN): data type = index - 4096.
OPAQUE_RECORD_BASE: Final = 4096

# --- RIM ids ----------------------------------------------------------------------------------------------------------

RIM_HOPPER_DRIVER: Final = "NV_GPU_DRIVER_GH100_{driver}"
RIM_BLACKWELL_DRIVER: Final = "NV_GPU_CC_DRIVER_{chip}_{driver}"
RIM_BLACKWELL_DEFAULT_CHIP: Final = "GB100"
RIM_VBIOS: Final = "NV_GPU_VBIOS_{project}_{project_sku}_{chip_sku}_{vbios}"
# LS10 reports name neither project nor SKU; NVIDIA publishes one product.
RIM_SWITCH_BIOS: Final = "NV_SWITCH_BIOS_5612_0002_890_{bios}"
RIM_MANUFACTURER_ID: Final = "5703"

# --- object identifiers -----------------------------------------------------------------------------------------------

OID_DICE_FWID_HOPPER: Final = "2.23.133.5.4.1"
OID_DICE_TCB_INFO: Final = "2.23.133.5.4.1.1"
OID_DICE_MULTI_TCB_INFO: Final = "2.23.133.5.4.5"
OID_SHA384: Final = "2.16.840.1.101.3.4.2.2"
OID_ECDSA_SHA384: Final = "1.2.840.10045.4.3.3"
OID_OCSP_SIGNING: Final = "1.3.6.1.5.5.7.3.9"
OID_DMTF_DEVICE_INFO: Final = "1.3.6.1.4.1.412.274.1"
