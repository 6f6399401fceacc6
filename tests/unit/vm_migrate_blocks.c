/*
 * A guest whose disk goes over with it stands still for its last writes only: all else is on the medium over there by then.
 */
#include "vm_migrate_toy.h"

#define DISK (40 * MiB)
#define LITTLE (4 * MiB)

/* Both ends of it. */
static struct {
    pthread_mutex_t lock;
    u64 left, sent;       /* source */
    u64 writes;           /* that the guest does while all of the rest goes over */
    u64 came, synced;     /* destination */
    u64 late;             /* what was not on the medium there when the guest stopped */
} disk = {.lock = PTHREAD_MUTEX_INITIALIZER};

static int send_blocks(void *opaque, struct migrate_line *line, u64 budget, u64 *ret_sent,
                       u64 *ret_left, struct err *err)
{
    const struct toy *t = opaque;
    u64 len = MIN(budget, disk.left);
    u8 head[24] = {0};

    disk.left -= len;
    disk.sent += len;
    if (len && !disk.left && t->running) {
        disk.left = disk.writes;
        disk.writes /= 2;
    }
    migrate_put(head + 16, len, 8);
    *ret_sent = len;
    *ret_left = disk.left;
    return len ? migrate_line_say(line, MIGRATE_BLOCKS, 0, head, sizeof(head), err) : 0;
}

static int write_blocks(void *opaque, u32 number, u64 offset, u64 len, const u8 *bytes,
                        struct err *err)
{
    pthread_mutex_lock(&disk.lock);
    disk.came += len;
    pthread_mutex_unlock(&disk.lock);
    return 0;
}

static int sync_blocks(void *opaque, struct err *err)
{
    pthread_mutex_lock(&disk.lock);
    disk.synced = disk.came;
    pthread_mutex_unlock(&disk.lock);
    return 0;
}

static int stop_and_look(void *opaque, struct err *err)
{
    pthread_mutex_lock(&disk.lock);
    disk.late = disk.sent - disk.synced;
    pthread_mutex_unlock(&disk.lock);
    return toy_stop(opaque, err);
}

static void move_with_disk(u64 holds, bool postcopy, unsigned lines)
{
    struct move *m = move_new(lines, 2);
    struct err err = ERR_INIT;

    disk.left = holds;
    disk.writes = holds / 4;
    disk.sent = disk.came = disk.synced = 0;
    m->options.postcopy_first = postcopy;
    m->guest_here.disks = send_blocks;
    m->guest_here.stop = stop_and_look;
    m->guest_there.write_blocks = write_blocks;
    m->guest_there.sync_blocks = sync_blocks;
    assert_int_equal(run_move(m, &err), 0);
    assert_true(disk.sent >= holds && disk.came == disk.sent && !disk.left);
    assert_true(disk.late <= LITTLE);
    assert_moved(m);
    move_free(m);
}

static void most_is_there_before_the_stop(void **state)
{
    for (unsigned lines = 1; lines <= 3; lines += 2)
        for (int postcopy = 0; postcopy < 2; postcopy++)
            move_with_disk(DISK, postcopy, lines);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(most_is_there_before_the_stop),
};

int main(void);
int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
