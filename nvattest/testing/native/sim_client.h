/* The way from the simulated driver libraries to the simulation process: one short exchange on a Unix socket per call. */
#ifndef NVATTEST_SIM_CLIENT_H
#define NVATTEST_SIM_CLIENT_H

#include <stddef.h>
#include <stdint.h>

#define EXPORT __attribute__((visibility("default")))

/* The simulation did not answer: no address, nobody listening, or an answer that breaks the protocol. */
#define SIM_NO_ANSWER INT32_MIN
#define SIM_NO_DEVICE UINT32_MAX
#define SIM_REPLY_MAX 16384u

struct sim_reply {
    uint32_t length;
    uint32_t taken; /* how much the readers below have used */
    uint8_t data[SIM_REPLY_MAX];
};

/* Ask the simulation. Returns the code that the call shall return, or SIM_NO_ANSWER.
 *
 * request:  u32 length of the rest | u8 length of name | name | u32 device | input
 * reply:    u32 length of the rest | i32 return code | data
 *
 * All numbers are little-endian. The address is that of NVATTEST_SIM_SOCKET or, where the environment has none, the first
 * line of the file "nvattest-sim.socket-path" beside this library. "@name" is a socket in the abstract namespace.
 */
int32_t sim_call(const char *name, uint32_t device, const void *input, uint32_t input_length, struct sim_reply *reply);

/* Take numbers and bytes from a reply, in order. Each returns 0, or -1 where the reply is too short. */
int sim_take_u32(struct sim_reply *reply, uint32_t *value);
int sim_take_u64(struct sim_reply *reply, uint64_t *value);
int sim_take_bytes(struct sim_reply *reply, void *target, uint32_t length);
/* The rest of a reply, cut at capacity; returns how many bytes were copied. */
uint32_t sim_take_rest(struct sim_reply *reply, void *target, uint32_t capacity);

void sim_put_u32(uint8_t *target, uint32_t value);
void sim_put_u64(uint8_t *target, uint64_t value);

#endif
