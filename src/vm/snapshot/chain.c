/*
 * Memory of a chain of snapshots.
 *
 * Pages are read when somebody wants them, and each is held against its checksum then: a damaged file costs the guest that
 * touches the page, never one that gets wrong bytes. Reading takes no lock and no memory but a chunk's on the stack's
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
        snapmap_fini(&c->layer[i].map);
    }
    free(c->who);
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
    auto_close int memory = memory_fd;
    struct stat st;

    if (!r)
        return err_set(err, ENOMEM, "no memory");
    if (c->nlayers == SNAPCHAIN_MAX)
        return err_set(err, E2BIG, "a chain of more than %d snapshots: flatten it", SNAPCHAIN_MAX);
    if (fstat(memory, &st))
        return err_sys(err, errno, "memory");
    r->fd = map_fd;
    struct state_source from = {read_on, r};
    if (snapmap_load(&l->map, &from, ram_bytes, (u64)st.st_size, err))
        return err_wrap(err, "map, at offset %llu", (unsigned long long)r->at);
    l->memory = memory;
    memory = -1;
    c->nlayers++;
    return 0;
}

/* 64 pages, most often all or none of them: machines are large, and a restore waits for this. */
static void put_who(struct snapchain *c, u64 word, u64 bits, u8 who)
{
    if (bits == UINT64_MAX)
        memset(&c->who[word * 64], who, 64);
    else
        for (; bits; bits &= bits - 1)
            c->who[word * 64 + (u64)__builtin_ctzll(bits)] = who;
}

int snapchain_ready(struct snapchain *c, struct err *err)
{
    u64 pages = c->nlayers ? c->layer[0].map.pages : 0;

    c->who = calloc(MAX(pages, 1ull), 1);
    if (!c->who)
        return err_set(err, ENOMEM, "no memory for a chain of snapshots");
    for (unsigned i = 0; i < c->nlayers; i++)
        if (c->layer[i].map.incremental != (i + 1 < c->nlayers))
            return err_set(err, EBADMSG, "link %u of %u is %s snapshot", i + 1, c->nlayers,
                           c->layer[i].map.incremental ? "an incremental" : "a full");
    /* The oldest first; whoever comes later knows better. */
    for (unsigned i = c->nlayers; i-- > 0;)
        for (u64 word = 0; word < pages / 64; word++) {
            put_who(c, word, c->layer[i].map.present[word], (u8)(i + 1));
            put_who(c, word, c->layer[i].map.zero[word], 0);
        }
    return 0;
}

void snapchain_bits(const struct snapchain *c, u64 *ret_bits)
{
    u64 pages = c->layer[0].map.pages;

    if (c->nlayers == 1) {
        memcpy(ret_bits, c->layer[0].map.present, pages / 8);
        return;
    }
    for (u64 page = 0; page < pages; page++)
        if (c->who[page])
            ret_bits[page / 64] |= BIT(page % 64);
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
static void hand_over(struct snapchain *c, unsigned layer, u64 chunk, const u8 *pages)
{
    const struct snapmap *m = &c->layer[layer].map;

    for (u64 i = 0, n = 0; i < SNAPMAP_CHUNK && c->ram; i++) {
        u64 page = chunk * SNAPMAP_CHUNK + i;

        if (!snapmap_has(m->present, page))
            continue;
        const u8 *bytes = pages + n++ * SNAPMAP_PAGE;
        if (c->who[page] == layer + 1 && lazy_absent(c->ram, page << 12) &&
            snapmap_sum(bytes) == m->sum[page])
            lazy_supply(c->ram, page, bytes);
    }
}

static int packed_page(struct snapchain *c, unsigned layer, u64 page, void *dst)
{
    const struct snapchain_layer *l = &c->layer[layer];
    u64 chunk = page / SNAPMAP_CHUNK;
    auto_free u8 *pages = malloc(CHUNK_PAGES);
    int rc = pages ? read_chunk(l, chunk, pages) : -ENOMEM;

    if (rc)
        return rc;
    u32 before = chunk_bits(&l->map, chunk) & (u32)(BIT(page % SNAPMAP_CHUNK) - 1);
    memcpy(dst, pages + (size_t)__builtin_popcount(before) * SNAPMAP_PAGE, SNAPMAP_PAGE);
    if (snapmap_sum(dst) != l->map.sum[page])
        return -EBADMSG;
    hand_over(c, layer, chunk, pages);
    return 0;
}

int snapchain_page(struct snapchain *c, u64 page, void *dst4096)
{
    unsigned who = c->who[page];
    int rc = 0;

    if (!who) {
        memset(dst4096, 0, SNAPMAP_PAGE);
        return 0;
    }
    const struct snapchain_layer *l = &c->layer[who - 1];
    if (l->map.compressed)
        return packed_page(c, who - 1, page, dst4096);
    rc = read_at(l->memory, dst4096, SNAPMAP_PAGE, page * SNAPMAP_PAGE);
    if (!rc && snapmap_sum(dst4096) != l->map.sum[page])
        rc = -EBADMSG;
    return rc;
}

int snapchain_fetch(void *opaque, u64 page, void *dst4096)
{
    struct snapchain *c = opaque;
    int rc = snapchain_page(c, page, dst4096);

    if (rc)
        log_error("snapshot %s: memory at offset 0x%llx of link %u: %s", c->name,
                  page * SNAPMAP_PAGE, c->who[page],
                  rc == -EBADMSG ? "checksum is wrong, the file is damaged" : strerror(-rc));
    return rc;
}
