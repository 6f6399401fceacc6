/*
 * The doorman of a machine that arrives by post-copy. A device of the main loop's that touches a page still to come
 * stops the loop until it has come (mem/lazy.h), and so does one that waits for the lock of such a device. When the line
 * is broken that is until a new one was made, which the receiver hands in through the control socket: the one thing that
 * may not wait for the loop. So a thread looks whether the loop still answers; while it does not, the thread takes
 * connections of the control socket and answers what can be answered without the loop, each to its end.
 *
 * Invariants:
 *  1. It touches neither guest memory nor devices, so it never waits for a page.
 *  2. It takes a connection only when the loop has not come to a call of ours for STUCK_NS.
 *
 * Thread: its own, from when memory may be missing until none is.
 */
#include "vm/migrate/doorman.h"

#include "mem/lazy.h"
#include "vm/control.h"
#include "vm/migrate/parts.h"
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define LOOK_MS 100
#define STUCK_NS (NS_PER_S / 4)
#define SILENT_MS 2000 /* a caller that says nothing for so long must come again */
#define LINES 16

struct migrate_doorman {
    struct vm_migration *migration;
    pthread_t thread;
    atomic_bool closed;
    atomic_bool asked; /* the loop, and it has not answered yet */
};

/* Main loop. */
static void answer_ping(void *opaque)
{
    struct migrate_doorman *d = opaque;

    atomic_store(&d->asked, false);
}

static bool loop_is_stuck(struct migrate_doorman *d)
{
    struct timespec pause = {.tv_nsec = STUCK_NS};

    if (!atomic_exchange(&d->asked, true) && loop_call(d->migration->vm->loop, answer_ping, d)) {
        atomic_store(&d->asked, false);
        return false;
    }
    nanosleep(&pause, NULL);
    return atomic_load(&d->asked);
}

static json_t *error_answer(const struct err *err)
{
    return json_pack("{s:b,s:s,s:s}", "ok", 0, "error", err->msg, "code",
                     wire_code_name(err->code));
}

static json_t *status(const struct vm *vm)
{
    bool runs = migrate_destination_runs(vm->migration->destination);

    return json_pack("{s:b,s:s,s:s,s:i,s:s,s:i,s:I}", "ok", 1, "state",
                     runs ? "waiting for memory" : "arriving", "name", vm->config->name, "pid",
                     (int)getpid(), "accel", vm->report.accel, "cpus", (int)vm->ncpus, "memory",
                     (json_int_t)vm->config->memory_bytes);
}

static json_t *again(struct migrate_doorman *d, struct wire *w, json_int_t wanted)
{
    struct err err = ERR_INIT;
    int fds[WIRE_FDS], rc = -EPROTO;

    if (wanted >= 0 && wanted <= WIRE_FDS && !wire_take_fds(w, wanted, fds))
        rc = vm_migration_again(d->migration, fds, (unsigned)wanted, &err);
    else
        err_set(&err, EPROTO, "the descriptors did not come with the line");
    return rc ? error_answer(&err) : json_pack("{s:b}", "ok", 1);
}

static json_t *answer(struct migrate_doorman *d, struct wire *w, const json_t *request)
{
    const char *verb = json_string_value(json_object_get(request, "do"));
    const struct vm *vm = d->migration->vm;
    struct err err = ERR_INIT;

    if (verb && !strcmp(verb, "status"))
        return status(vm);
    if (verb && !strcmp(verb, "migrate-again"))
        return again(d, w, json_integer_value(json_object_get(request, "fds")));
    err_set(&err, EBUSY,
            "the guest waits for %llu MiB of its memory, which the host has that it was on before: "
            "if the line between them broke, 'trapeze migrate --again' there goes on; 'trapeze "
            "kill --force' "
            "gives it up",
            (unsigned long long)(lazy_missing(&vm->ram) * MIGRATE_PAGE_BYTES / MiB + 1));
    return error_answer(&err);
}

/* One caller, to its end; takes fd over. */
static void serve(struct migrate_doorman *d, int fd)
{
    struct wire w;
    json_t *request;
    int rc = 0;

    wire_init(&w, fd);
    for (unsigned lines = 0; lines < LINES && rc >= 0 && !atomic_load(&d->closed);) {
        struct pollfd p = {.fd = fd, .events = POLLIN};

        rc = wire_line(&w, &request, NULL);
        if (!rc && (w.ended || poll(&p, 1, SILENT_MS) <= 0 || wire_read(&w)))
            break;
        if (rc <= 0)
            continue;
        lines++;
        json_t *said = answer(d, &w, request), *id = json_object_get(request, "id");
        if (said && id)
            json_object_set(said, "id", id);
        rc = said ? wire_write(&w, said) : -ENOMEM;
        json_decref(said);
        json_decref(request);
    }
    wire_fini(&w);
}

static void *doorman_thread(void *opaque)
{
    struct migrate_doorman *d = opaque;
    struct vm_migration *m = d->migration;

    prctl(PR_SET_NAME, "doorman");
    while (!atomic_load(&d->closed)) {
        /* Made after us. Without one, poll() waits for nothing. */
        const struct control *control = __atomic_load_n(&m->vm->control, __ATOMIC_ACQUIRE);
        struct pollfd p = {.fd = control ? control_listener(control) : -1, .events = POLLIN};

        if (migrate_destination_runs(m->destination) && !lazy_missing(&m->vm->ram))
            break;
        if (poll(&p, 1, LOOK_MS) <= 0 || !loop_is_stuck(d))
            continue;
        int fd = control_accept(control);
        if (fd >= 0)
            serve(d, fd);
    }
    return NULL;
}

int migrate_doorman_start(struct vm_migration *m, struct migrate_doorman **ret_doorman,
                          struct err *err)
{
    struct migrate_doorman *d = calloc(1, sizeof(*d));
    int rc;

    if (!d)
        return err_set(err, ENOMEM, "no memory for a thread");
    d->migration = m;
    rc = pthread_create(&d->thread, NULL, doorman_thread, d);
    if (rc) {
        free(d);
        return err_sys(err, rc, "thread for the control socket");
    }
    *ret_doorman = d;
    return 0;
}

void migrate_doorman_stop(struct migrate_doorman *d)
{
    if (!d)
        return;
    atomic_store(&d->closed, true);
    pthread_join(d->thread, NULL);
    free(d);
}
