/* A struct with fields of every kind, as the tests and the fuzzer of saved state use it. */
#ifndef UNIT_STATE_SAMPLE_H
#define UNIT_STATE_SAMPLE_H

#include "state/field.h"

struct sample_queue {
    u16 size;
    u64 addr;
};

struct sample {
    u8 ready;
    u16 port;
    s32 offset;
    u64 addr;
    bool on;
    u32 reg[3];
    u8 fifo[40];
    struct sample_queue queue[2];
    u32 late; /* since version 2 */
};

static const struct field sample_fields[] = {
    STATE_UINT(struct sample, ready, 1),
    STATE_UINT(struct sample, port, 1),
    STATE_SINT(struct sample, offset, 1),
    STATE_HEX(struct sample, addr, 1),
    STATE_BOOL(struct sample, on, 1),
    STATE_HEXES(struct sample, reg, 1),
    STATE_BYTES(struct sample, fifo, 1),
    STATE_EACH(struct sample, queue, size, 1, FIELD_UINT),
    STATE_EACH(struct sample, queue, addr, 1, FIELD_HEX),
    STATE_UINT(struct sample, late, 2),
};

static STATE_TABLE(sample_table, struct sample, 2, sample_fields);

#define SAMPLE_V1_BYTES (1 + 2 + 4 + 8 + 1 + 12 + 40 + 4 + 16)

static inline void sample_fill(struct sample *s)
{
    *s = (struct sample){.ready = 200,
                         .port = 0x3f8,
                         .offset = -5,
                         .addr = 0xfee00000,
                         .on = true,
                         .reg = {1, 0xffffffff, 0x80000000},
                         .queue = {{256, 0x1000}, {128, 0x2000}},
                         .late = 77};
    for (unsigned i = 0; i < sizeof(s->fifo); i++)
        s->fifo[i] = (u8)(i * 3);
}

#endif
