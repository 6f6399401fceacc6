/*
 * The control socket's server: connections, calls and answers.
 *
 *   connection:  reading --line--> busy (one call) --answer--> reading
 *                   |                 \--hang-up--> closed; the call lives on without it until it is answered
 *                   \--end, or a line that is no request--> closed
 *
 * Invariants:
 *  1. A connection has at most one call. While it has one its input is not watched (what is sent waits in the kernel),
 *     only its end.
 *  2. Nothing here waits: output that the other side does not take is kept up to WIRE_WAITING bytes, then the connection
 *     is closed. Events are not kept beyond EVENTS_WAITING.
 *  3. A link is freed by sweep() only, at the end of what the loop called: callers further up may still look at it.
 *
 * Thread: the main loop's.
 */
#include "vm/control.h"

#include "base/log.h"
#include "vm/parts.h"
#include "vm/snapshot/snapshot.h"
#include "vm/trace.h"
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define LINKS_MAX 32
#define LINES_PER_ROUND 16
#define EVENTS_WAITING (16 * KiB)

/* Sorted by name. */
static const struct control_verb all_verbs[] = {
    {"attach", control_do_attach},
    {"inspect", control_do_inspect},
    {"migrate", control_do_migrate},
    {"migrate-again", control_do_migrate_again},
    {"migrate-cancel", control_do_migrate_cancel},
    {"migrate-decide", control_do_migrate_decide},
    {"migrate-status", control_do_migrate_status},
    {"pause", control_do_pause},
    {"powerdown", control_do_powerdown},
    {"quit", control_do_quit},
    {"rename", control_do_rename},
    {"resize", control_do_resize},
    {"resume", control_do_resume},
    {"snapshot", control_do_snapshot},
    {"snapshot-plan", control_do_snapshot_plan},
    {"stats", control_do_stats},
    {"status", control_do_status},
    {NULL, NULL},
};

struct control_link {
    struct control *control;
    struct wire wire;
    struct loop_fd watched;
    struct control_call *call; /* NULL: none */
    json_t *id;                /* of the last request; NULL: it had none */
    bool broken;               /* no more lines are taken; closed when all is sent */
    struct control_link *next;
};

struct control {
    struct vm *vm;
    const struct control_verb *verbs; /* name NULL at the end */
    struct loop_fd listener;
    uid_t uid;                  /* whom we serve, beside root */
    struct control_link *links; /* the newest first */
    struct control_link *dead;  /* closed, freed by sweep() when nobody is inside them */
    unsigned nlinks;
    struct control_call *orphans; /* their callers have gone */
};

static void go_on(void *opaque);

static void sweep(struct control *c)
{
    struct control_link *l;

    while ((l = c->dead)) {
        c->dead = l->next;
        json_decref(l->id);
        free(l);
    }
}

/* Hangs up. An open call loses its caller. */
static void hang_up(struct control_link *l)
{
    struct control *c = l->control;
    struct control_call *call = l->call;
    struct control_link **at = &c->links;

    while (*at != l)
        at = &(*at)->next;
    *at = l->next;
    c->nlinks--;
    loop_remove(c->vm->loop, &l->watched);
    wire_fini(&l->wire);
    l->call = NULL;
    l->next = c->dead;
    c->dead = l;
    if (!call)
        return;
    call->link = NULL;
    call->next = c->orphans;
    c->orphans = call;
    if (call->gone)
        call->gone(call);
}

/* Watches what the connection's state asks for; its end is always reported. */
static void watch(struct control_link *l)
{
    u32 events = l->wire.out_len ? EPOLLOUT : 0;

    if (!l->call && !l->wire.ended && !l->broken)
        events |= EPOLLIN;
    if (events != l->watched.events)
        loop_modify(l->control->vm->loop, &l->watched, events);
}

/* Frees a call that has been answered. */
static void end_call(struct control_call *call)
{
    struct control *c = call->vm->control;
    struct control_call **at = &c->orphans;

    if (call->link) {
        call->link->call = NULL;
    } else {
        while (*at != call)
            at = &(*at)->next;
        *at = call->next;
    }
    for (unsigned i = 0; i < call->nfds; i++)
        if (call->fds[i] >= 0)
            close(call->fds[i]);
    json_decref((json_t *)call->args);
    free(call);
}

/* Sends an answer, which it steals, to a link. */
static void send_answer(struct control_link *l, json_t *answer)
{
    int rc = answer ? 0 : -ENOMEM;

    if (!rc && l->id)
        json_object_set(answer, "id", l->id);
    if (!rc)
        rc = wire_write(&l->wire, answer);
    if (rc ==
        -EPROTO) { /* only a verb of ours makes such a long one: better half an answer than none */
        json_object_clear(answer);
        json_object_set_new(answer, "ok", json_false());
        json_object_set_new(answer, "error", json_string("the answer is too long"));
        json_object_set_new(answer, "code", json_string("EMSGSIZE"));
        rc = wire_write(&l->wire, answer);
    }
    json_decref(answer);
    l->broken |= rc != 0;
}

/* Ends the call with this answer. What follows is done from the loop: our caller may be a verb that serve() called. */
static void answer_call(struct control_call *call, json_t *answer)
{
    struct control *c = call->vm->control;

    if (call->link)
        send_answer(call->link, answer);
    else
        json_decref(answer);
    end_call(call);
    if (loop_call(c->vm->loop, go_on, c))
        log_error("%s: no memory for the control socket", c->vm->config->name);
}

void control_reply(struct control_call *call, json_t *fields)
{
    json_t *object = fields ? fields : json_object();

    if (object)
        json_object_set_new(object, "ok", json_true());
    answer_call(call, object);
}

static json_t *error_answer(const struct err *err)
{
    return json_pack("{s:b,s:s,s:s}", "ok", 0, "error", err->msg, "code",
                     wire_code_name(err->code));
}

void control_fail(struct control_call *call, const struct err *err)
{
    answer_call(call, error_answer(err));
}

void control_event(struct control_call *call, const char *event, json_t *fields)
{
    json_t *object = fields ? fields : json_object();

    if (object && call->link && call->link->wire.out_len < EVENTS_WAITING) {
        json_object_set_new(object, "event", json_string(event));
        wire_write(&call->link->wire, object);
        watch(call->link);
    }
    json_decref(object);
}

int control_take_fd(struct control_call *call, unsigned i)
{
    int fd = i < call->nfds ? call->fds[i] : -1;

    if (fd >= 0)
        call->fds[i] = -1;
    return fd;
}

int control_take_link(struct control_call *call, u8 *buf, size_t size, size_t *ret_len)
{
    struct control_link *l = call->link;
    int fd = -1;

    if (l) {
        send_answer(l, json_pack("{s:b}", "ok", 1));
        if (!l->broken && !l->wire.out_len) {
            *ret_len = wire_take_bytes(&l->wire, buf, size);
            loop_remove(l->control->vm->loop, &l->watched);
            fd = l->wire.fd;
            l->wire.fd = -1;
        }
        l->call = NULL;
        call->link = NULL;
        call->next = l->control->orphans;
        l->control->orphans = call;
        hang_up(l);
    }
    end_call(call);
    return fd < 0 ? -EPIPE : fd;
}

int control_text(const struct control_call *call, const char *name, const char *otherwise,
                 const char **ret_text, struct err *err)
{
    const json_t *value = json_object_get(call->args, name);

    if (value && !json_is_string(value))
        return err_set(err, EINVAL, "\"%s\" must be a string", name);
    *ret_text = value ? json_string_value(value) : otherwise;
    return 0;
}

int control_number(const struct control_call *call, const char *name, u64 max, u64 otherwise,
                   u64 *ret_number, struct err *err)
{
    const json_t *value = json_object_get(call->args, name);
    json_int_t number = json_integer_value(value);

    if (value && (!json_is_integer(value) || number < 0 || (u64)number > max))
        return err_set(err, EINVAL, "\"%s\" must be a number from 0 to %llu", name,
                       (unsigned long long)max);
    *ret_number = value ? (u64)number : otherwise;
    return 0;
}

int control_flag(const struct control_call *call, const char *name, bool *ret_flag, struct err *err)
{
    const json_t *value = json_object_get(call->args, name);

    if (value && !json_is_boolean(value))
        return err_set(err, EINVAL, "\"%s\" must be true or false", name);
    *ret_flag = json_is_true(value);
    return 0;
}

static const struct control_verb *find_verb(const struct control *c, const char *name)
{
    const struct control_verb *v = c->verbs;

    while (v->name && strcmp(v->name, name))
        v++;
    return v->name ? v : NULL;
}

/* The verb and the descriptors of a request. */
static int read_request(struct control_link *l, struct control_call *call,
                        const struct control_verb **ret_verb, struct err *err)
{
    const char *name;
    u64 nfds;
    int rc = control_number(call, "fds", WIRE_FDS, 0, &nfds, err);

    if (rc)
        return rc;
    if (wire_take_fds(&l->wire, (json_int_t)nfds, call->fds))
        return err_set(err, EPROTO, "\"fds\" says %u, but %u descriptors came with the line",
                       (unsigned)nfds, l->wire.nfds);
    call->nfds = (unsigned)nfds;
    if ((rc = control_text(call, "do", "", &name, err)))
        return rc;
    *ret_verb = find_verb(l->control, name);
    if (!*ret_verb)
        return err_set(err, ENOSYS, "this machine knows no '%.64s'", name);
    return 0;
}

/* One line that came in; the object is ours. */
static void start_call(struct control_link *l, json_t *request)
{
    struct control_call *call = calloc(1, sizeof(*call));
    const struct control_verb *verb = NULL;
    struct err err = ERR_INIT;

    if (!call) {
        json_decref(request);
        l->broken = true;
        return;
    }
    call->vm = l->control->vm;
    call->args = request;
    call->link = l;
    l->call = call;
    json_decref(l->id);
    l->id = json_incref(json_object_get(request, "id"));
    if (read_request(l, call, &verb, &err)) {
        control_fail(call, &err);
        return;
    }
    trace_vm_control(verb->name);
    verb->run(call);
}

/* Takes the lines that are there, as long as each is answered at once. A link that a verb closes stays in memory until the
 * next sweep(). */
static void serve(struct control_link *l)
{
    struct err err = ERR_INIT;
    json_t *request;
    int rc = 1;

    for (int i = 0; i < LINES_PER_ROUND && rc > 0 && !l->call && !l->broken; i++) {
        if (l->wire.fd < 0)
            return;
        rc = wire_line(&l->wire, &request, &err);
        if (rc > 0)
            start_call(l, request);
    }
    if (l->wire.fd < 0)
        return;
    if (rc < 0) { /* what follows cannot be trusted to begin at a line's begin */
        json_decref(l->id);
        l->id = NULL;
        send_answer(l, error_answer(&err));
        l->broken = true;
    }
    bool done = l->broken || (l->wire.ended && rc == 0);
    if (done && !l->call && !l->wire.out_len)
        hang_up(l);
    else
        watch(l);
}

/* Main loop: after calls were answered. */
static void go_on(void *opaque)
{
    struct control *c = opaque;

    for (struct control_link *l = c->links, *next; l; l = next) {
        next = l->next;
        if (!l->call)
            serve(l);
    }
    sweep(c);
}

static void link_ready(void *opaque, u32 events)
{
    struct control_link *l = opaque;
    struct control *c = l->control;
    int rc = wire_flush(&l->wire);

    if (rc >= 0 && (events & EPOLLIN) && !l->call)
        rc = wire_read(&l->wire);
    /* EPOLLHUP: closed, not only its sending half. What it sent before is still done. */
    if (rc < 0 || ((events & (EPOLLHUP | EPOLLERR)) && (l->call || !(events & EPOLLIN))))
        hang_up(l);
    else if (!l->call)
        serve(l);
    else
        watch(l);
    sweep(c);
}

/* May this process speak to us? */
static bool is_welcome(const struct control *c, int fd)
{
    struct ucred peer;
    socklen_t len = sizeof(peer);

    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 &&
           (peer.uid == c->uid || peer.uid == 0);
}

/* Room for one more: who has been idle longest must go. */
static bool make_room(struct control *c)
{
    struct control_link *oldest = NULL;

    if (c->nlinks < LINKS_MAX)
        return true;
    for (struct control_link *l = c->links; l; l = l->next)
        if (!l->call)
            oldest = l;
    if (oldest)
        hang_up(oldest);
    return oldest != NULL;
}

int control_listener(const struct control *c)
{
    return c->listener.fd;
}

int control_accept(const struct control *c)
{
    int fd = accept4(c->listener.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd < 0 || is_welcome(c, fd))
        return fd;
    close(fd);
    return -1;
}

static void listener_ready(void *opaque, u32 events)
{
    struct control *c = opaque;
    struct control_link *l;
    int fd = control_accept(c);

    if (fd < 0)
        return;
    if (!make_room(c) || !(l = calloc(1, sizeof(*l)))) {
        close(fd);
        return;
    }
    l->control = c;
    wire_init(&l->wire, fd);
    l->watched = (struct loop_fd){.fd = fd, .events = EPOLLIN, .ready = link_ready, .opaque = l};
    l->next = c->links;
    c->links = l;
    c->nlinks++;
    if (loop_add(c->vm->loop, &l->watched, NULL))
        hang_up(l);
    sweep(c);
}

int control_new(struct vm *vm, int listener, struct control **ret_control, struct err *err)
{
    struct control *c = calloc(1, sizeof(*c));

    if (!c) {
        close(listener);
        return err_set(err, ENOMEM, "control socket: no memory");
    }
    /* Two threads may want the same connection; who comes late must not wait for the next. */
    fcntl(listener, F_SETFL, fcntl(listener, F_GETFL) | O_NONBLOCK);
    json_object_seed(0); /* Jansson opens a file for it, once; later the sandbox forbids that */
    c->vm = vm;
    c->verbs = all_verbs;
    c->uid = getuid();
    c->listener =
        (struct loop_fd){.fd = listener, .events = EPOLLIN, .ready = listener_ready, .opaque = c};
    int rc = loop_add(vm->loop, &c->listener, err);
    if (rc) {
        control_free(c);
        return err_wrap(err, "control socket");
    }
    *ret_control = c;
    return 0;
}

void control_set_verbs(struct control *c, const struct control_verb *verbs)
{
    c->verbs = verbs;
}

void control_free(struct control *c)
{
    struct err ended = ERR_INIT;

    if (!c)
        return;
    err_set(&ended, ESHUTDOWN, "the machine has ended");
    while (c->links) {
        struct control_link *l = c->links;

        if (l->call)
            control_fail(l->call, &ended);
        hang_up(l);
    }
    while (c->orphans)
        control_fail(c->orphans, &ended);
    sweep(c);
    loop_remove(c->vm->loop, &c->listener);
    close(c->listener.fd);
    free(c);
}
