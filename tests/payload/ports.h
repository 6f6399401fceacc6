/*
 * The devices of a payload's machine: the debug port, the exit port, a page of scratch device memory, and just enough of
 * a local APIC (x2APIC only) to send oneself interrupts where the accelerator has none of its own.
 */
#ifndef PAYLOAD_RUN_PORTS_H
#define PAYLOAD_RUN_PORTS_H

#include "accel/accel.h"

#define SCRATCH_BASE 0xd0000000ull /* see struct scratch_page in guest/payload/lib/device.h */
#define SCRATCH_BYTES 4096

struct machine {
    struct gmem ram;
    struct aspace mmio, pio;
    struct cpu_model model;
    struct accel_machine config;
    const struct accel_ops *ops;
    struct accel *accel;
    struct vcpu *vcpu;

    struct io_region debug_port, exit_port, scratch;
    u8 scratch_bytes[SCRATCH_BYTES];
    u32 scratch_accesses, scratch_last_size;

    /* Local APIC */
    u64 apic_base, tpr, spurious;
    u64 requested[4], in_service[4]; /* bitmaps of vectors */

    const char *excuse; /* why the accelerator need not work here, or NULL */
    /* What the payload has said */
    char line[256];
    unsigned line_len;
    unsigned cases, failures;
    bool plan_seen, shutdown_expected;
    int exit_status; /* -1 until the exit port is written */
};

int machine_ports_init(struct machine *m, struct err *err);

#endif
