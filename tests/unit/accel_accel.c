/* The choice between accelerators: names, reasons, messages. What works here differs from host to host. */
#include "accel/accel.h"
#include "unit.h"

static void refuses_unknown_names(void **state)
{
    const struct accel_ops *ops = NULL;
    struct err err = ERR_INIT;
    char why[128] = "";

    assert_int_equal(accel_choose("xen", &ops, why, sizeof(why), &err), -EINVAL);
    assert_non_null(strstr(err.msg, "'xen'"));
    assert_non_null(strstr(err.msg, "auto"));
    for (unsigned i = 0; accel_list[i]; i++)
        assert_non_null(strstr(err.msg, accel_list[i]->name));
    assert_null(ops);
    assert_string_equal(why, "");
}

static void auto_takes_the_first_that_works(void **state)
{
    const struct accel_ops *ops = NULL;
    struct err err = ERR_INIT;
    char why[256] = "";
    int rc = accel_choose("auto", &ops, why, sizeof(why), &err);

    for (unsigned i = 0; accel_list[i]; i++) {
        struct err reason = ERR_INIT;

        if (accel_list[i]->probe(&reason)) {
            /* What was passed over is said. */
            assert_true(strstr(rc ? err.msg : why, reason.msg) || strlen(reason.msg) > 100);
            continue;
        }
        assert_int_equal(rc, 0);
        assert_ptr_equal(ops, accel_list[i]);
        assert_memory_equal(why, ops->name, strlen(ops->name));
        return;
    }
    assert_int_equal(rc, -ENOTSUP);
}

static void a_name_is_tried_and_not_replaced(void **state)
{
    for (unsigned i = 0; accel_list[i]; i++) {
        const struct accel_ops *ops = NULL;
        struct err err = ERR_INIT, reason = ERR_INIT;
        char why[128] = "";
        int works = accel_list[i]->probe(&reason);
        int rc = accel_choose(accel_list[i]->name, &ops, why, sizeof(why), &err);

        assert_int_equal(rc, works);
        assert_ptr_equal(ops, rc ? NULL : accel_list[i]);
        if (rc)
            assert_non_null(strstr(err.msg, accel_list[i]->name));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_unknown_names),
        cmocka_unit_test(auto_takes_the_first_that_works),
        cmocka_unit_test(a_name_is_tried_and_not_replaced),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
