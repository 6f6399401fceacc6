/* Log lines, read back from a pipe in the place of stderr. */
#include "capture.h"

#include "base/log.h"

static void log_all_levels(void)
{
    errno = EBUSY;
    log_error("e%d", 1);
    log_warn("w");
    log_info("i");
    log_debug("d");
    assert_int_equal(errno, EBUSY);
}

static void log_long_line(void)
{
    char text[4000];

    memset(text, 'x', sizeof(text));
    text[sizeof(text) - 1] = '\0';
    log_error("%s", text);
}

static void test_default_level_is_warn(void **state)
{
    char text[2048];

    capture_stderr(log_all_levels, text, sizeof(text));
    assert_string_equal(text, "trapeze: error: e1\ntrapeze: warning: w\n");
}

static void test_level_can_be_changed(void **state)
{
    char text[2048];

    log_set_level(LOG_DEBUG);
    capture_stderr(log_all_levels, text, sizeof(text));
    log_set_level(LOG_WARN);
    assert_string_equal(
        text, "trapeze: error: e1\ntrapeze: warning: w\ntrapeze: info: i\ntrapeze: debug: d\n");
}

static void test_long_lines_are_cut_but_end(void **state)
{
    char text[4096];

    capture_stderr(log_long_line, text, sizeof(text));
    assert_true(strlen(text) <= 1024);
    assert_int_equal(text[strlen(text) - 1], '\n');
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_default_level_is_warn),
    cmocka_unit_test(test_level_can_be_changed),
    cmocka_unit_test(test_long_lines_are_cut_but_end),
};
UNIT_MAIN(tests)
