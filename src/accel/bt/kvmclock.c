/*
 * kvmclock. The clock counts from guest TSC 0, with the TSC's frequency, on every processor alike: so one page written
 * once is right for good, and all processors agree (PVCLOCK_TSC_STABLE). What the guest itself adds to its TSC
 * (TSC_ADJUST) is taken out again. Heavy code on the vCPU's thread.
 */
#include "accel/bt/kvmclock.h"
#include "x86/pvclock.h"
#include <time.h>

#define FLAG_TSC_STABLE 1

struct time_info {
    u32 version, pad0;
    u64 tsc_timestamp, system_time;
    u32 mul;
    s8 shift;
    u8 flags, pad[2];
};

struct wall_clock {
    u32 version, sec, nsec;
};

static u64 now_ns(const struct cpu *c)
{
    u64 tsc = __builtin_ia32_rdtsc() + (u64)c->tsc_offset - c->msr.tsc_adjust;

    return pvclock_ns(c->model->tsc_khz, tsc);
}

/* Readers retry while the version is odd or has changed: so it is written first and last. */
static void write_versioned(struct cpu *c, u64 gpa, const void *data, u32 len, u32 version)
{
    u32 odd = version - 1;
    gmem_write(c->m->ram, gpa, &odd, sizeof(odd));
    gmem_write(c->m->ram, gpa + sizeof(odd), (const u8 *)data + sizeof(odd), len - sizeof(odd));
    gmem_write(c->m->ram, gpa, &version, sizeof(version));
}

static u32 next_version(struct cpu *c, u64 gpa)
{
    u32 version = 0;
    gmem_read(c->m->ram, gpa, &version, sizeof(version));
    return (version & ~1u) + 2;
}

u64 kvmclock_write_time(u64 cpu, u64 gpa, u64 unused)
{
    struct cpu *c = (struct cpu *)cpu;
    struct time_info t = {.version = next_version(c, gpa),
                          .tsc_timestamp = c->msr.tsc_adjust,
                          .flags = FLAG_TSC_STABLE};
    pvclock_scale(c->model->tsc_khz, &t.mul, &t.shift);
    write_versioned(c, gpa, &t, sizeof(t), t.version);
    return 0;
}

u64 kvmclock_write_wall(u64 cpu, u64 gpa, u64 unused)
{
    struct cpu *c = (struct cpu *)cpu;
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    u64 boot = (u64)ts.tv_sec * (u64)NS_PER_S + (u64)ts.tv_nsec - now_ns(c);
    struct wall_clock w = {.version = next_version(c, gpa),
                           .sec = (u32)(boot / (u64)NS_PER_S),
                           .nsec = (u32)(boot % (u64)NS_PER_S)};
    write_versioned(c, gpa, &w, sizeof(w), w.version);
    return 0;
}
