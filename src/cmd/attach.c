/*
 * `trapeze attach`: this terminal becomes one more of a guest's console. The connection is raw in both directions from the
 * answer on; Ctrl-A is ours.
 *
 * A pipe or a file that was typed has an end, and a console has none: nobody could say when the answer to it is complete.
 * So when the input has ended and the console has been silent for a while, so has the verb. What was typed reaches the guest
 * in any case, as fast as it takes it (vm/stream_client.c).
 */
#include "cmd/guests.h"

#include "vm/terminal.h"
#include "vm/value.h"
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#define CTRL_A 1
#define SILENT_S 1
#define SILENT_MAX 86400

enum { ATTACH_NO_STDIN = GUEST_OWN, ATTACH_PORT, ATTACH_TIME };

struct attaching {
    bool no_stdin;
    const char *port; /* NULL: the main one */
    u64 silent_s;     /* how long after the input's end */
    int fd;
    bool escaped; /* Ctrl-A was typed */
    bool keys;    /* standard input is a terminal */
    bool detached;
    const struct host *h; /* for telling the terminal's size */
    const struct record *record;
};

static volatile sig_atomic_t resized; /* by the signal's handler */

static void note_resize(int signal)
{
    resized = 1;
}

/* The guest's console gets the terminal's size, over a connection of its own: ours is raw. Convenience: errors are none. */
static void tell_size(struct attaching *a)
{
    u16 cols = 0, rows = 0;

    resized = 0;
    terminal_size(&cols, &rows);
    if (cols && rows)
        guest_ask(a->h, a->record, "resize", json_pack("{s:i,s:i}", "cols", cols, "rows", rows),
                  NULL, NULL);
}

static int write_all(int fd, const char *buf, size_t len)
{
    while (len) {
        ssize_t n = write(fd, buf, len);
        struct pollfd p = {.fd = fd, .events = POLLOUT};

        if (n < 0 && errno == EAGAIN)
            poll(&p, 1, -1);
        else if (n < 0 && errno != EINTR)
            return -errno;
        buf += MAX(n, 0);
        len -= (size_t)MAX(n, 0);
    }
    return 0;
}

/* A key after Ctrl-A; returns whether it belongs to the guest. */
static bool own_key(struct attaching *a, char key)
{
    if (key == CTRL_A)
        return true;
    if (key == 'd' || key == 'D' || key == 4) /* Ctrl-D as well: fingers stay on Ctrl */
        a->detached = true;
    else
        fputs("\nCtrl-A D  leave the guest running and detach\nCtrl-A H  this help\nCtrl-A Ctrl-A  "
              "type a Ctrl-A\n",
              stderr);
    return false;
}

/* What was typed goes to the guest; 0 or -errno. */
static int type(struct attaching *a, const char *buf, size_t len)
{
    char out[512];
    size_t n = 0;

    for (size_t i = 0; i < len && !a->detached; i++) {
        bool escape = a->keys && !a->escaped && buf[i] == CTRL_A;

        if (!escape && (!a->escaped || own_key(a, buf[i])))
            out[n++] = buf[i];
        a->escaped = escape;
    }
    return write_all(a->fd, out, n);
}

/* What stands on standard input, to the guest; false: there is no more, or no guest. */
static bool pass_input(struct attaching *a)
{
    char buf[512];
    ssize_t n = read(STDIN_FILENO, buf, sizeof(buf));

    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return true;
    return n > 0 && !type(a, buf, (size_t)n);
}

/* What the console says; false: it is closed, or nobody reads it here. */
static bool pass_output(const struct attaching *a)
{
    char buf[512];
    ssize_t n = read(a->fd, buf, sizeof(buf));

    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return true;
    return n > 0 && !write_all(STDOUT_FILENO, buf, (size_t)n);
}

/* Until it is detached, the guest has ended, or the input has and the console is silent. */
static void pass_on(struct attaching *a)
{
    struct pollfd p[2] = {{.fd = a->fd, .events = POLLIN},
                          {.fd = a->no_stdin ? -1 : STDIN_FILENO, .events = POLLIN}};
    int wait_ms = -1;

    while (!a->detached) {
        if (resized)
            tell_size(a);
        int n = poll(p, 2, wait_ms);
        if (n == 0 || (n < 0 && errno != EINTR))
            return;
        if (n < 0)
            continue;
        if (p[0].revents && !pass_output(a))
            return;
        if (p[1].revents && !pass_input(a)) {
            if (a->keys)
                return; /* the terminal has gone */
            p[1].fd = -1;
            wait_ms = (int)a->silent_s * 1000;
        }
    }
}

static int on_terminal(struct attaching *a, struct client *c, const char *name, struct err *err)
{
    struct terminal terminal = TERMINAL_INIT;
    char buf[512];

    a->keys = !a->no_stdin && isatty(STDIN_FILENO);
    int rc = a->keys ? terminal_watch(&terminal, err) : 0;
    if (!rc && a->keys)
        rc = terminal_start(&terminal, err);
    if (!rc) {
        if (a->keys) {
            struct sigaction act = {.sa_handler = note_resize};

            sigaction(SIGWINCH, &act, NULL);
            resized = 1;
            fprintf(stderr, "Attached to %s; Ctrl-A D detaches.\n", name);
        }
        for (size_t n; (n = wire_take_bytes(&c->wire, buf, sizeof(buf)));)
            write_all(STDOUT_FILENO, buf, n);
        pass_on(a);
    }
    terminal_stop(&terminal);
    return rc;
}

static int attach(void *opaque, struct host *h, struct record *record, struct err *err)
{
    struct attaching *a = opaque;
    struct client c;
    json_t *fields = json_pack("{s:b}", "readonly", a->no_stdin);
    int rc = guest_connect(h, record, &c, err);

    a->h = h;
    a->record = record;
    if (a->port)
        json_object_set_new(fields, "port", json_string(a->port));
    if (rc)
        json_decref(fields);
    else if (!(rc = client_call(&c, "attach", fields, NULL, err))) {
        a->fd = c.wire.fd;
        rc = on_terminal(a, &c, record->name, err);
    }
    client_close(&c);
    if (!rc && a->keys)
        fprintf(stderr, "\n%s %s\n", a->detached ? "Detached from" : "The console is closed of",
                record->name);
    return rc;
}

static int read_own(void *opaque, int index, const char *value, struct err *err)
{
    struct attaching *a = opaque;

    if (index == ATTACH_TIME)
        return value_number(value, 0, SILENT_MAX, &a->silent_s, err) ? err_wrap(err, "--time") : 0;
    if (index == ATTACH_NO_STDIN)
        a->no_stdin = true;
    else if (!strcmp(value, "serial") || !strcmp(value, "console"))
        a->port = value;
    else
        return err_set(err, EINVAL, "--port: '%s' is not known; allowed: serial, console", value);
    return 0;
}

static int run(const struct verb *self, char **argv)
{
    struct attaching a = {.silent_s = SILENT_S};
    struct guest_args args = {.min = 1, .max = 1, .own = read_own, .opaque = &a};

    return guest_verb(self, argv, &args, attach);
}

static const struct args_spec *options(void)
{
    static const struct args_spec all[] = {
        GUEST_OPTIONS,
        [ATTACH_NO_STDIN] = {"no-stdin", 0, NULL,
                             "only look on: what is typed does not go to the guest"},
        [ATTACH_PORT] = {"port", 0, "WHICH", "serial or console, if not the main one"},
        [ATTACH_TIME] = {"time", 't', "SECONDS",
                         "how long to look on in silence when the input has ended (1)"},
        {NULL, 0, NULL, NULL},
    };

    return all;
}

const struct verb verb_attach = {
    .name = "attach",
    .operands = "GUEST",
    .summary = "Use a guest's console on this terminal",
    .options = options,
    .notes = "Ctrl-A D detaches and leaves the guest running; Ctrl-A H shows the keys. "
             "Input from a pipe or a file is typed;\nwhen it has ended and the guest is silent, "
             "attach ends, too.\n",
    .run = run,
};
