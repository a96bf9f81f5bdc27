#define _GNU_SOURCE
#include "sim_client.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define ADDRESS_VARIABLE "NVATTEST_SIM_SOCKET"
#define ADDRESS_FILE "nvattest-sim.socket-path"
#define REQUEST_MAX 1024u

void sim_put_u32(uint8_t *target, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        target[i] = (uint8_t)(value >> (8 * i));
}

void sim_put_u64(uint8_t *target, uint64_t value)
{
    for (int i = 0; i < 8; i++)
        target[i] = (uint8_t)(value >> (8 * i));
}

static uint32_t get_u32(const uint8_t *source)
{
    return (uint32_t)source[0] | (uint32_t)source[1] << 8 | (uint32_t)source[2] << 16 | (uint32_t)source[3] << 24;
}

int sim_take_bytes(struct sim_reply *reply, void *target, uint32_t length)
{
    if (reply->length - reply->taken < length)
        return -1;
    memcpy(target, reply->data + reply->taken, length);
    reply->taken += length;
    return 0;
}

int sim_take_u32(struct sim_reply *reply, uint32_t *value)
{
    uint8_t raw[4];
    if (sim_take_bytes(reply, raw, sizeof raw))
        return -1;
    *value = get_u32(raw);
    return 0;
}

int sim_take_u64(struct sim_reply *reply, uint64_t *value)
{
    uint32_t low, high;
    if (sim_take_u32(reply, &low) || sim_take_u32(reply, &high))
        return -1;
    *value = (uint64_t)high << 32 | low;
    return 0;
}

uint32_t sim_take_rest(struct sim_reply *reply, void *target, uint32_t capacity)
{
    uint32_t length = reply->length - reply->taken;
    if (length > capacity)
        length = capacity;
    memcpy(target, reply->data + reply->taken, length);
    reply->taken = reply->length;
    return length;
}

/* The address of the simulation in text, without a line end. Returns 0 when there is one. */
static int find_address(char *text, size_t size)
{
    const char *given = getenv(ADDRESS_VARIABLE);
    if (given && *given) {
        if (strlen(given) >= size)
            return -1;
        strcpy(text, given);
        return 0;
    }
    Dl_info self;
    if (!dladdr((void *)(uintptr_t)&sim_call, &self) || !self.dli_fname)
        return -1;
    const char *slash = strrchr(self.dli_fname, '/');
    int folder = slash ? (int)(slash - self.dli_fname) : 1;
    char path[PATH_MAX];
    int written = snprintf(path, sizeof path, "%.*s/%s", folder, slash ? self.dli_fname : ".", ADDRESS_FILE);
    if (written < 0 || (size_t)written >= sizeof path)
        return -1;
    FILE *file = fopen(path, "re");
    if (!file)
        return -1;
    char *line = fgets(text, (int)size, file);
    fclose(file);
    if (!line)
        return -1;
    text[strcspn(text, "\r\n")] = '\0';
    return *text ? 0 : -1;
}

static int connect_to_simulation(void)
{
    char text[PATH_MAX];
    if (find_address(text, sizeof text))
        return -1;

    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t length = strlen(text);
    int folder = -1;
    socklen_t used = sizeof address;
    if (text[0] == '@') {
        if (length > sizeof address.sun_path)
            return -1;
        memcpy(address.sun_path + 1, text + 1, length - 1);
        used = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
    } else if (length < sizeof address.sun_path) {
        memcpy(address.sun_path, text, length);
    } else {
        /* A path beyond the 107 bytes of an address is reached through its open folder. */
        char *slash = strrchr(text, '/');
        if (!slash)
            return -1;
        *slash = '\0';
        folder = open(text, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (folder < 0)
            return -1;
        int written = snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/%s", folder, slash + 1);
        if (written < 0 || (size_t)written >= sizeof address.sun_path) {
            close(folder);
            return -1;
        }
    }

    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0) {
        int failed;
        do
            failed = connect(fd, (struct sockaddr *)&address, used);
        while (failed && errno == EINTR);
        if (failed) {
            close(fd);
            fd = -1;
        }
    }
    if (folder >= 0)
        close(folder);
    return fd;
}

static int send_all(int fd, const uint8_t *data, size_t length)
{
    while (length) {
        ssize_t sent = send(fd, data, length, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent <= 0)
            return -1;
        data += sent;
        length -= (size_t)sent;
    }
    return 0;
}

static int receive_all(int fd, uint8_t *data, size_t length)
{
    while (length) {
        ssize_t got = recv(fd, data, length, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return -1;
        data += got;
        length -= (size_t)got;
    }
    return 0;
}

int32_t sim_call(const char *name, uint32_t device, const void *input, uint32_t input_length, struct sim_reply *reply)
{
    uint8_t request[REQUEST_MAX];
    size_t name_length = strlen(name);
    size_t total = 4 + 1 + name_length + 4 + input_length;
    reply->length = reply->taken = 0;
    if (name_length > 255 || input_length > REQUEST_MAX || total > REQUEST_MAX)
        return SIM_NO_ANSWER;
    sim_put_u32(request, (uint32_t)(total - 4));
    request[4] = (uint8_t)name_length;
    memcpy(request + 5, name, name_length);
    sim_put_u32(request + 5 + name_length, device);
    if (input_length)
        memcpy(request + 9 + name_length, input, input_length);

    /* One connection per call: calls of several threads then need no lock, and a call that hangs holds up no other. */
    int fd = connect_to_simulation();
    if (fd < 0)
        return SIM_NO_ANSWER;
    int32_t code = SIM_NO_ANSWER;
    uint8_t head[8];
    if (!send_all(fd, request, total) && !receive_all(fd, head, sizeof head)) {
        uint32_t length = get_u32(head);
        if (length >= 4 && length - 4 <= SIM_REPLY_MAX && !receive_all(fd, reply->data, length - 4)) {
            reply->length = length - 4;
            code = (int32_t)get_u32(head + 4);
        }
    }
    close(fd);
    return code;
}
