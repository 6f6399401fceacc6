/*
 * Hosts that fail in the middle: each change of a file in turn fails, once (EIO), or with all that follow until there is
 * room again (ENOSPC). Whatever was being done says so, the images are whole, and the disk shows what it did, except where
 * a write of the guest's failed. When the host is well again the same is done once more, and must succeed; after a sync
 * that failed, with the images opened anew, since the kernel forgets what it lost.
 */
#include "block/copy.h"
#include "block/image.h"
#include "block/qcow2.h"
#include "block/restack.h"
#include "block_crash.h"
#include "unit.h"

#define DISK_BYTES (96 * KiB)
#define SECTORS (DISK_BYTES / SECTOR)
#define NTH_MAX 5000

/* top stands on base; other is what it gets instead. */
struct rig {
    struct memory_file *file[3];
    struct block_image *top, *base, *other;
    u8 shows[DISK_BYTES];
    bool unsure[SECTORS]; /* a write there failed */
    u64 seed;
};

enum { TOP, BASE, OTHER };

static struct block_image *image_of(struct memory_file *m, bool readonly)
{
    struct block_image_options o = {.format = "qcow2", .readonly = readonly};
    struct block_image *image;
    struct err err = ERR_INIT;

    if (block_image_from(&m->file, &o, &image, &err))
        fail_msg("%s", err.msg);
    return image;
}

/* The images without their files, which stay. */
static void let_go(struct block_image **image)
{
    for (struct block_image *i = *image, *next; i; i = next) {
        next = i->backing;
        i->file = NULL;
        i->backing = NULL;
        block_image_close(i);
    }
    *image = NULL;
}

static void let_all_go(struct rig *r)
{
    if (r->top && r->top->backing)
        r->base = NULL;
    let_go(&r->top);
    let_go(&r->base);
    let_go(&r->other);
}

/* --- what is done --- */

/* Of three kinds of change; those that fail leave their sectors in doubt. */
static int change(struct rig *r, struct block_image *image, struct err *err)
{
    u8 buf[24 * SECTOR];
    u32 first = (u32)(next_random(&r->seed) % SECTORS),
        most = (u32)(next_random(&r->seed) % 24 + 1), n = MIN(most, (u32)SECTORS - first);
    u64 what = next_random(&r->seed) % 4;
    u8 value = what < 2 ? (u8)(next_random(&r->seed) | 1) : 0;
    int rc;

    memset(buf, value, sizeof(buf));
    if (what < 3)
        rc = what < 2 ? block_image_write(image, buf, n * SECTOR, first * SECTOR, err)
                      : block_image_zero(image, first * SECTOR, n * SECTOR, true, err);
    else
        rc = block_image_flush(image, err);
    for (u32 i = first; what < 3 && i < first + n; i++) {
        r->unsure[i] = rc != 0;
        memset(r->shows + i * SECTOR, value, SECTOR);
    }
    return rc;
}

static int guest(struct rig *r, struct err *err)
{
    int rc = 0, first = 0;

    for (unsigned i = 0; i < 25; i++) {
        rc = change(r, r->top, err);
        first = first ? first : rc;
    }
    rc = block_image_flush(r->top, err);
    return first ? first : rc;
}

static int commit(struct rig *r, struct err *err)
{
    return block_commit(r->top, r->base, false, NULL, err);
}

static int rebase(struct rig *r, struct err *err)
{
    return block_rebase(r->top, r->other, "other", "qcow2", NULL, err);
}

static int resize(struct rig *r, struct err *err)
{
    int rc = block_image_resize(r->top, 40 * DISK_BYTES, err);

    if (!rc)
        rc = block_image_resize(r->top, DISK_BYTES, err);
    return rc ? rc : block_image_flush(r->top, err);
}

static int copy(struct rig *r, struct err *err)
{
    struct block_copy c = {.from = r->top, .to = r->other};
    int rc = block_copy(&c, err);

    return rc ? rc : block_image_flush(r->other, err);
}

/* The base has changes in memory when it gets the top above it, as with block_push(). */
static int push(struct rig *r, struct err *err)
{
    return guest(r, err);
}

static const struct task {
    const char *name;
    int (*run)(struct rig *r, struct err *err);
    unsigned fails; /* which file */
    bool stacked, base_written, other_written;
} tasks[] = {
    {"guest", guest, TOP, .stacked = true},
    {"push, top", push, TOP, .stacked = true, .base_written = true},
    {"push, base", push, BASE, .stacked = true, .base_written = true},
    {"commit, top", commit, TOP, .base_written = true},
    {"commit, base", commit, BASE, .base_written = true},
    {"rebase", rebase, TOP, .stacked = true},
    {"resize", resize, TOP, .stacked = true},
    {"copy", copy, OTHER, .stacked = true, .other_written = true},
};

/* --- before and after --- */

static void open_all(struct rig *r, const struct task *t)
{
    struct err err = ERR_INIT;

    r->top = image_of(r->file[TOP], false);
    r->base = image_of(r->file[BASE], !t->base_written);
    r->other = image_of(r->file[OTHER], !t->other_written);
    if (t->stacked && block_image_stack(r->top, r->base, &err))
        fail_msg("%s", err.msg);
}

static void set_up(struct rig *r, const struct task *t, u32 bits, bool lazy)
{
    static const char *const names[] = {"base", NULL, NULL};
    struct err err = ERR_INIT;

    *r = (struct rig){.seed = bits};
    for (unsigned i = 0; i < 3; i++) {
        struct qcow2_create o = {.size = DISK_BYTES,
                                 .version = 3,
                                 .cluster_bits = bits,
                                 .refcount_order = 4,
                                 .lazy_refcounts = lazy,
                                 .backing_name = names[i],
                                 .backing_format = names[i] ? "qcow2" : NULL};

        r->file[i] = memory_file_new(NULL, 0);
        assert_int_equal(qcow2_create(&r->file[i]->file, &o, &err), 0);
    }
    for (int i = OTHER; i >= TOP; i--) {
        struct block_image *image = image_of(r->file[i], false);

        if (i != TOP)
            memset(r->shows, 0, sizeof(r->shows));
        if (i == TOP)
            assert_int_equal(block_image_stack(image, image_of(r->file[BASE], true), &err), 0);
        for (unsigned n = 0; n < 12; n++)
            assert_int_equal(change(r, image, &err), 0);
        let_go(&image);
    }
    open_all(r, t);
    if (!t->base_written || !t->stacked)
        return;
    /* What the guest wrote before the overlay came. */
    for (unsigned n = 0; n < 12; n++)
        assert_int_equal(change(r, r->base, &err), 0);
    r->base->unfinished = true;
    assert_int_equal(block_image_read(r->top, r->shows, DISK_BYTES, 0, &err), 0);
}

static void expect_sound(struct memory_file *m, bool lazy)
{
    struct memory_file *left = memory_file_new(m->bytes, m->file.size);
    struct block_image *image = image_of(left, !lazy); /* writing mends the counts */
    struct qcow2_check c = {0};

    assert_int_equal(qcow2_check(image->fmt, QCOW2_REPAIR_NONE, &c, NULL), 0);
    if (c.corruptions)
        fail_msg("damaged");
    block_image_close(image);
}

static void expect_shows(struct rig *r, const struct task *t, bool after)
{
    static u8 seen[DISK_BYTES];
    struct block_image *image = t->run == copy && after ? r->other : r->top;
    struct err err = ERR_INIT;
    bool apart = !image->backing && image == r->top && image->fmt->backing_name;

    if (apart)
        image->backing = r->base;
    if (block_image_size(image) < DISK_BYTES || block_image_read(image, seen, DISK_BYTES, 0, &err))
        fail_msg("%s: %s", t->name, err.msg);
    if (apart)
        image->backing = NULL;
    for (u32 i = 0; i < SECTORS; i++)
        if (!r->unsure[i] && memcmp(seen + i * SECTOR, r->shows + i * SECTOR, SECTOR))
            fail_msg("%s: %s sector %u is %u, not %u", t->name, after ? "after" : "before", i,
                     seen[i * SECTOR], r->shows[i * SECTOR]);
}

/* What was said to be done is in the files, not only in memory. */
static void expect_in_files(struct rig *r, const struct task *t)
{
    struct rig copy = *r;

    for (unsigned i = 0; i < 3; i++)
        copy.file[i] = memory_file_new(r->file[i]->bytes, r->file[i]->file.size);
    open_all(&copy, t);
    expect_shows(&copy, t, true);
    let_all_go(&copy);
    for (unsigned i = 0; i < 3; i++)
        block_file_close(&copy.file[i]->file);
}

/* After a successful rebase the header names the other one. */
static void follow_header(struct rig *r)
{
    const char *name = r->top->fmt->backing_name;

    if (!name || strcmp(name, "other") || r->top->backing != r->base)
        return;
    r->top->backing = r->other;
    r->other = r->base;
    r->base = r->top->backing;
    struct memory_file *file = r->file[BASE];
    r->file[BASE] = r->file[OTHER];
    r->file[OTHER] = file;
}

/* What was flushed is there; what was not may be lost, like all that is only in memory. */
static void start_again(struct rig *r, const struct task *t)
{
    struct err err = ERR_INIT;

    let_all_go(r);
    for (unsigned i = 0; i < 3; i++)
        r->file[i]->file.sync_failed = false;
    open_all(r, t);
    follow_header(r);
    if (t->run != guest && t->run != push)
        return;
    assert_int_equal(block_image_read(r->top, r->shows, DISK_BYTES, 0, &err), 0);
    memset(r->unsure, 0, sizeof(r->unsure));
}

/* False: the task has fewer changes than that. */
static bool fail_nth(const struct task *t, unsigned nth, bool full, u32 bits, bool lazy)
{
    struct memory_file *m;
    struct rig r;
    struct err err = ERR_INIT;
    bool fired;
    int rc;

    set_up(&r, t, bits, lazy);
    m = r.file[t->fails];
    m->fail_with = full ? ENOSPC : EIO;
    m->full = full;
    m->changes = 0;
    m->fail_at = nth;
    rc = t->run(&r, &err);
    fired = m->changes >= nth;
    m->fail_at = 0;
    if (rc && (rc != -m->fail_with && rc != -EIO))
        fail_msg("%s, %u: error %d (%s)", t->name, nth, rc, err.msg);
    follow_header(&r);
    for (unsigned i = 0; i < 3; i++)
        expect_sound(r.file[i], lazy);
    if (!rc)
        expect_in_files(&r, t);
    if (r.file[TOP]->file.sync_failed || r.file[BASE]->file.sync_failed ||
        r.file[OTHER]->file.sync_failed)
        start_again(&r, t);
    expect_shows(&r, t, false);
    err = (struct err)ERR_INIT;
    if (t->run != rebase || rc) {
        if (t->run(&r, &err))
            fail_msg("%s, %u: again: %s", t->name, nth, err.msg);
        follow_header(&r);
    }
    expect_shows(&r, t, true);
    let_all_go(&r);
    for (unsigned i = 0; i < 3; i++) {
        expect_sound(r.file[i], lazy);
        block_file_close(&r.file[i]->file);
    }
    return fired;
}

static void every_change_fails(void **state)
{
    for (unsigned i = 0; i < ARRAY_LEN(tasks); i++)
        for (unsigned way = 0; way < 8; way++) {
            unsigned nth = 1;

            while (nth < NTH_MAX && fail_nth(&tasks[i], nth, way & 1, way & 2 ? 12 : 9, way & 4))
                nth++;
            print_message("# %s, way %u: %u changes\n", tasks[i].name, way, nth - 1);
            assert_true(nth < NTH_MAX);
        }
}

static const struct CMUnitTest tests[] = {cmocka_unit_test(every_change_fails)};

UNIT_MAIN(tests)
