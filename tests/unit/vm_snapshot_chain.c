/* Memory of a chain of snapshots: which link has a page, its bytes and its checksum, and files that lie. */
#include "snapshot_files.h"

#include <errno.h>
#include <zstd.h>

/* One chunk, of its pages 1 and 3. */
static struct files packed_snapshot(u64 chunk)
{
    struct files f = {memfd_create("memory", 0), memfd_create("map", 0)};
    u8 pages[2 * SNAPMAP_PAGE], packed[ZSTD_COMPRESSBOUND(sizeof(pages))];
    struct snapmap m;

    assert_int_equal(snapmap_init(&m, RAM, false, true, NULL), 0);
    for (unsigned i = 0; i < 2; i++) {
        u64 page = chunk * SNAPMAP_CHUNK + 1 + 2 * i;

        memcpy(pages + i * SNAPMAP_PAGE, page_of((u8)page), SNAPMAP_PAGE);
        snapmap_set(m.present, page, true);
        m.sum[page] = snapmap_sum(page_of((u8)page));
    }
    size_t len = ZSTD_compress(packed, sizeof(packed), pages, sizeof(pages), 1);
    m.chunk[chunk] = (struct snapmap_chunk){.at = 0, .len = (u32)len};
    assert_int_equal(pwrite(f.memory, packed, len, 0), len);
    put_map(&f, &m);
    snapmap_fini(&m);
    return f;
}

static int add(struct snapchain *c, struct files f, struct err *err)
{
    return snapchain_add(c, f.memory, f.map, RAM, err);
}

static void expect(struct snapchain *c, u64 page, unsigned who, u8 value)
{
    u8 got[SNAPMAP_PAGE];
    u32 sums[64];

    assert_int_equal(snapchain_who(c, page), who);
    assert_int_equal(snapchain_page(c, page, got), 0);
    assert_int_equal(snapchain_sums(c, page / 64, sums), 0);
    if (who) {
        assert_memory_equal(got, page_of(value), SNAPMAP_PAGE);
        assert_int_equal(sums[page % 64], snapmap_sum(got));
    } else {
        assert_true(snapmap_is_zero(got));
        assert_int_equal(sums[page % 64], 0);
    }
}

/* The same page in all three, zeroed in the middle, gone and there again. */
static void test_the_youngest_link_wins(void **state)
{
    static const int full[] = {0, 1, 63, 64, 65, 200, 1023, -1}, middle[] = {1, 64, 300, -1},
                     middle_zero[] = {63, 65, -1}, last[] = {65, 64, -1}, last_zero[] = {300, -1};
    struct snapchain *c = snapchain_new("three", NULL);
    u64 bits[PAGES / 64] = {0};

    assert_int_equal(add(c, snapshot_of(last, last_zero, 20), NULL), 0);
    assert_int_equal(add(c, snapshot_of(middle, middle_zero, 10), NULL), 0);
    assert_int_equal(add(c, snapshot_of(full, NULL, 0), NULL), 0);
    assert_int_equal(snapchain_ready(c, NULL), 0);
    expect(c, 0, 3, 0);
    expect(c, 1, 2, 11);
    expect(c, 2, 0, 0);
    expect(c, 63, 0, 0);
    expect(c, 64, 1, 84);
    expect(c, 65, 1, 85);
    expect(c, 200, 3, 200);
    expect(c, 300, 0, 0);
    expect(c, 1023, 3, (u8)1023);
    snapchain_bits(c, bits);
    for (u64 page = 0; page < PAGES; page++)
        assert_int_equal(snapmap_has(bits, page), snapchain_who(c, page) != 0);
    assert_int_equal(snapmap_count(bits, PAGES), 6);
    snapchain_free(c);
}

static void test_a_packed_snapshot(void **state)
{
    struct snapchain *c = snapchain_new("packed", NULL);

    assert_int_equal(add(c, packed_snapshot(5), NULL), 0);
    assert_int_equal(snapchain_ready(c, NULL), 0);
    expect(c, 80, 0, 0);
    expect(c, 81, 1, 81);
    expect(c, 82, 0, 0);
    expect(c, 83, 1, 83);
    snapchain_free(c);
}

static void test_links_stand_in_order(void **state)
{
    static const int some[] = {1, -1}, none[] = {-1};
    struct snapchain *c = snapchain_new("two full", NULL);

    assert_int_equal(add(c, snapshot_of(some, NULL, 0), NULL), 0);
    assert_int_equal(add(c, snapshot_of(some, NULL, 0), NULL), 0);
    assert_int_equal(snapchain_ready(c, NULL), -EBADMSG);
    snapchain_free(c);
    c = snapchain_new("none is full", NULL);
    assert_int_equal(add(c, snapshot_of(some, none, 0), NULL), 0);
    assert_int_equal(snapchain_ready(c, NULL), -EBADMSG);
    snapchain_free(c);
}

/* Damage to a page is noticed when it is read; to any byte of the map, when it is opened. */
static void test_damage_is_noticed(void **state)
{
    static const int some[] = {7, 900, -1};
    struct files f = snapshot_of(some, NULL, 0);
    struct snapchain *c = snapchain_new("damaged", NULL);
    u8 page[SNAPMAP_PAGE], byte;
    off_t len = lseek(f.map, 0, SEEK_END);

    for (off_t at = 0; at < len; at++) {
        struct files bad = {dup(f.memory), dup(f.map)};

        assert_int_equal(pread(f.map, &byte, 1, at), 1);
        byte ^= 4;
        assert_int_equal(pwrite(f.map, &byte, 1, at), 1);
        assert_true(add(c, bad, NULL) < 0);
        byte ^= 4;
        assert_int_equal(pwrite(f.map, &byte, 1, at), 1);
    }
    assert_int_equal(add(c, f, NULL), 0);
    assert_int_equal(snapchain_ready(c, NULL), 0);
    assert_int_equal(pwrite(c->layer[0].memory, "x", 1, 7 * SNAPMAP_PAGE + 100), 1);
    assert_int_equal(snapchain_page(c, 7, page), -EBADMSG);
    expect(c, 900, 1, (u8)900);
    assert_int_equal(ftruncate(c->layer[0].map_fd, 100), 0); /* cut after it was opened */
    assert_int_equal(snapchain_page(c, 900, page), -EIO);
    snapchain_free(c);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_the_youngest_link_wins),
    cmocka_unit_test(test_a_packed_snapshot),
    cmocka_unit_test(test_links_stand_in_order),
    cmocka_unit_test(test_damage_is_noticed),
};
UNIT_MAIN(tests)
