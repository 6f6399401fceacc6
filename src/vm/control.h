/*
 * The control socket: how other processes speak to a running machine. ARCHITECTURE.md, "The control socket", has the
 * protocol. The VMM can open nothing, so callers pass it what it is to use, as descriptors.
 *
 * All of it in the main loop's thread, which no caller can hold up: connections, lines, descriptors and waiting output
 * are bounded.
 *
 * A verb is a function in the file that owns its subject, and a row in control.c. It gets a call and must end it with
 * exactly one control_reply() or control_fail(), now or later from the main loop; until then the connection takes no
 * other request. The call is gone after that.
 */
#ifndef VM_CONTROL_H
#define VM_CONTROL_H

#include "vm/wire.h"

struct vm;
struct control;
struct control_link;
struct stream;

struct control_call {
    struct vm *vm;
    const json_t *args; /* the request, an object; lives as long as the call */
    int fds
        [WIRE_FDS]; /* that came with it; those that control_take_fd() did not take are closed at the end */
    unsigned nfds;
    /* The verb may set these: the caller has hung up, nobody will read the answer. The call still has to be ended, from
     * within gone() if it likes. */
    void (*gone)(struct control_call *call);
    void *opaque;
    struct control_link *link; /* of the server; NULL when the caller has gone */
    struct control_call *next;
};

struct control_verb {
    const char *name;
    void (*run)(struct control_call *call);
};

/* Serves the machine on a listening Unix socket, which it takes over (on failure too). Before the sandbox. */
int control_new(struct vm *vm, int listener, struct control **ret_control, struct err *err);
/* Ends open calls with an error (verbs hear nothing of it: their subjects are freed before or know) and hangs up. */
void control_free(struct control *c);
/* For who answers while the main loop cannot (migrate/doorman.h), any thread: the socket to poll, and the next connection of
 * somebody who may speak to us; -1: there is none. */
int control_listener(const struct control *c);
int control_accept(const struct control *c);
/* Tests: other verbs instead of the table's; name NULL at the end. */
void control_set_verbs(struct control *c, const struct control_verb *verbs);

/* Ends the call with success. `fields` (stolen; NULL: none) are added to the answer; names "id", "ok" are ours. */
void control_reply(struct control_call *call, json_t *fields);
/* Ends the call with an error. */
void control_fail(struct control_call *call, const struct err *err);
/* Tells the caller about progress. `fields` are stolen. Dropped when the caller does not read. */
void control_event(struct control_call *call, const char *event, json_t *fields);
/* The i-th descriptor, the caller's then; -1: none. */
int control_take_fd(struct control_call *call, unsigned i);
/* Ends the call with success, and the connection as one of lines: hands its descriptor over, the caller's then. What came
 * behind the request is in buf, *ret_len (at most `size`) bytes. -errno: the caller has gone, the call is ended. */
int control_take_link(struct control_call *call, u8 *buf, size_t size, size_t *ret_len);

/* Arguments of a call; on failure *err says which one is wrong. Absent ones: `otherwise`. */
int control_text(const struct control_call *call, const char *name, const char *otherwise,
                 const char **ret_text, struct err *err);
int control_number(const struct control_call *call, const char *name, u64 max, u64 otherwise,
                   u64 *ret_number, struct err *err);
int control_flag(const struct control_call *call, const char *name, bool *ret_flag,
                 struct err *err);

/* What the machine does, in a word or two: running, paused, ended, or how its migration stands. */
const char *control_state(const struct vm *vm);

/* The verbs; their order is that of the table in control.c. */
void control_do_attach(struct control_call *call);
void control_do_migrate(struct control_call *call);
void control_do_migrate_again(struct control_call *call);
void control_do_migrate_cancel(struct control_call *call);
void control_do_migrate_decide(struct control_call *call);
void control_do_migrate_status(struct control_call *call);
void control_do_inspect(struct control_call *call);
void control_do_pause(struct control_call *call);
void control_do_powerdown(struct control_call *call);
void control_do_quit(struct control_call *call);
void control_do_rename(struct control_call *call);
void control_do_resize(struct control_call *call);
void control_do_resume(struct control_call *call);
void control_do_stats(struct control_call *call);
void control_do_status(struct control_call *call);

#endif
