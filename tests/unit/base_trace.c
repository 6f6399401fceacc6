/* Trace points: patterns, and what a line looks like. */
#include "capture.h"

#include "base/trace.h"

#define DEMO_TRACE(X)                                                        \
    X(demo, open, (const char *name), "%s", name)                            \
    X(demo, read, (u64 addr, unsigned size), "0x%" PRIx64 "/%u", addr, size) \
    X(demo, reset, (void), "done")
TRACE_PROBES(DEMO_TRACE)
TRACE_DEFINE(demo, DEMO_TRACE)

static const struct trace_list *const lists[] = {&demo_trace, NULL};

static void hit_all(void)
{
    trace_demo_open("a");
    trace_demo_read(0x10, 4);
    trace_demo_reset();
}

static void expect_lines(const char *patterns, const char *first, const char *second)
{
    char text[1024];

    trace_disable(lists);
    assert_int_equal(trace_enable(lists, patterns, NULL), 0);
    capture_stderr(hit_all, text, sizeof(text));
    if (!first) {
        assert_string_equal(text, "");
        return;
    }
    assert_int_equal(text[0], '[');
    assert_non_null(strstr(text, first));
    if (second)
        assert_non_null(strstr(text, second));
    assert_int_equal(!!strstr(text, "demo.reset"), 0);
}

static void test_patterns_choose(void **state)
{
    expect_lines("", NULL, NULL);
    expect_lines("demo.open", "] demo.open: a\n", NULL);
    expect_lines("demo.open,demo.read", "] demo.open: a\n", "] demo.read: 0x10/4\n");
    expect_lines("*.re[a]d,", "] demo.read: 0x10/4\n", NULL);
    expect_lines(",demo.o*", "] demo.open: a\n", NULL);
}

static void test_names_that_are_not_there(void **state)
{
    char patterns[200];
    struct err err = ERR_INIT;

    assert_int_equal(trace_enable(lists, "demo.open,nothing", &err), -ENOENT);
    assert_string_equal(err.msg, "trace: no trace point is called 'nothing'");
    memset(patterns, 'a', sizeof(patterns));
    patterns[sizeof(patterns) - 1] = '\0';
    assert_int_equal(trace_enable(lists, patterns, &err), -EINVAL);
    trace_disable(lists);
}

static void test_list_of_names(void **state)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);

    trace_print_names(lists, out);
    fclose(out);
    assert_string_equal(text, "demo.open\ndemo.read\ndemo.reset\n");
    free(text);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_patterns_choose),
    cmocka_unit_test(test_names_that_are_not_there),
    cmocka_unit_test(test_list_of_names),
};
UNIT_MAIN(tests)
