/* Disks without a device: opening and its errors, locks, requests through every engine, a host disk that is full. */
#include "block/block.h"
#include "unit.h"
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define IMAGE_BYTES (4 * MiB)
#define REQUESTS 200
#define PIECE 8192

static const char *const engines[] = {"threads", "auto"};

struct counter {
    pthread_mutex_t lock;
    unsigned done, failed;
    int last;
};

struct request {
    struct block_req req;
    struct iovec iov;
    struct counter *counter;
    u8 data[PIECE];
};

static void count(struct block_req *r, int result)
{
    struct counter *c = CONTAINER_OF(r, struct request, req)->counter;

    pthread_mutex_lock(&c->lock);
    c->done++;
    c->failed += result != 0;
    c->last = result ? result : c->last;
    pthread_mutex_unlock(&c->lock);
}

static int make_image(char path[64], u64 size)
{
    int fd;

    strcpy(path, "/tmp/trapeze-block-XXXXXX");
    fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)size), 0);
    return fd;
}

static void submit(struct block *b, struct request *r, struct counter *c, enum block_op op, u64 at)
{
    int rc;

    r->iov = (struct iovec){r->data, PIECE};
    r->counter = c;
    r->req = (struct block_req){
        .op = op, .offset = at, .len = PIECE, .iov = &r->iov, .niov = 1, .done = count};
    if (op == BLOCK_FLUSH)
        r->req.len = 0;
    rc = block_submit(b, &r->req);
    if (rc != -EINPROGRESS)
        count(&r->req, rc);
}

/* Always through the engine, many at once. */
static void many_requests(const char *name)
{
    static struct request r[REQUESTS];
    struct counter c = {.lock = PTHREAD_MUTEX_INITIALIZER};
    struct block_options o = {0};
    struct block_engine *e = NULL;
    struct block *b = NULL;
    char path[64];
    int fd = make_image(path, IMAGE_BYTES);

    assert_int_equal(block_engine_new(name, &e, NULL), 0);
    assert_int_equal(block_open(path, &o, e, &b, NULL), 0);
    for (unsigned i = 0; i < REQUESTS; i++) {
        memset(r[i].data, (int)i, PIECE);
        submit(b, &r[i], &c, BLOCK_WRITE, (u64)i * PIECE);
    }
    block_drain(b);
    assert_int_equal(c.done, REQUESTS);
    submit(b, &r[0], &c, BLOCK_FLUSH, 0);
    block_drain(b);
    for (unsigned i = 0; i < REQUESTS; i++) {
        memset(r[i].data, 0xee, PIECE);
        submit(b, &r[i], &c, BLOCK_READ, (u64)(REQUESTS - 1 - i) * PIECE);
    }
    block_drain(b);
    assert_int_equal(c.done, 2 * REQUESTS + 1);
    assert_int_equal(c.failed, 0);
    for (unsigned i = 0; i < REQUESTS; i++)
        assert_int_equal(r[i].data[PIECE - 1], (u8)(REQUESTS - 1 - i));
    block_close(b);
    block_engine_free(e);
    close(fd);
    unlink(path);
}

static void test_many_requests(void **state)
{
    for (unsigned i = 0; i < ARRAY_LEN(engines); i++)
        many_requests(engines[i]);
}

static void test_what_is_refused(void **state)
{
    static struct request r;
    struct counter c = {.lock = PTHREAD_MUTEX_INITIALIZER};
    struct block_options o = {.readonly = true};
    struct block_engine *e = NULL;
    struct block *b = NULL;
    char path[64];
    int fd = make_image(path, IMAGE_BYTES + 100); /* the odd bytes are not offered */

    assert_int_equal(block_engine_new("threads", &e, NULL), 0);
    assert_int_equal(block_open(path, &o, e, &b, NULL), 0);
    assert_int_equal(block_size(b), IMAGE_BYTES);
    assert_true(block_readonly(b));
    submit(b, &r, &c, BLOCK_WRITE, 0);
    assert_int_equal(c.last, -EROFS);
    submit(b, &r, &c, BLOCK_READ, IMAGE_BYTES - 1);
    assert_int_equal(c.last, -EINVAL);
    submit(b, &r, &c, BLOCK_READ, UINT64_MAX - 100);
    assert_int_equal(c.last, -EINVAL);
    assert_int_equal(block_try(b, &r.req), -EINVAL);
    block_drain(b);
    block_close(b);
    block_engine_free(e);
    close(fd);
    unlink(path);
}

static void expect_refusal(const char *path, bool readonly, struct block_engine *e, int code)
{
    struct block_options o = {.readonly = readonly};
    struct block *b = NULL;
    struct err err = ERR_INIT;

    assert_int_equal(block_open(path, &o, e, &b, &err), -code);
    assert_null(b);
    assert_non_null(strstr(err.msg, path));
}

static void test_opening(void **state)
{
    struct block_options ro = {.readonly = true};
    struct block *one = NULL, *two = NULL;
    struct block_engine *e = NULL;
    char path[64], small[64];
    int fd = make_image(path, IMAGE_BYTES), fd2 = make_image(small, 511);

    assert_int_equal(block_engine_new("threads", &e, NULL), 0);
    expect_refusal("/nonexistent/disk", false, e, ENOENT);
    expect_refusal("/tmp", true, e, EINVAL);
    expect_refusal("/dev/null", false, e, EINVAL);
    expect_refusal(small, false, e, EINVAL);
    assert_int_equal(block_open(path, &ro, e, &one, NULL), 0);
    assert_int_equal(block_open(path, &ro, e, &two, NULL), 0); /* readers share */
    expect_refusal(path, false, e, EBUSY);
    block_close(one);
    block_close(two);
    block_engine_free(e);
    close(fd);
    close(fd2);
    unlink(path);
    unlink(small);
}

/* 87: ENOSPC is told, not swallowed. A tmpfs of 1 MiB holds an image that says 4 MiB. */
static void test_full_host(void **state)
{
    static struct request r;
    struct counter c = {.lock = PTHREAD_MUTEX_INITIALIZER};
    struct block_options o = {0};
    char dir[] = "/tmp/trapeze-full-XXXXXX", path[64];

    assert_non_null(mkdtemp(dir));
    if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
        mount("full", dir, "tmpfs", 0, "size=1m")) {
        rmdir(dir);
        UNIT_SKIP("no file system of our own to fill here");
    }
    snprintf(path, sizeof(path), "%s/image", dir);
    assert_int_equal(truncate(path, 0), -1);
    close(open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600));
    assert_int_equal(truncate(path, IMAGE_BYTES), 0);
    for (unsigned i = 0; i < ARRAY_LEN(engines); i++) {
        struct block_engine *e = NULL;
        struct block *b = NULL;
        unsigned before = c.failed;

        assert_int_equal(block_engine_new(engines[i], &e, NULL), 0);
        assert_int_equal(block_open(path, &o, e, &b, NULL), 0);
        for (u64 at = 0; at < IMAGE_BYTES; at += PIECE) {
            submit(b, &r, &c, BLOCK_WRITE, at);
            block_drain(b);
        }
        assert_int_equal(c.last, -ENOSPC);
        assert_true(c.failed - before >= (IMAGE_BYTES - 1 * MiB) / PIECE);
        block_close(b);
        block_engine_free(e);
    }
    umount(dir);
    rmdir(dir);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_many_requests),
    cmocka_unit_test(test_what_is_refused),
    cmocka_unit_test(test_opening),
    cmocka_unit_test(test_full_host),
};
UNIT_MAIN(tests)
