/* Dates against the C library's, over all the years a clock of two BCD bytes can show. */
#include "device/calendar.h"
#include "unit.h"
#include <time.h>

static void test_against_libc(void **state)
{
    for (s64 s = -62167219200; s < 253402300800; s += 86400 * 3 + 4321) { /* years 0 to 9999 */
        time_t t = (time_t)s;
        struct calendar c;
        struct tm tm;

        assert_non_null(gmtime_r(&t, &tm));
        calendar_from_s(s, &c);
        assert_int_equal(c.sec, tm.tm_sec);
        assert_int_equal(c.min, tm.tm_min);
        assert_int_equal(c.hour, tm.tm_hour);
        assert_int_equal(c.day, tm.tm_mday);
        assert_int_equal(c.month, tm.tm_mon + 1);
        assert_int_equal(c.year, tm.tm_year + 1900);
        assert_int_equal(c.weekday, tm.tm_wday);
        assert_true(calendar_to_s(&c) == s);
    }
}

static void test_fields_out_of_range(void **state)
{
    struct calendar c = {.sec = 75, .min = 200, .hour = 30, .day = 40, .month = 14, .year = 2023},
                    back;

    calendar_from_s(calendar_to_s(&c), &back);
    assert_int_equal(back.year,
                     2024); /* month 14 of 2023 is February 2024, its day 40 is 11 March ... */
    assert_int_equal(back.month, 3);
    assert_int_equal(back.day, 12);
    assert_int_equal(back.hour, 9);
    assert_int_equal(back.min, 21);
    assert_int_equal(back.sec, 15);
    c = (struct calendar){.month = 0, .day = 0, .year = 0};
    calendar_to_s(&c);
    c = (struct calendar){
        .month = 255, .day = 255, .hour = 255, .min = 255, .sec = 255, .year = 25755};
    calendar_from_s(calendar_to_s(&c), &back);
    assert_int_equal(back.year, 25776);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_against_libc),
    cmocka_unit_test(test_fields_out_of_range),
};

UNIT_MAIN(tests)
