/* The writer of a snapshot's memory: what is given last to a place stays there, copies are the caller's again at once, and
 * failures come out at the end. */
#include "unit.h"

#include "vm/snapshot/writer.h"
#include <fcntl.h>
#include <unistd.h>

#define PAGE 4096ull
#define PAGES 8192ull /* four times the writer's buffer */

struct fixture {
    int fd;
    u8 *from; /* what is written, on a page's boundary */
    atomic_bool cancelled;
    struct snapwriter *w;
};

/* Not in /tmp: where that is in memory, nothing would go past the page cache. */
static int open_file(void)
{
    return open(".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
}

static void begin(struct fixture *f, int fd)
{
    struct err err = ERR_INIT;

    *f = (struct fixture){.fd = fd};
    assert_true(fd >= 0);
    f->from = aligned_alloc(PAGE, PAGES * PAGE);
    assert_non_null(f->from);
    for (u64 i = 0; i < PAGES; i++)
        memset(f->from + i * PAGE, (int)(i % 251), PAGE);
    assert_int_equal(snapwriter_new(fd, &f->cancelled, &f->w, &err), 0);
    assert_int_equal(snapwriter_make_room(f->w), 0);
}

static void end(struct fixture *f)
{
    snapwriter_free(f->w);
    close(f->fd);
    free(f->from);
}

static void check_page(const struct fixture *f, u64 page, u8 value)
{
    static u8 got[PAGE];

    assert_int_equal(pread(f->fd, got, PAGE, (off_t)(page * PAGE)), PAGE);
    assert_int_equal(got[0], value);
    assert_memory_equal(got, got + 1, PAGE - 1);
}

static void long_and_short_runs(void **state)
{
    struct fixture f;

    begin(&f, open_file());
    for (u64 page = 0, n = 1; page < PAGES; page += n, n = n % 300 + 7)
        snapwriter_lend(f.w, page, MIN(n, PAGES - page), f.from + page * PAGE);
    assert_int_equal(snapwriter_drain(f.w), 0);
    for (u64 page = 0; page < PAGES; page++)
        check_page(&f, page, (u8)(page % 251));
    end(&f);
}

static void copies_are_free_at_once(void **state)
{
    struct fixture f;

    begin(&f, open_file());
    for (u64 page = 0, n = 1; page < PAGES; page += n, n = n % 40 + 1) {
        n = MIN(n, PAGES - page);
        snapwriter_copy(f.w, page, n, f.from + page * PAGE);
        memset(f.from + page * PAGE, 0xff, n * PAGE);
    }
    assert_int_equal(snapwriter_drain(f.w), 0);
    for (u64 page = 0; page < PAGES; page++)
        check_page(&f, page, (u8)(page % 251));
    end(&f);
}

/* A page is lent, then copied several times, in runs of other lengths: the file system sees both ways to the same blocks. */
static void the_last_one_stays(void **state)
{
    struct fixture f;

    begin(&f, open_file());
    snapwriter_lend(f.w, 0, PAGES, f.from);
    for (unsigned round = 1; round <= 20; round++)
        for (u64 page = round; page < 1000; page += 50) {
            memset(f.from + page * PAGE, (int)(200 + round), round * PAGE);
            snapwriter_copy(f.w, page, round, f.from + page * PAGE);
        }
    assert_int_equal(snapwriter_drain(f.w), 0);
    for (u64 page = 0; page < PAGES; page++)
        check_page(&f, page, f.from[page * PAGE]);
    end(&f);
}

static void room_is_what_can_be_copied(void **state)
{
    struct fixture f;
    u64 all;

    begin(&f, open_file());
    all = snapwriter_room(f.w);
    assert_true(all >= 1024);
    snapwriter_lend(f.w, 0, PAGES, f.from);
    for (u64 page = 0; page < all; page++)
        snapwriter_copy(f.w, page, 1, f.from);
    assert_int_equal(snapwriter_drain(f.w), 0);
    assert_int_equal(snapwriter_room(f.w), all);
    end(&f);
}

static void a_full_disk_is_said(void **state)
{
    struct fixture f;

    begin(&f, open("/dev/full", O_RDWR | O_CLOEXEC));
    snapwriter_lend(f.w, 0, PAGES, f.from);
    snapwriter_copy(f.w, 0, PAGES, f.from);
    assert_int_equal(snapwriter_drain(f.w), -ENOSPC);
    snapwriter_copy(f.w, 0, 1, f.from);
    assert_int_equal(snapwriter_drain(f.w), -ENOSPC);
    end(&f);
}

static void a_cancelled_one_writes_nothing(void **state)
{
    struct fixture f;

    begin(&f, open_file());
    atomic_store(&f.cancelled, true);
    snapwriter_lend(f.w, 0, PAGES, f.from);
    assert_int_equal(snapwriter_drain(f.w), -ECANCELED);
    assert_int_equal(lseek(f.fd, 0, SEEK_END), 0);
    end(&f);
}

static void nothing_to_free(void **state)
{
    snapwriter_free(NULL);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(long_and_short_runs), cmocka_unit_test(copies_are_free_at_once),
    cmocka_unit_test(the_last_one_stays),  cmocka_unit_test(room_is_what_can_be_copied),
    cmocka_unit_test(a_full_disk_is_said), cmocka_unit_test(a_cancelled_one_writes_nothing),
    cmocka_unit_test(nothing_to_free),
};

UNIT_MAIN(tests)
