/* Where groups go, whatever the configuration says; records of them; lists of processors. */
#include "unit.h"

#include "container/cgroup.h"
#include "container/process.h"

static struct cgroup two(void)
{
    return (struct cgroup){
        .dirs = {{.controllers = "cpu,cpuacct", .mount = "/m/cpu,cpuacct", .own = "/own"},
                 {.controllers = "", .mount = "/m/unified", .own = "/", .v2 = true}},
        .n = 2,
    };
}

static void plan(const char *path, const char *first, const char *second)
{
    struct cgroup cg = two();
    struct pool p = {0};
    struct err err = ERR_INIT;

    assert_int_equal(cgroup_plan(&cg, &p, path, "id", &err), 0);
    assert_string_equal(cg.dirs[0].path, first);
    assert_string_equal(cg.dirs[1].path, second);
    pool_fini(&p);
}

static void test_plan(void **state)
{
    plan(NULL, "/m/cpu,cpuacct/own/id", "/m/unified/id");
    plan("a/b", "/m/cpu,cpuacct/own/a/b", "/m/unified/a/b");
    plan("/a//./b/", "/m/cpu,cpuacct/a/b", "/m/unified/a/b");
    plan("/../../x", "/m/cpu,cpuacct/x", "/m/unified/x");
    plan("a/../../../x", "/m/cpu,cpuacct/own/x", "/m/unified/x");
}

static void test_empty_path(void **state)
{
    struct cgroup cg = two();
    struct pool p = {0};
    struct err err = ERR_INIT;

    assert_int_equal(cgroup_plan(&cg, &p, "/..", "id", &err), -EINVAL);
    pool_fini(&p);
}

static void test_find(void **state)
{
    struct cgroup cg = two();

    assert_ptr_equal(cgroup_find(&cg, "cpu"), &cg.dirs[0]);
    assert_ptr_equal(cgroup_find(&cg, "cpuacct"), &cg.dirs[0]);
    assert_null(cgroup_find(&cg, "cpua"));
    assert_null(cgroup_find(&cg, "memory"));
    assert_ptr_equal(cgroup_v2(&cg), &cg.dirs[1]);
}

static void test_record(void **state)
{
    struct cgroup cg = two(), back = {.n = 0};
    struct err err = ERR_INIT;
    json_t *arr;

    cg.dirs[0].path = "/m/cpu,cpuacct/x";
    cg.dirs[1].path = "/m/unified/x";
    arr = cgroup_to_json(&cg);
    assert_int_equal(cgroup_from_json(&back, arr, &err), 0);
    assert_int_equal(back.n, 2);
    assert_string_equal(back.dirs[1].path, "/m/unified/x");
    assert_true(back.dirs[1].v2 && !back.pure_v2);
    json_object_put(arr);
}

static void test_cpu_lists(void **state)
{
    unsigned long bits[2];

    assert_int_equal(task_parse_list("0-2,5", bits, 128), 0);
    assert_int_equal(bits[0], 0x27);
    assert_int_equal(task_parse_list("127", bits, 128), 0);
    assert_int_equal(task_parse_list("128", bits, 128), -EINVAL);
    assert_int_equal(task_parse_list("3-1", bits, 128), -EINVAL);
    assert_int_equal(task_parse_list("1,x", bits, 128), -EINVAL);
    assert_int_equal(task_parse_list("-1", bits, 128), -EINVAL);
}

int main(void);
int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plan), cmocka_unit_test(test_empty_path), cmocka_unit_test(test_find),
        cmocka_unit_test(test_record), cmocka_unit_test(test_cpu_lists)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
