/*
 * Trace points: named events with typed arguments. Each folder lists its own in its trace.h:
 *
 *     #define MEM_TRACE(X)                                                                      \
 *         X(mem, unmap, (const char *name, u64 base), "%s at 0x%" PRIx64, name, base)           \
 *         X(mem, lost_read, (u64 addr, unsigned size), "0x%" PRIx64 "/%u", addr, size)
 *     TRACE_PROBES(MEM_TRACE)
 *     extern const struct trace_list mem_trace;
 *
 * and defines them in its trace.c with TRACE_DEFINE(mem, MEM_TRACE). That makes
 * trace_mem_unmap(name, base), which costs one predictable branch while it is off, and prints
 * "[seconds] mem.unmap: ..." to stderr while it is on. Any thread may run into a trace point;
 * switching them is done before the threads start.
 */
#ifndef BASE_TRACE_H
#define BASE_TRACE_H

#include "base/err.h"
#include <inttypes.h>
#include <stdio.h>

struct trace_point {
    const char *name; /* "folder.event" */
    bool on;
};

struct trace_list {
    struct trace_point *const *points; /* NULL at the end */
};

/* Switches on what the patterns name, separated by commas: names with *, ? and [] as in a shell.
 * -ENOENT for a pattern that names nothing. `lists` ends with NULL. */
int trace_enable(const struct trace_list *const *lists, const char *patterns, struct err *err);
/* Switches everything off. */
void trace_disable(const struct trace_list *const *lists);
/* One name per line. */
void trace_print_names(const struct trace_list *const *lists, FILE *out);
/* Only called by the probes. */
void trace_emit(const struct trace_point *p, const char *fmt, ...)
    __attribute__((format(printf, 2, 3), cold));

#define TRACE_PROBE_(folder, event, params, ...)                      \
    extern struct trace_point trace_point_##folder##_##event;         \
    static inline void trace_##folder##_##event params                \
    {                                                                 \
        if (__builtin_expect(trace_point_##folder##_##event.on, 0))   \
            trace_emit(&trace_point_##folder##_##event, __VA_ARGS__); \
    }
#define TRACE_POINT_(folder, event, ...) \
    struct trace_point trace_point_##folder##_##event = {.name = #folder "." #event};
#define TRACE_ADDRESS_(folder, event, ...) &trace_point_##folder##_##event,

#define TRACE_PROBES(list) list(TRACE_PROBE_)
#define TRACE_DEFINE(folder, list)                                                  \
    list(TRACE_POINT_) static struct trace_point *const folder##_trace_points[] = { \
        list(TRACE_ADDRESS_) NULL};                                                 \
    const struct trace_list folder##_trace = {folder##_trace_points};

#endif
