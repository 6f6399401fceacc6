/* Filters as the kernel sees them: a child loads one and makes calls. */
#include "unit.h"

#include "container/seccomp.h"

#include <errno.h>
#include <json-c/json.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define NEWER 100000

/* Loads the filter in a child, which calls `nr` and tells the errno, or 0, by its exit status. */
static int errno_under(const char *json, long nr)
{
    json_t *doc = json_tokener_parse(json);
    struct seccomp_prog prog = {0};
    struct err err = ERR_INIT;
    int pid, status;

    assert_non_null(doc);
    assert_int_equal(seccomp_compile(doc, &prog, &err), 0);
    pid = fork();
    if (pid == 0) {
        int listener;

        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        if (seccomp_install(&prog, &listener, &err) < 0)
            syscall(SYS_exit_group, 255);
        syscall(SYS_exit_group, syscall(nr, 0, 0, 0, 0, 0, 0) < 0 ? errno : 0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    munmap(prog.insns, prog.count * 8);
    json_object_put(doc);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

#define ALLOW_EXIT                                                               \
    "\"syscalls\": [{\"names\": [\"exit_group\", \"close_range\"], \"action\": " \
    "\"SCMP_ACT_ALLOW\"}]"

static void test_calls_newer_than_the_filter_do_not_exist(void **state)
{
    static const char list[] = "{\"defaultAction\": \"SCMP_ACT_ERRNO\", " ALLOW_EXIT "}";
    static const char archs[] = "{\"defaultAction\": \"SCMP_ACT_KILL_PROCESS\", \"architectures\": "
                                "[\"SCMP_ARCH_X86\", \"SCMP_ARCH_X32\"], " ALLOW_EXIT "}";

    assert_int_equal(errno_under(list, SYS_getppid), EPERM);
    assert_int_equal(errno_under(list, NEWER), ENOSYS);
    assert_int_equal(errno_under(list, SYS_close_range + 1), ENOSYS);
    assert_int_equal(errno_under(archs, NEWER), ENOSYS);
}

static void test_what_lets_pass_still_does(void **state)
{
    static const char deny[] =
        "{\"defaultAction\": \"SCMP_ACT_ALLOW\", \"syscalls\": "
        "[{\"names\": [\"getppid\"], \"action\": \"SCMP_ACT_ERRNO\", \"errnoRet\": 28}]}";
    static const char none[] = "{\"defaultAction\": \"SCMP_ACT_ERRNO\", \"defaultErrnoRet\": 5, "
                               "\"syscalls\": [{\"names\": [\"exit_group\"], \"action\": "
                               "\"SCMP_ACT_ALLOW\"}]}";

    assert_int_equal(errno_under(deny, SYS_getppid), 28);
    assert_int_equal(errno_under(deny, SYS_getuid), 0);
    assert_int_equal(errno_under(none, SYS_getppid), 5);
}

int main(void);
int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_calls_newer_than_the_filter_do_not_exist),
        cmocka_unit_test(test_what_lets_pass_still_does),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
