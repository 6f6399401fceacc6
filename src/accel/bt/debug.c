/* Hardware breakpoints, SDM 3B 17.2: four linear addresses, watched for fetches, stores or any access. Light. */
#include "accel/bt/sys.h"
#include "accel/bt/vcpu.h"

enum { WATCH_EXEC = 0, WATCH_WRITE = 1, WATCH_IO = 2, WATCH_ACCESS = 3 };

static bool enabled(const struct cpu *c, unsigned n)
{
    return c->dr7 >> (2 * n) & 3;
}

static unsigned kind(const struct cpu *c, unsigned n)
{
    return c->dr7 >> (16 + 4 * n) & 3;
}

static unsigned length(const struct cpu *c, unsigned n)
{
    static const u8 bytes[4] = {1, 2, 8, 4};
    return bytes[c->dr7 >> (18 + 4 * n) & 3];
}

void debug_fetch(struct cpu *c, u64 lin)
{
    u64 hits = 0;

    for (unsigned n = 0; n < 4; n++)
        if (enabled(c, n) && kind(c, n) == WATCH_EXEC && c->dr[n] == lin)
            hits |= BIT(n);
    if (!hits)
        return;
    c->dr6 |= hits;
    raise_exception(c, VEC_DB);
}

void debug_access(struct cpu *c, u64 lin, unsigned size, bool write)
{
    for (unsigned n = 0; n < 4; n++) {
        u64 from = c->dr[n] & ~(u64)(length(c, n) - 1);
        bool watched = kind(c, n) == WATCH_ACCESS || (kind(c, n) == WATCH_WRITE && write);
        if (enabled(c, n) && watched && lin < from + length(c, n) && from < lin + size)
            c->dr_hits |= BIT(n);
    }
}
