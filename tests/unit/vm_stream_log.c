/* The bounded log: what was written last stays, and it is cut by exactly as much as readers expect. */
#include "unit.h"

#include "vm/stream_log.h"
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static char path[] = "/tmp/unit-log-XXXXXX";

static int setup(void **state)
{
    memcpy(path + sizeof(path) - 7, "XXXXXX", 6);
    int fd = mkstemp(path);

    assert_true(fd >= 0);
    close(fd);
    return 0;
}

static int teardown(void **state)
{
    unlink(path);
    return 0;
}

/* The byte at a place of everything that was ever written. */
static char byte_at(u64 at)
{
    return (char)('a' + (at * 31 + at / 4096) % 26);
}

static void write_up_to(struct stream_log *log, u64 *at, u64 end, size_t step)
{
    static char buf[8 * KiB];

    while (*at < end) {
        size_t n = MIN(step, (size_t)(end - *at));

        for (size_t i = 0; i < n; i++)
            buf[i] = byte_at(*at + i);
        assert_int_equal(stream_log_write(log, buf, n), 0);
        *at += n;
    }
}

/* The file is the end of all that was written up to `at`, and this long. */
static void expect(u64 at, u64 size)
{
    static char buf[LOG_MAX];
    int fd = open(path, O_RDONLY);

    assert_int_equal(read(fd, buf, sizeof(buf)), size);
    for (u64 i = 0; i < size; i++)
        if (buf[i] != byte_at(at - size + i))
            fail_msg("byte %llu of %llu", (unsigned long long)i, (unsigned long long)size);
    close(fd);
}

static void test_bounded(void **state)
{
    struct stream_log log;
    u64 at = 0;

    assert_int_equal(stream_log_open(path, &log, NULL), 0);
    write_up_to(&log, &at, 1000, 7);
    expect(at, 1000);
    write_up_to(&log, &at, LOG_MAX - 1, 4099);
    expect(at, LOG_MAX - 1);
    write_up_to(&log, &at, LOG_MAX + 10, 8000);
    expect(at, LOG_MAX + 10 - LOG_SHIFT);
    write_up_to(&log, &at, 2 * LOG_MAX, 8192);
    expect(at, LOG_MAX - LOG_SHIFT);
    close(log.fd);
}

static void test_goes_on(void **state)
{
    struct stream_log log;
    u64 at = 0;

    assert_int_equal(stream_log_open(path, &log, NULL), 0);
    write_up_to(&log, &at, 5000, 100);
    close(log.fd);
    assert_int_equal(stream_log_open(path, &log, NULL), 0);
    write_up_to(&log, &at, 6000, 100);
    close(log.fd);
    expect(at, 6000);
    /* Somebody else made it huge. */
    assert_int_equal(truncate(path, 3 * LOG_MAX), 0);
    assert_int_equal(stream_log_open(path, &log, NULL), 0);
    at = 0;
    write_up_to(&log, &at, 10, 10);
    close(log.fd);
    expect(at, 10);
}

static void test_errors(void **state)
{
    struct stream_log log = {.fd = open("/dev/full", O_RDWR)};
    struct err err = ERR_INIT;

    if (log.fd >= 0)
        assert_int_equal(stream_log_write(&log, "x", 1), -ENOSPC);
    close(log.fd);
    assert_int_equal(stream_log_open("/nonexistent/log", &log, &err), -ENOENT);
    assert_non_null(strstr(err.msg, "/nonexistent/log"));
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test_setup_teardown(test_bounded, setup, teardown),
    cmocka_unit_test_setup_teardown(test_goes_on, setup, teardown),
    cmocka_unit_test_setup_teardown(test_errors, setup, teardown),
};

UNIT_MAIN(tests)
