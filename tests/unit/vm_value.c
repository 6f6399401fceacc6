/* Values as people type them: what the command line's tests cannot reach, and comma lists in
 * detail. */
#include "unit.h"

#include "vm/value.h"

static void test_items(void **state)
{
    char text[] = "a,,b,,,c,,,,,";
    char *cursor = text;

    assert_string_equal(value_item(&cursor), "a,b,");
    assert_string_equal(value_item(&cursor), "c,,");
    assert_string_equal(value_item(&cursor), "");
    assert_null(value_item(&cursor));
    assert_null(value_item(&cursor));
}

static void test_quote_and_item_are_inverse(void **state)
{
    static const char *const texts[] = {"", ",", ",,", "a,", ",a", "a,b,,c", "plain"};

    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        char quoted[64];
        char *cursor = quoted;

        value_quote(texts[i], quoted, sizeof(quoted));
        assert_string_equal(value_item(&cursor), texts[i]);
        assert_null(cursor);
    }
}

static void test_quote_stays_in_its_buffer(void **state)
{
    char buf[8];

    memset(buf, 'x', sizeof(buf));
    value_quote(",,,,,,,,,,", buf, sizeof(buf) - 1);
    assert_true(strlen(buf) < sizeof(buf) - 1);
    assert_int_equal(buf[7], 'x');
}

static void test_failure_leaves_the_output(void **state)
{
    struct err err = ERR_INIT;
    u64 value = 42;

    assert_int_equal(value_number("9", 0, 8, &value, &err), -ERANGE);
    assert_int_equal(value_number("18446744073709551616", 0, UINT64_MAX, &value, &err), -EINVAL);
    assert_int_equal(value_number(" 1", 0, 8, &value, &err), -EINVAL);
    assert_int_equal(value_size("17592186044416M", &value, &err), -ERANGE);
    assert_int_equal(value, 42);
    assert_int_equal(value_number("18446744073709551615", 0, UINT64_MAX, &value, &err), 0);
    assert_true(value == UINT64_MAX);
}

static void test_nearest(void **state)
{
    static const char *const words[] = {"kernel", "memory", "cpu", "cpus", NULL};

    assert_string_equal(value_nearest("kernal", words), "kernel");
    assert_string_equal(value_nearest("mmeory", words), "memory");
    assert_string_equal(value_nearest("ker", words), "kernel");
    assert_string_equal(value_nearest("cpuss", words), "cpus");
    assert_null(value_nearest("disk", words));
    assert_null(value_nearest("", words));
    assert_null(value_nearest("a-word-that-is-far-too-long-to-be-compared", words));
}

static void test_sizes_print_as_they_read(void **state)
{
    static const char *const texts[] = {"2M", "3G", "1536M", "4K", "64G"};

    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        struct err err = ERR_INIT;
        u64 bytes = 0;
        char buf[32];

        assert_int_equal(value_size(texts[i], &bytes, &err), 0);
        value_size_print(bytes, buf, sizeof(buf));
        assert_string_equal(buf, texts[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_items),
        cmocka_unit_test(test_quote_and_item_are_inverse),
        cmocka_unit_test(test_quote_stays_in_its_buffer),
        cmocka_unit_test(test_failure_leaves_the_output),
        cmocka_unit_test(test_nearest),
        cmocka_unit_test(test_sizes_print_as_they_read),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
