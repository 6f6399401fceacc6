/*
 * Guest memory by linear address, for C code on a vCPU thread. Light.
 *
 * Stores go through the VMM's view of RAM, which is always writable, and look afterwards whether the page holds
 * translated code; the translator marks a page before it reads it, so one of the two sees the other.
 */
#include "accel/bt/vcpu.h"
#include "accel/bt/cache.h"

struct place {
    u8 *host; /* NULL: device memory at gpa */
    u64 gpa;
};

static u8 *vmm_view(const struct cpu *c, u64 gpa, bool write)
{
    const struct gmem_slot *s = ram_slot(c->m->ram, gpa);

    if (!s || (write && s->readonly))
        return NULL;
    return s->hva + (gpa - s->gpa);
}

static struct place find(struct cpu *c, u64 lin, bool write, enum mem_as as)
{
    struct mmu_page p;

    if (as == AS_CPL)
        mmu_find(c, lin, write, &p);
    else
        mmu_lookup(c, lin, write, as, &p);
    if (p.ram && !write)
        return (struct place){.host = (u8 *)(lin + p.delta), .gpa = p.gpa};
    return (struct place){.host = p.ram ? vmm_view(c, p.gpa, write) : NULL, .gpa = p.gpa};
}

static void check_canonical(struct cpu *c, u64 lin)
{
    if ((u64)(((s64)lin << 16) >> 16) != lin && long_mode(c))
        raise_error(c, VEC_GP, 0);
}

static u64 load_within(struct cpu *c, const struct place *p, unsigned size)
{
    if (!p->host)
        return mem_device_read(c, p->gpa, size);
    switch (size) {
    case 1: return *(volatile u8 *)p->host;
    case 2: return *(volatile u16 *)p->host;
    case 4: return *(volatile u32 *)p->host;
    default: return *(volatile u64 *)p->host;
    }
}

static void store_within(struct cpu *c, const struct place *p, unsigned size, u64 value)
{
    if (!p->host) {
        mem_device_write(c, p->gpa, size, value);
        return;
    }
    switch (size) {
    case 1: *(volatile u8 *)p->host = value; break;
    case 2: *(volatile u16 *)p->host = value; break;
    case 4: *(volatile u32 *)p->host = value; break;
    default: *(volatile u64 *)p->host = value; break;
    }
    code_written(c, p->gpa, size);
}

u64 mem_load(struct cpu *c, u64 lin, unsigned size, enum mem_as as)
{
    u64 value = 0;

    check_canonical(c, lin);
    if ((c->mode & MODE_DEBUG) && as == AS_CPL)
        debug_access(c, lin, size, false);
    if ((lin & 0xfff) + size <= 4096) {
        struct place p = find(c, lin, false, as);
        return load_within(c, &p, size);
    }
    for (unsigned i = 0; i < size; i++) {
        struct place p = find(c, lin + i, false, as);
        value |= load_within(c, &p, 1) << (8 * i);
    }
    return value;
}

void mem_store(struct cpu *c, u64 lin, unsigned size, u64 value, enum mem_as as)
{
    check_canonical(c, lin);
    if ((c->mode & MODE_DEBUG) && as == AS_CPL)
        debug_access(c, lin, size, true);
    if ((lin & 0xfff) + size <= 4096) {
        struct place p = find(c, lin, true, as);
        store_within(c, &p, size, value);
        return;
    }
    /* Both pages must be writable before the first byte goes out. */
    mem_probe(c, lin, size, true, as);
    for (unsigned i = 0; i < size; i++) {
        struct place p = find(c, lin + i, true, as);
        store_within(c, &p, 1, value >> (8 * i));
    }
}

void mem_probe(struct cpu *c, u64 lin, unsigned len, bool write, enum mem_as as)
{
    check_canonical(c, lin);
    for (u64 at = lin; at - lin < len; at = (at | 0xfff) + 1)
        find(c, at, write, as);
}

/* The largest power of two up to 8 that fits in what is left of len and of the page. */
static unsigned piece(u64 lin, unsigned len)
{
    unsigned left = MIN(len, 4096 - (unsigned)(lin & 0xfff));

    return left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
}

void mem_read(struct cpu *c, u64 lin, void *buf, unsigned len, enum mem_as as)
{
    u8 *out = buf;

    while (len) {
        unsigned n = piece(lin, len);
        u64 value = mem_load(c, lin, n, as);
        for (unsigned i = 0; i < n; i++)
            out[i] = value >> (8 * i);
        out += n, lin += n, len -= n;
    }
}

void mem_write(struct cpu *c, u64 lin, const void *buf, unsigned len, enum mem_as as)
{
    const u8 *in = buf;

    mem_probe(c, lin, len, true, as);
    while (len) {
        unsigned n = piece(lin, len);
        u64 value = 0;
        for (unsigned i = 0; i < n; i++)
            value |= (u64)in[i] << (8 * i);
        mem_store(c, lin, n, value, as);
        in += n, lin += n, len -= n;
    }
}

void *mem_span(struct cpu *c, u64 lin, bool write, unsigned *ret_len, enum mem_as as)
{
    check_canonical(c, lin);
    *ret_len = 4096 - (lin & 0xfff);
    if (c->mode & (MODE_DEBUG | MODE_TF))
        return NULL; /* element by element, so that each is compared with the breakpoints */
    struct mmu_page p;
    if (as == AS_CPL)
        mmu_find(c, lin, write, &p);
    else
        mmu_lookup(c, lin, write, as, &p);
    if (!p.ram || (write && code_page(c->vcpu->bt, p.gpa)))
        return NULL;
    /* Reads and writes in one view, so that overlapping spans overlap on the host, too. */
    return vmm_view(c, p.gpa, write);
}
