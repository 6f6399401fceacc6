/* The machine's devices as instructions reach them: memory-mapped and through ports. Light; the work itself is heavy. */
#include "accel/bt/cache.h"

static u64 read_heavy(u64 as, u64 addr, u64 size)
{
    return aspace_read((struct aspace *)as, addr, (unsigned)size);
}

/* The size (1..8) travels in the top byte: physical addresses have at most 52 bits. */
static u64 write_heavy(u64 as, u64 addr_size, u64 value)
{
    aspace_write((struct aspace *)as, addr_size & 0x00ffffffffffffffull, (unsigned)(addr_size >> 56), value);
    return 0;
}

u64 mem_device_read(struct cpu *c, u64 gpa, unsigned size)
{
    return heavy_call(c, read_heavy, (u64)c->m->mmio, gpa, size);
}

void mem_device_write(struct cpu *c, u64 gpa, unsigned size, u64 value)
{
    if (ram_slot(c->m->ram, gpa))
        return; /* ROM: RAM does not come here */
    heavy_call(c, write_heavy, (u64)c->m->mmio, gpa | (u64)size << 56, value);
}

u64 io_read(struct cpu *c, u16 port, unsigned size)
{
    return heavy_call(c, read_heavy, (u64)c->m->pio, port, size);
}

void io_write(struct cpu *c, u16 port, unsigned size, u64 value)
{
    heavy_call(c, write_heavy, (u64)c->m->pio, port | (u64)size << 56, value);
}
