/* What a machine from a snapshot touches first is noted, and brought to the next one; lists that lie do no harm. */
#include "snapshot_files.h"

#include "mem/dirty.h"
#include "vm/snapshot/working_set.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <zlib.h>

/* As it stands in the file. */
struct list {
    char magic[8];
    u32 sum, whole, count, page[WORKING_SET_PAGES];
};

/* A machine of a snapshot that has some of its pages. */
struct machine {
    struct snapchain *chain;
    struct gmem ram;
    struct working_set *set;
};

static const int some[] = {1, 3, 7, 9, 64, 900, 1023, -1};

static int enter(void *opaque)
{
    return opaque ? -EPERM : 0;
}

static void make_of(struct machine *m, struct files f, int list_fd, bool locked_out)
{
    u64 bits[PAGES / 64] = {0};

    *m = (struct machine){.chain = snapchain_new("one", NULL)};
    assert_int_equal(snapchain_add(m->chain, f.memory, f.map, RAM, NULL), 0);
    assert_int_equal(snapchain_ready(m->chain, NULL), 0);
    assert_int_equal(gmem_init(&m->ram, RAM, NULL), 0);
    struct lazy_source source = {snapchain_fetch, m->chain};
    m->chain->ram = &m->ram;
    snapchain_bits(m->chain, bits);
    assert_int_equal(lazy_begin(&m->ram, &source, bits, NULL), 0);
    m->set = working_set_start(m->chain, dup(list_fd), enter, locked_out ? m : NULL);
    assert_non_null(m->set);
}

static void make(struct machine *m, const int *pages, int list_fd, bool locked_out)
{
    make_of(m, snapshot_of(pages, NULL, 0), list_fd, locked_out);
}

static void end(struct machine *m)
{
    working_set_free(m->set);
    gmem_fini(&m->ram);
    snapchain_free(m->chain);
}

static void touch(struct machine *m, u64 page)
{
    assert_int_equal(lazy_fetch(&m->ram, page, 1), 0);
}

static bool absent(const struct machine *m, u64 page)
{
    return lazy_absent(&m->ram, page * SNAPMAP_PAGE);
}

/* The thread brings it, some time. */
static void expect_brought(const struct machine *m, u64 page)
{
    while (absent(m, page))
        sched_yield();
    assert_memory_equal(m->ram.base + page * SNAPMAP_PAGE, page_of((u8)page), SNAPMAP_PAGE);
}

static struct list read_list(int fd)
{
    struct list l = {.magic = "nothing"};

    assert_int_equal(pread(fd, &l, sizeof(l), 0), sizeof(l));
    return l;
}

static void write_list(int fd, struct list *l)
{
    memcpy(l->magic, "TRZWSET1", 8);
    l->sum = (u32)crc32_z(0, (const u8 *)&l->whole, sizeof(*l) - offsetof(struct list, whole));
    assert_int_equal(pwrite(fd, l, sizeof(*l), 0), sizeof(*l));
}

static void expect_list(int fd, const u32 *pages, u32 count, bool whole)
{
    struct list l = read_list(fd);

    assert_int_equal(l.count, count);
    assert_int_equal(l.whole, whole);
    assert_memory_equal(l.page, pages, count * sizeof(*pages));
}

/* Of a machine that ends early there is a list that is not whole: the next one makes it longer. */
static void test_the_next_machine_gets_what_the_first_one_touched(void **state)
{
    int fd = memfd_create("list", 0);
    struct machine m;

    make(&m, some, fd, false);
    touch(&m, 64);
    touch(&m, 7);
    touch(&m, 2); /* never was absent */
    end(&m);
    expect_list(fd, (u32[]){64, 7}, 2, false);
    make(&m, some, fd, false);
    expect_brought(&m, 64);
    expect_brought(&m, 7);
    assert_true(absent(&m, 3) && absent(&m, 900));
    touch(&m, 900);
    end(&m);
    expect_list(fd, (u32[]){64, 7, 900}, 3, false);
    close(fd);
}

static void test_after_the_first_second_the_list_is_whole(void **state)
{
    int fd = memfd_create("list", 0);
    struct machine m;

    make(&m, some, fd, false);
    touch(&m, 9);
    for (struct list l = {.count = 0}; pread(fd, &l, sizeof(l), 0) != sizeof(l);)
        sched_yield();
    touch(&m, 1); /* later */
    end(&m);
    expect_list(fd, (u32[]){9}, 1, true);
    make(&m, some, fd, false);
    expect_brought(&m, 9);
    touch(&m, 3);
    end(&m);
    expect_list(fd, (u32[]){9}, 1, true);
    close(fd);
}

static void test_no_more_than_there_is_room_for(void **state)
{
    int fd = memfd_create("list", 0), pages[PAGES + 1];
    struct list full = {.count = WORKING_SET_PAGES - 1};
    struct machine m;

    for (unsigned i = 0; i < PAGES; i++)
        pages[i] = (int)i;
    pages[PAGES] = -1;
    for (unsigned i = 0; i < WORKING_SET_PAGES; i++)
        full.page[i] = i % 64;
    write_list(fd, &full);
    make(&m, pages, fd, false);
    expect_brought(&m, 63);
    for (unsigned i = 64; i < PAGES; i++)
        touch(&m, i);
    end(&m);
    struct list got = read_list(fd);
    assert_int_equal(got.count, WORKING_SET_PAGES);
    assert_int_equal(got.page[WORKING_SET_PAGES - 1], 64);
    close(fd);
}

/* Pages that there are not, a count that is too large; then lists that are none. */
static void test_lists_that_lie(void **state)
{
    int fd = memfd_create("list", 0);
    struct list lie = {.whole = 1, .count = UINT32_MAX, .page = {UINT32_MAX, PAGES, 0x80000000, 2, 3, 3}};
    struct machine m;

    write_list(fd, &lie);
    make(&m, some, fd, false);
    expect_brought(&m, 3);
    end(&m);

    lie.page[0] = 7; /* and the sum is that of before */
    assert_int_equal(pwrite(fd, &lie, sizeof(lie), 0), sizeof(lie));
    make(&m, some, fd, false);
    touch(&m, 900);
    end(&m);
    expect_list(fd, (u32[]){900}, 1, false);

    assert_int_equal(ftruncate(fd, sizeof(lie) - 1), 0);
    make(&m, some, fd, false);
    end(&m);
    expect_list(fd, NULL, 0, false);
    close(fd);
}

static void test_a_damaged_page_is_left_to_who_touches_it(void **state)
{
    int fd = memfd_create("list", 0);
    struct list l = {.whole = 1, .count = 2, .page = {7, 9}};
    struct machine m;

    write_list(fd, &l);
    struct files f = snapshot_of(some, NULL, 0);
    assert_int_equal(pwrite(f.memory, "x", 1, 7 * SNAPMAP_PAGE), 1);
    make_of(&m, f, fd, false);
    expect_brought(&m, 9);
    assert_true(absent(&m, 7));
    assert_int_equal(lazy_fetch(&m.ram, 7, 1), -EBADMSG);
    end(&m);
    close(fd);
}

/* A list that cannot be written, a thread that cannot be locked in: the machine does without. */
static void test_a_machine_does_without(void **state)
{
    char path[] = "/tmp/working-set-XXXXXX";
    int fd = mkstemp(path), read_only = open(path, O_RDONLY);
    struct list l = {.whole = 0, .count = 1, .page = {7}};
    struct machine m;

    write_list(fd, &l);
    make(&m, some, read_only, false);
    expect_brought(&m, 7);
    touch(&m, 9);
    end(&m);
    expect_list(fd, (u32[]){7}, 1, false);
    make(&m, some, fd, true);
    touch(&m, 9);
    end(&m);
    expect_list(fd, (u32[]){7}, 1, false);
    close(fd);
    close(read_only);
    unlink(path);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_the_next_machine_gets_what_the_first_one_touched),
    cmocka_unit_test(test_after_the_first_second_the_list_is_whole),
    cmocka_unit_test(test_no_more_than_there_is_room_for),
    cmocka_unit_test(test_lists_that_lie),
    cmocka_unit_test(test_a_damaged_page_is_left_to_who_touches_it),
    cmocka_unit_test(test_a_machine_does_without),
};
UNIT_MAIN(tests)
