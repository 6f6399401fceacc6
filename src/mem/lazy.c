/*
 * Absent pages, see lazy.h.
 *
 * Invariants:
 *  1. A page whose bit is set in `absent` has no bytes that anybody has read or derived something from, and nobody reads
 *     or writes it but place(), under the lock of the page's stripe: 64 pages, a word of `absent`, have one.
 *  2. A bit is cleared once, after the bytes are in place; `missing` counts the bits that are set.
 *  3. The object lives as long as guest memory, so who has found a bit may look again without a lock.
 *
 * Fetching takes no lock: two threads may fetch the same page, the first to be ready puts it in place.
 */
#include "mem/lazy.h"

#include "mem/dirty.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PAGE_BYTES 4096ull
#define STRIPES 64

struct lazy {
    struct lazy_source source;
    pthread_mutex_t stripe[STRIPES];
    u64 missing; /* atomic */
    int error;   /* why a page could not be put in place, or 0; atomic */
    u64 absent[];
};

static struct lazy *lazy_new(struct gmem *m, const struct lazy_source *s, const u64 *bits)
{
    struct lazy *z = calloc(1, sizeof(*z) + dirty_words(m) * sizeof(u64));

    if (!z)
        return NULL;
    z->source = *s;
    for (unsigned i = 0; i < STRIPES; i++)
        pthread_mutex_init(&z->stripe[i], NULL);
    for (u64 i = 0; i < dirty_words(m); i++) {
        z->absent[i] = bits[i];
        z->missing += (u64)__builtin_popcountll(bits[i]);
    }
    return z;
}

void lazy_free(struct gmem *m)
{
    struct lazy *z = m->lazy;

    if (!z)
        return;
    for (unsigned i = 0; i < STRIPES; i++)
        pthread_mutex_destroy(&z->stripe[i]);
    free(z);
    m->lazy = NULL;
    m->absent = NULL;
}

int lazy_begin(struct gmem *m, const struct lazy_source *s, const u64 *absent_bits, struct err *err)
{
    struct lazy *z;
    int rc = 0;

    if (lazy_missing(m))
        return err_set(err, EBUSY, "%" PRIu64 " pages of guest memory are still to come",
                       lazy_missing(m));
    z = lazy_new(m, s, absent_bits);
    if (!z)
        return err_set(err, ENOMEM, "no memory for a list of absent pages");
    lazy_free(m);
    m->lazy = z;
    if (!z->missing)
        return 0;
    m->absent = z->absent;
    if (m->accel && m->accel->lazy_begin)
        rc = m->accel->lazy_begin(m->accel_opaque, err);
    if (rc)
        lazy_free(m);
    return rc;
}

static bool is_absent(const struct lazy *z, u64 page)
{
    return __atomic_load_n(&z->absent[page / 64], __ATOMIC_ACQUIRE) >> (page % 64) & 1;
}

/* Through the file: the mapping would clear the page first, in a fault, which costs half as much again. */
static int place(struct gmem *m, u64 page, u64 count, const u8 *bytes)
{
    size_t len = count * PAGE_BYTES;
    int rc = 0;

    if (m->accel && m->accel->place) {
        for (u64 i = 0; i < count && !rc; i++)
            rc = m->accel->place(m->accel_opaque, page + i, bytes + i * PAGE_BYTES);
        return rc;
    }
    for (size_t done = 0; done < len;) {
        ssize_t n = pwrite(m->memfd, bytes + done, len - done, (off_t)(page * PAGE_BYTES + done));

        if (n <= 0 && errno != EINTR)
            return n ? -errno : -ENOSPC;
        done += (size_t)MAX(n, (ssize_t)0);
    }
    return 0;
}

/* Pages that are all absent, of one stripe. */
static bool supply_absent(struct gmem *m, u64 page, u64 count, const u8 *bytes)
{
    struct lazy *z = m->lazy;
    u64 bits = (count < 64 ? BIT(count) - 1 : ~0ull) << (page % 64);
    int rc = place(m, page, count, bytes);

    if (rc) {
        __atomic_store_n(&z->error, rc, __ATOMIC_SEQ_CST);
        return false;
    }
    __atomic_fetch_and(&z->absent[page / 64], ~bits, __ATOMIC_SEQ_CST);
    if (!__atomic_sub_fetch(&z->missing, count, __ATOMIC_SEQ_CST))
        __atomic_store_n(&m->absent, NULL, __ATOMIC_SEQ_CST);
    if (m->accel && m->accel->came)
        m->accel->came(m->accel_opaque, page, count);
    return true;
}

/* Pages of one stripe. */
static u64 supply_stripe(struct gmem *m, u64 page, u64 count, const u8 *bytes)
{
    struct lazy *z = m->lazy;
    u64 done = 0, n;

    pthread_mutex_lock(&z->stripe[page / 64 % STRIPES]);
    for (u64 at = 0; at < count; at += MAX(n, 1ull)) {
        for (n = 0; at + n < count && is_absent(z, page + at + n); n++)
            ;
        if (n && supply_absent(m, page + at, n, bytes + at * PAGE_BYTES))
            done += n;
    }
    pthread_mutex_unlock(&z->stripe[page / 64 % STRIPES]);
    return done;
}

u64 lazy_supply_run(struct gmem *m, u64 page, u64 count, const void *bytes)
{
    u64 done = 0, n;

    if (!m->lazy || !range_fits(page, count, dirty_pages(m)))
        return 0;
    for (u64 at = 0; at < count; at += n) {
        n = MIN(count - at, 64 - (page + at) % 64);
        done += supply_stripe(m, page + at, n, (const u8 *)bytes + at * PAGE_BYTES);
    }
    return done;
}

bool lazy_supply(struct gmem *m, u64 page, const void *bytes4096)
{
    return lazy_supply_run(m, page, 1, bytes4096);
}

u64 lazy_missing(const struct gmem *m)
{
    return m->lazy ? __atomic_load_n(&m->lazy->missing, __ATOMIC_SEQ_CST) : 0;
}

static int fetch_page(const struct gmem *m, u64 page)
{
    struct lazy *z = m->lazy;
    u8 bytes[PAGE_BYTES];
    int rc = z->source.fetch(z->source.opaque, page, bytes);

    /* Presence is no part of what a const memory promises to keep. */
    if (!rc)
        lazy_supply((struct gmem *)m, page, bytes);
    if (rc >= 0 && is_absent(z, page))
        rc = __atomic_load_n(&z->error, __ATOMIC_SEQ_CST) ?: -EIO;
    return MIN(rc, 0);
}

int lazy_fetch(const struct gmem *m, u64 page, u64 count)
{
    const struct lazy *z = m->lazy;
    int rc = 0;

    for (u64 at = page; z && !rc && at - page < count && at < dirty_pages(m); at++)
        if (is_absent(z, at))
            rc = fetch_page(m, at);
    return rc;
}

int lazy_end(struct gmem *m, struct err *err)
{
    struct lazy *z = m->lazy;
    u64 page = 0;
    int rc = 0;

    if (!z)
        return 0;
    while (page < dirty_pages(m)) {
        if (!(page % 64) && !__atomic_load_n(&z->absent[page / 64], __ATOMIC_ACQUIRE)) {
            page += 64;
            continue;
        }
        rc = lazy_fetch(m, page, 1);
        if (rc && rc != -EINTR)
            return err_sys(err, -rc, "guest memory at offset 0x%llx cannot be had",
                           page * PAGE_BYTES);
        page += !rc;
    }
    if (m->accel && m->accel->lazy_end)
        m->accel->lazy_end(m->accel_opaque);
    return 0;
}
