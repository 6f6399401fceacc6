/* Checked ranges and the cleanup attributes. */
#include "unit.h"

#include <fcntl.h>
#include <unistd.h>

static void test_range_fits(void **state)
{
    assert_true(range_fits(0, 0, 0));
    assert_true(range_fits(0, 10, 10));
    assert_true(range_fits(10, 0, 10));
    assert_false(range_fits(11, 0, 10));
    assert_false(range_fits(1, 10, 10));
    assert_false(range_fits(1, UINT64_MAX, 10));
    assert_false(range_fits(UINT64_MAX, 2, UINT64_MAX));
}

static int open_and_leave(bool keep)
{
    auto_close int fd = open("/dev/null", O_RDONLY);
    auto_free char *buf = calloc(1, 16);
    int number = fd;

    assert_true(fd >= 0 && buf && !*buf);
    if (keep)
        fd = -1;
    errno = ENOTTY;
    return number;
}

static void test_auto_close_closes_and_keeps_errno(void **state)
{
    int fd = open_and_leave(false);

    assert_int_equal(errno, ENOTTY);
    assert_int_equal(fcntl(fd, F_GETFD), -1);
    fd = open_and_leave(true);
    assert_true(fcntl(fd, F_GETFD) >= 0);
    close(fd);
}

static void test_alignment(void **state)
{
    assert_int_equal(ALIGN_UP(4097ull, 4096), 8192);
    assert_int_equal(ALIGN_UP(4096ull, 4096), 4096);
    assert_int_equal(ALIGN_DOWN(0x100001fffull, 4096), 0x100001000ull);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_range_fits),
    cmocka_unit_test(test_auto_close_closes_and_keeps_errno),
    cmocka_unit_test(test_alignment),
};
UNIT_MAIN(tests)
