/*
 * Power failures: a workload on a qcow2 image is recorded; then, for every moment of it, the image is put together as the
 * failure may have left it. Either everything up to that moment has arrived, or, of what was written since the last
 * sync, any sectors and no others. However it was: nothing is damaged (clusters may leak), and each sector of the guest
 * holds what it held at its last flush, or something written to it since.
 */
#include "block/image.h"
#include "block/qcow2.h"
#include "block_crash.h"
#include "unit.h"

#define LOSSES_PER_EVENT 1

/* What a sector was given, and by when at the earliest. */
struct stamp {
    u32 sector, value;
    unsigned event; /* recorded changes before it began */
};

struct workload {
    u32 version, cluster_bits, refcount_order;
    bool lazy;
    u32 sectors, longest; /* of the disk, of one write */
    unsigned steps;
};

static const struct workload workloads[] = {
    {3, 9, 4, false, 600, 24, 120},   {3, 9, 4, true, 600, 24, 120},
    {2, 10, 4, false, 1200, 24, 120}, {3, 12, 4, false, 1500, 24, 150},
    {3, 9, 6, false, 4600, 900, 24}, /* the refcount table grows */
    {3, 9, 6, true, 4600, 900, 24},
};

struct history {
    struct stamp *stamps;
    unsigned n, room;
    unsigned *flushes; /* the number of events when each had ended */
    unsigned nflushes;
    u32 *seen; /* room for the whole disk */
    bool *good;
};

static void stamp(struct history *h, u32 sector, u32 value, unsigned event)
{
    if (h->n == h->room) {
        h->room = h->room ? h->room * 2 : 1024;
        h->stamps = realloc(h->stamps, h->room * sizeof(h->stamps[0]));
    }
    h->stamps[h->n++] = (struct stamp){sector, value, event};
}

static void stamped_write(struct block_image *image, u32 first, u32 n, u32 value)
{
    u32 *buf = calloc(n, SECTOR);

    for (u32 i = 0; i < n * (SECTOR / 4); i++)
        buf[i] = value;
    assert_int_equal(block_image_write(image, buf, n * SECTOR, first * SECTOR, NULL), 0);
    free(buf);
}

static void run_step(const struct workload *w, struct block_image *image, struct memory_file *m,
                     struct history *h, u32 value, u64 *seed)
{
    u32 what = next_random(seed) % 10, first = next_random(seed) % w->sectors,
        n = next_random(seed) % w->longest + 1;
    u32 per = image->fmt->cluster_bytes / SECTOR;

    n = MIN(n, w->sectors - first);
    if (what < 6) {
        for (u32 i = 0; i < n; i++)
            stamp(h, first + i, value, m->nevents);
        stamped_write(image, first, n, value);
    } else if (what < 8) {
        for (u32 i = 0; i < n; i++)
            stamp(h, first + i, 0, m->nevents);
        assert_int_equal(block_image_zero(image, first * SECTOR, n * SECTOR, what == 6, NULL), 0);
    } else if (what == 8) {
        first = ALIGN_DOWN(first, per);
        n = MIN(ALIGN_UP(n, per), w->sectors - first);
        for (u32 i = 0; i < n; i++)
            stamp(h, first + i, 0, m->nevents);
        assert_int_equal(block_image_discard(image, first * SECTOR, n * SECTOR, NULL), 0);
    } else {
        assert_int_equal(block_image_flush(image, NULL), 0);
        h->flushes[h->nflushes++] = m->nevents;
    }
}

/* Every sector: what it was flushed as last, or a later value. */
static void judge_content(const struct workload *w, const struct history *h,
                          struct block_image *image, unsigned event)
{
    u32 *seen = h->seen;
    bool *good = h->good;
    unsigned flushed = 0;
    struct err err = ERR_INIT;

    for (unsigned i = 0; i < h->nflushes && h->flushes[i] <= event; i++)
        flushed = h->flushes[i];
    if (block_image_read(image, seen, (size_t)w->sectors * SECTOR, 0, &err))
        fail_msg("after %u changes: %s", event, err.msg);
    for (u32 i = 0; i < w->sectors; i++)
        good[i] = seen[i * (SECTOR / 4)] == 0;
    for (unsigned i = 0; i < h->n && h->stamps[i].event <= event; i++) {
        const struct stamp *s = &h->stamps[i];
        bool same = seen[s->sector * (SECTOR / 4)] == s->value;

        /* Before the flush only the last value counts. */
        good[s->sector] = s->event < flushed ? same : good[s->sector] || same;
    }
    for (u32 i = 0; i < w->sectors; i++)
        if (!good[i])
            fail_msg("after %u changes: sector %u holds %u, which it cannot", event, i,
                     seen[i * (SECTOR / 4)]);
}

static void print_fault(struct qcow2_check *c, bool leak, const char *text)
{
    if (!leak)
        print_message("# corrupt: %s\n", text);
}

static void judge(const struct workload *w, const struct history *h, const struct memory_file *left,
                  unsigned event)
{
    struct block_image_options ro = {.format = "qcow2", .readonly = true}, rw = {.format = "qcow2"};
    struct memory_file *copy = memory_file_new(left->bytes, left->file.size);
    struct qcow2_check c = {.report = print_fault};
    struct block_image *image;
    struct err err = ERR_INIT;

    /* With lazy refcounts, opening for writing is what mends the counts. */
    if (block_image_from(&copy->file, w->lazy ? &rw : &ro, &image, &err))
        fail_msg("after %u changes: %s", event, err.msg);
    assert_int_equal(qcow2_check(image->fmt, QCOW2_REPAIR_NONE, &c, NULL), 0);
    if (c.corruptions)
        fail_msg("after %u changes: damaged", event);
    judge_content(w, h, image, event);
    block_image_close(image);
}

static void replay(const struct workload *w, const struct history *h, const struct memory_file *m,
                   const void *start, u64 start_size)
{
    struct memory_file *all = memory_file_new(start, start_size),
                       *synced = memory_file_new(start, start_size);
    unsigned synced_events = 0;
    u64 seed = 77;

    for (unsigned event = 0; event <= m->nevents; event++) {
        judge(w, h, all, event);
        for (; synced_events < last_sync(m, event); synced_events++)
            apply(synced, &m->events[synced_events], false, &seed);
        for (unsigned n = 0; n < LOSSES_PER_EVENT && synced_events < event; n++) {
            struct memory_file *some = memory_file_new(synced->bytes, synced->file.size);

            for (unsigned i = synced_events; i < event; i++)
                apply(some, &m->events[i], true, &seed);
            judge(w, h, some, event);
            block_file_close(&some->file);
        }
        if (event < m->nevents)
            apply(all, &m->events[event], false, &seed);
    }
    block_file_close(&all->file);
    block_file_close(&synced->file);
}

static void nothing_is_damaged(void **state)
{
    for (unsigned i = 0; i < ARRAY_LEN(workloads); i++) {
        const struct workload *w = &workloads[i];
        struct qcow2_create o = {.size = (u64)w->sectors * SECTOR,
                                 .version = w->version,
                                 .cluster_bits = w->cluster_bits,
                                 .refcount_order = w->refcount_order,
                                 .lazy_refcounts = w->lazy};
        struct block_image_options io = {.format = "qcow2"};
        struct memory_file *m = memory_file_new(NULL, 0);
        struct history h = {.flushes = calloc(w->steps, sizeof(unsigned)),
                            .seen = malloc((size_t)w->sectors * SECTOR),
                            .good = malloc(w->sectors)};
        struct block_image *image;
        struct err err = ERR_INIT;
        u64 start_size, seed = i;

        if (!m)
            return; /* the fault tier */
        assert_int_equal(qcow2_create(&m->file, &o, &err), 0);
        start_size = m->file.size;
        u8 *start = malloc(start_size);
        memcpy(start, m->bytes, start_size);
        m->record = true;
        assert_int_equal(block_image_from(&m->file, &io, &image, &err), 0);
        qcow2_of(image->fmt)->l2s.limit = 4; /* so that tables leave the cache before a flush */
        for (unsigned step = 0; step < w->steps; step++)
            run_step(w, image, m, &h, step + 1, &seed);
        image->fmt->ops->close(image->fmt);
        image->fmt = NULL;
        print_message("# workload %u: %u changes, %u flushes\n", i, m->nevents, h.nflushes);
        replay(w, &h, m, start, start_size);
        block_image_close(image);
        free(start);
        free(h.stamps);
        free(h.flushes);
        free(h.seen);
        free(h.good);
    }
}

static const struct CMUnitTest tests[] = {cmocka_unit_test(nothing_is_damaged)};

UNIT_MAIN(tests)
