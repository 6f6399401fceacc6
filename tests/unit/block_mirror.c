/*
 * Copying disks under load: writers that never stop but when told, a mirror that copies what the dirty log says. Whenever
 * the writers stand still, one more collect must make the copy equal. TRAPEZE_MIRROR_ROUNDS=100000 for a night.
 */
#include "block/block.h"
#include "block/image.h"
#include "block/mirror.h"
#include "block/qcow2.h"
#include "unit.h"

#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#define DISK_BYTES (192 * KiB)
#define GRANULARITY (4 * KiB)
#define WRITERS 3
#define PART (DISK_BYTES / WRITERS)
#define LOOPS 4 /* collects while the writers run, in each round */

struct writer {
    struct rig *rig;
    u64 base, seed;
    pthread_t thread;
    struct block_req req;
    struct iovec iov;
    u8 *buf;
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool done;
};

struct rig {
    char dir[64];
    struct block_engine *engine;
    struct block *from, *to;
    pthread_rwlock_t running; /* a writer holds it from before a request until it is answered */
    atomic_bool stop;
    struct writer writer[WRITERS];
    u64 seed;
};

static u64 next_random(u64 *state)
{
    *state = *state * 6364136223846793005ull + 1442695040888963407ull;
    return *state >> 33;
}

static void on_done(struct block_req *req, int result)
{
    struct writer *w = CONTAINER_OF(req, struct writer, req);

    pthread_mutex_lock(&w->lock);
    assert_int_equal(result, 0);
    w->done = true;
    pthread_cond_signal(&w->cond);
    pthread_mutex_unlock(&w->lock);
}

static void one_write(struct writer *w)
{
    static const enum block_op ops[] = {BLOCK_WRITE, BLOCK_WRITE, BLOCK_WRITE,  BLOCK_WRITE,
                                        BLOCK_WRITE, BLOCK_ZERO,  BLOCK_DISCARD};
    u64 at = next_random(&w->seed) % (PART / 512) * 512;
    u64 wish = (next_random(&w->seed) % 16 + 1) * 512, len = MIN(wish, PART - at);
    enum block_op op = ops[next_random(&w->seed) % ARRAY_LEN(ops)];
    int rc = -EAGAIN;

    if (op == BLOCK_DISCARD) { /* what is no whole cluster would be left alone */
        at = ALIGN_DOWN(at, 4 * KiB);
        len = 4 * KiB;
    }
    memset(w->buf, (int)next_random(&w->seed), len);
    w->iov = (struct iovec){w->buf, len};
    w->req = (struct block_req){
        .op = op, .offset = w->base + at, .len = len, .iov = &w->iov, .niov = 1, .done = on_done};
    w->done = false;
    if (next_random(&w->seed) % 2)
        rc = block_try(w->rig->from, &w->req);
    if (rc == -EAGAIN)
        rc = block_submit(w->rig->from, &w->req);
    if (rc != -EINPROGRESS) {
        assert_int_equal(rc, 0);
        return;
    }
    pthread_mutex_lock(&w->lock);
    while (!w->done)
        pthread_cond_wait(&w->cond, &w->lock);
    pthread_mutex_unlock(&w->lock);
}

static void *write_on(void *opaque)
{
    struct writer *w = opaque;

    while (!w->rig->stop) {
        pthread_rwlock_rdlock(&w->rig->running);
        one_write(w);
        pthread_rwlock_unlock(&w->rig->running);
    }
    return NULL;
}

/* --- the mirror --- */

static void copy_range(struct rig *r, u64 offset, u64 len)
{
    u8 buf[GRANULARITY];

    len = MIN(len, DISK_BYTES - offset);
    assert_int_equal(block_now(r->from, BLOCK_READ, buf, len, offset, NULL), 0);
    assert_int_equal(block_now(r->to, BLOCK_WRITE, buf, len, offset, NULL), 0);
}

/* Only what holds data; the new image is empty elsewhere. */
static void copy_allocated(struct rig *r)
{
    for (u64 at = 0, len; at < DISK_BYTES; at += len) {
        bool data;

        assert_int_equal(block_allocated(r->from, at, DISK_BYTES - at, &data, &len, NULL), 0);
        for (u64 done = 0; data && done < len; done += GRANULARITY)
            copy_range(r, at + done, MIN(len - done, GRANULARITY));
    }
}

static void copy_dirty(struct rig *r, struct block_dirty_log *log)
{
    u64 bits[DISK_BYTES / GRANULARITY / 64 + 1], count, seen = 0;

    assert_in_range(block_dirty_words(log), 1, ARRAY_LEN(bits));
    block_dirty_collect(r->from, log, bits, &count);
    for (u64 i = 0; i < DISK_BYTES / GRANULARITY; i++) {
        if (!(bits[i / 64] & BIT(i % 64)))
            continue;
        seen++;
        copy_range(r, i * GRANULARITY, GRANULARITY);
    }
    assert_int_equal(seen, count);
}

static void expect_equal(struct rig *r)
{
    static u8 a[DISK_BYTES], b[DISK_BYTES];

    assert_int_equal(block_now(r->from, BLOCK_READ, a, DISK_BYTES, 0, NULL), 0);
    assert_int_equal(block_now(r->to, BLOCK_READ, b, DISK_BYTES, 0, NULL), 0);
    assert_memory_equal(a, b, DISK_BYTES);
}

static void one_round(struct rig *r)
{
    struct block_dirty_log log = {0};

    assert_int_equal(block_now(r->to, BLOCK_ZERO, NULL, DISK_BYTES, 0, NULL), 0);
    assert_int_equal(block_dirty_start(r->from, &log, GRANULARITY, NULL), 0);
    copy_allocated(r);
    for (unsigned i = 0; i < LOOPS; i++)
        copy_dirty(r, &log);
    pthread_rwlock_wrlock(&r->running);
    block_drain(r->from);
    copy_dirty(r, &log);
    expect_equal(r);
    block_dirty_stop(r->from, &log);
    pthread_rwlock_unlock(&r->running);
}

static void open_disk(struct rig *r, const char *name, const char *format, struct block **ret_disk)
{
    struct block_options o = {.format = format};
    struct block_file_options fo = BLOCK_FILE_OPTIONS;
    struct qcow2_create c = {
        .size = DISK_BYTES, .version = 3, .cluster_bits = 12, .refcount_order = 4};
    struct block_file *file;
    char path[128];

    snprintf(path, sizeof(path), "%s/%s", r->dir, name);
    fo.create = true;
    assert_int_equal(block_file_open(path, &fo, &file, NULL), 0);
    if (!strcmp(format, "raw"))
        assert_int_equal(block_file_truncate(file, DISK_BYTES), 0);
    else
        assert_int_equal(qcow2_create(file, &c, NULL), 0);
    block_file_close(file);
    assert_int_equal(block_open(path, &o, r->engine, ret_disk, NULL), 0);
}

static unsigned rounds(unsigned usual)
{
    const char *text = getenv("TRAPEZE_MIRROR_ROUNDS");

    return text ? (unsigned)strtoul(text, NULL, 10) : usual;
}

static void nothing_is_lost(const char *from, const char *to)
{
    struct rig r = {.dir = "/tmp/trapeze-mirror-XXXXXX"};
    pthread_rwlockattr_t attr;
    char command[128];

    assert_non_null(mkdtemp(r.dir));
    pthread_rwlockattr_init(&attr);
    pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&r.running, &attr);
    assert_int_equal(block_engine_new("threads", &r.engine, NULL), 0);
    open_disk(&r, "from", from, &r.from);
    open_disk(&r, "to", to, &r.to);
    for (unsigned i = 0; i < WRITERS; i++) {
        struct writer *w = &r.writer[i];

        *w = (struct writer){.rig = &r,
                             .base = i * (u64)PART,
                             .seed = i,
                             .buf = malloc(16 * KiB),
                             .lock = PTHREAD_MUTEX_INITIALIZER,
                             .cond = PTHREAD_COND_INITIALIZER};
        assert_int_equal(pthread_create(&w->thread, NULL, write_on, w), 0);
    }
    for (unsigned i = rounds(300); i; i--)
        one_round(&r);
    r.stop = true;
    for (unsigned i = 0; i < WRITERS; i++) {
        pthread_join(r.writer[i].thread, NULL);
        free(r.writer[i].buf);
    }
    block_close(r.from);
    block_close(r.to);
    block_engine_free(r.engine);
    snprintf(command, sizeof(command), "rm -rf %s", r.dir);
    assert_int_equal(system(command), 0);
}

static void raw_to_qcow2(void **state)
{
    nothing_is_lost("raw", "qcow2");
}

static void qcow2_to_raw(void **state)
{
    nothing_is_lost("qcow2", "raw");
}

/* Several logs at a time are each one's own; what cannot be is refused. */
static void logs_are_apart(void **state)
{
    struct rig r = {.dir = "/tmp/trapeze-mirror-XXXXXX"};
    struct block_dirty_log a = {0}, b = {0};
    u64 bits[8], count;
    u8 sector[512] = {1};
    char command[128];

    assert_non_null(mkdtemp(r.dir));
    assert_int_equal(block_engine_new("threads", &r.engine, NULL), 0);
    open_disk(&r, "from", "raw", &r.from);
    assert_int_equal(block_dirty_start(r.from, &a, 5000, NULL), -EINVAL);
    assert_int_equal(block_dirty_start(r.from, &a, GRANULARITY, NULL), 0);
    assert_int_equal(block_now(r.from, BLOCK_WRITE, sector, 512, 4096, NULL), 0);
    assert_int_equal(block_dirty_start(r.from, &b, 64 * KiB, NULL), 0);
    assert_int_equal(block_now(r.from, BLOCK_WRITE, sector, 512, DISK_BYTES - 512, NULL), 0);
    assert_int_equal(block_now(r.from, BLOCK_READ, sector, 512, 0, NULL), 0);
    block_dirty_collect(r.from, &a, bits, &count);
    assert_int_equal(count, 2);
    assert_true(bits[0] == (BIT(1) | BIT(47)));
    block_dirty_collect(r.from, &a, bits, &count);
    assert_int_equal(count, 0);
    block_dirty_stop(r.from, &a);
    block_dirty_stop(r.from, &a);
    assert_int_equal(block_now(r.from, BLOCK_ZERO, NULL, 64 * KiB, 60 * KiB, NULL), 0);
    block_dirty_collect(r.from, &b, bits, &count);
    assert_int_equal(count, 3);
    assert_true(bits[0] == 7);
    block_dirty_stop(r.from, &b);
    assert_int_equal(block_now(r.from, BLOCK_WRITE, sector, 512, DISK_BYTES, NULL), -EINVAL);
    block_close(r.from);
    block_engine_free(r.engine);
    snprintf(command, sizeof(command), "rm -rf %s", r.dir);
    assert_int_equal(system(command), 0);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(raw_to_qcow2),
    cmocka_unit_test(qcow2_to_raw),
    cmocka_unit_test(logs_are_apart),
};

UNIT_MAIN(tests)
