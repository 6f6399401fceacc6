/*
 * Log lines. Each is put together in one buffer and leaves in one write(), so that lines of several
 * threads never mix. The level is one of the two mutable globals that the project allows (the
 * other: trace switches).
 */
#include "base/log.h"

#include "base/types.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

static _Atomic int max_level = LOG_WARN;

void log_set_level(enum log_level level)
{
    atomic_store_explicit(&max_level, (int)level, memory_order_relaxed);
}

void log_msg(enum log_level level, const char *fmt, ...)
{
    static const char *const names[] = {"error", "warning", "info", "debug"};
    int saved = errno;
    char line[1024];
    int used, more;
    va_list ap;

    if ((int)level > atomic_load_explicit(&max_level, memory_order_relaxed))
        return;
    used = snprintf(line, sizeof(line), "trapeze: %s: ", names[level]);
    va_start(ap, fmt);
    more = vsnprintf(line + used, sizeof(line) - (size_t)used, fmt, ap);
    va_end(ap);
    /* A line that is too long is cut; the newline is always there. */
    used = MIN(used + MAX(more, 0), (int)sizeof(line) - 1);
    line[used++] = '\n';
    /* Nobody is left to tell when stderr is gone. */
    (void)!write(STDERR_FILENO, line, (size_t)used);
    errno = saved;
}
