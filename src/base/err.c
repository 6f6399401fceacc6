/*
 * Errors as values. A message that does not fit is cut; the code never gets lost.
 * Runs in any thread; the object is the caller's.
 */
#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void format(char *buf, size_t size, const char *fmt, va_list ap)
{
    if (vsnprintf(buf, size, fmt, ap) < 0)
        buf[0] = '\0';
}

/* Appends as much as fits. */
static void append(char *buf, size_t size, const char *more)
{
    size_t used = strlen(buf);

    snprintf(buf + used, size - used, "%s", more);
}

int err_set(struct err *err, int code, const char *fmt, ...)
{
    va_list ap;

    if (!err)
        return -code;
    err->code = code;
    va_start(ap, fmt);
    format(err->msg, sizeof(err->msg), fmt, ap);
    va_end(ap);
    return -code;
}

int err_sys(struct err *err, int code, const char *fmt, ...)
{
    char reason[128];
    va_list ap;

    if (!err)
        return -code;
    err->code = code;
    va_start(ap, fmt);
    format(err->msg, sizeof(err->msg), fmt, ap);
    va_end(ap);
    append(err->msg, sizeof(err->msg), ": ");
    append(err->msg, sizeof(err->msg), strerror_r(code, reason, sizeof(reason)));
    return -code;
}

int err_wrap(struct err *err, const char *fmt, ...)
{
    char inner[sizeof(err->msg)];
    va_list ap;

    /* Without an object the code is lost to us as well; the caller asked for no reason. */
    if (!err)
        return -EIO;
    memcpy(inner, err->msg, sizeof(inner));
    va_start(ap, fmt);
    format(err->msg, sizeof(err->msg), fmt, ap);
    va_end(ap);
    append(err->msg, sizeof(err->msg), ": ");
    append(err->msg, sizeof(err->msg), inner);
    /* Whoever failed without saying so still failed: never turn that into success. */
    if (!err->code)
        err->code = EIO;
    return -err->code;
}
