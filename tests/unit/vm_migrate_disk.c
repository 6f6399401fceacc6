/* Disks that go over while they are written to: what arrives is what is there when the guest stands still. */
#include "block/image.h"
#include "unit.h"
#include "vm/migrate/disk.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#define DISKS 2
#define DISK_BYTES (5 * MiB + 512)
#define ROUNDS 30

struct rig {
    char dir[64];
    struct block_engine *engine;
    struct block *from[DISKS], *to[DISKS];
    struct migrate_line out, in;
    struct migrate_disks source, destination;
    pthread_t writer, receiver;
    atomic_bool stop;
};

static u64 next_random(u64 *state)
{
    *state = *state * 6364136223846793005ull + 1442695040888963407ull;
    return *state >> 33;
}

static void open_disk(struct rig *r, const char *name, struct block **ret_disk)
{
    struct block_options o = {.format = "raw"};
    char path[128];

    snprintf(path, sizeof(path), "%s/%s", r->dir, name);
    close(creat(path, 0600));
    assert_int_equal(truncate(path, DISK_BYTES), 0);
    assert_int_equal(block_open(path, &o, r->engine, ret_disk, NULL), 0);
}

static void *write_on(void *opaque)
{
    static u8 buf[128 * KiB];
    struct rig *r = opaque;
    u64 seed = 1;

    while (!r->stop) {
        u64 at = next_random(&seed) % (DISK_BYTES / 512) * 512;
        u64 wish = (next_random(&seed) % 256 + 1) * 512, len = MIN(wish, DISK_BYTES - at);
        bool zero = next_random(&seed) % 4 == 0;

        memset(buf, (int)next_random(&seed), len);
        assert_int_equal(block_now(r->from[next_random(&seed) % DISKS],
                                   zero ? BLOCK_ZERO : BLOCK_WRITE, buf, len, at, NULL),
                         0);
    }
    return NULL;
}

/* Until the line ends. */
static void *receive(void *opaque)
{
    struct rig *r = opaque;
    struct migrate_head head;
    struct err err = ERR_INIT;

    while (!migrate_line_receive(&r->in, &head, &err)) {
        const u8 *b = r->in.body;

        assert_int_equal(head.type, MIGRATE_BLOCKS);
        if (migrate_disks_write(&r->destination, (u32)migrate_get(b, 4), migrate_get(b + 8, 8),
                                migrate_get(b + 16, 8), head.len > 24 ? b + 24 : NULL, &err))
            fail_msg("%s", err.msg);
    }
    return NULL;
}

static void setup(struct rig *r)
{
    u8 junk[4096];
    int fd[2];

    *r = (struct rig){.dir = "/tmp/trapeze-mdisk-XXXXXX"};
    assert_non_null(mkdtemp(r->dir));
    assert_int_equal(block_engine_new("threads", &r->engine, NULL), 0);
    memset(junk, 0xaa, sizeof(junk));
    for (unsigned i = 0; i < DISKS; i++) {
        char name[16];

        snprintf(name, sizeof(name), "from%u", i);
        open_disk(r, name, &r->from[i]);
        snprintf(name, sizeof(name), "to%u", i);
        open_disk(r, name, &r->to[i]);
        /* What it held before must go, whether or not something comes instead. */
        assert_int_equal(block_now(r->to[i], BLOCK_WRITE, junk, sizeof(junk), MiB, NULL), 0);
    }
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), 0);
    assert_int_equal(migrate_line_init(&r->out, fd[0], MIGRATE_TO_SOURCE, NULL), 0);
    assert_int_equal(migrate_line_init(&r->in, fd[1], MIGRATE_TO_DESTINATION, NULL), 0);
    migrate_disks_take(&r->destination, r->to, DISKS);
}

static void teardown(struct rig *r)
{
    char command[128];

    migrate_disks_stop(&r->source);
    migrate_disks_stop(&r->source);
    migrate_disks_stop(&r->destination);
    migrate_line_fini(&r->out);
    migrate_line_fini(&r->in);
    for (unsigned i = 0; i < DISKS; i++) {
        block_close(r->from[i]);
        block_close(r->to[i]);
    }
    block_engine_free(r->engine);
    snprintf(command, sizeof(command), "rm -rf %s", r->dir);
    assert_int_equal(system(command), 0);
}

static void expect_equal(struct rig *r)
{
    u8 *a = malloc(DISK_BYTES), *b = malloc(DISK_BYTES);

    for (unsigned i = 0; i < DISKS; i++) {
        assert_int_equal(block_now(r->from[i], BLOCK_READ, a, DISK_BYTES, 0, NULL), 0);
        assert_int_equal(block_now(r->to[i], BLOCK_READ, b, DISK_BYTES, 0, NULL), 0);
        assert_memory_equal(a, b, DISK_BYTES);
    }
    free(a);
    free(b);
}

static void nothing_is_lost(void **state)
{
    u64 sent, left = 1;
    struct rig r;

    for (unsigned round = 0; round < 5; round++) {
        setup(&r);
        pthread_create(&r.writer, NULL, write_on, &r);
        pthread_create(&r.receiver, NULL, receive, &r);
        assert_int_equal(migrate_disks_start(&r.source, r.from, DISKS, NULL), 0);
        for (unsigned i = 0; i < ROUNDS; i++) {
            assert_int_equal(migrate_disks_send(&r.source, &r.out, MiB, &sent, &left, NULL), 0);
            assert_true(sent <= 2 * MiB + 24 * 100);
        }
        r.stop = true;
        pthread_join(r.writer, NULL);
        assert_int_equal(migrate_disks_send(&r.source, &r.out, UINT64_MAX, &sent, &left, NULL), 0);
        assert_int_equal(left, 0);
        migrate_line_cut(&r.out);
        pthread_join(r.receiver, NULL);
        assert_int_equal(migrate_disks_finish(&r.destination, NULL), 0);
        expect_equal(&r);
        teardown(&r);
    }
}

/* Of disks that hold nothing, nothing is sent, and yet nothing is left of what was there. */
static void empty_disks(void **state)
{
    u64 sent = 1, left = 1;
    struct rig r;

    setup(&r);
    assert_int_equal(migrate_disks_start(&r.source, r.from, DISKS, NULL), 0);
    assert_int_equal(migrate_disks_send(&r.source, &r.out, UINT64_MAX, &sent, &left, NULL), 0);
    assert_int_equal(left, 0);
    assert_int_equal(sent, 0);
    assert_int_equal(migrate_disks_finish(&r.destination, NULL), 0);
    expect_equal(&r);
    teardown(&r);
}

static void foreign_numbers(void **state)
{
    static const struct {
        u32 disk;
        u64 offset, len;
    } bad[] = {
        {DISKS, 0, 512},
        {UINT32_MAX, 0, 512},
        {0, DISK_BYTES, 512},
        {0, 0, DISK_BYTES + 512},
        {0, UINT64_MAX - 511, 512},
        {0, 512, UINT64_MAX - 511},
        {0, 1, 512},
        {0, 0, 1},
    };
    static u8 bytes[512];
    struct rig r;

    setup(&r);
    for (unsigned i = 0; i < ARRAY_LEN(bad); i++)
        for (unsigned zeros = 0; zeros < 2; zeros++) {
            struct err err = ERR_INIT;

            assert_true(migrate_disks_write(&r.destination, bad[i].disk, bad[i].offset, bad[i].len,
                                            zeros ? NULL : bytes, &err) < 0);
            assert_true(err.msg[0]);
        }
    assert_int_equal(migrate_disks_write(&r.destination, 0, DISK_BYTES - 512, 512, bytes, NULL), 0);
    assert_int_equal(migrate_disks_write(&r.destination, 1, 0, DISK_BYTES, NULL, NULL), 0);
    teardown(&r);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(nothing_is_lost),
    cmocka_unit_test(empty_disks),
    cmocka_unit_test(foreign_numbers),
};

UNIT_MAIN(tests)
