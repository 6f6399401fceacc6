/* The wire format of CRIU's messages: what is written is read back, and nonsense ends the reading. */
#include "unit.h"

#include "container/proto.h"

#include <string.h>

static void test_round_trip(void **state)
{
    static const struct proto_field zero;
    struct proto p = {0}, sub = {0};
    struct proto_field f = zero;
    const u8 *at;
    size_t left;

    proto_u64(&sub, 2, 300);
    proto_u64(&p, 1, 0);
    proto_u64(&p, 68, UINT64_MAX);
    proto_str(&p, 3, "text");
    proto_str(&p, 4, NULL);
    proto_msg(&p, 25, &sub);
    assert_false(p.failed);
    at = p.data;
    left = p.len;
    assert_true(proto_next(&at, &left, &f));
    assert_true(f.field == 1 && f.value == 0 && !f.data);
    assert_true(proto_next(&at, &left, &f));
    assert_true(f.field == 68 && f.value == UINT64_MAX);
    assert_true(proto_next(&at, &left, &f));
    assert_true(f.field == 3 && f.len == 4 && memcmp(f.data, "text", 4) == 0);
    assert_true(proto_next(&at, &left, &f));
    assert_int_equal(f.field, 25);
    assert_memory_equal(f.data, "\x10\xac\x02", 3); /* as the specification's own example has it */
    assert_false(proto_next(&at, &left, &f));
    proto_fini(&sub);
    proto_fini(&p);
}

static void test_nonsense_ends_it(void **state)
{
    static const char *const bad[] = {
        "\x80",                                         /* a key without end */
        "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", /* a number without end */
        "\x0a\005four",                                 /* a string that is shorter than it says */
        "\x0b",                                         /* a group, which nobody uses */
        "\x09\x01",                                     /* half of a number of 8 bytes */
    };

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        const u8 *at = (const u8 *)bad[i];
        size_t left = strlen(bad[i]);
        struct proto_field f = {.field = 77};

        assert_false(proto_next(&at, &left, &f));
        assert_int_equal(f.field, 77);
    }
}

int main(void);
int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_round_trip),
                                       cmocka_unit_test(test_nonsense_ends_it)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
