/* Framing of the snapshot stream, read whole, cut, and damaged; through memory and through a pipe.
 */
#include "unit.h"

#include "state/stream.h"

#include <errno.h>
#include <unistd.h>

static void write_sample(const struct state_sink *to)
{
    assert_int_equal(state_write_head(to, NULL), 0);
    assert_int_equal(state_write_section(to, "serial", 3, 7, "hello", 5, NULL), 0);
    assert_int_equal(state_write_end(to, 1, NULL), 0);
}

static int read_sample(const struct state_source *from, struct err *err)
{
    struct state_section section;
    char bytes[5];
    int rc = state_read_head(from, err);

    if (!rc)
        rc = state_read_section(from, &section, err);
    if (rc)
        return rc;
    if (section.len != 5)
        return -EBADMSG;
    rc = state_read_bytes(from, &section, bytes, err);
    if (rc)
        return rc;
    assert_string_equal(section.name, "serial");
    assert_int_equal(section.instance, 3);
    assert_int_equal(section.version, 7);
    assert_memory_equal(bytes, "hello", 5);
    rc = state_read_section(from, &section, err);
    if (!rc && !state_is_end(&section))
        rc = -EBADMSG;
    return rc ? rc : state_read_bytes(from, &section, bytes, err);
}

static void test_memory_round_trip(void **state)
{
    struct state_buf b = {0};
    struct state_sink to = state_buf_sink(&b);
    struct state_source from = state_buf_source(&b);

    write_sample(&to);
    assert_int_equal(read_sample(&from, NULL), 0);
    assert_int_equal(b.at, b.len);
    state_buf_fini(&b);
    state_buf_fini(&b);
    state_buf_fini(NULL);
}

static void test_pipe_round_trip(void **state)
{
    struct state_source from;
    struct state_sink to;
    int ends[2];

    assert_int_equal(pipe(ends), 0);
    to = state_fd_sink(&ends[1]);
    from = state_fd_source(&ends[0]);
    write_sample(&to);
    close(ends[1]);
    assert_int_equal(read_sample(&from, NULL), 0);
    assert_int_equal(read_sample(&from, NULL), -ENODATA);
    close(ends[0]);
    assert_int_equal(state_write_head(&to, NULL), -EBADF);
}

static void test_every_cut_is_noticed(void **state)
{
    struct state_buf b = {0};
    struct state_sink to = state_buf_sink(&b);
    struct state_source from = state_buf_source(&b);
    size_t whole;

    write_sample(&to);
    whole = b.len;
    for (b.len = 0; b.len < whole; b.len++) {
        struct err err = ERR_INIT;

        b.at = 0;
        assert_int_equal(read_sample(&from, &err), -ENODATA);
        assert_non_null(strstr(err.msg, "ends too early"));
    }
    state_buf_fini(&b);
}

static void test_every_damaged_byte_is_noticed(void **state)
{
    struct state_buf b = {0};
    struct state_sink to = state_buf_sink(&b);
    struct state_source from = state_buf_source(&b);

    write_sample(&to);
    for (size_t i = 0; i < b.len; i++) {
        b.at = 0;
        b.data[i] ^= 0x20;
        assert_true(read_sample(&from, NULL) < 0);
        b.data[i] ^= 0x20;
    }
    state_buf_fini(&b);
}

/* More than the checker takes at once. */
static void test_bytes_nobody_keeps_are_checked(void **state)
{
    enum { LEN = 10000 };
    struct state_buf b = {0};
    struct state_sink to = state_buf_sink(&b);
    struct state_source from = state_buf_source(&b);
    struct state_section section;
    struct err err = ERR_INIT;
    u8 bytes[LEN];

    for (unsigned i = 0; i < LEN; i++)
        bytes[i] = (u8)(i * 7);
    assert_int_equal(state_write_section(&to, "sums", 0, 1, bytes, LEN, NULL), 0);
    for (size_t bad = b.len - LEN - 4; bad < b.len; bad += 999) {
        b.data[bad] ^= 1;
        b.at = 0;
        assert_int_equal(state_read_section(&from, &section, NULL), 0);
        assert_int_equal(state_check_bytes(&from, &section, NULL), -EBADMSG);
        b.data[bad] ^= 1;
    }
    b.at = 0;
    assert_int_equal(state_read_section(&from, &section, NULL), 0);
    assert_int_equal(state_check_bytes(&from, &section, NULL), 0);
    assert_int_equal(b.at, b.len);
    b.at = b.len - 5;
    assert_int_equal(state_check_bytes(&from, &section, &err), -ENODATA);
    state_buf_fini(&b);
}

static void test_bad_names_are_not_written(void **state)
{
    struct state_buf b = {0};
    struct state_sink to = state_buf_sink(&b);

    assert_int_equal(state_write_section(&to, "", 0, 1, NULL, 0, NULL), -EINVAL);
    assert_int_equal(
        state_write_section(&to, "a-name-of-thirty-two-characters!", 0, 1, NULL, 0, NULL), -EINVAL);
    assert_int_equal(b.len, 0);
    state_buf_fini(&b);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_memory_round_trip),
    cmocka_unit_test(test_pipe_round_trip),
    cmocka_unit_test(test_every_cut_is_noticed),
    cmocka_unit_test(test_every_damaged_byte_is_noticed),
    cmocka_unit_test(test_bytes_nobody_keeps_are_checked),
    cmocka_unit_test(test_bad_names_are_not_written),
};
UNIT_MAIN(tests)
