/*
 * The map of a snapshot's memory. Any thread; no state of its own.
 *
 * Invariants of a loaded map: 1. `present` and `zero` have no page in common; 2. every page that is present lies wholly
 * in the file, in a chunk that does; 3. nothing was allocated by a number that the machine's size does not bound.
 */
#include "vm/snapshot/map.h"

#include "state/field.h"
#include <cpuid.h>
#include <errno.h>
#include <inttypes.h>
#include <nmmintrin.h>
#include <stdlib.h>
#include <string.h>

#define QUARTER (SNAPMAP_PAGE / 4)
#define CHUNK_BYTES 12 /* of a chunk in the stream */
#define CHUNK_LEN_MAX (SNAPMAP_CHUNK * SNAPMAP_PAGE + 1024)

struct head {
    u64 pages, present;
    u8 incremental, compressed;
};

static const struct field head_fields[] = {
    STATE_UINT(struct head, pages, 1),
    STATE_UINT(struct head, present, 1),
    STATE_BOOL(struct head, incremental, 1),
    STATE_BOOL(struct head, compressed, 1),
};
static STATE_TABLE(head_table, struct head, 1, head_fields);
#define HEAD_BYTES 18

u64 snapmap_count(const u64 *bits, u64 pages)
{
    u64 n = 0;

    for (u64 i = 0; i < pages / 64; i++)
        n += (u64)__builtin_popcountll(bits[i]);
    return n;
}

/* --- checksums --- */

/* Sums are mostly of pages in a row, and four streams are more than a processor follows by itself: fetching the next page
 * beforehand makes this twice as quick. Where there is none, a prefetch does nothing. */
__attribute__((target("sse4.2"))) static u32 sum_fast(const u8 *p)
{
    u64 a = ~0u, b = ~0u, c = ~0u, d = ~0u;

    for (size_t i = 0; i < QUARTER; i += 8) {
        u64 w[4];

        for (unsigned q = 0; q < 4 && !(i % 64); q++)
            __builtin_prefetch((const void *)((uintptr_t)p + SNAPMAP_PAGE + q * QUARTER + i));
        for (unsigned q = 0; q < 4; q++)
            memcpy(&w[q], p + q * QUARTER + i, 8);
        a = _mm_crc32_u64(a, w[0]);
        b = _mm_crc32_u64(b, w[1]);
        c = _mm_crc32_u64(c, w[2]);
        d = _mm_crc32_u64(d, w[3]);
    }
    return (u32)_mm_crc32_u64(_mm_crc32_u64(~0u, a | b << 32), c | d << 32);
}

static u32 crc32c(u32 crc, const u8 *p, size_t len)
{
    while (len--) {
        crc ^= *p++;
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 1 ? crc >> 1 ^ 0x82f63b78 : crc >> 1;
    }
    return crc;
}

/* For processors of before 2009. */
static u32 sum_slow(const u8 *p)
{
    u32 quarter[4];

    for (unsigned q = 0; q < 4; q++)
        quarter[q] = crc32c(~0u, p + q * QUARTER, QUARTER);
    return crc32c(~0u, (const u8 *)quarter, sizeof(quarter));
}

u32 snapmap_sum(const void *page)
{
    return __builtin_cpu_supports("sse4.2") ? sum_fast(page) : sum_slow(page);
}

bool snapmap_is_zero(const void *page)
{
    const u8 *p = page;

    for (size_t i = 0; i < SNAPMAP_PAGE; i += 64) {
        u64 w[8], any = 0;

        memcpy(w, p + i, sizeof(w));
        for (unsigned k = 0; k < 8; k++)
            any |= w[k];
        if (any)
            return false;
    }
    return true;
}

/* --- life --- */

/* With `sums` it is one to be saved, else one to be loaded. */
static int init(struct snapmap *m, const struct head *h, bool sums, struct err *err)
{
    u64 pages = h->pages;

    *m = (struct snapmap){
        .pages = pages, .incremental = h->incremental, .compressed = h->compressed};
    m->present = calloc(pages / 64, sizeof(u64));
    m->zero = calloc(pages / 64, sizeof(u64));
    if (sums)
        m->sum = calloc(pages, sizeof(u32));
    else
        m->before = calloc(pages / 64, sizeof(u32));
    if (m->compressed)
        m->chunk = calloc(pages / SNAPMAP_CHUNK, sizeof(*m->chunk));
    if (m->present && m->zero && (m->sum || m->before) && (m->chunk || !m->compressed))
        return 0;
    snapmap_fini(m);
    return err_set(err, ENOMEM, "no memory for the map of a snapshot");
}

int snapmap_init(struct snapmap *m, u64 ram_bytes, bool incremental, bool compressed,
                 struct err *err)
{
    struct head h = {.pages = ram_bytes / SNAPMAP_PAGE,
                     .incremental = incremental,
                     .compressed = compressed};

    return init(m, &h, true, err);
}

void snapmap_fini(struct snapmap *m)
{
    free(m->present);
    free(m->zero);
    free(m->sum);
    free(m->before);
    free(m->chunk);
    *m = (struct snapmap){0};
}

/* --- saving --- */

static int save_sums(const struct snapmap *m, u64 count, const struct state_sink *to,
                     struct err *err)
{
    auto_free u32 *packed = malloc(MAX(count, 1ull) * sizeof(u32));
    u64 n = 0;

    if (!packed)
        return err_set(err, ENOMEM, "no memory for checksums");
    for (u64 i = 0; i < m->pages && n < count; i++)
        if (snapmap_has(m->present, i))
            packed[n++] = htole32(m->sum[i]);
    return state_write_section(to, "sums", 0, 1, packed, n * sizeof(u32), err);
}

static bool chunk_used(const struct snapmap *m, u64 i)
{
    return m->present[i / 4] >> (i % 4 * SNAPMAP_CHUNK) & 0xffff;
}

static int save_chunks(const struct snapmap *m, const struct state_sink *to, struct err *err)
{
    u64 n = m->pages / SNAPMAP_CHUNK, len = 0;
    auto_free u8 *packed = malloc(n * CHUNK_BYTES);

    if (!packed)
        return err_set(err, ENOMEM, "no memory for the list of chunks");
    for (u64 i = 0; i < n; i++) {
        u64 at = htole64(m->chunk[i].at);
        u32 bytes = htole32(m->chunk[i].len);

        if (!chunk_used(m, i))
            continue;
        memcpy(packed + len, &at, 8);
        memcpy(packed + len + 8, &bytes, 4);
        len += CHUNK_BYTES;
    }
    return state_write_section(to, "chunks", 0, 1, packed, len, err);
}

int snapmap_save(const struct snapmap *m, const struct state_sink *to, struct err *err)
{
    u64 count = snapmap_count(m->present, m->pages);
    struct head h = {m->pages, count, m->incremental, m->compressed};
    u8 head[HEAD_BYTES];
    u32 sections = 3;
    int rc = state_write_head(to, err);

    state_table_save(&head_table, &h, head);
    rc = rc ? rc : state_write_section(to, "memory", 0, 1, head, sizeof(head), err);
    rc = rc ? rc : state_write_section(to, "present", 0, 1, m->present, m->pages / 8, err);
    if (!rc && m->incremental) {
        rc = state_write_section(to, "zero", 0, 1, m->zero, m->pages / 8, err);
        sections++;
    }
    rc = rc ? rc : save_sums(m, count, to, err);
    if (!rc && m->compressed) {
        rc = save_chunks(m, to, err);
        sections++;
    }
    return rc ? rc : state_write_end(to, sections, err);
}

/* --- loading --- */

/* A stream that knows how much was read of it. */
struct counted {
    const struct state_source *from;
    u64 at;
};

static int read_counted(void *opaque, void *to, size_t len)
{
    struct counted *c = opaque;

    c->at += len;
    return c->from->read(c->from->opaque, to, len);
}

/* The head of a section of exactly `len` bytes. */
static int load_section_head(const struct state_source *from, const char *name, u64 len,
                             struct state_section *ret_section, struct err *err)
{
    struct state_section *s = ret_section;
    int rc = state_read_section(from, s, err);

    if (rc)
        return rc;
    if (strcmp(s->name, name) || s->instance)
        return err_set(err, EBADMSG, "section '%s' stands where '%s' belongs", s->name, name);
    if (s->version != 1)
        return err_set(err, ENOTSUP, "section '%s': saved as version %u by a newer program", name,
                       s->version);
    if (s->len != len)
        return err_set(err, EBADMSG, "section '%s': has %" PRIu64 " bytes instead of %" PRIu64,
                       name, s->len, len);
    return 0;
}

static int load_section(const struct state_source *from, const char *name, void *ret_bytes, u64 len,
                        struct err *err)
{
    struct state_section s;
    int rc = load_section_head(from, name, len, &s, err);

    return rc ? rc : state_read_bytes(from, &s, ret_bytes, err);
}

/* `from` counts into *at. */
static int load_sums(struct snapmap *m, u64 count, const struct state_source *from, const u64 *at,
                     struct err *err)
{
    struct state_section s;
    int rc = load_section_head(from, "sums", count * sizeof(u32), &s, err);

    m->sums_at = *at;
    for (u64 w = 1; w < m->pages / 64; w++)
        m->before[w] = m->before[w - 1] + (u32)__builtin_popcountll(m->present[w - 1]);
    return rc ? rc : state_check_bytes(from, &s, err);
}

static int load_chunks(struct snapmap *m, u64 file_bytes, const struct state_source *from,
                       struct err *err)
{
    u64 n = m->pages / SNAPMAP_CHUNK, used = 0, at = 0;

    for (u64 i = 0; i < n; i++)
        used += chunk_used(m, i);
    auto_free u8 *packed = malloc(MAX(used, 1ull) * CHUNK_BYTES);
    if (!packed)
        return err_set(err, ENOMEM, "no memory for the list of chunks");
    int rc = load_section(from, "chunks", packed, used * CHUNK_BYTES, err);
    for (u64 i = 0; i < n && !rc; i++) {
        struct snapmap_chunk *c = &m->chunk[i];

        if (!chunk_used(m, i))
            continue;
        memcpy(&c->at, packed + at, 8);
        memcpy(&c->len, packed + at + 8, 4);
        c->at = le64toh(c->at);
        c->len = le32toh(c->len);
        at += CHUNK_BYTES;
        if (!c->len || c->len > CHUNK_LEN_MAX || !range_fits(c->at, c->len, file_bytes))
            return err_set(err, EBADMSG,
                           "section 'chunks': the chunk of memory at 0x%llx lies at %" PRIu64
                           ", past the end of the memory file (%" PRIu64 " bytes)",
                           i * SNAPMAP_CHUNK * SNAPMAP_PAGE, c->at, file_bytes);
    }
    return rc;
}

static int check_bits(const struct snapmap *m, u64 count, u64 file_bytes, struct err *err)
{
    u64 last = 0;

    for (u64 w = 0; w < m->pages / 64; w++) {
        if (m->present[w] & m->zero[w])
            return err_set(err, EBADMSG, "sections 'present' and 'zero' contradict each other");
        if (m->present[w])
            last = w * 64 + 63 - (u64)__builtin_clzll(m->present[w]) + 1;
    }
    if (snapmap_count(m->present, m->pages) != count)
        return err_set(err, EBADMSG, "section 'present': not the %" PRIu64 " pages it should be",
                       count);
    if (!m->compressed && last * SNAPMAP_PAGE > file_bytes)
        return err_set(err, ENODATA,
                       "the memory file ends at %" PRIu64 "; its last page would end at %llu",
                       file_bytes, last * SNAPMAP_PAGE);
    return 0;
}

static int load_rest(struct snapmap *m, const struct head *h, u64 file_bytes,
                     const struct state_source *from, const u64 *at, struct err *err)
{
    u32 sections = 3u + h->incremental + h->compressed;
    int rc = load_section(from, "present", m->present, m->pages / 8, err);

    if (!rc && h->incremental)
        rc = load_section(from, "zero", m->zero, m->pages / 8, err);
    rc = rc ? rc : check_bits(m, h->present, file_bytes, err);
    rc = rc ? rc : load_sums(m, h->present, from, at, err);
    if (!rc && h->compressed)
        rc = load_chunks(m, file_bytes, from, err);
    if (rc)
        return rc;
    struct state_section end;
    u8 nothing;
    rc = state_read_section(from, &end, err);
    if (!rc && (!state_is_end(&end) || end.len || end.instance != sections))
        rc = err_set(err, EBADMSG, "section '%s' stands where the end belongs", end.name);
    return rc ? rc : state_read_bytes(from, &end, &nothing, err);
}

int snapmap_load(struct snapmap *ret_map, const struct state_source *from, u64 ram_bytes,
                 u64 file_bytes, struct err *err)
{
    struct counted counted = {from, 0};
    const struct state_source in = {read_counted, &counted};
    u8 head[HEAD_BYTES];
    struct snapmap m;
    struct head h = {0};
    int rc = state_read_head(&in, err);

    rc = rc ? rc : load_section(&in, "memory", head, sizeof(head), err);
    rc = rc ? rc : state_table_load(&head_table, 1, head, &h, err);
    if (!rc && (h.pages != ram_bytes / SNAPMAP_PAGE || h.present > h.pages))
        rc = err_set(err, EBADMSG,
                     "section 'memory': is of a machine with %" PRIu64 " MiB of memory",
                     h.pages / 256);
    rc = rc ? rc : init(&m, &h, false, err);
    if (rc)
        return rc;
    rc = load_rest(&m, &h, file_bytes, &in, &counted.at, err);
    if (rc)
        snapmap_fini(&m);
    else
        *ret_map = m;
    return rc;
}
