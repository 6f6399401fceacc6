/* The Internet checksum, against its definition word by word. */
#include "net/checksum.h"
#include "unit.h"

static u16 by_definition(const u8 *p, size_t len)
{
    u32 sum = 0;

    for (size_t i = 0; i < len; i++)
        sum += i % 2 ? p[i] : (u32)p[i] << 8;
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (u16)sum;
}

static void test_sum(void **state)
{
    u8 buf[1500];
    u32 x = 1;

    for (size_t i = 0; i < sizeof(buf); i++) {
        x = x * 1664525 + 1013904223;
        buf[i] = (u8)(x >> 24);
    }
    for (size_t len = 0; len < sizeof(buf); len += 1 + len / 9)
        assert_int_equal(checksum_sum(buf + len % 3, len - len % 3),
                         by_definition(buf + len % 3, len - len % 3));
    memset(buf, 0xff, sizeof(buf));
    assert_int_equal(checksum_sum(buf, sizeof(buf)), 0xffff);
}

static void test_finish(void **state)
{
    u8 frame[40] = {0};

    for (unsigned i = 14; i < sizeof(frame); i++)
        frame[i] = (u8)(i * 3);
    frame[30] = 0x12; /* the sum of a pseudo header */
    frame[31] = 0x34;
    checksum_finish(frame, sizeof(frame), 14, 16);
    /* With the checksum in place, everything adds up to the pseudo header's complement: 0xffff. */
    assert_int_equal((checksum_sum(frame + 14, 26) + 0x1234u) % 0xffff, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_sum), cmocka_unit_test(test_finish)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
