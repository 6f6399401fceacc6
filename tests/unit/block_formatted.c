/* Disks with a format behind the request interface of devices, many requests at a time, on both engines. */
#include "block/block.h"
#include "block/image.h"
#include "block/qcow2.h"
#include "unit.h"

#include <pthread.h>
#include <unistd.h>

#define DISK_BYTES (6 * MiB)
#define SLOTS 24 /* requests in flight, each in a part of the disk that is its own */
#define SLOT_BYTES (DISK_BYTES / SLOTS)
#define ROUNDS 60

struct slot {
    struct block_req req;
    struct iovec iov[2];
    u8 *buf, *shadow;
    u64 seed;
    int result;
    bool busy;
};

struct rig {
    char path[64];
    struct block_engine *engine;
    struct block *disk;
    struct slot slot[SLOTS];
    pthread_mutex_t lock;
    pthread_cond_t done;
};

static struct rig rig;

static u64 next_random(u64 *state)
{
    *state = *state * 6364136223846793005ull + 1442695040888963407ull;
    return *state >> 33;
}

static void on_done(struct block_req *r, int result)
{
    struct slot *s = CONTAINER_OF(r, struct slot, req);

    pthread_mutex_lock(&rig.lock);
    s->result = result;
    s->busy = false;
    pthread_cond_broadcast(&rig.done);
    pthread_mutex_unlock(&rig.lock);
}

/* Takes up where the slot is; half of the requests have two segments. */
static void start(struct slot *s, u64 base)
{
    static const enum block_op ops[] = {BLOCK_READ, BLOCK_WRITE,   BLOCK_WRITE, BLOCK_WRITE,
                                        BLOCK_ZERO, BLOCK_DISCARD, BLOCK_FLUSH, BLOCK_READ};
    enum block_op op = ops[next_random(&s->seed) % ARRAY_LEN(ops)];
    u64 at = next_random(&s->seed) % (SLOT_BYTES / 512) * 512,
        wish = (next_random(&s->seed) % 100 + 1) * 512;
    u64 len = MIN(wish, SLOT_BYTES - at),
        cut = next_random(&s->seed) % 2 ? ALIGN_DOWN(len / 2, 512ull) : 0;
    int rc;

    if (op == BLOCK_DISCARD) { /* the parts begin and end with clusters */
        at = ALIGN_DOWN(at, 64 * KiB);
        len = 64 * KiB;
    }
    s->req = (struct block_req){
        .op = op, .offset = base + at, .len = len, .done = on_done, .unmap = len % 1024};
    s->iov[0] = (struct iovec){s->buf, cut ? cut : len};
    s->iov[1] = (struct iovec){s->buf + cut, len - cut};
    s->req.iov = s->iov;
    s->req.niov = cut ? 2 : 1;
    for (u64 i = 0; op == BLOCK_WRITE && i < len; i++)
        s->buf[i] = (u8)next_random(&s->seed);
    if (op == BLOCK_WRITE)
        memcpy(s->shadow + at, s->buf, len);
    if (op == BLOCK_ZERO || op == BLOCK_DISCARD)
        memset(s->shadow + at, 0, len);
    s->busy = true;
    rc = block_try(rig.disk, &s->req);
    if (rc == -EAGAIN)
        rc = block_submit(rig.disk, &s->req);
    if (rc != -EINPROGRESS)
        on_done(&s->req, rc);
}

static void finish(struct slot *s, u64 base)
{
    pthread_mutex_lock(&rig.lock);
    while (s->busy)
        pthread_cond_wait(&rig.done, &rig.lock);
    pthread_mutex_unlock(&rig.lock);
    assert_int_equal(s->result, 0);
    if (s->req.op == BLOCK_READ)
        assert_memory_equal(s->buf, s->shadow + (s->req.offset - base), s->req.len);
}

static void check_image(void)
{
    struct block_image_options io = {.format = "qcow2", .readonly = true};
    struct qcow2_check c = {0};
    struct block_image *image;
    u8 *all = malloc(DISK_BYTES);
    struct err err = ERR_INIT;

    if (block_image_open(rig.path, &io, &image, &err))
        fail_msg("%s", err.msg);
    assert_int_equal(block_image_read(image, all, DISK_BYTES, 0, NULL), 0);
    for (unsigned i = 0; i < SLOTS; i++)
        assert_memory_equal(all + i * SLOT_BYTES, rig.slot[i].shadow, SLOT_BYTES);
    assert_int_equal(qcow2_check(image->fmt, QCOW2_REPAIR_NONE, &c, NULL), 0);
    assert_int_equal(c.corruptions, 0);
    assert_int_equal(c.leaks, 0);
    block_image_close(image);
    free(all);
}

static void make_image(void)
{
    struct qcow2_create o = {
        .size = DISK_BYTES, .version = 3, .cluster_bits = 16, .refcount_order = 4};
    struct block_file_options fo = BLOCK_FILE_OPTIONS;
    struct block_file *file;
    int fd;

    snprintf(rig.path, sizeof(rig.path), "/tmp/trapeze-formatted-XXXXXX");
    fd = mkstemp(rig.path);
    assert_true(fd >= 0);
    close(fd);
    fo.create = true;
    assert_int_equal(block_file_open(rig.path, &fo, &file, NULL), 0);
    assert_int_equal(qcow2_create(file, &o, NULL), 0);
    block_file_close(file);
}

static void many_requests(const char *engine)
{
    struct block_options o = {.format = "qcow2"};
    struct err err = ERR_INIT;

    memset(&rig, 0, sizeof(rig));
    pthread_mutex_init(&rig.lock, NULL);
    pthread_cond_init(&rig.done, NULL);
    make_image();
    if (block_engine_new(engine, &rig.engine, &err)) {
        unlink(rig.path);
        UNIT_SKIP("this host has no io_uring");
    }
    assert_int_equal(block_open(rig.path, &o, rig.engine, &rig.disk, NULL), 0);
    for (unsigned i = 0; i < SLOTS; i++) {
        rig.slot[i].seed = i;
        rig.slot[i].buf = malloc(SLOT_BYTES);
        rig.slot[i].shadow = calloc(1, SLOT_BYTES);
    }
    for (unsigned round = 0; round < ROUNDS; round++) {
        for (unsigned i = 0; i < SLOTS; i++)
            start(&rig.slot[i], i * SLOT_BYTES);
        for (unsigned i = 0; i < SLOTS; i++)
            finish(&rig.slot[i], i * SLOT_BYTES);
    }
    block_drain(rig.disk);
    block_close(rig.disk);
    block_engine_free(rig.engine);
    check_image();
    unlink(rig.path);
    for (unsigned i = 0; i < SLOTS; i++) {
        free(rig.slot[i].buf);
        free(rig.slot[i].shadow);
    }
}

static void on_io_uring(void **state)
{
    many_requests("uring");
}

static void on_threads(void **state)
{
    many_requests("threads");
}

static void raw_that_looks_like_qcow2(void **state)
{
    struct block_options plain = {0}, raw = {.format = "raw"};
    struct block *disk;
    struct err err = ERR_INIT;

    memset(&rig, 0, sizeof(rig));
    make_image();
    assert_int_equal(block_engine_new("threads", &rig.engine, NULL), 0);
    assert_int_equal(block_open(rig.path, &plain, rig.engine, &disk, &err), -EINVAL);
    assert_non_null(strstr(err.msg, "format=qcow2"));
    assert_int_equal(block_open(rig.path, &raw, rig.engine, &disk, &err), 0);
    assert_true(block_size(disk) < DISK_BYTES);
    block_close(disk);
    block_engine_free(rig.engine);
    unlink(rig.path);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(on_io_uring),
    cmocka_unit_test(on_threads),
    cmocka_unit_test(raw_that_looks_like_qcow2),
};

UNIT_MAIN(tests)
