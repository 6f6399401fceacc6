/*
 * Errors as values. A function that can fail for a reason worth telling takes `struct err *err`
 * last and returns a negative errno; the message says what, where and why, and what to do if we
 * know. Callers add context on the way out with err_wrap(). Only `main` prints; nothing here logs
 * or exits.
 */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#include "base/types.h"

struct err {
    int code;      /* positive errno, 0 = no error */
    char msg[508]; /* one line, no newline */
};

#define ERR_INIT ((struct err){0})

/* Fills *err (which may be NULL) and returns -code. */
int err_set(struct err *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* As err_set, with ": " and strerror(code) appended. */
int err_sys(struct err *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Puts "fmt: " in front of the message that is there; returns -err->code. */
int err_wrap(struct err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
