/*
 * The end by a signal: see ending.h.
 *
 * Main thread; a second one waits for signals. The worker threads need not know about it: they are started with these
 * signals blocked.
 */
#include "cmd/ending.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static void *watch(void *opaque)
{
    const struct ending *e = opaque;
    int signal_number;

    if (sigwait(&e->signals, &signal_number))
        return NULL;
    /* From here on nothing else ends the program: ending_stop() waits for that. */
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
    if (e->words)
        fprintf(stderr, "%s\n", e->words);
    if (e->undo)
        e->undo(e->opaque);
    signal(signal_number, SIG_DFL);
    pthread_sigmask(SIG_UNBLOCK, &e->signals, NULL);
    raise(signal_number);
    return NULL;
}

/* What whoever started us wanted ignored, stays so: a program in the background of a script does not end by Ctrl-C. */
static void choose_signals(sigset_t *ret_ending)
{
    static const int all[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
    struct sigaction now;

    sigemptyset(ret_ending);
    for (unsigned i = 0; i < ARRAY_LEN(all); i++)
        if (sigaction(all[i], NULL, &now) == 0 && now.sa_handler != SIG_IGN)
            sigaddset(ret_ending, all[i]);
}

int ending_start(struct ending *e, struct err *err)
{
    int rc;

    choose_signals(&e->signals);
    pthread_sigmask(SIG_BLOCK, &e->signals, &e->before);
    /* Those are errors of a write, which are reported as such. */
    signal(SIGXFSZ, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    rc = pthread_create(&e->watcher, NULL, watch, e);
    e->watching = rc == 0;
    if (!rc)
        return 0;
    pthread_sigmask(SIG_SETMASK, &e->before, NULL);
    free(e->words);
    e->words = NULL;
    return err_sys(err, rc, "cannot start a thread");
}

int ending_say(struct ending *e, struct err *err, const char *fmt, ...)
{
    va_list ap;
    int len;

    *e = (struct ending){0};
    va_start(ap, fmt);
    len = vasprintf(&e->words, fmt, ap);
    va_end(ap);
    if (len < 0) {
        e->words = NULL;
        return err_set(err, ENOMEM, "no memory");
    }
    return ending_start(e, err);
}

void ending_stop(struct ending *e)
{
    if (!e->watching)
        return;
    pthread_cancel(e->watcher);
    pthread_join(e->watcher, NULL);
    pthread_sigmask(SIG_SETMASK, &e->before, NULL);
    free(e->words);
    *e = (struct ending){0};
}
