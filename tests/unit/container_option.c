/* Options as Go's flag package reads them. */
#include "unit.h"

#include "container/option.h"

struct parsed {
    struct pool pool;
    bool flag;
    const char *value;
    struct strv list;
    struct err err;
};

static int parse(struct parsed *p, int argc, char **argv)
{
    const struct option opts[] = {
        {"flag", 'f', OPTION_FLAG, &p->flag, NULL, ""},
        {"value", 0, OPTION_VALUE, &p->value, NULL, ""},
        {"list", 'l', OPTION_LIST, &p->list, NULL, ""},
    };
    int at = 1;
    int rc = option_parse(&p->pool, opts, ARRAY_LEN(opts), argc, argv, &at, &p->err);

    return rc < 0 ? rc : at;
}

#define PARSE(p, ...) \
    parse(p, ARRAY_LEN(((char *[]){"x", __VA_ARGS__})), (char *[]){"x", __VA_ARGS__, NULL})

static void test_forms(void **state)
{
    struct parsed p = {0};

    assert_int_equal(PARSE(&p, "-flag", "--value=a=b", "-l", "1", "--list", "2", "rest", "-f"), 7);
    assert_true(p.flag);
    assert_string_equal(p.value, "a=b");
    assert_int_equal(p.list.n, 2);
    assert_string_equal(p.list.v[1], "2");
    assert_null(p.list.v[2]);
    assert_int_equal(PARSE(&p, "--flag=false", "--", "-f"), 3);
    assert_false(p.flag);
    pool_fini(&p.pool);
}

static void test_refusals(void **state)
{
    struct parsed p = {0};

    assert_int_equal(PARSE(&p, "--other"), -EINVAL);
    assert_string_equal(p.err.msg, "flag provided but not defined: -other");
    assert_int_equal(PARSE(&p, "--value"), -EINVAL);
    assert_string_equal(p.err.msg, "flag needs an argument: -value");
    assert_int_equal(PARSE(&p, "--flag=maybe"), -EINVAL);
    pool_fini(&p.pool);
}

int main(void);
int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_forms),
                                       cmocka_unit_test(test_refusals)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
