/*
 * Pages into messages and back.
 *
 * Invariants:
 *  1. A difference is made from a copy: the guest may change the page while we look at it, and the
 *     cache must hold what was sent, not what was there a moment later.
 *  2. Whole pages go straight from guest memory. They may be torn by a write of the guest; that
 *     write is in the dirty log, so they are sent again.
 *  3. The receiver takes a difference only for a page that it has got before.
 */
#include "vm/migrate/page.h"

#include "vm/migrate/delta.h"
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>

#define STAGE_BYTES ((size_t)MIGRATE_BATCH * MIGRATE_PAGE_BYTES)
#define DELTA_MAX 3072 /* a longer difference saves too little to be worth its work */
#define LEVEL (-1)     /* zstd's: about 600 MB/s in a thread; higher levels gain little on memory */
/* A line that takes longer is slow. Far below what packing could gain on a quiet host, because a host that is busy makes
 * any line look slow, and has no time for packing. */
#define SLOW_NS_PER_KIB 7680
/* What a line was limited to says more than what can be measured once a message is packed. */
#define SLOW_BYTES_PER_S (250 * MiB)
#define MEASURE_BYTES (4 * MiB)
/* To remember a page costs two copies and, the first time, fresh memory. What takes the line no longer than that is sent
 * whole again rather. */
#define REMEMBER_NS 10000
#define SKIP_FIRST 4
#define SKIP_MAX 64

bool migrate_is_zero(const u8 *page)
{
    const u64 *word = (const u64 *)(const void *)page;

    for (unsigned i = 0; i < MIGRATE_PAGE_BYTES / 8; i += 8)
        if (word[i] | word[i + 1] | word[i + 2] | word[i + 3] | word[i + 4] | word[i + 5] |
            word[i + 6] | word[i + 7])
            return false;
    return true;
}

int migrate_encoder_init(struct migrate_encoder *e, struct migrate_cache *cache,
                         struct migrate_counts *counts, enum migrate_pack pack, struct err *err)
{
    *e = (struct migrate_encoder){
        .cache = cache, .counts = counts, .pack = pack, .packed_page = MIGRATE_PAGE_BYTES};
    e->stage = malloc(STAGE_BYTES);
    if (pack) {
        e->packed = malloc(ZSTD_compressBound(STAGE_BYTES));
        e->packer = ZSTD_createCCtx();
    }
    if (e->stage && (!pack || (e->packed && e->packer)))
        return 0;
    migrate_encoder_fini(e);
    return err_set(err, ENOMEM, "no memory to send pages");
}

void migrate_encoder_fini(struct migrate_encoder *e)
{
    if (!e)
        return;
    free(e->stage);
    free(e->packed);
    ZSTD_freeCCtx(e->packer);
    *e = (struct migrate_encoder){0};
}

void migrate_encoder_limit(struct migrate_encoder *e, u64 bytes_per_s)
{
    e->ns_per_kib =
        bytes_per_s && bytes_per_s < SLOW_BYTES_PER_S ? KiB * NS_PER_S / bytes_per_s : 0;
}

void migrate_encoder_measure(struct migrate_encoder *e, u64 bytes, s64 took_ns)
{
    e->line_bytes += bytes;
    e->line_ns += (u64)MAX(took_ns, (s64)0);
    if (e->line_bytes < MEASURE_BYTES)
        return;
    u64 ns_per_kib = e->line_ns * KiB / e->line_bytes;
    /* Once slow it stays so: packed, it cannot be told from one that is quicker. */
    if (!e->ns_per_kib && ns_per_kib > SLOW_NS_PER_KIB)
        e->ns_per_kib = ns_per_kib;
    e->line_bytes = e->line_ns = 0;
}

static bool packs_next(struct migrate_encoder *e)
{
    if (e->pack != MIGRATE_PACK_AUTO)
        return e->pack == MIGRATE_PACK_ZSTD;
    if (!e->ns_per_kib || !e->skip)
        return e->ns_per_kib;
    e->skip--;
    return false;
}

void migrate_encoder_begin(struct migrate_encoder *e)
{
    e->zstd = packs_next(e);
    e->count = 0;
    e->data_bytes = 0;
    e->niov = 1;
}

static void describe(struct migrate_encoder *e, u64 page, enum migrate_page_kind kind, u32 len)
{
    u64 descriptor = page | (u64)len << 40 | (u64)kind << 56;

    migrate_put(e->meta + 8 + 8 * e->count++, descriptor, 8);
    e->data_bytes += len;
    atomic_fetch_add_explicit(&e->counts->pages[kind], 1, memory_order_relaxed);
}

/* `len` bytes at `bytes` are the next of the data; neighbours become one piece. */
static void append(struct migrate_encoder *e, const u8 *bytes, u32 len)
{
    struct iovec *last = &e->iov[e->niov - 1];

    if (e->niov > 1 && (u8 *)last->iov_base + last->iov_len == bytes)
        last->iov_len += len;
    else
        e->iov[e->niov++] = (struct iovec){(void *)(uintptr_t)bytes, len};
}

/* Is a page that is sent whole worth remembering? */
static bool remembers(const struct migrate_encoder *e, bool again)
{
    if (e->zstd && e->packed_page * e->ns_per_kib < REMEMBER_NS * KiB)
        return false;
    return again || e->ns_per_kib;
}

static void add_whole(struct migrate_encoder *e, u64 page, const u8 *bytes, bool again)
{
    u8 *slot = remembers(e, again) ? migrate_cache_take(e->cache, page, again) : NULL;
    u8 *stage = e->stage + e->data_bytes;

    if (!slot)
        migrate_cache_drop(e->cache, page);
    if (slot)
        bytes = memcpy(slot, bytes, MIGRATE_PAGE_BYTES);
    if (e->zstd) /* which must not see bytes change */
        bytes = memcpy(stage, bytes, MIGRATE_PAGE_BYTES);
    append(e, bytes, MIGRATE_PAGE_BYTES);
    describe(e, page, MIGRATE_WHOLE, MIGRATE_PAGE_BYTES);
}

/* base: what the other side has. */
static void add_changed(struct migrate_encoder *e, u64 page, const u8 *bytes, u8 *base)
{
    u8 copy[MIGRATE_PAGE_BYTES] __attribute__((aligned(8)));
    u8 *stage = e->stage + e->data_bytes;

    memcpy(copy, bytes, sizeof(copy));
    int len = migrate_delta_make(base, copy, stage, DELTA_MAX);
    if (!len) {
        atomic_fetch_add_explicit(&e->counts->pages[MIGRATE_SAME], 1, memory_order_relaxed);
        return;
    }
    memcpy(base, copy, sizeof(copy));
    if (len < 0) {
        memcpy(stage, copy, sizeof(copy));
        append(e, stage, MIGRATE_PAGE_BYTES);
        describe(e, page, MIGRATE_WHOLE, MIGRATE_PAGE_BYTES);
        return;
    }
    append(e, stage, (u32)len);
    describe(e, page, MIGRATE_DELTA, (u32)len);
}

void migrate_encoder_add(struct migrate_encoder *e, u64 page, const u8 *bytes, bool again)
{
    u8 *base;

    if (migrate_is_zero(bytes)) {
        migrate_cache_drop(e->cache, page);
        describe(e, page, MIGRATE_ZERO, 0);
    } else if ((base = migrate_cache_find(e->cache, page))) {
        add_changed(e, page, bytes, base);
    } else {
        add_whole(e, page, bytes, again);
    }
}

/* Replaces the data by its compressed form if that is shorter. With zstd all data lies in `stage`. */
static bool pack(struct migrate_encoder *e)
{
    size_t room = ZSTD_compressBound(STAGE_BYTES);
    size_t n = ZSTD_compressCCtx(e->packer, e->packed, room, e->stage, e->data_bytes, LEVEL);

    /* What does not get shorter now will hardly do so with the next messages. */
    bool poor = ZSTD_isError(n) || n > e->data_bytes - e->data_bytes / 8;
    e->packed_page = poor ? MIGRATE_PAGE_BYTES : (u32)(n * MIGRATE_PAGE_BYTES / e->data_bytes);
    e->skip = e->idle = !poor ? 0 : e->idle ? MIN(2 * e->idle, (unsigned)SKIP_MAX) : SKIP_FIRST;
    if (ZSTD_isError(n) || n >= e->data_bytes)
        return false;
    atomic_fetch_add_explicit(&e->counts->packed, e->data_bytes - n, memory_order_relaxed);
    e->iov[1] = (struct iovec){e->packed, n};
    e->niov = 2;
    return true;
}

bool migrate_encoder_end(struct migrate_encoder *e, u8 *ret_flags, u32 *ret_len)
{
    size_t len = 0;

    if (!e->count)
        return false;
    migrate_put(e->meta, e->count, 4);
    migrate_put(e->meta + 4, e->data_bytes, 4);
    e->iov[0] = (struct iovec){e->meta, 8 + 8 * e->count};
    *ret_flags = e->zstd && e->data_bytes && pack(e) ? MIGRATE_ZSTD : 0;
    for (unsigned i = 0; i < e->niov; i++)
        len += e->iov[i].iov_len;
    *ret_len = (u32)len;
    atomic_fetch_add_explicit(&e->counts->bytes, len + MIGRATE_HEAD_BYTES, memory_order_relaxed);
    return true;
}

int migrate_decoder_init(struct migrate_decoder *d, struct err *err)
{
    *d = (struct migrate_decoder){.unpacker = ZSTD_createDCtx(), .stage = malloc(STAGE_BYTES)};
    if (d->unpacker && d->stage)
        return 0;
    migrate_decoder_fini(d);
    return err_set(err, ENOMEM, "no memory to receive pages");
}

void migrate_decoder_fini(struct migrate_decoder *d)
{
    if (!d)
        return;
    ZSTD_freeDCtx(d->unpacker);
    free(d->stage);
    *d = (struct migrate_decoder){0};
}

int migrate_unpack(struct migrate_decoder *d, const u8 *bytes, u32 len, u8 *ret, u32 want,
                   struct err *err)
{
    size_t n = ZSTD_decompressDCtx(d->unpacker, ret, want, bytes, len);

    if (ZSTD_isError(n) || n != want)
        return err_set(err, EPROTO, "compressed bytes are damaged");
    return 0;
}

struct descriptor {
    u64 page;
    u32 len;
    enum migrate_page_kind kind;
};

static int read_descriptor(const struct migrate_memory *m, const u8 *bytes, struct descriptor *ret,
                           struct err *err)
{
    u64 raw = migrate_get(bytes, 8);
    u32 kind = (u32)(raw >> 56);

    *ret = (struct descriptor){.page = raw & (BIT(40) - 1), .len = raw >> 40 & 0xffff};
    if (ret->page >= m->pages)
        return err_set(err, EPROTO, "page 0x%" PRIx64 " lies outside of the machine's memory",
                       ret->page);
    bool good = (kind == MIGRATE_ZERO && !ret->len) ||
                (kind == MIGRATE_WHOLE && ret->len == MIGRATE_PAGE_BYTES) ||
                (kind == MIGRATE_DELTA && ret->len && ret->len <= DELTA_MAX);
    if (!good)
        return err_set(err, EPROTO, "page 0x%" PRIx64 ": %u bytes of kind %u cannot be", ret->page,
                       ret->len, kind);
    ret->kind = (enum migrate_page_kind)kind;
    return 0;
}

static bool is_seen(const struct migrate_memory *m, u64 page)
{
    return atomic_load_explicit(&m->seen[page / 64], memory_order_relaxed) >> (page % 64) & 1;
}

/* Whole pages that follow each other, in memory and in the message. */
struct run {
    u64 page;
    const u8 *data;
    u32 len;
};

/* Before the machine runs. Through the file where there is one: that costs less than half of what the mapping does, whose
 * every page would be cleared first, in a fault of its own. */
static int store_run(const struct migrate_memory *m, const struct run *run, struct err *err)
{
    u64 at = run->page * MIGRATE_PAGE_BYTES;

    if (m->memfd < 0)
        memcpy(m->ram + at, run->data, run->len);
    for (u32 done = 0; m->memfd >= 0 && done < run->len;) {
        ssize_t n = pwrite(m->memfd, run->data + done, run->len - done, (off_t)(at + done));

        if (n <= 0 && errno != EINTR)
            return err_sys(err, n ? errno : ENOSPC, "the machine's memory");
        done += (u32)MAX(n, (ssize_t)0);
    }
    for (u64 page = run->page; page < run->page + run->len / MIGRATE_PAGE_BYTES; page++)
        atomic_fetch_or_explicit(&m->seen[page / 64], BIT(page % 64), memory_order_relaxed);
    return 0;
}

/* Once it runs: every page comes once. */
static int hand_over(const struct migrate_memory *m, u64 page, u64 count, const u8 *data,
                     struct err *err)
{
    int rc = m->supply(m->opaque, page, count, data);

    return rc ? err_set(err, -rc, "page 0x%" PRIx64 " cannot be taken", page) : 0;
}

/* Takes what was gathered; nothing is a run, too. */
static int end_run(const struct migrate_memory *m, struct run *run, struct err *err)
{
    struct run r = *run;

    *run = (struct run){0};
    if (!r.len)
        return 0;
    return m->supply ? hand_over(m, r.page, r.len / MIGRATE_PAGE_BYTES, r.data, err)
                     : store_run(m, &r, err);
}

/* Before the machine runs: what is not whole, straight into its memory, which begins as zeros. */
static int store(const struct migrate_memory *m, const struct descriptor *d, const u8 *data,
                 struct err *err)
{
    u8 *to = m->ram + d->page * MIGRATE_PAGE_BYTES;
    bool seen = is_seen(m, d->page);
    int rc = 0;

    switch (d->kind) {
    case MIGRATE_ZERO:
        if (seen) /* else it is zero, and stays a hole */
            memset(to, 0, MIGRATE_PAGE_BYTES);
        return 0;
    case MIGRATE_DELTA:
        if (!seen)
            return err_set(err, EPROTO, "difference for page 0x%" PRIx64 ", which never came",
                           d->page);
        rc = migrate_delta_apply(to, data, d->len, err);
        break;
    case MIGRATE_WHOLE:
    case MIGRATE_SAME:
    case MIGRATE_KINDS:
        break;
    }
    return rc;
}

/* Once it runs: what is not whole is zero. */
static int hand_over_zero(const struct migrate_memory *m, const struct descriptor *d,
                          struct err *err)
{
    static const u8 zeros[MIGRATE_PAGE_BYTES];

    if (d->kind != MIGRATE_ZERO)
        return err_set(err, EPROTO, "difference for page 0x%" PRIx64 " of a running machine",
                       d->page);
    return hand_over(m, d->page, 1, zeros, err);
}

static int take_page(const struct migrate_memory *m, const struct descriptor *d, const u8 *data,
                     struct run *run, struct err *err)
{
    int rc = 0;

    bool whole = d->kind == MIGRATE_WHOLE;
    if (!whole || d->page != run->page + run->len / MIGRATE_PAGE_BYTES)
        rc = end_run(m, run, err);
    if (!whole && !rc)
        return m->supply ? hand_over_zero(m, d, err) : store(m, d, data, err);
    if (rc)
        return rc;
    if (!run->len)
        *run = (struct run){.page = d->page, .data = data};
    run->len += d->len;
    return 0;
}

int migrate_decoder_apply(struct migrate_decoder *d, const struct migrate_memory *m, u8 flags,
                          const u8 *body, u32 len, struct err *err)
{
    u32 count = (u32)migrate_get(body, 4), data_bytes = (u32)migrate_get(body + 4, 4), at = 0;
    int rc = 0;

    if (!count || count > MIGRATE_BATCH || 8 + 8 * count > len || data_bytes > STAGE_BYTES)
        return err_set(err, EPROTO, "PAGES with %u pages, %u bytes in %u", count, data_bytes, len);
    const u8 *data = body + 8 + 8 * count;
    u32 left = len - 8 - 8 * count;
    struct run run = {0};
    if (flags & MIGRATE_ZSTD)
        rc = migrate_unpack(d, data, left, d->stage, data_bytes, err);
    else if (left != data_bytes)
        rc = err_set(err, EPROTO, "PAGES with %u bytes of data, %u were said", left, data_bytes);
    if (flags & MIGRATE_ZSTD)
        data = d->stage;
    for (u32 i = 0; i < count && !rc; i++) {
        struct descriptor page;

        rc = read_descriptor(m, body + 8 + 8 * i, &page, err);
        if (!rc && page.len > data_bytes - at)
            rc = err_set(err, EPROTO, "PAGES ends within page 0x%" PRIx64, page.page);
        if (!rc)
            rc = take_page(m, &page, data + at, &run, err);
        at += rc ? 0 : page.len;
    }
    return rc ? rc : end_run(m, &run, err);
}
