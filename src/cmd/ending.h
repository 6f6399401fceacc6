/*
 * What is to be done when a signal ends the program in the midst of its work (Ctrl-C, SIGTERM, SIGHUP, SIGQUIT): a part is
 * taken away, or something is said. Then the program ends by that signal, which is what the shell that started it expects.
 */
#ifndef CMD_ENDING_H
#define CMD_ENDING_H

#include "base/err.h"
#include <pthread.h>
#include <signal.h>

struct ending {
    void (*undo)(void *opaque); /* in the thread that waits, before the end; or NULL */
    void *opaque;
    char *words;      /* a line for standard error, or NULL; ending_stop() frees it */
    sigset_t before;  /* signals that were blocked */
    sigset_t signals; /* those that end us */
    bool watching;
    pthread_t watcher;
};

/* With undo and words set. Writing more than a limit or into a closed pipe is an error from then
 * on. On failure there is nothing to be stopped. */
int ending_start(struct ending *e, struct err *err);
/* The same, with these words alone. */
int ending_say(struct ending *e, struct err *err, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void ending_stop(struct ending *e); /* zeroed is fine */

#endif
