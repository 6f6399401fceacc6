/*
 * Dates. Years are counted from March, so that the leap day is a year's last and months have a regular pattern: day
 * number of a month's first is (153 m + 2) / 5 for m = 0 (March) to 11. A cycle of 400 years has 146,097 days.
 */
#include "device/calendar.h"

#define DAY_S 86400
#define CYCLE_DAYS 146097
#define EPOCH_DAYS 719468 /* from 1 March of the year 0 to 1 January 1970 */

static s64 floor_div(s64 a, s64 b)
{
    return a / b - (a % b < 0);
}

void calendar_from_s(s64 s, struct calendar *ret)
{
    s64 days = floor_div(s, DAY_S), rest = s - days * DAY_S;
    s64 cycle = floor_div(days + EPOCH_DAYS, CYCLE_DAYS);
    int day = (int)(days + EPOCH_DAYS - cycle * CYCLE_DAYS); /* of the cycle */
    int year = (day - day / 1460 + day / 36524 - day / (CYCLE_DAYS - 1)) / 365;
    int yday = day - (365 * year + year / 4 - year / 100); /* from 1 March */
    int m = (5 * yday + 2) / 153;

    ret->sec = (int)(rest % 60);
    ret->min = (int)(rest / 60 % 60);
    ret->hour = (int)(rest / 3600);
    ret->day = yday - (153 * m + 2) / 5 + 1;
    ret->month = m < 10 ? m + 3 : m - 9;
    ret->year = (int)(cycle * 400) + year + (m >= 10);
    ret->weekday = (int)((days + 4) - floor_div(days + 4, 7) * 7);
}

s64 calendar_to_s(const struct calendar *c)
{
    s64 months = (s64)c->year * 12 + c->month - 3; /* from March of the year 0 */
    s64 year = floor_div(months, 12), cycle = floor_div(year, 400);
    int m = (int)(months - year * 12), y = (int)(year - cycle * 400);
    s64 days = cycle * CYCLE_DAYS + 365 * y + y / 4 - y / 100 + (153 * m + 2) / 5 + c->day - 1 -
               EPOCH_DAYS;

    return days * DAY_S + (s64)c->hour * 3600 + (s64)c->min * 60 + c->sec;
}
