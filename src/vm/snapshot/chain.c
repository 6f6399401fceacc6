/*
 * Memory of a chain of snapshots.
 *
 * Pages are read when somebody wants them, and each is held against its checksum then: a damaged file costs the guest that
 * touches the page, never one that gets wrong bytes. Checksums stay in the map's file, too, and are read with the page.
 * Reading takes no lock and no memory but a chunk's on the stack's
 * neighbour, the heap; any number of threads may read at once.
 */
#include "vm/snapshot/chain.h"

#include "base/log.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#define CHUNK_PAGES (SNAPMAP_CHUNK * SNAPMAP_PAGE)

struct snapchain *snapchain_new(const char *name, struct err *err)
{
    struct snapchain *c = calloc(1, sizeof(*c));

    if (!c)
        err_set(err, ENOMEM, "snapshot %s: no memory", name);
    else
        snprintf(c->name, sizeof(c->name), "%s", name);
    return c;
}

void snapchain_free(struct snapchain *c)
{
    if (!c)
        return;
    for (unsigned i = 0; i < c->nlayers; i++) {
        close(c->layer[i].memory);
        close(c->layer[i].map_fd);
        snapmap_fini(&c->layer[i].map);
    }
    free(c);
}

/* A stream read in large pieces, which knows where it is. */
struct reader {
    int fd;
    u64 at; /* of buf[used] in the file */
    size_t used, len;
    u8 buf[64 * KiB];
};

static int read_on(void *opaque, void *to, size_t want)
{
    struct reader *r = opaque;
    u8 *p = to;

    while (want) {
        size_t n = MIN(want, r->len - r->used);

        memcpy(p, r->buf + r->used, n);
        r->used += n;
        r->at += n;
        p += n;
        want -= n;
        if (!want)
            break;
        ssize_t got = pread(r->fd, r->buf, sizeof(r->buf), (off_t)r->at);
        if (got <= 0)
            return got < 0 ? -errno : -ENODATA;
        r->used = 0;
        r->len = (size_t)got;
    }
    return 0;
}

int snapchain_add(struct snapchain *c, int memory_fd, int map_fd, u64 ram_bytes, struct err *err)
{
    auto_free struct reader *r = calloc(1, sizeof(*r));
    struct snapchain_layer *l = &c->layer[c->nlayers];
    auto_close int memory = memory_fd, map = map_fd;
    struct stat st;

    if (!r)
        return err_set(err, ENOMEM, "no memory");
    if (c->nlayers == SNAPCHAIN_MAX)
        return err_set(err, E2BIG, "a chain of more than %d snapshots: flatten it", SNAPCHAIN_MAX);
    if (fstat(memory, &st))
        return err_sys(err, errno, "memory");
    r->fd = map;
    struct state_source from = {read_on, r};
    if (snapmap_load(&l->map, &from, ram_bytes, (u64)st.st_size, err))
        return err_wrap(err, "map, at offset %llu", (unsigned long long)r->at);
    l->memory = memory;
    l->map_fd = map;
    memory = map = -1;
    c->nlayers++;
    return 0;
}

int snapchain_ready(struct snapchain *c, struct err *err)
{
    for (unsigned i = 0; i < c->nlayers; i++)
        if (c->layer[i].map.incremental != (i + 1 < c->nlayers))
            return err_set(err, EBADMSG, "link %u of %u is %s snapshot", i + 1, c->nlayers,
                           c->layer[i].map.incremental ? "an incremental" : "a full");
    return 0;
}

unsigned snapchain_who(const struct snapchain *c, u64 page)
{
    for (unsigned i = 0; i < c->nlayers; i++) {
        if (snapmap_has(c->layer[i].map.present, page))
            return i + 1;
        if (snapmap_has(c->layer[i].map.zero, page))
            return 0;
    }
    return 0;
}

void snapchain_bits(const struct snapchain *c, u64 *ret_bits)
{
    for (u64 word = 0; word < c->layer[0].map.pages / 64; word++) {
        u64 bits = 0;

        /* The oldest first; whoever comes later knows better. */
        for (unsigned i = c->nlayers; i-- > 0;)
            bits = (bits | c->layer[i].map.present[word]) & ~c->layer[i].map.zero[word];
        ret_bits[word] = bits;
    }
}

static int read_at(int fd, void *buf, size_t len, u64 at)
{
    u8 *p = buf;

    while (len) {
        ssize_t n = pread(fd, p, len, (off_t)at);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        p += n;
        at += (u64)n;
        len -= (size_t)n;
    }
    return 0;
}

/* The sums of those of 64 pages that the layer has, in their order. */
static int read_sums(const struct snapchain_layer *l, u64 word, u32 *ret_packed)
{
    size_t len = (size_t)__builtin_popcountll(l->map.present[word]) * sizeof(u32);

    return read_at(l->map_fd, ret_packed, len, l->map.sums_at + l->map.before[word] * sizeof(u32));
}

/* Of a page that the layer has. */
static u32 pick_sum(const struct snapchain_layer *l, u64 page, const u32 *packed)
{
    u64 earlier = l->map.present[page / 64] & (BIT(page % 64) - 1);

    return le32toh(packed[__builtin_popcountll(earlier)]);
}

int snapchain_sums(const struct snapchain *c, u64 word, u32 ret_sums[64])
{
    u64 known = 0;

    memset(ret_sums, 0, 64 * sizeof(u32));
    for (unsigned i = 0; i < c->nlayers; i++) {
        const struct snapchain_layer *l = &c->layer[i];
        u64 bits = l->map.present[word] & ~known;
        u32 packed[64];
        int rc = bits ? read_sums(l, word, packed) : 0;

        if (rc)
            return rc;
        for (; bits; bits &= bits - 1) {
            u64 at = (u64)__builtin_ctzll(bits);
            ret_sums[at] = pick_sum(l, word * 64 + at, packed);
        }
        known |= l->map.present[word] | l->map.zero[word];
    }
    return 0;
}

/* Bits of the chunk's pages that are there. */
static u32 chunk_bits(const struct snapmap *m, u64 chunk)
{
    return m->present[chunk / 4] >> (chunk % 4 * SNAPMAP_CHUNK) & 0xffff;
}

static int read_chunk(const struct snapchain_layer *l, u64 chunk, u8 *pages)
{
    const struct snapmap_chunk *k = &l->map.chunk[chunk];
    size_t want = (size_t)__builtin_popcount(chunk_bits(&l->map, chunk)) * SNAPMAP_PAGE;
    auto_free u8 *packed = malloc(k->len);
    int rc = packed ? read_at(l->memory, packed, k->len, k->at) : -ENOMEM;

    if (rc)
        return rc;
    return ZSTD_decompress(pages, want, packed, k->len) == want ? 0 : -EBADMSG;
}

/* The neighbours have been unpacked with it: they are handed over, too. */
static void hand_over(struct snapchain *c, unsigned layer, u64 chunk, const u8 *pages,
                      const u32 *sums)
{
    const struct snapchain_layer *l = &c->layer[layer];

    for (u64 i = 0, n = 0; i < SNAPMAP_CHUNK && c->ram; i++) {
        u64 page = chunk * SNAPMAP_CHUNK + i;

        if (!snapmap_has(l->map.present, page))
            continue;
        const u8 *bytes = pages + n++ * SNAPMAP_PAGE;
        if (snapchain_who(c, page) == layer + 1 && lazy_absent(c->ram, page << 12) &&
            snapmap_sum(bytes) == pick_sum(l, page, sums))
            lazy_supply(c->ram, page, bytes);
    }
}

static int packed_page(struct snapchain *c, unsigned layer, u64 page, const u32 *sums, void *dst)
{
    const struct snapchain_layer *l = &c->layer[layer];
    u64 chunk = page / SNAPMAP_CHUNK;
    auto_free u8 *pages = malloc(CHUNK_PAGES);
    int rc = pages ? read_chunk(l, chunk, pages) : -ENOMEM;

    if (rc)
        return rc;
    u32 before = chunk_bits(&l->map, chunk) & (u32)(BIT(page % SNAPMAP_CHUNK) - 1);
    memcpy(dst, pages + (size_t)__builtin_popcount(before) * SNAPMAP_PAGE, SNAPMAP_PAGE);
    if (snapmap_sum(dst) != pick_sum(l, page, sums))
        return -EBADMSG;
    hand_over(c, layer, chunk, pages, sums);
    return 0;
}

int snapchain_page(struct snapchain *c, u64 page, void *dst4096)
{
    unsigned who = snapchain_who(c, page);
    u32 sums[64];

    if (!who) {
        memset(dst4096, 0, SNAPMAP_PAGE);
        return 0;
    }
    const struct snapchain_layer *l = &c->layer[who - 1];
    int rc = read_sums(l, page / 64, sums);
    if (!rc && l->map.compressed)
        return packed_page(c, who - 1, page, sums, dst4096);
    rc = rc ? rc : read_at(l->memory, dst4096, SNAPMAP_PAGE, page * SNAPMAP_PAGE);
    if (!rc && snapmap_sum(dst4096) != pick_sum(l, page, sums))
        rc = -EBADMSG;
    return rc;
}

int snapchain_fetch(void *opaque, u64 page, void *dst4096)
{
    struct snapchain *c = opaque;
    void (*fetched)(void *, u64) = __atomic_load_n(&c->fetched, __ATOMIC_ACQUIRE);
    int rc = snapchain_page(c, page, dst4096);

    if (fetched)
        fetched(c->fetched_opaque, page);
    if (rc)
        log_error("snapshot %s: memory at offset 0x%llx of link %u: %s", c->name,
                  page * SNAPMAP_PAGE, snapchain_who(c, page),
                  rc == -EBADMSG ? "checksum is wrong, the file is damaged" : strerror(-rc));
    return rc;
}
