/* The runtime's log: lines in the form engines parse, to --log or standard error. */
#ifndef CONTAINER_REPORT_H
#define CONTAINER_REPORT_H

#include "base/err.h"

enum report_level { REPORT_DEBUG, REPORT_WARN, REPORT_ERROR };

/* Opens the log. path NULL: standard error. Lines are text (logfmt) or JSON. */
int report_open(const char *path, bool json, bool debug, struct err *err);
/* One line; debug lines only when asked for. Safe in a forked child. */
void report(enum report_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Writes s as the inside of a JSON string; used where json-c would be too much. Cut to `size`. */
void report_escape(char *buf, size_t size, const char *s);

#endif
