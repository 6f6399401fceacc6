/*
 * Guest-physical memory: one memfd, mapped once.
 *
 * The file holds RAM first, then GMEM_ROM_BYTES for ROMs, all sparse: pages come into being when
 * they are touched. RAM is slot 0 (and slot 1 above 4 GiB); ROMs follow in the order in which they
 * were added.
 *
 * Invariants:
 *  1. Slots do not overlap, and no slot wraps around the end of the address space.
 *  2. [offset, offset + len) of every slot lies within `mapped`, and hva == base + offset.
 *
 * Slots change only before vCPUs run; after that any thread may read them without a lock.
 */
#include "mem/gmem.h"

#include "mem/dirty.h"
#include "mem/lazy.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE_BYTES 4096ull
#define SIZE_STEP (2 * MiB)
#define SIZE_MAX_BYTES (1024 * GiB)
#define GPA_LIMIT (1ull << 52) /* SDM 3A 4.1.4: no physical address is wider */

static void add_slot(struct gmem *m, u64 gpa, u64 len, u64 offset, bool readonly)
{
    m->slot[m->nslots++] = (struct gmem_slot){
        .gpa = gpa, .len = len, .offset = offset, .hva = m->base + offset, .readonly = readonly};
}

int gmem_init(struct gmem *m, u64 size, struct err *err)
{
    u64 low = MIN(size, GMEM_LOW_MAX), mapped = size + GMEM_ROM_BYTES;
    auto_close int fd = -1;
    void *base;

    *m = (struct gmem){.memfd = -1, .dirty_lock = PTHREAD_MUTEX_INITIALIZER};
    if (!size || size % SIZE_STEP || size > SIZE_MAX_BYTES)
        return err_set(
            err, EINVAL,
            "guest memory of %" PRIu64 " bytes: must be a multiple of 2 MiB, at most 1 TiB", size);
    fd = memfd_create("guest-memory", MFD_CLOEXEC);
    if (fd < 0)
        return err_sys(err, errno, "guest memory: memfd_create");
    if (ftruncate(fd, (off_t)mapped))
        return err_sys(err, errno, "guest memory of %llu MiB", size / MiB);
    base = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (base == MAP_FAILED)
        return err_sys(err, errno, "guest memory of %llu MiB: mmap", size / MiB);
    /* A crash of the VMM must not write gigabytes of guest into a core file. Old kernels may
     * refuse. */
    madvise(base, mapped, MADV_DONTDUMP);

    m->memfd = fd;
    fd = -1;
    m->size = size;
    m->base = base;
    m->mapped = mapped;
    add_slot(m, 0, low, 0, false);
    if (size > low)
        add_slot(m, GMEM_HIGH_BASE, size - low, low, false);
    return 0;
}

void gmem_fini(struct gmem *m)
{
    if (!m)
        return;
    /* A zeroed object owns no descriptor; its memfd is not one. */
    if (m->base) {
        munmap(m->base, m->mapped);
        close(m->memfd);
    }
    free(m->dirty);
    lazy_free(m);
    *m = (struct gmem){.memfd = -1};
}

static bool overlaps(const struct gmem *m, u64 gpa, u64 len)
{
    for (unsigned i = 0; i < m->nslots; i++) {
        const struct gmem_slot *s = &m->slot[i];

        if (gpa < s->gpa + s->len && s->gpa < gpa + len)
            return true;
    }
    return false;
}

int gmem_add_rom(struct gmem *m, u64 gpa, const void *data, u64 len, struct err *err)
{
    const struct gmem_slot *last = &m->slot[m->nslots - 1];
    u64 offset = last->offset + last->len, padded;

    if (!len || len > GMEM_ROM_BYTES)
        return err_set(err, EINVAL, "ROM of %" PRIu64 " bytes: 1 to %llu are allowed", len,
                       GMEM_ROM_BYTES);
    padded = ALIGN_UP(len, PAGE_BYTES);
    if (gpa % PAGE_BYTES || !range_fits(gpa, padded, GPA_LIMIT))
        return err_set(err, EINVAL, "ROM at 0x%" PRIx64 ": not a page address of the guest", gpa);
    if (m->nslots == GMEM_SLOTS || !range_fits(offset, padded, m->mapped))
        return err_set(err, ENOSPC, "ROM at 0x%" PRIx64 ": no room for one more", gpa);
    if (overlaps(m, gpa, padded))
        return err_set(err, EEXIST, "ROM at 0x%" PRIx64 ": overlaps RAM or another ROM", gpa);
    add_slot(m, gpa, padded, offset, true);
    /* The file reads as zeros, so the padding is there already. */
    memcpy(m->base + offset, data, len);
    return 0;
}

const struct gmem_slot *gmem_find(const struct gmem *m, u64 gpa)
{
    for (unsigned i = 0; i < m->nslots; i++) {
        const struct gmem_slot *s = &m->slot[i];

        if (gpa - s->gpa < s->len)
            return s;
    }
    return NULL;
}

/* Are all pages of a range in a slot there, or can they be had? */
static bool present(const struct gmem *m, const struct gmem_slot *s, u64 gpa, u64 len)
{
    u64 first, end;
    int rc;

    if (!__atomic_load_n(&m->absent, __ATOMIC_ACQUIRE) || s->offset >= m->size || !len)
        return true;
    first = (s->offset + (gpa - s->gpa)) / PAGE_BYTES;
    end = (s->offset + (gpa - s->gpa) + len + PAGE_BYTES - 1) / PAGE_BYTES;
    do
        rc = lazy_fetch(m, first, end - first);
    while (rc == -EINTR);
    return rc == 0;
}

const void *gmem_ptr_ro(const struct gmem *m, u64 gpa, u64 len)
{
    const struct gmem_slot *s = gmem_find(m, gpa);

    if (!s || !range_fits(gpa - s->gpa, len, s->len) || !present(m, s, gpa, len))
        return NULL;
    return s->hva + (gpa - s->gpa);
}

void *gmem_ptr(struct gmem *m, u64 gpa, u64 len)
{
    const struct gmem_slot *s = gmem_find(m, gpa);

    if (!s || s->readonly || !range_fits(gpa - s->gpa, len, s->len) || !present(m, s, gpa, len))
        return NULL;
    return s->hva + (gpa - s->gpa);
}

int gmem_read(const struct gmem *m, u64 gpa, void *buf, u64 len)
{
    const void *src = gmem_ptr_ro(m, gpa, len);

    if (!src)
        return -EFAULT;
    memcpy(buf, src, len);
    return 0;
}

int gmem_write(struct gmem *m, u64 gpa, const void *buf, u64 len)
{
    void *dst = gmem_ptr(m, gpa, len);

    if (!dst)
        return -EFAULT;
    memcpy(dst, buf, len);
    gmem_wrote(m, gpa, len);
    return 0;
}

static void note_range(struct gmem *m, u64 gpa, u64 len)
{
    const struct gmem_slot *s = gmem_find(m, gpa);
    u64 first, last;

    if (!s || !range_fits(gpa - s->gpa, len, s->len))
        return;
    first = s->offset + (gpa - s->gpa);
    last = first + len - 1;
    for (u64 page = first / PAGE_BYTES; page <= last / PAGE_BYTES; page++)
        dirty_note(m, page * PAGE_BYTES);
}

void gmem_wrote(struct gmem *m, u64 gpa, u64 len)
{
    if (!len)
        return;
    /* The write comes before the question whether somebody logs: who starts a log sees one or the other. */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (dirty_on(m))
        note_range(m, gpa, len);
    if (m->wrote)
        m->wrote(m->wrote_opaque, gpa, len);
}
