/*
 * Log lines like runc's: `time="..." level=error msg="..."`, or {"level":"error","msg":"...","time":"..."}.
 * containerd's shim and conmon read the last JSON line with level error and show its msg to the user.
 * When the log is a file, errors also go to standard error as plain text.
 */
#include "container/report.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *const level_names[] = {"debug", "warning", "error"};

/* The log is where errors end up, so it cannot hang off an object that may fail to exist. */
static struct {
    int fd;
    bool json, debug;
} report_log = {STDERR_FILENO, false, false};

int report_open(const char *path, bool json, bool debug, struct err *err)
{
    int fd = STDERR_FILENO;

    if (path && path[0]) {
        fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
        if (fd < 0)
            return err_sys(err, errno, "open %s", path);
    }
    report_log.fd = fd;
    report_log.json = json;
    report_log.debug = debug;
    return 0;
}

void report_escape(char *buf, size_t size, const char *s)
{
    size_t used = 0;

    for (; *s && used + 7 < size; s++) {
        unsigned char c = (unsigned char)*s;
        const char *format = c == '"' || c == '\\' ? "\\%c" : c == '\n' ? "\\n" : "%c";

        if (c != '\n' && (c < 0x20 || c == 0x7f))
            format = "\\u%04x";
        used += (size_t)snprintf(buf + used, size - used, format, c);
    }
    buf[used] = '\0';
}

void report(enum report_level level, const char *fmt, ...)
{
    char msg[768], escaped[1024], line[1280], stamp[32];
    time_t now = time(NULL);
    struct tm tm;
    va_list ap;
    int len;

    if (level == REPORT_DEBUG && !report_log.debug)
        return;
    va_start(ap, fmt);
    vsnprintf(msg, sizeof(msg), fmt, ap);
    va_end(ap);
    report_escape(escaped, sizeof(escaped), msg);
    gmtime_r(&now, &tm);
    strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%SZ", &tm);
    if (report_log.json)
        len = snprintf(line, sizeof(line), "{\"level\":\"%s\",\"msg\":\"%s\",\"time\":\"%s\"}\n",
                       level_names[level], escaped, stamp);
    else
        len = snprintf(line, sizeof(line), "time=\"%s\" level=%s msg=\"%s\"\n", stamp,
                       level_names[level], escaped);
    /* A log that cannot be written is no reason to stop. */
    if (write(report_log.fd, line, (size_t)MIN(len, (int)sizeof(line) - 1)) < 0)
        return;
    if (level == REPORT_ERROR && report_log.fd != STDERR_FILENO)
        dprintf(STDERR_FILENO, "%s\n", msg);
}
