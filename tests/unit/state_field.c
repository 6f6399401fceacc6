/* Field tables: encoding, versions, text, and mistakes in a table. */
#include "unit.h"

#include "state_sample.h"

static void test_save_and_load_give_the_same(void **state)
{
    u64 len = state_table_bytes(&sample_table, 2);
    struct sample a, b = {0};
    u8 buf[256], again[256];

    assert_int_equal(state_table_check(&sample_table, NULL), 0);
    assert_int_equal(len, SAMPLE_V1_BYTES + 4);
    sample_fill(&a);
    state_table_save(&sample_table, &a, buf);
    assert_int_equal(state_table_load(&sample_table, 2, buf, &b, NULL), 0);
    state_table_save(&sample_table, &b, again);
    assert_memory_equal(buf, again, len);
    assert_int_equal(b.offset, -5);
    assert_int_equal(b.queue[1].addr, 0x2000);
    assert_memory_equal(a.fifo, b.fifo, sizeof(a.fifo));
}

static void test_encoding_is_packed_and_little_endian(void **state)
{
    struct sample a;
    u8 buf[256];

    sample_fill(&a);
    state_table_save(&sample_table, &a, buf);
    assert_memory_equal(buf, "\xc8\xf8\x03\xfb\xff\xff\xff\x00\x00\xe0\xfe\x00\x00\x00\x00\x01",
                        16);
    assert_int_equal(buf[SAMPLE_V1_BYTES], 77);
}

static void test_older_version_leaves_newer_fields(void **state)
{
    struct sample a, b = {.late = 5};
    u8 buf[256];

    sample_fill(&a);
    state_table_save(&sample_table, &a, buf);
    assert_int_equal(state_table_bytes(&sample_table, 1), SAMPLE_V1_BYTES);
    assert_int_equal(state_table_load(&sample_table, 1, buf, &b, NULL), 0);
    assert_int_equal(b.port, 0x3f8);
    assert_int_equal(b.late, 5);
}

static void test_bool_is_zero_or_one(void **state)
{
    struct err err = ERR_INIT;
    struct sample a, b = {0};
    u8 buf[256];

    sample_fill(&a);
    state_table_save(&sample_table, &a, buf);
    buf[15] = 2;
    assert_int_equal(state_table_load(&sample_table, 2, buf, &b, &err), -EINVAL);
    assert_string_equal(err.msg, "on: neither true nor false");
}

static void test_text(void **state)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    struct sample a;

    assert_non_null(out);
    sample_fill(&a);
    state_table_print(&sample_table, &a, out);
    fclose(out);
    assert_non_null(strstr(text, "  ready: 200\n  port: 1016\n  offset: -5\n  addr: 0xfee00000\n"));
    assert_non_null(strstr(text, "  on: yes\n  reg: 0x1 0xffffffff 0x80000000\n  fifo:\n    0003"));
    assert_non_null(strstr(text, "  queue[].size: 256 128\n"));
    free(text);
}

static void expect_bad(struct field f)
{
    struct state_table t = {.version = 1, .size = 16, .fields = &f, .nfields = 1};

    assert_int_equal(state_table_check(&t, NULL), -EINVAL);
}

static void test_bad_tables_are_found(void **state)
{
    const struct field good = {"x", 8, 4, 2, 4, 1, FIELD_HEX};
    struct field f = good;

    f.count = 3;
    expect_bad(f);
    f = good;
    f.count = UINT32_MAX;
    f.stride = UINT32_MAX;
    expect_bad(f);
    f = good;
    f.size = 3;
    expect_bad(f);
    f = good;
    f.since = 2;
    expect_bad(f);
    f.since = 0;
    expect_bad(f);
    f = good;
    f.kind = FIELD_BOOL;
    expect_bad(f);
    f = good;
    f.stride = 2;
    expect_bad(f);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_save_and_load_give_the_same),
    cmocka_unit_test(test_encoding_is_packed_and_little_endian),
    cmocka_unit_test(test_older_version_leaves_newer_fields),
    cmocka_unit_test(test_bool_is_zero_or_one),
    cmocka_unit_test(test_text),
    cmocka_unit_test(test_bad_tables_are_found),
};
UNIT_MAIN(tests)
