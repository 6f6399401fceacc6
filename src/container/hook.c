/*
 * Running hooks. A hook gets the state as JSON on standard input, its own environment and nothing else of
 * ours; what it writes is kept for the message of a failure. One that outlives its timeout is killed.
 */
#include "container/hook.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "container/file.h"
#include "container/report.h"
#include "container/sys.h"

struct running {
    int pid, pidfd;
    int output; /* a memfd with stdout and stderr */
};

static void exec_hook(const struct spec_hook *h, int in, int out)
{
    char *fallback[] = {(char *)h->path, NULL};

    if (dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0)
        _exit(127);
    sys_close_range(3, ~0u, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    execve(h->path, h->args.n ? h->args.v : fallback, h->env.n ? h->env.v : (char *[]){NULL});
    dprintf(2, "%s: %s", h->path, strerror(errno));
    _exit(127);
}

static int start_hook(const struct spec_hook *h, const char *state, struct running *ret,
                      struct err *err)
{
    auto_close int in = memfd_create("state", MFD_CLOEXEC);
    auto_close int out = memfd_create("output", MFD_CLOEXEC);
    int rc = in < 0 || out < 0 ? -errno : file_write_all(in, state, strlen(state));

    if (rc < 0 || lseek(in, 0, SEEK_SET) < 0)
        return err_sys(err, rc < 0 ? -rc : errno, "prepare the hook's input");
    ret->pid = fork();
    if (ret->pid == 0)
        exec_hook(h, in, out);
    if (ret->pid < 0)
        return err_sys(err, errno, "fork for the hook");
    ret->pidfd = sys_pidfd_open(ret->pid, 0);
    ret->output = out;
    out = -1;
    return 0;
}

/* True when it ended in time; else it has been killed. Either way it is no zombie any more. */
static bool wait_hook(struct running *r, int timeout_s, int *ret_status)
{
    struct pollfd p = {r->pidfd, POLLIN, 0};
    bool in_time = true;

    if (timeout_s > 0 && r->pidfd >= 0) {
        struct timespec end, now;

        clock_gettime(CLOCK_MONOTONIC, &end);
        end.tv_sec += timeout_s;
        do {
            int rc;

            clock_gettime(CLOCK_MONOTONIC, &now);
            rc = poll(&p, 1,
                      (int)MAX(0, (end.tv_sec - now.tv_sec) * 1000 +
                                      (end.tv_nsec - now.tv_nsec) / 1000000));
            if (rc >= 0 || errno != EINTR) {
                in_time = rc > 0;
                break;
            }
        } while (true);
    }
    if (!in_time)
        kill(r->pid, SIGKILL);
    while (waitpid(r->pid, ret_status, 0) < 0 && errno == EINTR)
        ;
    return in_time;
}

static int run_one(const struct spec_hook *h, size_t index, const char *state, struct err *err)
{
    struct running r = {-1, -1, -1};
    char output[200] = "";
    int status = 0, rc = 0;
    ssize_t n;

    if (start_hook(h, state, &r, err) < 0)
        return err_wrap(err, "error running hook #%zu", index);
    if (!wait_hook(&r, h->timeout_s, &status)) {
        rc = err_set(err, ETIMEDOUT, "error running hook #%zu: %s ran past timeout of %d s", index,
                     h->path, h->timeout_s);
    } else if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        n = pread(r.output, output, sizeof(output) - 1, 0);
        output[n > 0 ? n : 0] = '\0';
        rc = err_set(err, ECANCELED, "error running hook #%zu: %s: %s %d, output: %s", index,
                     h->path, WIFEXITED(status) ? "exit status" : "signal",
                     WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status), output);
    }
    if (r.pidfd >= 0)
        close(r.pidfd);
    close(r.output);
    return rc;
}

int hook_run(const struct spec *s, enum hook_kind kind, json_t *state, struct err *err)
{
    const char *text = json_object_to_json_string_ext(state, JSON_C_TO_STRING_PLAIN);

    for (size_t i = 0; i < s->hooks[kind].n; i++)
        if (run_one(&s->hooks[kind].v[i], i, text, err) < 0)
            return err_wrap(err, "%s", hook_names[kind]);
    return 0;
}

void hook_run_all(const struct spec *s, enum hook_kind kind, json_t *state)
{
    const char *text = json_object_to_json_string_ext(state, JSON_C_TO_STRING_PLAIN);

    for (size_t i = 0; i < s->hooks[kind].n; i++) {
        struct err err = ERR_INIT;

        if (run_one(&s->hooks[kind].v[i], i, text, &err) < 0)
            report(REPORT_WARN, "%s: %s", hook_names[kind], err.msg);
    }
}
