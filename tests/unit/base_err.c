/* Errors as values: codes, context, cutting, and a NULL object. */
#include "unit.h"

#include "base/err.h"

static void test_set_fills_code_and_message(void **state)
{
    struct err err = ERR_INIT;

    assert_int_equal(err_set(&err, EINVAL, "disk%d: bad", 3), -EINVAL);
    assert_int_equal(err.code, EINVAL);
    assert_string_equal(err.msg, "disk3: bad");
}

static void test_sys_appends_the_reason(void **state)
{
    struct err err = ERR_INIT;

    assert_int_equal(err_sys(&err, ENOENT, "a.img"), -ENOENT);
    assert_string_equal(err.msg, "a.img: No such file or directory");
}

static void test_wrap_puts_context_in_front(void **state)
{
    struct err err = ERR_INIT;

    err_set(&err, EIO, "short read");
    assert_int_equal(err_wrap(&err, "disk%d", 0), -EIO);
    assert_int_equal(err.code, EIO);
    assert_string_equal(err.msg, "disk0: short read");
}

static void test_wrap_never_says_success(void **state)
{
    struct err err = ERR_INIT;

    assert_int_equal(err_wrap(&err, "disk%d", 0), -EIO);
}

static void test_null_object_is_allowed(void **state)
{
    assert_int_equal(err_set(NULL, EINVAL, "x"), -EINVAL);
    assert_int_equal(err_sys(NULL, ENOMEM, "x"), -ENOMEM);
    assert_true(err_wrap(NULL, "x") < 0);
}

static void test_long_messages_are_cut(void **state)
{
    struct err err = ERR_INIT;
    char text[2000];

    memset(text, 'a', sizeof(text));
    text[sizeof(text) - 1] = '\0';
    err_set(&err, EINVAL, "%s", text);
    assert_int_equal(strlen(err.msg), sizeof(err.msg) - 1);
    err_sys(&err, EINVAL, "%s", text);
    assert_int_equal(strlen(err.msg), sizeof(err.msg) - 1);
    err_wrap(&err, "%s", text);
    assert_int_equal(strlen(err.msg), sizeof(err.msg) - 1);
    assert_int_equal(err.code, EINVAL);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_set_fills_code_and_message),
    cmocka_unit_test(test_sys_appends_the_reason),
    cmocka_unit_test(test_wrap_puts_context_in_front),
    cmocka_unit_test(test_wrap_never_says_success),
    cmocka_unit_test(test_null_object_is_allowed),
    cmocka_unit_test(test_long_messages_are_cut),
};
UNIT_MAIN(tests)
