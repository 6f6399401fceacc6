/*
 * Memory of the translator: the views of guest RAM, the code cache, and per vCPU the tables with the area below them.
 * Heavy code; runs before guest code.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "accel/bt/asm.h"
#include "accel/bt/cache.h"

#define ARENA_BYTES (256 * MiB)
#define MAX_BLOCKS (1u << 20)
#define TOUCHED_MAX 1024

static void *reserve(u64 bytes)
{
    return mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

/* jmp gs:[stub address]: where the rel32 jumps of generated code lead. */
static void put_trampolines(struct code_cache *k)
{
    struct code o = {.p = k->rw, .to_rx = k->rx - k->rw};

    for (unsigned i = 0; i < STUBS; i++) {
        k->tramp[i] = code_rx(&o);
        b3(&o, 0x65, 0xff, 4 << 3 | 4), b1(&o, 0x25), b4(&o, (u32)PRIV_FIELD(P_STUB0 + i));
        while ((uintptr_t)o.p & 15)
            b1(&o, 0xcc);
    }
    k->fixed = k->used = (u64)(o.p - k->rw);
}

int cache_init(struct bt *bt, u64 size, struct err *err)
{
    struct code_cache *k = calloc(1, sizeof(*k));

    if (!k)
        return err_set(err, ENOMEM, "bt: no memory for the code cache");
    bt->cache = k;
    k->fd = memfd_create("trapeze-code", MFD_CLOEXEC);
    if (k->fd < 0 || ftruncate(k->fd, (off_t)size) < 0)
        return err_sys(err, errno, "bt: cannot create the code cache of %llu MiB", (unsigned long long)(size / MiB));
    k->size = size;
    k->rw = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, k->fd, 0);
    k->rx = mmap(NULL, size, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_NORESERVE, k->fd, 0);
    if (k->rw == MAP_FAILED || k->rx == MAP_FAILED)
        return err_sys(err, errno, "bt: cannot map the code cache (is executable memory forbidden here?)");
    k->arena_size = ARENA_BYTES;
    k->arena = reserve(k->arena_size);
    k->arena_used = ARENA_FIRST;
    k->bucket = reserve(BLOCK_BUCKETS * sizeof(*k->bucket));
    k->page = reserve(PAGE_BUCKETS * sizeof(*k->page));
    k->page_map = reserve(ALIGN_UP(bt->m->ram->mapped >> 12, 4096));
    k->lines = reserve(bt->m->ram->mapped >> 6);
    k->max_order = MAX_BLOCKS;
    k->order = reserve(k->max_order * sizeof(*k->order));
    k->careful = reserve(CAREFUL_BUCKETS * sizeof(u64));
    k->faults = reserve(CAREFUL_BUCKETS);
    if (k->arena == MAP_FAILED || k->bucket == MAP_FAILED || k->page == MAP_FAILED || k->page_map == MAP_FAILED || k->lines == MAP_FAILED ||
        k->order == MAP_FAILED || k->faults == MAP_FAILED || k->careful == MAP_FAILED)
        return err_sys(err, errno, "bt: cannot reserve memory for the code cache");
    put_trampolines(k);
    return 0;
}

/* How much is had at a time. */
#define SUPPLY_CODE (256 * KiB)
#define SUPPLY_ARENA (128 * KiB)

/* Has the next `step` of a mapping come when nearly all that has is used. A kernel before 5.14 does not know how; then pages
 * come as they are touched. */
static bool supply(u8 *base, u64 used, u64 *supplied, u64 size, u64 step)
{
    if (used + step / 8 <= *supplied || *supplied + step > size)
        return false;
    madvise(base + *supplied, step, MADV_POPULATE_WRITE);
    *supplied += step;
    return true;
}

void cache_supply(struct bt *bt)
{
    struct code_cache *k = bt->cache;

    if (supply(k->rw, k->used, &k->supplied, k->size, SUPPLY_CODE))
        madvise(k->rx + k->supplied - SUPPLY_CODE, SUPPLY_CODE, MADV_POPULATE_READ);
    supply(k->arena, k->arena_used, &k->arena_supplied, k->arena_size, SUPPLY_ARENA);
}

void cache_warm(struct bt *bt)
{
    const struct code_cache *k = bt->cache;

    cache_lock(bt); /* other vCPUs may run already */
    cache_supply(bt);
    cache_unlock(bt);
    madvise(k->bucket, BLOCK_BUCKETS * sizeof(*k->bucket), MADV_POPULATE_WRITE);
    madvise(k->page, PAGE_BUCKETS * sizeof(*k->page), MADV_POPULATE_WRITE);
}

static void unmap(void *p, u64 bytes)
{
    if (p && p != MAP_FAILED)
        munmap(p, bytes);
}

void cache_fini(struct bt *bt)
{
    struct code_cache *k = bt->cache;

    if (!k)
        return;
    unmap(k->rw, k->size);
    unmap(k->rx, k->size);
    unmap(k->arena, k->arena_size);
    unmap(k->bucket, BLOCK_BUCKETS * sizeof(*k->bucket));
    unmap(k->page, PAGE_BUCKETS * sizeof(*k->page));
    unmap(k->page_map, ALIGN_UP(bt->m->ram->mapped >> 12, 4096));
    unmap(k->lines, bt->m->ram->mapped >> 6);
    unmap(k->order, k->max_order * sizeof(*k->order));
    unmap(k->careful, CAREFUL_BUCKETS * sizeof(u64));
    unmap(k->faults, CAREFUL_BUCKETS);
    if (k->fd > 0)
        close(k->fd);
    free(k);
    bt->cache = NULL;
}

/* --- tables --- */

static int table_init(struct vcpu *v, struct table *t, struct err *err)
{
    u8 *p = mmap(NULL, TABLE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (p == MAP_FAILED)
        return err_sys(err, errno, "bt: cannot reserve %llu GiB of address space for a translation table",
                       (unsigned long long)(TABLE_BYTES / GiB));
    t->base = p + AREA_BYTES;
    if (mmap(p, AREA_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, v->area_fd, 0) == MAP_FAILED)
        return err_sys(err, errno, "bt: cannot map a vCPU's area");
    madvise(t->base, TABLE_BYTES - AREA_BYTES, MADV_NOHUGEPAGE);
    t->bits = reserve(BIT(27) / 8);
    t->touched = calloc(TOUCHED_MAX, sizeof(*t->touched));
    t->max_touched = TOUCHED_MAX;
    if (t->bits == MAP_FAILED || !t->touched)
        return err_set(err, ENOMEM, "bt: no memory for a translation table");
    madvise(t->bits, BIT(27) / 8, MADV_NOHUGEPAGE);
    return 0;
}

/* The user half of the address space is 128 TiB; leave most of it to tables, but some to everything else. */
static unsigned slots_for(unsigned cpus)
{
    u64 n = 96ull * 1024 * GiB / (TABLE_BYTES * TABLE_KINDS) / cpus;

    return n < 1 ? 1 : n > MMU_SLOTS ? MMU_SLOTS : (unsigned)n;
}

int mmu_init(struct vcpu *v, struct err *err)
{
    v->area_fd = memfd_create("trapeze-vcpu", MFD_CLOEXEC);
    if (v->area_fd < 0 || ftruncate(v->area_fd, AREA_BYTES) < 0)
        return err_sys(err, errno, "bt: cannot create a vCPU's area");
    v->area = mmap(NULL, AREA_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, v->area_fd, 0);
    if (v->area == MAP_FAILED)
        return err_sys(err, errno, "bt: cannot map a vCPU's area");
    v->jt = (u64 *)v->area;
    v->c = (struct cpu *)(v->area + AREA_BYTES - CPU_DISTANCE);
    v->nslots = slots_for(v->bt->m->cpus);
    for (unsigned i = 0; i < v->nslots; i++)
        for (unsigned k = 0; k < TABLE_KINDS; k++) {
            int r = table_init(v, &v->slot[i].table[k], err);
            if (r < 0)
                return r;
        }
    v->cur = &v->slot[0];
    v->cur->used = true;
    return 0;
}

void mmu_fini(struct vcpu *v)
{
    for (unsigned i = 0; i < v->nslots; i++)
        for (unsigned k = 0; k < TABLE_KINDS; k++) {
            struct table *t = &v->slot[i].table[k];
            if (t->base)
                munmap(t->base - AREA_BYTES, TABLE_BYTES);
            unmap(t->bits, BIT(27) / 8);
            free(t->touched);
        }
    unmap(v->area, AREA_BYTES);
    if (v->area_fd > 0)
        close(v->area_fd);
}
