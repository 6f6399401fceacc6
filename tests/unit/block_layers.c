/* Disks of several images: overlays pushed while it is open, chains opened from descriptors, disks handed from host to host. */
#include "block/block.h"
#include "block/image.h"
#include "block/qcow2.h"
#include "unit.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#define DISK_BYTES (3 * MiB)
#define LAYERS 5
#define PATH 128

struct rig {
    char dir[64];
    struct block_engine *engine;
    struct block *disk;
    u8 *shadow; /* what the disk must hold */
    u64 seed;
};

static u64 next_random(u64 *state)
{
    *state = *state * 6364136223846793005ull + 1442695040888963407ull;
    return *state >> 33;
}

static void setup(struct rig *r)
{
    *r = (struct rig){.dir = "/tmp/trapeze-layers-XXXXXX", .seed = 5};
    assert_non_null(mkdtemp(r->dir));
    assert_int_equal(block_engine_new("threads", &r->engine, NULL), 0);
    r->shadow = calloc(1, DISK_BYTES);
}

static void teardown(struct rig *r)
{
    char command[PATH];

    block_close(r->disk);
    block_engine_free(r->engine);
    free(r->shadow);
    snprintf(command, sizeof(command), "rm -rf %s", r->dir);
    assert_int_equal(system(command), 0);
}

static void path_of(const struct rig *r, unsigned layer, bool raw, char path[PATH])
{
    snprintf(path, PATH, "%s/disk%u.%s", r->dir, layer, raw ? "raw" : "qcow2");
}

/* A new image, open, for block_push() or block_open_layers(). */
static int make(const char *path, const char *backing, const char *backing_format, u64 size)
{
    struct block_file_options fo = BLOCK_FILE_OPTIONS;
    struct qcow2_create o = {.size = size,
                             .version = 3,
                             .cluster_bits = 12,
                             .refcount_order = 4,
                             .backing_name = backing,
                             .backing_format = backing_format};
    struct block_file *file;
    int fd;

    fo.create = true;
    assert_int_equal(block_file_open(path, &fo, &file, NULL), 0);
    assert_int_equal(qcow2_create(file, &o, NULL), 0);
    fd = fcntl(file->fd, F_DUPFD_CLOEXEC, 0); /* the lock stays on it */
    block_file_close(file);
    return fd;
}

static int make_base(const struct rig *r, bool raw, char path[PATH])
{
    path_of(r, 0, raw, path);
    if (!raw)
        return make(path, NULL, NULL, DISK_BYTES);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    assert_int_equal(ftruncate(fd, DISK_BYTES), 0);
    return fd;
}

struct waiter {
    struct block_req req;
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool done;
    int result;
};

static void on_done(struct block_req *req, int result)
{
    struct waiter *w = CONTAINER_OF(req, struct waiter, req);

    pthread_mutex_lock(&w->lock);
    w->result = result;
    w->done = true;
    pthread_cond_signal(&w->cond);
    pthread_mutex_unlock(&w->lock);
}

static int request(struct block *b, enum block_op op, void *buf, u64 len, u64 offset)
{
    struct iovec iov = {buf, len};
    struct waiter w = {.lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};
    int rc;

    w.req = (struct block_req){
        .op = op, .offset = offset, .len = len, .iov = &iov, .niov = 1, .done = on_done};
    rc = block_try(b, &w.req);
    if (rc == -EAGAIN)
        rc = block_submit(b, &w.req);
    if (rc != -EINPROGRESS)
        return rc;
    pthread_mutex_lock(&w.lock);
    while (!w.done)
        pthread_cond_wait(&w.cond, &w.lock);
    pthread_mutex_unlock(&w.lock);
    return w.result;
}

static void random_changes(struct rig *r, unsigned n)
{
    static u8 buf[32 * KiB];

    while (n--) {
        u64 at = next_random(&r->seed) % (DISK_BYTES / 512) * 512;
        u64 wish = (next_random(&r->seed) % 64 + 1) * 512, len = MIN(wish, DISK_BYTES - at);
        bool zero = next_random(&r->seed) % 5 == 0;

        for (u64 i = 0; i < len; i++)
            buf[i] = zero ? 0 : (u8)next_random(&r->seed);
        memcpy(r->shadow + at, buf, len);
        assert_int_equal(request(r->disk, zero ? BLOCK_ZERO : BLOCK_WRITE, buf, len, at), 0);
    }
}

static void expect_content(struct block *b, const u8 *shadow)
{
    u8 *all = malloc(DISK_BYTES);

    assert_int_equal(request(b, BLOCK_READ, all, DISK_BYTES, 0), 0);
    assert_memory_equal(all, shadow, DISK_BYTES);
    free(all);
}

/* As somebody sees it who finds the images by their names, and each is sound. */
static void expect_file(const char *path, const char *format, const u8 *shadow)
{
    struct block_image_options io = {.format = format, .readonly = true};
    struct qcow2_check c = {0};
    struct block_image *image;
    struct err err = ERR_INIT;
    u8 *all = malloc(DISK_BYTES);

    if (block_image_open(path, &io, &image, &err))
        fail_msg("%s", err.msg);
    assert_int_equal(block_image_read(image, all, DISK_BYTES, 0, NULL), 0);
    assert_memory_equal(all, shadow, DISK_BYTES);
    if (!strcmp(format, "qcow2")) {
        assert_int_equal(qcow2_check(image->fmt, QCOW2_REPAIR_NONE, &c, NULL), 0);
        assert_int_equal(c.corruptions + c.leaks, 0);
    }
    block_image_close(image);
    free(all);
}

/* Each image below keeps what the disk was when it got the next one above it. */
static void overlays_freeze_what_was(const char *format)
{
    bool raw = !strcmp(format, "raw");
    struct block_options o = {.format = format};
    char path[LAYERS][PATH];
    u8 *then[LAYERS];
    struct rig r;

    setup(&r);
    close(make_base(&r, raw, path[0]));
    assert_int_equal(block_open(path[0], &o, r.engine, &r.disk, NULL), 0);
    for (unsigned i = 0; i < LAYERS; i++) {
        struct err err = ERR_INIT;

        random_changes(&r, 100);
        then[i] = malloc(DISK_BYTES);
        memcpy(then[i], r.shadow, DISK_BYTES);
        if (i + 1 == LAYERS)
            break;
        path_of(&r, i + 1, false, path[i + 1]);
        if (block_push(
                r.disk,
                make(path[i + 1], strrchr(path[i], '/') + 1, i ? "qcow2" : format, DISK_BYTES),
                path[i + 1], &err))
            fail_msg("%s", err.msg);
        expect_content(r.disk, r.shadow);
        if (i % 2) { /* else it stays with the one above */
            assert_int_equal(request(r.disk, BLOCK_FLUSH, NULL, 0, 0), 0);
            expect_file(path[i], i ? "qcow2" : format, then[i]);
        }
    }
    assert_int_equal(block_layers(r.disk), LAYERS);
    assert_string_equal(block_layer_path(r.disk, 0), path[LAYERS - 1]);
    assert_string_equal(block_layer_path(r.disk, LAYERS - 1), path[0]);
    assert_string_equal(block_layer_format(r.disk, LAYERS - 1), format);
    expect_content(r.disk, r.shadow);
    assert_int_equal(block_sync(r.disk, NULL), 0);
    for (unsigned i = 0; i + 1 < LAYERS; i++)
        expect_file(path[i], i ? "qcow2" : format, then[i]);
    block_close(r.disk);
    r.disk = NULL;
    for (unsigned i = 0; i < LAYERS; i++) {
        expect_file(path[i], i ? "qcow2" : format, then[i]);
        free(then[i]);
    }
    teardown(&r);
}

static void overlays_on_raw(void **state)
{
    overlays_freeze_what_was("raw");
}

static void overlays_on_qcow2(void **state)
{
    overlays_freeze_what_was("qcow2");
}

/* The image below is nobody else's until it is on the medium, and then it can be shared, but not written. */
static void locks_follow(void **state)
{
    struct block_options o = {.format = "qcow2"};
    struct block_image_options ro = {.format = "qcow2", .readonly = true}, rw = {.format = "qcow2"};
    struct block_image *image;
    char base[PATH], overlay[PATH];
    struct rig r;

    setup(&r);
    close(make_base(&r, false, base));
    path_of(&r, 1, false, overlay);
    assert_int_equal(block_open(base, &o, r.engine, &r.disk, NULL), 0);
    random_changes(&r, 20);
    assert_int_equal(
        block_push(r.disk, make(overlay, "disk0.qcow2", "qcow2", DISK_BYTES), overlay, NULL), 0);
    assert_int_equal(block_image_open(base, &ro, &image, NULL), -EBUSY);
    assert_int_equal(block_sync(r.disk, NULL), 0);
    assert_int_equal(block_image_open(base, &rw, &image, NULL), -EBUSY);
    assert_int_equal(block_image_open(overlay, &ro, &image, NULL), -EBUSY);
    expect_file(base, "qcow2", r.shadow);
    teardown(&r);
}

/* A push that is refused leaves the disk as it was. */
static void bad_overlays(void **state)
{
    struct block_options o = {.format = "raw"};
    char base[PATH], overlay[PATH];
    struct err err = ERR_INIT;
    struct rig r;
    int fd;

    setup(&r);
    close(make_base(&r, true, base));
    path_of(&r, 1, false, overlay);
    assert_int_equal(block_open(base, &o, r.engine, &r.disk, NULL), 0);
    random_changes(&r, 20);
    fd = make(overlay, "disk0.raw", "raw", DISK_BYTES + 512);
    assert_int_equal(block_push(r.disk, fd, overlay, &err), -EINVAL);
    assert_non_null(strstr(err.msg, "large"));
    fd = make(overlay, NULL, NULL, DISK_BYTES);
    assert_int_equal(block_push(r.disk, fd, overlay, NULL), -EINVAL);
    assert_int_equal(block_push(r.disk, open(base, O_RDWR), base, NULL), -EBUSY);
    close(make(overlay, "disk0.raw", "raw", DISK_BYTES));
    assert_int_equal(block_push(r.disk, open(overlay, O_RDONLY), overlay, NULL), -EBADF);

    /* Not empty. */
    struct block_options q = {.format = "qcow2"};
    struct block *other;
    u8 sector[512] = {1};
    assert_int_equal(block_open(overlay, &q, r.engine, &other, NULL), -EBUSY); /* our base */
    block_close(r.disk);
    assert_int_equal(block_open(overlay, &q, r.engine, &other, NULL), 0);
    assert_int_equal(request(other, BLOCK_WRITE, sector, sizeof(sector), 0), 0);
    block_close(other);
    assert_int_equal(block_open(base, &o, r.engine, &r.disk, NULL), 0);
    assert_int_equal(block_push(r.disk, open(overlay, O_RDWR | O_CLOEXEC), overlay, &err), -EINVAL);
    assert_non_null(strstr(err.msg, "not empty"));

    assert_int_equal(block_layers(r.disk), 1);
    random_changes(&r, 20);
    expect_content(r.disk, r.shadow);
    teardown(&r);
}

static void chains_from_descriptors(void **state)
{
    struct block_options o = {.format = "raw"}, none = {0};
    struct block_layer layer[2];
    char base[PATH], overlay[PATH];
    struct err err = ERR_INIT;
    struct block *wrong;
    struct rig r;

    setup(&r);
    close(make_base(&r, true, base));
    path_of(&r, 1, false, overlay);
    assert_int_equal(block_open(base, &o, r.engine, &r.disk, NULL), 0);
    random_changes(&r, 50);
    assert_int_equal(
        block_push(r.disk, make(overlay, "elsewhere", "raw", DISK_BYTES), overlay, NULL), 0);
    random_changes(&r, 50);
    block_close(r.disk);
    layer[0] = (struct block_layer){open(overlay, O_RDWR), overlay, "qcow2", -1};
    assert_int_equal(block_open_layers(layer, 1, &none, r.engine, &wrong, &err), -EINVAL);
    assert_non_null(strstr(err.msg, "elsewhere"));
    layer[0].fd = open(overlay, O_RDWR);
    layer[1] = (struct block_layer){open(overlay, O_RDWR), overlay, "qcow2", -1};
    assert_int_not_equal(block_open_layers(layer, 2, &none, r.engine, &wrong, NULL), 0);
    layer[0].fd = open(base, O_RDWR);
    layer[0].format = "raw";
    layer[1] = (struct block_layer){open(overlay, O_RDONLY), overlay, "raw", -1};
    assert_int_equal(block_open_layers(layer, 2, &none, r.engine, &wrong, NULL), -EINVAL);
    layer[0] = (struct block_layer){open(overlay, O_RDWR), overlay, "qcow2", -1};
    layer[1] = (struct block_layer){open(base, O_RDONLY), base, "raw", -1};
    if (block_open_layers(layer, 2, &none, r.engine, &r.disk, &err))
        fail_msg("%s", err.msg);
    expect_content(r.disk, r.shadow);
    random_changes(&r, 50);
    expect_content(r.disk, r.shadow);
    teardown(&r);
}

/* Two hosts, one storage: the disk goes to and fro, each writes when it has it, and sees what the other one wrote. */
static void handed_over(const char *format)
{
    struct block_options o = {.format = format}, away = {.given_up = true};
    struct block_layer layer = {-1, NULL, format, -1};
    struct block *here, *there, *tmp;
    char base[PATH];
    u8 sector[512];
    struct rig r;

    setup(&r);
    close(make_base(&r, !strcmp(format, "raw"), base));
    assert_int_equal(block_open(base, &o, r.engine, &here, NULL), 0);
    layer.fd = open(base, O_RDWR | O_CLOEXEC);
    layer.path = base;
    assert_int_equal(block_open_layers(&layer, 1, &away, r.engine, &there, NULL), 0);
    assert_int_equal(request(there, BLOCK_READ, sector, sizeof(sector), 0), -EBUSY);
    assert_int_equal(block_set_lock(there, BLOCK_EXCLUSIVE, NULL), -EBUSY);
    for (unsigned i = 0; i < 20; i++) {
        r.disk = here;
        random_changes(&r, 30);
        expect_content(here, r.shadow);
        assert_int_equal(block_set_lock(here, BLOCK_UNLOCKED, NULL), 0);
        assert_int_equal(request(here, BLOCK_WRITE, sector, sizeof(sector), 0), -EBUSY);
        expect_file(base, format, r.shadow);
        assert_int_equal(block_set_lock(there, BLOCK_EXCLUSIVE, NULL), 0);
        expect_content(there, r.shadow);
        tmp = here;
        here = there;
        there = tmp;
    }
    block_close(there);
    r.disk = here;
    random_changes(&r, 30);
    block_close(here);
    r.disk = NULL;
    expect_file(base, format, r.shadow);
    teardown(&r);
}

static void raw_handed_over(void **state)
{
    handed_over("raw");
}

static void qcow2_handed_over(void **state)
{
    handed_over("qcow2");
}

static void protected_bases(void **state)
{
    struct block_options o = {.format = "raw"}, ro = {.format = "raw", .readonly = true};
    struct err err = ERR_INIT;
    char base[PATH];
    struct rig r;

    setup(&r);
    close(make_base(&r, true, base));
    assert_int_equal(block_file_protect(base, true, NULL), 0);
    if (geteuid() == 0) { /* others are refused by the kernel */
        assert_int_equal(block_open(base, &o, r.engine, &r.disk, &err), -EROFS);
        assert_non_null(strstr(err.msg, "write-protected"));
    }
    assert_int_equal(block_open(base, &ro, r.engine, &r.disk, NULL), 0);
    block_close(r.disk);
    assert_int_equal(block_file_protect(base, false, NULL), 0);
    assert_int_equal(block_open(base, &o, r.engine, &r.disk, NULL), 0);
    /* A snapshot of a guest that runs: it may still give its disks to another host and take them back. */
    assert_int_equal(block_file_protect(base, true, NULL), 0);
    assert_int_equal(block_set_lock(r.disk, BLOCK_UNLOCKED, NULL), 0);
    assert_int_equal(block_set_lock(r.disk, BLOCK_EXCLUSIVE, NULL), 0);
    teardown(&r);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(overlays_on_raw),
    cmocka_unit_test(overlays_on_qcow2),
    cmocka_unit_test(locks_follow),
    cmocka_unit_test(bad_overlays),
    cmocka_unit_test(chains_from_descriptors),
    cmocka_unit_test(raw_handed_over),
    cmocka_unit_test(qcow2_handed_over),
    cmocka_unit_test(protected_bases),
};

UNIT_MAIN(tests)
