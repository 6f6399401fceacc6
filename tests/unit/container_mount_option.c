/* Mount options as words. */
#include "unit.h"

#include "container/mount.h"
#include "container/sys.h"

static struct mount_opts parse(struct pool *p, const char *words)
{
    struct strv list = {0};
    struct mount_opts o;
    struct err err = ERR_INIT;
    char *copy = pool_str(p, words), *save = NULL;

    for (char *w = strtok_r(copy, " ", &save); w; w = strtok_r(NULL, " ", &save))
        pool_strv_add(p, &list, w);
    assert_int_equal(mount_opts_parse(p, &list, &o, &err), 0);
    return o;
}

static void test_words(void **state)
{
    struct pool p = {0};
    struct mount_opts o =
        parse(&p, "rbind rro nosuid noatime rslave mode=700 sync defaults tmpcopyup");

    assert_true(o.bind && o.recursive && o.copy_up && o.has_mode);
    assert_true(o.rec_set == MOUNT_ATTR_RDONLY);
    assert_true(o.attr_set == (MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOATIME));
    assert_true(o.attr_clr == MOUNT_ATTR__ATIME);
    assert_true(o.propagation == SYS_MS_SLAVE && o.propagation_rec);
    assert_int_equal(o.data.n, 2);
    pool_fini(&p);
}

static void test_last_word_counts(void **state)
{
    struct pool p = {0};

    assert_true(parse(&p, "ro rw").attr_set == 0);
    assert_true(parse(&p, "rw ro").attr_set == MOUNT_ATTR_RDONLY);
    assert_true(parse(&p, "rw ro").attr_clr == 0);
    assert_true(parse(&p, "noatime strictatime").attr_set == MOUNT_ATTR_STRICTATIME);
    assert_true(parse(&p, "shared private").propagation == SYS_MS_PRIVATE);
    pool_fini(&p);
}

static void test_every_name_is_known(void **state)
{
    struct pool p = {0};

    for (size_t i = 0; mount_opts_name(i); i++) {
        struct mount_opts o = parse(&p, mount_opts_name(i));
        bool sb = o.data.n == 1;

        /* What is listed as an option must not end up as an unknown parameter, superblock flags apart. */
        if (sb)
            assert_non_null(
                strstr("async sync dirsync lazytime nolazytime mand nomand", mount_opts_name(i)));
    }
    pool_fini(&p);
}

int main(void);
int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_words),
                                       cmocka_unit_test(test_last_word_counts),
                                       cmocka_unit_test(test_every_name_is_known)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
