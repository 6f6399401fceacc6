/*
 * Switching trace points and printing their lines. A line leaves in one write(), so that lines of
 * several threads never mix. The time is CLOCK_MONOTONIC, the clock of the timers.
 */
#include "base/trace.h"

#include <errno.h>
#include <fnmatch.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Switches on every point with such a name; how many there were. */
static unsigned enable_pattern(const struct trace_list *const *lists, const char *pattern)
{
    unsigned found = 0;

    for (; *lists; lists++) {
        for (struct trace_point *const *p = (*lists)->points; *p; p++) {
            if (fnmatch(pattern, (*p)->name, 0))
                continue;
            (*p)->on = true;
            found++;
        }
    }
    return found;
}

int trace_enable(const struct trace_list *const *lists, const char *patterns, struct err *err)
{
    while (*patterns) {
        size_t len = strcspn(patterns, ",");
        char pattern[64];

        if (len >= sizeof(pattern))
            return err_set(err, EINVAL, "trace: '%.*s...' is too long for a name", 60, patterns);
        memcpy(pattern, patterns, len);
        pattern[len] = '\0';
        if (len && !enable_pattern(lists, pattern))
            return err_set(err, ENOENT, "trace: no trace point is called '%s'", pattern);
        patterns += len;
        patterns += *patterns == ',';
    }
    return 0;
}

void trace_disable(const struct trace_list *const *lists)
{
    for (; *lists; lists++) {
        for (struct trace_point *const *p = (*lists)->points; *p; p++)
            (*p)->on = false;
    }
}

void trace_print_names(const struct trace_list *const *lists, FILE *out)
{
    for (; *lists; lists++) {
        for (struct trace_point *const *p = (*lists)->points; *p; p++)
            fprintf(out, "%s\n", (*p)->name);
    }
}

void trace_emit(const struct trace_point *p, const char *fmt, ...)
{
    int saved = errno, used, more;
    struct timespec ts;
    char line[512];
    va_list ap;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    used = snprintf(line, sizeof(line), "[%lld.%06ld] %s: ", (long long)ts.tv_sec,
                    ts.tv_nsec / 1000, p->name);
    va_start(ap, fmt);
    more = vsnprintf(line + used, sizeof(line) - (size_t)used, fmt, ap);
    va_end(ap);
    used = MIN(used + MAX(more, 0), (int)sizeof(line) - 1);
    line[used++] = '\n';
    (void)!write(STDERR_FILENO, line, (size_t)used);
    errno = saved;
}
