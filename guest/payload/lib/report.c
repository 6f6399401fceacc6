/* Output, TAP lines and the end of the run. One thread; no state but the counters. */
#include "payload.h"
#include <stdarg.h>

static unsigned cases, failures;

static void put(char c)
{
    outb(PORT_DEBUG, (u8)c);
}

static void put_number(unsigned long v, unsigned base)
{
    char digits[24];
    unsigned n = 0;

    do {
        digits[n++] = "0123456789abcdef"[v % base];
        v /= base;
    } while (v);
    while (n)
        put(digits[--n]);
}

static void put_signed(long v)
{
    if (v < 0)
        put('-');
    put_number(v < 0 ? -(unsigned long)v : (unsigned long)v, 10);
}

void say(const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    for (; *fmt; fmt++) {
        bool wide = false;

        if (*fmt != '%') {
            put(*fmt);
            continue;
        }
        if (*++fmt == 'l') {
            wide = true;
            fmt++;
        }
        if (*fmt == 's')
            for (const char *s = va_arg(args, const char *); *s; s++)
                put(*s);
        else if (*fmt == 'c')
            put((char)va_arg(args, int));
        else if (*fmt == 'd')
            put_signed(wide ? va_arg(args, long) : va_arg(args, int));
        else
            put_number(wide ? va_arg(args, unsigned long) : va_arg(args, unsigned),
                       *fmt == 'x' ? 16 : 10);
    }
    va_end(args);
}

/* The start of a TAP line. A '#' would begin a directive, so "#PF" is said as "PF". */
static void say_case(bool ok, const char *name)
{
    cases++;
    say("%s %u - ", ok ? "ok" : "not ok", cases);
    for (; *name; name++)
        if (*name != '#')
            put(*name);
}

void report(bool ok, const char *name)
{
    failures += !ok;
    say_case(ok, name);
    put('\n');
}

void report_skip(const char *name, const char *why)
{
    say_case(true, name);
    say(" # SKIP %s\n", why);
}

static void say_plan(void)
{
    static bool said;

    if (!said)
        say("1..%u\n", cases);
    said = true;
}

void finish(void)
{
    say_plan();
    for (;;)
        outl(PORT_EXIT, failures != 0);
}

void expect_shutdown(void)
{
    say_plan();
    say("# expect-shutdown\n");
    if (failures)
        finish();
}
