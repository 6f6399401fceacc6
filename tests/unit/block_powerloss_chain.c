/*
 * Power failures while images change places: an overlay is pushed, committed, gets another base, another size, or is
 * copied. The files' changes are recorded with one clock; then, for every moment, each file is put together as the failure
 * may have left it (block_crash.h), and the chain must show what it has to.
 */
#include "block/copy.h"
#include "block/image.h"
#include "block/qcow2.h"
#include "block/restack.h"
#include "block_crash.h"
#include "unit.h"

#define FILES 3 /* the top, its base, the one it gets instead */
#define DISK_BYTES (300 * KiB)
#define LOSSES 2 /* of each moment */

struct scene {
    unsigned clock;
    struct memory_file *file[FILES];
    u8 *start[FILES];
    u64 start_size[FILES];
    u8 *shows; /* what the guest sees */
    u64 seed;
};

static struct block_image *image_of(struct memory_file *m, const char *format, bool readonly)
{
    struct block_image_options o = {.format = format, .readonly = readonly};
    struct block_image *image;
    struct err err = ERR_INIT;

    if (block_image_from(&m->file, &o, &image, &err))
        fail_msg("%s", err.msg);
    return image;
}

static struct memory_file *make(const struct qcow2_create *o)
{
    struct memory_file *m = memory_file_new(NULL, 0);

    assert_int_equal(qcow2_create(&m->file, o, NULL), 0);
    return m;
}

static struct qcow2_create plain(u32 cluster_bits, const char *backing)
{
    return (struct qcow2_create){.size = DISK_BYTES,
                                 .version = 3,
                                 .cluster_bits = cluster_bits,
                                 .refcount_order = 4,
                                 .backing_name = backing,
                                 .backing_format = backing ? "qcow2" : NULL};
}

static void random_writes(struct block_image *image, u64 *seed, unsigned n)
{
    static u8 buf[16 * KiB];

    while (n--) {
        u64 at = next_random(seed) % (DISK_BYTES / SECTOR) * SECTOR;
        u64 wish = (next_random(seed) % 32 + 1) * SECTOR, len = MIN(wish, DISK_BYTES - at);

        memset(buf, (int)next_random(seed), len);
        if (next_random(seed) % 4)
            assert_int_equal(block_image_write(image, buf, len, at, NULL), 0);
        else
            assert_int_equal(block_image_zero(image, at, len, true, NULL), 0);
    }
    assert_int_equal(block_image_flush(image, NULL), 0);
}

/* Writes into a file that no image has open, below another one or not. */
static void fill(struct memory_file *m, struct memory_file *below, u64 *seed)
{
    struct block_image *image = image_of(m, "qcow2", false);

    if (below)
        assert_int_equal(block_image_stack(image, image_of(below, "qcow2", true), NULL), 0);
    random_writes(image, seed, 40);
    /* The files live on: they belong to the scene. */
    for (struct block_image *i = image; i;) {
        struct block_image *next = i->backing;

        i->file = NULL;
        i->backing = NULL;
        block_image_close(i);
        i = next;
    }
}

/* Reads the whole disk of a chain of copies, and closes it. */
static void see(struct memory_file *top, struct memory_file *below, u8 *ret_bytes)
{
    struct block_image *image =
        image_of(memory_file_new(top->bytes, top->file.size), "qcow2", true);
    struct err err = ERR_INIT;

    if (below)
        assert_int_equal(block_image_stack(image,
                                           image_of(memory_file_new(below->bytes, below->file.size),
                                                    "qcow2", true),
                                           NULL),
                         0);
    memset(ret_bytes, 0, DISK_BYTES);
    if (block_image_read(image, ret_bytes, MIN(block_image_size(image), DISK_BYTES), 0, &err))
        fail_msg("%s", err.msg);
    block_image_close(image);
}

/* From now on everything is recorded. */
static void start_recording(struct scene *s)
{
    for (unsigned i = 0; i < FILES; i++) {
        if (!s->file[i])
            continue;
        s->start_size[i] = s->file[i]->file.size;
        s->start[i] = malloc(MAX(s->start_size[i], 1ull));
        memcpy(s->start[i], s->file[i]->bytes, s->start_size[i]);
        s->file[i]->clock = &s->clock;
        s->file[i]->record = true;
        s->file[i]->file.unsynced = false;
    }
}

static void scene_free(struct scene *s)
{
    for (unsigned i = 0; i < FILES; i++) {
        if (s->file[i])
            block_file_close(&s->file[i]->file);
        free(s->start[i]);
    }
    free(s->shows);
}

/* The file as it is when power fails at `when`. */
static struct memory_file *left(struct scene *s, unsigned i, unsigned when, bool lossy)
{
    const struct memory_file *m = s->file[i];
    struct memory_file *f = memory_file_new(s->start[i], s->start_size[i]);
    unsigned n = 0, synced;

    while (n < m->nevents && m->events[n].when < when)
        n++;
    synced = last_sync(m, n);
    for (unsigned e = 0; e < n; e++)
        apply(f, &m->events[e], lossy && e >= synced, &s->seed);
    return f;
}

static void expect_sound(struct memory_file *m, unsigned when)
{
    /* For writing: that is what mends the counts of an image with lazy refcounts. */
    struct block_image *image = image_of(memory_file_new(m->bytes, m->file.size), "qcow2", false);
    struct qcow2_check c = {0};

    assert_int_equal(qcow2_check(image->fmt, QCOW2_REPAIR_NONE, &c, NULL), 0);
    if (c.corruptions)
        fail_msg("after %u changes: damaged", when);
    block_image_close(image);
}

typedef void judge_fn(struct scene *s, struct memory_file *const f[FILES], unsigned when);

static void every_moment(struct scene *s, judge_fn *judge)
{
    for (unsigned when = 0; when <= s->clock; when++)
        for (unsigned loss = 0; loss <= LOSSES; loss++) {
            struct memory_file *f[FILES] = {0};

            for (unsigned i = 0; i < FILES; i++) {
                if (!s->file[i])
                    continue;
                f[i] = left(s, i, when, loss > 0);
                expect_sound(f[i], when);
            }
            judge(s, f, when);
            for (unsigned i = 0; i < FILES; i++)
                if (f[i])
                    block_file_close(&f[i]->file);
        }
    print_message("# %u changes\n", s->clock);
}

static void expect_shows(const struct scene *s, struct memory_file *top, struct memory_file *below,
                         u64 len, unsigned when)
{
    static u8 seen[DISK_BYTES];

    see(top, below, seen);
    for (u64 i = 0; i < len; i++)
        if (seen[i] != s->shows[i])
            fail_msg("after %u changes: byte %llu is %u, not %u", when, (unsigned long long)i,
                     seen[i], s->shows[i]);
}

/* Top on base, both with content. name: what top calls its base; NULL: it has none. */
static void set_stage(struct scene *s, u32 cluster_bits, const char *name)
{
    struct qcow2_create base = plain(cluster_bits, NULL), top = plain(cluster_bits, name);

    *s = (struct scene){.seed = cluster_bits, .shows = malloc(DISK_BYTES)};
    s->file[0] = make(&top);
    s->file[1] = make(&base);
    fill(s->file[1], NULL, &s->seed);
    fill(s->file[0], name ? s->file[1] : NULL, &s->seed);
    see(s->file[0], name ? s->file[1] : NULL, s->shows);
}

/* Closes images whose files belong to the scene. */
static void close_images(struct block_image *image)
{
    while (image) {
        struct block_image *next = image->backing;

        image->fmt->ops->close(image->fmt);
        image->fmt = NULL;
        image->file = NULL;
        image->backing = NULL;
        block_image_close(image);
        image = next;
    }
}

/* --- commit --- */

static void judge_commit(struct scene *s, struct memory_file *const f[FILES], unsigned when)
{
    expect_shows(s, f[0], f[1], DISK_BYTES, when);
}

static void commits(void **state)
{
    for (u32 bits = 9; bits <= 12; bits += 3) {
        struct block_image *top, *base;
        struct scene s;

        set_stage(&s, bits, "base");
        top = image_of(s.file[0], "qcow2", false);
        base = image_of(s.file[1], "qcow2", false);
        start_recording(&s);
        assert_int_equal(block_commit(top, base, false, NULL, NULL), 0);
        close_images(top);
        close_images(base);
        every_moment(&s, judge_commit);
        expect_shows(&s, s.file[1], NULL, DISK_BYTES, s.clock);
        scene_free(&s);
    }
}

/* --- rebase --- */

/* Which base it stands on, its header says. */
static void judge_rebase(struct scene *s, struct memory_file *const f[FILES], unsigned when)
{
    struct block_image *image =
        image_of(memory_file_new(f[0]->bytes, f[0]->file.size), "qcow2", true);
    const char *name = image->fmt->backing_name;
    bool other = name && strstr(name, "other");

    if (name && !other && !strstr(name, "base"))
        fail_msg("after %u changes: stands on '%s'", when, name);
    if (name)
        assert_string_equal(image->fmt->backing_format, "qcow2");
    block_image_close(image);
    expect_shows(s, f[0], name ? f[other ? 2 : 1] : NULL, DISK_BYTES, when);
}

static void rebase(u32 bits, const char *old, const char *new)
{
    struct block_image *top, *base = NULL;
    struct qcow2_create other = plain(bits, NULL);
    struct scene s;

    set_stage(&s, bits, old);
    s.file[2] = make(&other);
    fill(s.file[2], NULL, &s.seed);
    start_recording(&s);
    top = image_of(s.file[0], "qcow2", false);
    if (old)
        assert_int_equal(block_image_stack(top, image_of(s.file[1], "qcow2", true), NULL), 0);
    if (new)
        base = image_of(s.file[2], "qcow2", true);
    assert_int_equal(block_rebase(top, base, new, new ? "qcow2" : NULL, NULL, NULL), 0);
    close_images(top);
    close_images(base);
    every_moment(&s, judge_rebase);
    scene_free(&s);
}

static void rebases(void **state)
{
    char long_base[600] = "base", long_other[900] = "other";

    memset(long_base + 4, 'x', 500);
    memset(long_other + 5, 'y', 800);
    rebase(9, "base", "other");
    rebase(12, "base", "other");
    rebase(12, "base", NULL);
    rebase(12, long_base, long_other);
    rebase(12, long_base, "other");
    rebase(12, NULL, long_other);
    rebase(12, NULL, "other");
    rebase(12, "base", long_other);
    rebase(16, long_other, "base, or rather the other");
}

/* --- resize --- */

static void judge_resize(struct scene *s, struct memory_file *const f[FILES], unsigned when)
{
    expect_shows(s, f[0], NULL, DISK_BYTES / 2, when);
}

static void resizes(void **state)
{
    static const u64 sizes[] = {DISK_BYTES * 3, DISK_BYTES / 2, 40 * MiB, DISK_BYTES};

    for (u32 bits = 9; bits <= 12; bits += 3) {
        struct qcow2_create o = plain(bits, NULL);
        struct scene s = {.seed = bits, .shows = malloc(DISK_BYTES)};
        struct block_image *image;

        s.file[0] = make(&o);
        fill(s.file[0], NULL, &s.seed);
        see(s.file[0], NULL, s.shows);
        start_recording(&s);
        image = image_of(s.file[0], "qcow2", false);
        for (unsigned i = 0; i < ARRAY_LEN(sizes); i++)
            if (bits > 9 || sizes[i] < MiB)
                assert_int_equal(block_image_resize(image, sizes[i], NULL), 0);
        close_images(image);
        every_moment(&s, judge_resize);
        scene_free(&s);
    }
}

/* --- convert --- */

/* Nothing is promised before the end, except that it is an image; then everything is. */
static void judge_copy(struct scene *s, struct memory_file *const f[FILES], unsigned when)
{
    if (when == s->clock)
        expect_shows(s, f[0], NULL, DISK_BYTES, when);
}

static void copies(void **state)
{
    struct qcow2_create o = plain(12, NULL);
    struct scene s = {.seed = 3, .shows = malloc(DISK_BYTES)};
    struct memory_file *source = make(&o);
    struct block_copy copy = {.to_is_zero = true};

    fill(source, NULL, &s.seed);
    see(source, NULL, s.shows);
    s.file[0] = make(&o);
    start_recording(&s);
    copy.from = image_of(source, "qcow2", true);
    copy.to = image_of(s.file[0], "qcow2", false);
    copy.to->file->unsafe = true; /* as `disk convert --sync` does it */
    assert_int_equal(block_copy(&copy, NULL), 0);
    copy.to->file->unsafe = false;
    assert_int_equal(block_image_flush(copy.to, NULL), 0);
    s.file[0]->record = false; /* what closing adds comes too late for the promise */
    assert_int_equal(s.file[0]->events[s.file[0]->nevents - 1].op, MEMORY_SYNC);
    s.clock = s.file[0]->events[s.file[0]->nevents - 1].when + 1;
    close_images(copy.to);
    block_image_close(copy.from);
    judge_fn *judge = judge_copy;
    for (unsigned loss = 0; loss < 20; loss++) {
        struct memory_file *f[FILES] = {left(&s, 0, s.clock, loss > 0)};

        expect_sound(f[0], s.clock);
        judge(&s, f, s.clock);
        block_file_close(&f[0]->file);
    }
    scene_free(&s);
}

/* --- push --- */

/* Two copies of the disk: as it was at the flush before, and as it was asked to be at the one after. */
struct push_story {
    unsigned flushed[8]; /* the clock when flush i had ended */
    u8 *content[8];      /* what was written by then */
    unsigned n;
} story;

/* Each byte is what it was at the last flush, or was at one since: bytes change at most once between two. */
static void judge_push(struct scene *s, struct memory_file *const f[FILES], unsigned when)
{
    static u8 seen[DISK_BYTES];
    unsigned n = 0;

    while (n + 1 < story.n && story.flushed[n + 1] <= when)
        n++;
    see(f[0], f[1], seen);
    for (u64 i = 0; i < DISK_BYTES; i++)
        if (seen[i] != story.content[n][i] &&
            (n + 1 == story.n || seen[i] != story.content[n + 1][i]))
            fail_msg("after %u changes: byte %llu is %u", when, (unsigned long long)i, seen[i]);
}

static void tell(struct scene *s, const u8 *content)
{
    story.flushed[story.n] = s->clock;
    story.content[story.n] = malloc(DISK_BYTES);
    memcpy(story.content[story.n++], content, DISK_BYTES);
}

/* Writes that do not overlap. */
static void some_writes(struct block_image *image, u8 *content, u64 *seed)
{
    for (u64 at = 0; at < DISK_BYTES;) {
        u64 len = (next_random(seed) % 24 + 1) * SECTOR;

        len = MIN(len, DISK_BYTES - at);
        if (next_random(seed) % 3 == 0) {
            memset(content + at, (int)next_random(seed), len);
            assert_int_equal(block_image_write(image, content + at, len, at, NULL), 0);
        }
        at += len;
    }
}

/* As block_push() does it: the base is left with what it has in memory, and the next flush brings both to the medium. */
static void pushes(void **state)
{
    for (u32 bits = 9; bits <= 12; bits += 3) {
        struct qcow2_create low = plain(bits, NULL), high = plain(bits, "base");
        struct scene s = {.seed = bits, .shows = malloc(DISK_BYTES)};
        struct block_image *top, *base;

        low.lazy_refcounts = bits == 12;
        story.n = 0;
        s.file[0] = make(&high);
        s.file[1] = make(&low);
        fill(s.file[1], NULL, &s.seed);
        see(s.file[1], NULL, s.shows);
        start_recording(&s);
        base = image_of(s.file[1], "qcow2", false);
        tell(&s, s.shows);
        some_writes(base, s.shows, &s.seed);
        assert_int_equal(block_image_flush(base, NULL), 0);
        tell(&s, s.shows);
        u8 *written = malloc(DISK_BYTES);
        memcpy(written, s.shows, DISK_BYTES);
        some_writes(base, written, &s.seed);
        top = image_of(s.file[0], "qcow2", false);
        assert_int_equal(block_image_stack(top, base, NULL), 0);
        base->unfinished = true;
        assert_int_equal(block_image_flush(top, NULL), 0);
        tell(&s, written);
        some_writes(top, written, &s.seed);
        assert_int_equal(block_image_flush(top, NULL), 0);
        tell(&s, written);
        close_images(top);
        every_moment(&s, judge_push);
        for (unsigned i = 0; i < story.n; i++)
            free(story.content[i]);
        free(written);
        scene_free(&s);
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(commits), cmocka_unit_test(rebases), cmocka_unit_test(resizes),
    cmocka_unit_test(copies),  cmocka_unit_test(pushes),
};

UNIT_MAIN(tests)
