/* What a function writes to stderr, for tests of logs and traces. */
#ifndef UNIT_CAPTURE_H
#define UNIT_CAPTURE_H

#include "unit.h"

#include <unistd.h>

/* Runs fn with stderr in a pipe; the text must fit into a pipe. */
static inline void capture_stderr(void (*fn)(void), char *ret_text, size_t size)
{
    int saved = dup(STDERR_FILENO), ends[2];
    ssize_t n;

    assert_int_equal(pipe(ends), 0);
    dup2(ends[1], STDERR_FILENO);
    close(ends[1]);
    fn();
    dup2(saved, STDERR_FILENO);
    close(saved);
    n = read(ends[0], ret_text, size - 1);
    close(ends[0]);
    assert_true(n >= 0);
    ret_text[n] = '\0';
}

#endif
