/*
 * Dates from seconds and back, UTC, Gregorian. The C library's functions read time zone files on first use, which a
 * machine that has locked itself in cannot.
 */
#ifndef DEVICE_CALENDAR_H
#define DEVICE_CALENDAR_H

#include "base/types.h"

struct calendar {
    int sec, min, hour;
    int day, month, year; /* 1-31, 1-12, all digits */
    int weekday;          /* 0: Sunday */
};

/* seconds since 1970; within some hundred million years of it. */
void calendar_from_s(s64 s, struct calendar *ret);
/* Fields out of their range count on: second 61 is in the next minute, month 13 in the next year. weekday is ignored. */
s64 calendar_to_s(const struct calendar *c);

#endif
