/*
 * Starting a machine as a guest.
 *
 * In the foreground the record is transient: it goes when the machine ends. It is a convenience there, so a host whose
 * records cannot be written is one line on standard error, no failure, unless a name was asked for.
 *
 * In the background the machine is a child of its own session, and the parent waits on a pipe for one of
 *
 *   ID '\n' then "ok\n"        it runs; the parent prints the id and leaves
 *   ID '\n', then anything     it failed after it had locked itself in: the text is the reason
 *   nothing or ID, then end    it failed before, and said why on standard error
 *
 * and takes the child's exit status for its own unless it runs. A machine that failed to start leaves no record.
 */
#include "cmd/launch.h"

#include "base/log.h"
#include "cmd/status.h"
#include "host/guest.h"
#include "vm/option.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define INHERITED_MAX 256

struct launching {
    const struct launch *l;
    struct host *host, own;
    bool recorded;
    struct guest guest;
    int pipe;      /* to the waiting parent; -1: in the foreground */
    bool detached; /* standard error is the guest's messages */
    int inherited[INHERITED_MAX];
    unsigned ninherited;
    struct vm_report report;
};

static int status_of(const struct vm_report *report)
{
    switch (report->end) {
    case VM_END_POWEROFF:
    case VM_END_MOVED:
        return STATUS_OK;
    case VM_END_PANIC:
        return STATUS_PANIC;
    case VM_END_TRIPLE:
        return STATUS_TRIPLE;
    case VM_END_DEBUG_EXIT:
        return report->code;
    case VM_END_STOPPED:
        return STATUS_STOPPED;
    case VM_END_FAILED:
        return STATUS_HOST;
    }
    return STATUS_HOST;
}

static const char *end_reason(const struct vm_report *report)
{
    return report->end == VM_END_PANIC    ? "the guest panicked"
           : report->end == VM_END_TRIPLE ? "triple fault: a processor of the guest shut down"
           : report->end == VM_END_MOVED  ? GUEST_MOVED
                                          : NULL;
}

/* For --report: one line each, on standard error, after the guest's last output. */
static void print_report(const struct vm_report *report)
{
    fprintf(stderr, "trapeze: accelerator %s\n", report->why);
    if (report->first_user_ns >= 0)
        fprintf(stderr, "trapeze: first user program after %.3f s\n",
                (double)report->first_user_ns / 1e9);
}

/* A file's name as it is seen from everywhere. */
static int make_absolute(char **path, struct err *err)
{
    if (!*path || **path == '/')
        return 0;
    auto_free char *here = getcwd(NULL, 0);
    char *whole;
    if (!here)
        return err_sys(err, errno, "the working directory");
    if (asprintf(&whole, "%s/%s", here, *path) < 0)
        return err_set(err, ENOMEM, "configuration: no memory");
    free(*path);
    *path = whole;
    return 0;
}

static int make_paths_absolute(struct vm_config *c, struct err *err)
{
    char **paths[] = {&c->kernel, &c->initrd, &c->serial.path, &c->console.path,
                      &c->debug_console_path};
    int rc = 0;

    for (size_t i = 0; i < ARRAY_LEN(paths) && !rc; i++)
        rc = make_absolute(paths[i], err);
    for (unsigned i = 0; i < c->ndisks && !rc; i++)
        rc = make_absolute(&c->disk[i].path, err);
    return rc;
}

static int print_options(const struct vm_config *c, char **ret_text, struct err *err)
{
    size_t size;
    FILE *out = open_memstream(ret_text, &size);

    if (!out)
        return err_set(err, ENOMEM, "configuration: no memory");
    vm_options_print(c, out);
    return fclose(out) ? err_set(err, ENOMEM, "configuration: no memory") : 0;
}

/* The configuration as a record keeps it: absolute paths, and nothing that the record or the host says itself. */
static int record_text(const struct vm_config *c, char **ret_text, struct err *err)
{
    struct vm_config copy;
    auto_free char *text = NULL;

    vm_config_init(&copy);
    int rc = print_options(c, &text, err);
    if (!rc)
        rc = vm_options_read(&copy, text, err);
    if (!rc)
        rc = make_paths_absolute(&copy, err);
    free(copy.root);
    copy.root = NULL;
    if (!rc)
        rc = print_options(&copy, ret_text, err);
    vm_config_fini(&copy);
    return rc;
}

/* Makes the guest that the machine will be. */
static int make_guest(struct launching *s, struct err *err)
{
    const struct launch *l = s->l;
    auto_free char *text = NULL;
    int rc = l->host ? 0 : host_open(&s->own, l->config->root, err);

    if (!rc && l->again)
        rc = guest_restart(s->host, l->again, &s->guest, err);
    else if (!rc && !(rc = record_text(l->config, &text, err)))
        rc = guest_create(s->host, l->named ? l->config->name : NULL, text, !l->background,
                          &s->guest, err);
    s->recorded = !rc;
    if (rc == -EEXIST)
        return err_wrap(err, "%s", l->name_from ? l->name_from : "--name");
    struct vm_serial_config *log = l->config->console.kind == VM_SERIAL_LOG  ? &l->config->console
                                   : l->config->serial.kind == VM_SERIAL_LOG ? &l->config->serial
                                                                             : NULL;
    bool needed = l->named || l->background || log;
    if (rc && needed)
        return rc;
    if (rc)
        log_warn("no record is kept of this machine, so ps, stop and the like do not know it: %s",
                 err->msg);
    else
        snprintf(l->config->name, sizeof(l->config->name), "%s", s->guest.name);
    if (!rc && log && !(log->path = place_guest(&s->host->place, s->guest.id, "console.log")))
        return err_set(err, ENOMEM, "console: no memory");
    /* Standard error is still the caller's when the machine is built, and must not be held. */
    if (!rc && l->background && l->config->has_debug_console && !l->config->debug_console_path)
        l->config->debug_console_path = place_guest(&s->host->place, s->guest.id, "debug.log");
    *err = ERR_INIT;
    return 0;
}

/* A machine that could not be built leaves nothing behind. */
static void forget_guest(struct launching *s, const struct err *why)
{
    struct record x = {0};

    if (!s->recorded)
        return;
    guest_end(&s->guest, STATUS_HOST, why->msg);
    snprintf(x.id, sizeof(x.id), "%s", s->guest.id);
    snprintf(x.name, sizeof(x.name), "%s", s->guest.name);
    guest_close(&s->guest);
    if (!s->l->again)
        guest_remove(s->host, &x, NULL);
}

/* Descriptors we were started with are the files of options until the machine is built, and nobody's afterwards. */
static void note_inherited(struct launching *s)
{
    DIR *d = opendir("/proc/self/fd");

    for (struct dirent *e; d && (e = readdir(d)) && s->ninherited < INHERITED_MAX;) {
        int fd = (int)strtol(e->d_name, NULL, 10);

        if (fd > STDERR_FILENO && fd != dirfd(d) && fd != s->pipe)
            s->inherited[s->ninherited++] = fd;
    }
    if (d)
        closedir(d);
}

/* In the background: no terminal, messages go to a file. */
static int detach(struct launching *s, struct err *err)
{
    auto_free char *path = place_guest(&s->host->place, s->guest.id, "messages.log");

    if (!path)
        return err_set(err, ENOMEM, "messages: no memory");
    auto_close int messages = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (messages < 0)
        return err_sys(err, errno, "cannot write '%s'", path);
    fflush(NULL);
    s->detached = true;
    dup2(messages, STDOUT_FILENO);
    dup2(messages, STDERR_FILENO);
    for (unsigned i = 0; i < s->ninherited; i++)
        close(s->inherited[i]);
    return 0;
}

static int build(struct launching *s, struct vm **ret_vm, struct err *err)
{
    const struct launch *l = s->l;
    struct vm *vm = NULL;
    int rc = l->build ? l->build(l->opaque, l->config, s->guest.id, &vm, err)
                      : vm_new(l->config, &vm, err);

    if (!rc && s->recorded) {
        rc = vm_control(vm, s->guest.listener, err);
        s->guest.listener = -1;
    }
    if (!rc && l->background)
        rc = detach(s, err);
    if (rc) {
        vm_free(vm);
        return rc;
    }
    *ret_vm = vm;
    return 0;
}

/* The guest runs: tells who waits for that. */
static void started(void *opaque)
{
    struct launching *s = opaque;

    if (s->pipe < 0)
        return;
    if (write(s->pipe, "ok\n", 3) != 3) {
        /* It does not wait any more: the guest runs all the same. */
    }
    close(s->pipe);
    s->pipe = -1;
}

/* Its process may be killed from now on, and the guest goes on elsewhere. */
static int handed_over(void *opaque, const char *place, struct err *err)
{
    struct launching *s = opaque;

    return guest_away(&s->guest, place, err);
}

static void say_failure(const struct launching *s, const struct err *err)
{
    fprintf(stderr, "trapeze %s: %s\n", s->l->verb, err->msg);
    if (s->detached && s->pipe >= 0)
        dprintf(s->pipe, "trapeze %s: %s\n", s->l->verb, err->msg);
}

/* Builds and runs it, in this process. Returns the exit status. */
static int run_here(struct launching *s)
{
    struct err err = ERR_INIT;
    struct vm *vm = NULL;

    s->report.end = VM_END_FAILED;
    s->host = s->l->host ? s->l->host : &s->own;
    int rc = make_guest(s, &err);
    if (!rc && s->pipe >= 0)
        dprintf(s->pipe, "%s\n", s->guest.id);
    if (!rc && (rc = build(s, &vm, &err)))
        forget_guest(s, &err);
    host_close(s->host);
    if (!rc) {
        vm_on_start(vm, started, s);
        if (s->recorded)
            vm_on_handover(vm, handed_over, s);
        rc = vm_run(vm, &s->report, &err);
    }
    vm_free(vm); /* the terminal is itself again before we say anything */
    int status = rc ? STATUS_HOST : status_of(&s->report);
    const char *reason = rc ? err.msg : end_reason(&s->report);
    if (rc)
        say_failure(s, &err);
    else if (reason)
        fprintf(stderr, "trapeze: %s\n", reason);
    if (!rc && s->l->report)
        print_report(&s->report);
    if (s->recorded)
        guest_end(&s->guest, status, reason);
    return status;
}

/* A process that is forked often begins on the processor of somebody else's guest, because its parent still runs on the
 * free one, and stays there for some milliseconds; one that wakes up goes where it is free. */
static void find_free_processor(void)
{
    const struct timespec moment = {.tv_nsec = 1};

    nanosleep(&moment, NULL);
}

/* The child of launch_background(). */
static int run_child(struct launching *s, int end)
{
    int null = open("/dev/null", O_RDONLY);

    find_free_processor();
    s->pipe = end;
    setsid();
    if (null >= 0)
        dup2(null, STDIN_FILENO);
    if (null > STDERR_FILENO)
        close(null);
    note_inherited(s);
    return run_here(s);
}

/* Reads all that the child says. */
static size_t listen_to(int fd, char *buf, size_t size)
{
    size_t len = 0;

    for (ssize_t n = 1; n && len + 1 < size;) {
        n = read(fd, buf + len, size - 1 - len);
        if (n < 0 && errno != EINTR)
            break;
        len += (size_t)MAX(n, 0);
    }
    buf[len] = 0;
    return len;
}

/* It failed after it had locked itself in, so it could not clean up behind itself. */
static void remove_failed(const struct launch *l, const char *id)
{
    struct record x = {0};
    struct host h;

    if (l->again || host_open(&h, l->config->root, NULL))
        return;
    if (!records_get(h.records, id, &x, NULL))
        guest_remove(&h, &x, NULL);
    record_fini(&x);
    host_close(&h);
}

static int wait_for_start(const struct launch *l, pid_t child, int fd)
{
    char said[2048];
    int status = 0;

    listen_to(fd, said, sizeof(said));
    char *rest = strchr(said, '\n');
    if (rest)
        *rest++ = 0;
    if (rest && !strcmp(rest, "ok\n")) {
        printf("%s\n", said);
        return STATUS_OK;
    }
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    if (rest && *rest)
        fputs(rest, stderr);
    else if (WIFSIGNALED(status))
        fprintf(stderr, "trapeze %s: the machine's process was killed by signal %d before it ran\n",
                l->verb, WTERMSIG(status));
    if (rest)
        remove_failed(l, said);
    return WIFEXITED(status) && WEXITSTATUS(status) ? WEXITSTATUS(status) : STATUS_HOST;
}

static int launch_background(struct launching *s)
{
    int ends[2];

    if (pipe2(ends, O_CLOEXEC)) {
        fprintf(stderr, "trapeze %s: pipe: %s\n", s->l->verb, strerror(errno));
        return STATUS_HOST;
    }
    fflush(NULL);
    pid_t child = fork();
    if (!child) {
        close(ends[0]);
        /* Not back to the verb: what that does next, such as the next clone, its parent does. */
        int status = run_child(s, ends[1]);
        fflush(NULL);
        _exit(status);
    }
    close(ends[1]);
    int status = STATUS_HOST;
    if (child < 0)
        fprintf(stderr, "trapeze %s: no process for the machine: %s\n", s->l->verb,
                strerror(errno));
    else
        status = wait_for_start(s->l, child, ends[0]);
    close(ends[0]);
    return status;
}

int launch(const struct launch *l)
{
    struct launching s = {.l = l, .pipe = -1, .guest = GUEST_INIT};

    return l->background ? launch_background(&s) : run_here(&s);
}
