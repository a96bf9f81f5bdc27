/* A simulated libnvidia-nscq.so.2: the part of NVIDIA's switch library that gives attestation evidence.
 *
 * Observers are called once per device with (device uuid, code, value, user data); reports and certificates are passed by
 * value, as the library does. A failing path calls its observer with the code and returns it.
 */
#include "sim_client.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NONCE_SIZE 32u
#define SWITCHES_MAX 256u

enum {
    RC_SUCCESS = 0,
    RC_NOT_IMPLEMENTED = -1,
    RC_INVALID_UUID = -2,
    RC_UNEXPECTED_VALUE = -5,
    RC_DRIVER = -7,
    RC_UNSPECIFIED = -128,
};

typedef int8_t nscq_rc_t;

typedef struct {
    uint8_t bytes[16];
} nscq_uuid_t;

typedef struct {
    char data[64];
} nscq_label_t;

typedef struct {
    uint32_t report_size;
    uint8_t report[0x2000];
} Report;

typedef struct {
    uint8_t cert_chain[0x1400];
    uint32_t cert_chain_size;
} Certificate;

typedef struct session {
    bool has_nonce;
    uint8_t nonce[NONCE_SIZE];
} *nscq_session_t;

typedef struct {
    nscq_rc_t rc;
    nscq_session_t session;
} nscq_session_result_t;

typedef void (*nscq_fn_t)(void);
typedef void (*uuid_fn_t)(const nscq_uuid_t *, nscq_rc_t, const nscq_uuid_t *, void *);
typedef void (*number_fn_t)(const nscq_uuid_t *, nscq_rc_t, int8_t, void *);
typedef void (*version_fn_t)(const nscq_uuid_t *, nscq_rc_t, uint32_t, void *);
typedef void (*report_fn_t)(const nscq_uuid_t *, nscq_rc_t, const Report, void *);
typedef void (*certificate_fn_t)(const nscq_uuid_t *, nscq_rc_t, const Certificate, void *);

EXPORT const uint32_t nscq_api_version = 2u << 24;

static nscq_rc_t code_of(int32_t answer)
{
    if (answer == SIM_NO_ANSWER)
        return RC_DRIVER;
    return answer < -128 || answer > 127 ? RC_UNSPECIFIED : (nscq_rc_t)answer;
}

EXPORT nscq_session_result_t nscq_session_create(uint32_t flags)
{
    struct sim_reply reply;
    nscq_session_result_t result = {RC_SUCCESS, NULL};
    uint8_t input[4];
    sim_put_u32(input, flags);
    result.rc = code_of(sim_call("nscq_session_create", SIM_NO_DEVICE, input, sizeof input, &reply));
    if (result.rc >= 0 && !(result.session = calloc(1, sizeof *result.session)))
        result.rc = RC_UNSPECIFIED;
    return result;
}

EXPORT void nscq_session_destroy(nscq_session_t session)
{
    struct sim_reply reply;
    if (session)
        sim_call("nscq_session_destroy", SIM_NO_DEVICE, NULL, 0, &reply);
    free(session);
}

EXPORT nscq_rc_t nscq_session_set_input(nscq_session_t session, uint32_t flags, void *input, uint32_t length)
{
    struct sim_reply reply;
    (void)flags;
    if (!session || !input || length != NONCE_SIZE)
        return RC_UNEXPECTED_VALUE;
    nscq_rc_t rc = code_of(sim_call("nscq_session_set_input", SIM_NO_DEVICE, input, length, &reply));
    if (rc == RC_SUCCESS) {
        memcpy(session->nonce, input, NONCE_SIZE);
        session->has_nonce = true;
    }
    return rc;
}

EXPORT nscq_rc_t nscq_uuid_to_label(const nscq_uuid_t *uuid, nscq_label_t *label, uint32_t flags)
{
    (void)flags;
    if (!uuid || !label)
        return RC_INVALID_UUID;
    const uint8_t *b = uuid->bytes;
    memset(label, 0, sizeof *label);
    snprintf(label->data, sizeof label->data,
             "SWX-%02X%02X%02X%02X-%02X%02X-%02X%02X-%02X%02X-%02X%02X%02X%02X%02X%02X", b[0], b[1], b[2], b[3], b[4], b[5],
             b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
    return RC_SUCCESS;
}

static nscq_rc_t observe_uuids(uuid_fn_t observer, void *data)
{
    struct sim_reply reply;
    nscq_uuid_t uuid = {{0}};
    nscq_rc_t rc = code_of(sim_call("nscq:uuid", SIM_NO_DEVICE, NULL, 0, &reply));
    if (rc != RC_SUCCESS)
        observer(&uuid, rc, NULL, data);
    else
        while (!sim_take_bytes(&reply, &uuid, sizeof uuid))
            observer(&uuid, RC_SUCCESS, &uuid, data);
    return rc;
}

static nscq_rc_t observe_architecture(number_fn_t observer, void *data)
{
    struct sim_reply reply;
    nscq_uuid_t uuid = {{0}};
    int8_t value = -1;
    nscq_rc_t rc = code_of(sim_call("nscq:arch", SIM_NO_DEVICE, NULL, 0, &reply));
    if (rc != RC_SUCCESS)
        observer(&uuid, rc, value, data);
    else
        while (!sim_take_bytes(&reply, &uuid, sizeof uuid) && !sim_take_bytes(&reply, &value, sizeof value))
            observer(&uuid, RC_SUCCESS, value, data);
    return rc;
}

/* One switch, named by its label: the reply starts with its uuid. */
static nscq_rc_t observe_switch(nscq_session_t session, const char *label, const char *item, nscq_fn_t observer, void *data)
{
    struct sim_reply reply;
    nscq_uuid_t uuid = {{0}};
    uint8_t input[NONCE_SIZE + 64];
    char name[64];
    size_t length = strlen(label);
    if (length > 64)
        return RC_INVALID_UUID;
    if (!strcmp(item, "attestation_report") && !session->has_nonce)
        return RC_UNEXPECTED_VALUE;
    memcpy(input, session->nonce, NONCE_SIZE);
    memcpy(input + NONCE_SIZE, label, length);
    snprintf(name, sizeof name, "nscq:%s", item);
    nscq_rc_t rc = code_of(sim_call(name, SIM_NO_DEVICE, input, NONCE_SIZE + (uint32_t)length, &reply));
    if (rc == RC_SUCCESS && sim_take_bytes(&reply, &uuid, sizeof uuid))
        rc = RC_UNSPECIFIED;

    if (!strcmp(item, "pcie_mode")) {
        int8_t value = -1;
        if (rc == RC_SUCCESS && sim_take_bytes(&reply, &value, sizeof value))
            rc = RC_UNSPECIFIED;
        ((number_fn_t)observer)(&uuid, rc, value, data);
    } else if (!strcmp(item, "attestation_report")) {
        Report report;
        memset(&report, 0, sizeof report);
        if (rc == RC_SUCCESS && sim_take_u32(&reply, &report.report_size))
            rc = RC_UNSPECIFIED;
        sim_take_rest(&reply, report.report, sizeof report.report);
        ((report_fn_t)observer)(&uuid, rc, report, data);
    } else {
        Certificate certificate;
        memset(&certificate, 0, sizeof certificate);
        if (rc == RC_SUCCESS && sim_take_u32(&reply, &certificate.cert_chain_size))
            rc = RC_UNSPECIFIED;
        sim_take_rest(&reply, certificate.cert_chain, sizeof certificate.cert_chain);
        ((certificate_fn_t)observer)(&uuid, rc, certificate, data);
    }
    return rc;
}

/* The same of all switches, in the order of their uuids; the first code that is no success is returned. */
static nscq_rc_t observe_switches(nscq_session_t session, const char *item, nscq_fn_t observer, void *data)
{
    struct sim_reply reply;
    nscq_uuid_t uuid = {{0}};
    nscq_label_t label;
    nscq_rc_t listed = code_of(sim_call("nscq:uuid", SIM_NO_DEVICE, NULL, 0, &reply)), first = listed;
    while (listed == RC_SUCCESS && !sim_take_bytes(&reply, &uuid, sizeof uuid)) {
        nscq_uuid_to_label(&uuid, &label, 0);
        nscq_rc_t rc = observe_switch(session, label.data, item, observer, data);
        first = first == RC_SUCCESS ? rc : first;
    }
    return first;
}

static nscq_rc_t observe_version(version_fn_t observer, void *data)
{
    struct sim_reply reply;
    nscq_uuid_t uuid = {{0}};
    uint32_t version = 0;
    nscq_rc_t rc = code_of(sim_call("nscq:version", SIM_NO_DEVICE, NULL, 0, &reply));
    if (rc == RC_SUCCESS && sim_take_u32(&reply, &version))
        rc = RC_UNSPECIFIED;
    observer(&uuid, rc, version, data);
    return rc;
}

EXPORT nscq_rc_t nscq_session_path_observe(nscq_session_t session, const char *path, nscq_fn_t observer, void *data,
                                           uint32_t flags)
{
    char label[65], item[33];
    int end = 0;
    (void)flags;
    if (!session || !path || !observer)
        return RC_UNEXPECTED_VALUE;
    if (!strcmp(path, "/drv/nvswitch/{device}/uuid"))
        return observe_uuids((uuid_fn_t)observer, data);
    if (!strcmp(path, "/drv/nvswitch/version"))
        return observe_version((version_fn_t)observer, data);
    if (!strcmp(path, "/{nvswitch}/id/arch"))
        return observe_architecture((number_fn_t)observer, data);
    if (sscanf(path, "/%64[^/]/config/%32[a-z_]%n", label, item, &end) == 2 && path[end] == '\0' &&
        (!strcmp(item, "attestation_report") || !strcmp(item, "certificate") || !strcmp(item, "pcie_mode")))
        return strcmp(label, "{nvswitch}") ? observe_switch(session, label, item, observer, data)
                                           : observe_switches(session, item, observer, data);
    return RC_NOT_IMPLEMENTED;
}
