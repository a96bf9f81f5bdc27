/* A simulated libnvidia-ml.so.1: NVML's C interface, as far as attestation needs it, answered by the simulation process.
 *
 * Structures follow the public NVML interface (nvidia-ml-py 13). Names with and without a version suffix are both exported,
 * since programs load either. What a call answers is decided by the simulation (driver_answers.py); this file converts.
 */
#include "sim_client.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

enum {
    SUCCESS = 0,
    UNINITIALIZED = 1,
    INVALID_ARGUMENT = 2,
    INSUFFICIENT_SIZE = 7,
    DRIVER_NOT_LOADED = 9,
    ARGUMENT_VERSION_MISMATCH = 25,
    UNKNOWN = 999,
};

typedef int nvmlReturn_t;
typedef struct device *nvmlDevice_t;

/* A handle is the address of one of these cells; the contents are never used. */
#define DEVICES_MAX 1024
struct device {
    char unused;
};
static struct device devices[DEVICES_MAX];

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned users;

#define VERSION_OF(type, number) ((unsigned)(sizeof(type) | (number) << 24))

typedef struct {
    unsigned environment, ccFeature, devToolsMode;
} SystemState;

typedef struct {
    unsigned version, environment, ccFeature, devToolsMode, multiGpuMode;
} SystemSettings;

typedef struct {
    unsigned cpuCaps, gpusCaps;
} SystemCaps;

typedef struct {
    unsigned long long protectedMemSizeKib, unprotectedMemSizeKib;
} MemSizeInfo;

typedef struct {
    unsigned long long total, free, used;
} Memory;

typedef struct {
    unsigned version;
    unsigned long long total, reserved, free, used;
} MemoryV2;

typedef struct {
    unsigned long long total, free, used;
} Bar1Memory;

typedef struct {
    char busIdLegacy[16];
    unsigned domain, bus, device, pciDeviceId, pciSubSystemId;
    char busId[32];
} PciInfo;

typedef struct {
    unsigned gpu, memory;
} Utilization;

typedef struct {
    unsigned version, sensorType;
    int temperature;
} Temperature;

typedef struct {
    unsigned certChainSize, attestationCertChainSize;
    unsigned char certChain[0x1000], attestationCertChain[0x1400];
} GpuCertificate;

typedef struct {
    unsigned isCecAttestationReportPresent, attestationReportSize, cecAttestationReportSize;
    unsigned char nonce[32], attestationReport[0x2000], cecAttestationReport[0x1000];
} GpuAttestationReport;

typedef struct {
    unsigned version;
    unsigned long long advantage;
} KeyRotation;

_Static_assert(sizeof(SystemState) == 12, "nvmlConfComputeSystemState_t");
_Static_assert(sizeof(SystemSettings) == 20, "nvmlSystemConfComputeSettings_v1_t");
_Static_assert(sizeof(MemoryV2) == 40, "nvmlMemory_v2_t");
_Static_assert(sizeof(PciInfo) == 68, "nvmlPciInfo_t");
_Static_assert(sizeof(Temperature) == 12, "nvmlTemperature_v1_t");
_Static_assert(sizeof(GpuCertificate) == 9224, "nvmlConfComputeGpuCertificate_t");
_Static_assert(sizeof(GpuAttestationReport) == 12332, "nvmlConfComputeGpuAttestationReport_t");
_Static_assert(offsetof(GpuAttestationReport, attestationReport) == 44, "nvmlConfComputeGpuAttestationReport_t");
_Static_assert(sizeof(KeyRotation) == 16, "nvmlConfComputeGetKeyRotationThresholdInfo_t");

static nvmlReturn_t initialized(void)
{
    pthread_mutex_lock(&lock);
    nvmlReturn_t code = users ? SUCCESS : UNINITIALIZED;
    pthread_mutex_unlock(&lock);
    return code;
}

static nvmlReturn_t ask(const char *name, uint32_t device, const void *input, uint32_t length, struct sim_reply *reply)
{
    nvmlReturn_t code = initialized();
    if (code)
        return code;
    int32_t answer = sim_call(name, device, input, length, reply);
    return answer == SIM_NO_ANSWER ? DRIVER_NOT_LOADED : answer;
}

static uint32_t index_of(nvmlDevice_t device)
{
    uintptr_t at = (uintptr_t)device, first = (uintptr_t)devices;
    return at >= first && at < first + sizeof devices ? (uint32_t)(at - first) : SIM_NO_DEVICE;
}

static nvmlReturn_t ask_device(const char *name, nvmlDevice_t device, const void *input, uint32_t length,
                               struct sim_reply *reply)
{
    uint32_t index = index_of(device);
    if (index == SIM_NO_DEVICE)
        return initialized() ? UNINITIALIZED : INVALID_ARGUMENT;
    return ask(name, index, input, length, reply);
}

/* Put a reply's text into the caller's buffer, as NVML does: with its NUL, or not at all. */
static nvmlReturn_t give_text(nvmlReturn_t code, struct sim_reply *reply, char *target, unsigned length)
{
    if (code)
        return code;
    if (!target)
        return INVALID_ARGUMENT;
    if (reply->length >= length)
        return INSUFFICIENT_SIZE;
    memcpy(target, reply->data, reply->length);
    target[reply->length] = '\0';
    return SUCCESS;
}

static nvmlReturn_t give_u32(nvmlReturn_t code, struct sim_reply *reply, unsigned *target)
{
    if (code)
        return code;
    if (!target)
        return INVALID_ARGUMENT;
    return sim_take_u32(reply, target) ? UNKNOWN : SUCCESS;
}

static nvmlReturn_t give_u64(nvmlReturn_t code, struct sim_reply *reply, unsigned long long *target)
{
    uint64_t value;
    if (code)
        return code;
    if (sim_take_u64(reply, &value))
        return UNKNOWN;
    *target = value;
    return SUCCESS;
}

/* --- life cycle --- */

EXPORT nvmlReturn_t nvmlInitWithFlags(unsigned flags)
{
    struct sim_reply reply;
    (void)flags;
    int32_t code = sim_call("nvmlInit", SIM_NO_DEVICE, NULL, 0, &reply);
    if (code)
        return code == SIM_NO_ANSWER ? DRIVER_NOT_LOADED : code;
    pthread_mutex_lock(&lock);
    users++;
    pthread_mutex_unlock(&lock);
    return SUCCESS;
}

EXPORT nvmlReturn_t nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
EXPORT nvmlReturn_t nvmlInit(void) { return nvmlInitWithFlags(0); }

EXPORT nvmlReturn_t nvmlShutdown(void)
{
    struct sim_reply reply;
    nvmlReturn_t code = ask("nvmlShutdown", SIM_NO_DEVICE, NULL, 0, &reply);
    if (code == UNINITIALIZED)
        return code;
    pthread_mutex_lock(&lock);
    if (users)
        users--;
    pthread_mutex_unlock(&lock);
    /* A library whose driver is gone still shuts down. */
    return code == DRIVER_NOT_LOADED ? SUCCESS : code;
}

EXPORT const char *nvmlErrorString(nvmlReturn_t code)
{
    switch (code) {
    case SUCCESS: return "The operation was successful";
    case UNINITIALIZED: return "Uninitialized";
    case INVALID_ARGUMENT: return "Invalid Argument";
    case 3: return "Not Supported";
    case 4: return "Insufficient Permissions";
    case 6: return "Not Found";
    case INSUFFICIENT_SIZE: return "Insufficient Size";
    case DRIVER_NOT_LOADED: return "Driver Not Loaded";
    case 10: return "Timeout";
    case 12: return "NVML Shared Library Not Found";
    case 13: return "Function Not Found";
    case 15: return "GPU is lost";
    case 16: return "GPU requires reset";
    case 17: return "The operating system has blocked the request";
    case 18: return "Driver/library version mismatch";
    case 19: return "In use by another client";
    case 20: return "Insufficient Memory";
    case 21: return "No data";
    case 23: return "Insufficient resources";
    case ARGUMENT_VERSION_MISMATCH: return "Argument version mismatch";
    case 27: return "System is not ready for the request";
    case 28: return "GPU not found";
    case 29: return "Resource not in a valid state";
    default: return "Unknown Error";
    }
}

/* --- system --- */

#define SYSTEM_TEXT(name)                                                         \
    EXPORT nvmlReturn_t name(char *target, unsigned length)                       \
    {                                                                             \
        struct sim_reply reply;                                                   \
        return give_text(ask(#name, SIM_NO_DEVICE, NULL, 0, &reply), &reply, target, length); \
    }

SYSTEM_TEXT(nvmlSystemGetDriverVersion)
SYSTEM_TEXT(nvmlSystemGetNVMLVersion)

#define SYSTEM_NUMBER(exported, name)                                             \
    EXPORT nvmlReturn_t exported(unsigned *target)                                \
    {                                                                             \
        struct sim_reply reply;                                                   \
        return give_u32(ask(name, SIM_NO_DEVICE, NULL, 0, &reply), &reply, target); \
    }

SYSTEM_NUMBER(nvmlSystemGetCudaDriverVersion, "nvmlSystemGetCudaDriverVersion")
SYSTEM_NUMBER(nvmlSystemGetCudaDriverVersion_v2, "nvmlSystemGetCudaDriverVersion")
SYSTEM_NUMBER(nvmlDeviceGetCount, "nvmlDeviceGetCount")
SYSTEM_NUMBER(nvmlDeviceGetCount_v2, "nvmlDeviceGetCount")
SYSTEM_NUMBER(nvmlSystemGetConfComputeGpusReadyState, "nvmlSystemGetConfComputeGpusReadyState")

EXPORT nvmlReturn_t nvmlSystemSetConfComputeGpusReadyState(unsigned accepting)
{
    struct sim_reply reply;
    uint8_t input[4];
    sim_put_u32(input, accepting);
    return ask("nvmlSystemSetConfComputeGpusReadyState", SIM_NO_DEVICE, input, sizeof input, &reply);
}

EXPORT nvmlReturn_t nvmlSystemGetConfComputeState(SystemState *state)
{
    struct sim_reply reply;
    if (!state)
        return INVALID_ARGUMENT;
    nvmlReturn_t code = ask("nvmlSystemGetConfComputeState", SIM_NO_DEVICE, NULL, 0, &reply);
    if (code)
        return code;
    return sim_take_u32(&reply, &state->environment) || sim_take_u32(&reply, &state->ccFeature) ||
                   sim_take_u32(&reply, &state->devToolsMode)
               ? UNKNOWN
               : SUCCESS;
}

EXPORT nvmlReturn_t nvmlSystemGetConfComputeSettings(SystemSettings *settings)
{
    struct sim_reply reply;
    if (!settings)
        return INVALID_ARGUMENT;
    if (settings->version != VERSION_OF(SystemSettings, 1))
        return ARGUMENT_VERSION_MISMATCH;
    nvmlReturn_t code = ask("nvmlSystemGetConfComputeSettings", SIM_NO_DEVICE, NULL, 0, &reply);
    if (code)
        return code;
    return sim_take_u32(&reply, &settings->environment) || sim_take_u32(&reply, &settings->ccFeature) ||
                   sim_take_u32(&reply, &settings->devToolsMode) || sim_take_u32(&reply, &settings->multiGpuMode)
               ? UNKNOWN
               : SUCCESS;
}

EXPORT nvmlReturn_t nvmlSystemGetConfComputeCapabilities(SystemCaps *caps)
{
    struct sim_reply reply;
    if (!caps)
        return INVALID_ARGUMENT;
    nvmlReturn_t code = ask("nvmlSystemGetConfComputeCapabilities", SIM_NO_DEVICE, NULL, 0, &reply);
    if (code)
        return code;
    return sim_take_u32(&reply, &caps->cpuCaps) || sim_take_u32(&reply, &caps->gpusCaps) ? UNKNOWN : SUCCESS;
}

EXPORT nvmlReturn_t nvmlSystemGetConfComputeKeyRotationThresholdInfo(KeyRotation *info)
{
    struct sim_reply reply;
    if (!info)
        return INVALID_ARGUMENT;
    if (info->version != VERSION_OF(KeyRotation, 1))
        return ARGUMENT_VERSION_MISMATCH;
    return give_u64(ask("nvmlSystemGetConfComputeKeyRotationThresholdInfo", SIM_NO_DEVICE, NULL, 0, &reply), &reply,
                    &info->advantage);
}

EXPORT nvmlReturn_t nvmlSystemSetConfComputeKeyRotationThresholdInfo(KeyRotation *info)
{
    struct sim_reply reply;
    uint8_t input[8];
    if (!info)
        return INVALID_ARGUMENT;
    if (info->version != VERSION_OF(KeyRotation, 1))
        return ARGUMENT_VERSION_MISMATCH;
    sim_put_u64(input, info->advantage);
    return ask("nvmlSystemSetConfComputeKeyRotationThresholdInfo", SIM_NO_DEVICE, input, sizeof input, &reply);
}

/* --- devices --- */

EXPORT nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned index, nvmlDevice_t *device)
{
    struct sim_reply reply;
    if (!device || index >= DEVICES_MAX)
        return initialized() ? UNINITIALIZED : INVALID_ARGUMENT;
    nvmlReturn_t code = ask("nvmlDeviceGetHandleByIndex", index, NULL, 0, &reply);
    if (!code)
        *device = &devices[index];
    return code;
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleByIndex(unsigned index, nvmlDevice_t *device)
{
    return nvmlDeviceGetHandleByIndex_v2(index, device);
}

static nvmlReturn_t find(const char *name, const char *text, nvmlDevice_t *device)
{
    struct sim_reply reply;
    uint32_t index;
    if (!text || !device)
        return INVALID_ARGUMENT;
    nvmlReturn_t code = ask(name, SIM_NO_DEVICE, text, (uint32_t)strnlen(text, 256), &reply);
    if (code)
        return code;
    if (sim_take_u32(&reply, &index) || index >= DEVICES_MAX)
        return UNKNOWN;
    *device = &devices[index];
    return SUCCESS;
}

#define FINDER(exported, name) \
    EXPORT nvmlReturn_t exported(const char *text, nvmlDevice_t *device) { return find(name, text, device); }

FINDER(nvmlDeviceGetHandleByUUID, "nvmlDeviceGetHandleByUUID")
FINDER(nvmlDeviceGetHandleBySerial, "nvmlDeviceGetHandleBySerial")
FINDER(nvmlDeviceGetHandleByPciBusId, "nvmlDeviceGetHandleByPciBusId")
FINDER(nvmlDeviceGetHandleByPciBusId_v2, "nvmlDeviceGetHandleByPciBusId")

EXPORT nvmlReturn_t nvmlDeviceGetIndex(nvmlDevice_t device, unsigned *index)
{
    if (initialized())
        return UNINITIALIZED;
    if (!index || index_of(device) == SIM_NO_DEVICE)
        return INVALID_ARGUMENT;
    *index = index_of(device);
    return SUCCESS;
}

#define DEVICE_TEXT(name)                                                         \
    EXPORT nvmlReturn_t name(nvmlDevice_t device, char *target, unsigned length)  \
    {                                                                             \
        struct sim_reply reply;                                                   \
        return give_text(ask_device(#name, device, NULL, 0, &reply), &reply, target, length); \
    }

DEVICE_TEXT(nvmlDeviceGetName)
DEVICE_TEXT(nvmlDeviceGetUUID)
DEVICE_TEXT(nvmlDeviceGetSerial)
DEVICE_TEXT(nvmlDeviceGetBoardPartNumber)
DEVICE_TEXT(nvmlDeviceGetVbiosVersion)
DEVICE_TEXT(nvmlDeviceGetInforomImageVersion)

#define DEVICE_NUMBER(name)                                                       \
    EXPORT nvmlReturn_t name(nvmlDevice_t device, unsigned *target)               \
    {                                                                             \
        struct sim_reply reply;                                                   \
        return give_u32(ask_device(#name, device, NULL, 0, &reply), &reply, target); \
    }

DEVICE_NUMBER(nvmlDeviceGetArchitecture)
DEVICE_NUMBER(nvmlDeviceGetBoardId)
DEVICE_NUMBER(nvmlDeviceGetPersistenceMode)

EXPORT nvmlReturn_t nvmlDeviceSetPersistenceMode(nvmlDevice_t device, unsigned mode)
{
    struct sim_reply reply;
    uint8_t input[4];
    sim_put_u32(input, mode);
    return ask_device("nvmlDeviceSetPersistenceMode", device, input, sizeof input, &reply);
}

EXPORT nvmlReturn_t nvmlDeviceGetConfComputeMemSizeInfo(nvmlDevice_t device, MemSizeInfo *info)
{
    struct sim_reply reply;
    if (!info)
        return INVALID_ARGUMENT;
    nvmlReturn_t code = ask_device("nvmlDeviceGetConfComputeMemSizeInfo", device, NULL, 0, &reply);
    code = give_u64(code, &reply, &info->protectedMemSizeKib);
    return give_u64(code, &reply, &info->unprotectedMemSizeKib);
}

EXPORT nvmlReturn_t nvmlDeviceSetConfComputeUnprotectedMemSize(nvmlDevice_t device, unsigned long long kib)
{
    struct sim_reply reply;
    uint8_t input[8];
    sim_put_u64(input, kib);
    return ask_device("nvmlDeviceSetConfComputeUnprotectedMemSize", device, input, sizeof input, &reply);
}

EXPORT nvmlReturn_t nvmlDeviceGetConfComputeProtectedMemoryUsage(nvmlDevice_t device, Memory *memory)
{
    struct sim_reply reply;
    if (!memory)
        return INVALID_ARGUMENT;
    nvmlReturn_t code = ask_device("nvmlDeviceGetConfComputeProtectedMemoryUsage", device, NULL, 0, &reply);
    code = give_u64(code, &reply, &memory->total);
    code = give_u64(code, &reply, &memory->free);
    return give_u64(code, &reply, &memory->used);
}

/* The sizes are handed on as the simulation says them, even where they exceed the arrays: callers have to look. */
EXPORT nvmlReturn_t nvmlDeviceGetConfComputeGpuCertificate(nvmlDevice_t device, GpuCertificate *certificate)
{
    struct sim_reply reply;
    uint32_t size;
    if (!certificate)
        return INVALID_ARGUMENT;
    nvmlReturn_t code = ask_device("nvmlDeviceGetConfComputeGpuCertificate", device, NULL, 0, &reply);
    if (code)
        return code;
    if (sim_take_u32(&reply, &size))
        return UNKNOWN;
    memset(certificate, 0, sizeof *certificate);
    certificate->attestationCertChainSize = size;
    sim_take_rest(&reply, certificate->attestationCertChain, sizeof certificate->attestationCertChain);
    return SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetConfComputeGpuAttestationReport(nvmlDevice_t device, GpuAttestationReport *report)
{
    struct sim_reply reply;
    uint32_t size;
    if (!report)
        return INVALID_ARGUMENT;
    nvmlReturn_t code = ask_device("nvmlDeviceGetConfComputeGpuAttestationReport", device, report->nonce,
                                   sizeof report->nonce, &reply);
    if (code)
        return code;
    if (sim_take_u32(&reply, &size))
        return UNKNOWN;
    report->isCecAttestationReportPresent = 0;
    report->cecAttestationReportSize = 0;
    report->attestationReportSize = size;
    memset(report->attestationReport, 0, sizeof report->attestationReport);
    sim_take_rest(&reply, report->attestationReport, sizeof report->attestationReport);
    return SUCCESS;
}

/* --- what monitors ask --- */

DEVICE_NUMBER(nvmlDeviceGetMinorNumber)
DEVICE_NUMBER(nvmlDeviceGetBrand)
DEVICE_NUMBER(nvmlDeviceGetComputeMode)
DEVICE_NUMBER(nvmlDeviceGetDisplayActive)
DEVICE_NUMBER(nvmlDeviceGetDisplayMode)
DEVICE_NUMBER(nvmlDeviceGetPerformanceState)
DEVICE_NUMBER(nvmlDeviceGetPowerUsage)
DEVICE_NUMBER(nvmlDeviceGetPowerManagementLimit)
DEVICE_NUMBER(nvmlDeviceGetPowerManagementDefaultLimit)
DEVICE_NUMBER(nvmlDeviceGetEnforcedPowerLimit)
DEVICE_NUMBER(nvmlDeviceGetFanSpeed)
DEVICE_NUMBER(nvmlDeviceGetNumFans)
DEVICE_NUMBER(nvmlDeviceGetCurrPcieLinkGeneration)
DEVICE_NUMBER(nvmlDeviceGetMaxPcieLinkGeneration)
DEVICE_NUMBER(nvmlDeviceGetCurrPcieLinkWidth)
DEVICE_NUMBER(nvmlDeviceGetMaxPcieLinkWidth)
DEVICE_NUMBER(nvmlDeviceGetNumGpuCores)
DEVICE_NUMBER(nvmlDeviceGetMemoryBusWidth)
DEVICE_NUMBER(nvmlDeviceGetMultiGpuBoard)
DEVICE_NUMBER(nvmlDeviceGetMaxMigDeviceCount)
DEVICE_NUMBER(nvmlDeviceIsMigDeviceHandle)

#define DEVICE_PAIR(name)                                                         \
    EXPORT nvmlReturn_t name(nvmlDevice_t device, unsigned *first, unsigned *second) \
    {                                                                             \
        struct sim_reply reply;                                                   \
        nvmlReturn_t code = give_u32(ask_device(#name, device, NULL, 0, &reply), &reply, first); \
        return give_u32(code, &reply, second);                                    \
    }

DEVICE_PAIR(nvmlDeviceGetMigMode)
DEVICE_PAIR(nvmlDeviceGetEccMode)
DEVICE_PAIR(nvmlDeviceGetDriverModel)
DEVICE_PAIR(nvmlDeviceGetDriverModel_v2)
DEVICE_PAIR(nvmlDeviceGetCudaComputeCapability)
DEVICE_PAIR(nvmlDeviceGetPowerManagementLimitConstraints)
DEVICE_PAIR(nvmlDeviceGetEncoderUtilization)
DEVICE_PAIR(nvmlDeviceGetDecoderUtilization)
DEVICE_PAIR(nvmlDeviceGetJpgUtilization)
DEVICE_PAIR(nvmlDeviceGetOfaUtilization)

#define DEVICE_NUMBER_OF(name)                                                    \
    EXPORT nvmlReturn_t name(nvmlDevice_t device, unsigned which, unsigned *target) \
    {                                                                             \
        struct sim_reply reply;                                                   \
        uint8_t input[4];                                                         \
        sim_put_u32(input, which);                                                \
        return give_u32(ask_device(#name, device, input, sizeof input, &reply), &reply, target); \
    }

DEVICE_NUMBER_OF(nvmlDeviceGetTemperature)
DEVICE_NUMBER_OF(nvmlDeviceGetTemperatureThreshold)
DEVICE_NUMBER_OF(nvmlDeviceGetClockInfo)
DEVICE_NUMBER_OF(nvmlDeviceGetMaxClockInfo)
DEVICE_NUMBER_OF(nvmlDeviceGetApplicationsClock)
DEVICE_NUMBER_OF(nvmlDeviceGetPcieThroughput)

#define DEVICE_LONG(name)                                                         \
    EXPORT nvmlReturn_t name(nvmlDevice_t device, unsigned long long *target)     \
    {                                                                             \
        struct sim_reply reply;                                                   \
        return target ? give_u64(ask_device(#name, device, NULL, 0, &reply), &reply, target) : INVALID_ARGUMENT; \
    }

DEVICE_LONG(nvmlDeviceGetTotalEnergyConsumption)
DEVICE_LONG(nvmlDeviceGetCurrentClocksThrottleReasons)
DEVICE_LONG(nvmlDeviceGetCurrentClocksEventReasons)

EXPORT nvmlReturn_t nvmlDeviceGetTotalEccErrors(nvmlDevice_t device, unsigned error, unsigned counter,
                                                unsigned long long *count)
{
    struct sim_reply reply;
    (void)error, (void)counter;
    return count ? give_u64(ask_device("nvmlDeviceGetTotalEccErrors", device, NULL, 0, &reply), &reply, count)
                 : INVALID_ARGUMENT;
}

EXPORT nvmlReturn_t nvmlDeviceGetTemperatureV(nvmlDevice_t device, Temperature *temperature)
{
    unsigned value;
    if (!temperature)
        return INVALID_ARGUMENT;
    if (temperature->version != VERSION_OF(Temperature, 1))
        return ARGUMENT_VERSION_MISMATCH;
    nvmlReturn_t code = nvmlDeviceGetTemperature(device, temperature->sensorType, &value);
    if (!code)
        temperature->temperature = (int)value;
    return code;
}

EXPORT nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, Utilization *rates)
{
    struct sim_reply reply;
    if (!rates)
        return INVALID_ARGUMENT;
    nvmlReturn_t code = ask_device("nvmlDeviceGetUtilizationRates", device, NULL, 0, &reply);
    code = give_u32(code, &reply, &rates->gpu);
    return give_u32(code, &reply, &rates->memory);
}

/* total, reserved, free, used; the older call counts what is reserved as used */
static nvmlReturn_t memory_of(nvmlDevice_t device, MemoryV2 *memory)
{
    struct sim_reply reply;
    nvmlReturn_t code = ask_device("nvmlDeviceGetMemoryInfo", device, NULL, 0, &reply);
    code = give_u64(code, &reply, &memory->total);
    code = give_u64(code, &reply, &memory->reserved);
    code = give_u64(code, &reply, &memory->free);
    return give_u64(code, &reply, &memory->used);
}

EXPORT nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, Memory *memory)
{
    MemoryV2 now;
    if (!memory)
        return INVALID_ARGUMENT;
    nvmlReturn_t code = memory_of(device, &now);
    if (!code)
        *memory = (Memory){now.total, now.free, now.used + now.reserved};
    return code;
}

EXPORT nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, MemoryV2 *memory)
{
    if (!memory)
        return INVALID_ARGUMENT;
    return memory->version == VERSION_OF(MemoryV2, 2) ? memory_of(device, memory) : ARGUMENT_VERSION_MISMATCH;
}

EXPORT nvmlReturn_t nvmlDeviceGetBAR1MemoryInfo(nvmlDevice_t device, Bar1Memory *memory)
{
    struct sim_reply reply;
    if (!memory)
        return INVALID_ARGUMENT;
    nvmlReturn_t code = ask_device("nvmlDeviceGetBAR1MemoryInfo", device, NULL, 0, &reply);
    code = give_u64(code, &reply, &memory->total);
    code = give_u64(code, &reply, &memory->free);
    return give_u64(code, &reply, &memory->used);
}

EXPORT nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, PciInfo *info)
{
    struct sim_reply reply;
    if (!info)
        return INVALID_ARGUMENT;
    nvmlReturn_t code = ask_device("nvmlDeviceGetPciInfo", device, NULL, 0, &reply);
    if (code)
        return code;
    memset(info, 0, sizeof *info);
    if (sim_take_u32(&reply, &info->domain) || sim_take_u32(&reply, &info->bus) || sim_take_u32(&reply, &info->device) ||
        sim_take_u32(&reply, &info->pciDeviceId) || sim_take_u32(&reply, &info->pciSubSystemId))
        return UNKNOWN;
    snprintf(info->busId, sizeof info->busId, "%08X:%02X:%02X.0", info->domain, info->bus & 0xff, info->device & 0xff);
    snprintf(info->busIdLegacy, sizeof info->busIdLegacy, "%04X:%02X:%02X.0", info->domain & 0xffff, info->bus & 0xff,
             info->device & 0xff);
    return SUCCESS;
}

/* No program runs on a simulated GPU: the count is 0 in every version of the structure, which is never written. */
#define PROCESSES(name)                                                           \
    EXPORT nvmlReturn_t name(nvmlDevice_t device, unsigned *count, void *processes) \
    {                                                                             \
        struct sim_reply reply;                                                   \
        (void)processes;                                                          \
        return give_u32(ask_device("nvmlDeviceGetRunningProcesses", device, NULL, 0, &reply), &reply, count); \
    }

PROCESSES(nvmlDeviceGetComputeRunningProcesses)
PROCESSES(nvmlDeviceGetComputeRunningProcesses_v2)
PROCESSES(nvmlDeviceGetComputeRunningProcesses_v3)
PROCESSES(nvmlDeviceGetGraphicsRunningProcesses)
PROCESSES(nvmlDeviceGetGraphicsRunningProcesses_v2)
PROCESSES(nvmlDeviceGetGraphicsRunningProcesses_v3)
PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses)
PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses_v2)
PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses_v3)
