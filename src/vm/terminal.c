/*
 * The terminal on standard input. The watcher is a forked process that waits on a pipe: one byte dismisses it, the
 * end of the pipe means that this process died and left the terminal raw (kill -9, a crash).
 *
 * Threads: all calls from the main one.
 */
#include "vm/terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static int make_raw(const struct terminal *t)
{
    struct termios raw = t->saved;

    cfmakeraw(&raw);
    raw.c_oflag |=
        OPOST | ONLCR; /* our own messages end in a bare newline; the guest's lines are unharmed */
    return tcsetattr(STDIN_FILENO, TCSADRAIN, &raw);
}

/* The watcher: never returns. Other descriptors are closed, or a reader of our output would wait for us too. */
static void __attribute__((noreturn)) watch(const struct terminal *t, int end)
{
    sigset_t all;
    char byte;
    ssize_t n;

    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    prctl(PR_SET_NAME, "trapeze-tty");
    /* Out of the foreground process group: not stopped or killed with it, and allowed to set modes afterwards. */
    setsid();
    if (end != 3) {
        dup2(end, 3);
        end = 3;
    }
    close(STDOUT_FILENO);
    close(STDERR_FILENO);
    close_range(4, ~0u, 0);
    do
        n = read(end, &byte, 1);
    while (n < 0 && errno == EINTR);
    if (n <= 0)
        tcsetattr(STDIN_FILENO, TCSAFLUSH, &t->saved);
    _exit(0);
}

static int start_watcher(struct terminal *t, struct err *err)
{
    int ends[2];

    if (pipe2(ends, O_CLOEXEC))
        return err_sys(err, errno, "terminal");
    /* A child of a child: nobody has to wait for it. */
    pid_t pid = fork();
    if (pid < 0) {
        int code = errno;

        close(ends[0]);
        close(ends[1]);
        return err_sys(err, code, "terminal");
    }
    if (!pid) {
        close(ends[1]);
        if (fork())
            _exit(0);
        watch(t, ends[0]);
    }
    waitpid(pid, NULL, 0);
    close(ends[0]);
    t->watcher = ends[1];
    return 0;
}

int terminal_watch(struct terminal *t, struct err *err)
{
    if (!isatty(STDIN_FILENO))
        return 0;
    if (tcgetattr(STDIN_FILENO, &t->saved))
        return err_sys(err, errno, "terminal");
    return start_watcher(t, err);
}

int terminal_start(struct terminal *t, struct err *err)
{
    if (t->watcher < 0)
        return 0;
    if (make_raw(t))
        return err_sys(err, errno, "terminal");
    t->raw = true;
    return 0;
}

void terminal_again(struct terminal *t)
{
    if (t->raw)
        make_raw(t);
}

void terminal_stop(struct terminal *t)
{
    if (t->raw)
        tcsetattr(STDIN_FILENO, TCSADRAIN, &t->saved);
    t->raw = false;
    if (t->watcher < 0)
        return;
    if (write(t->watcher, "q", 1) != 1) {
        /* It is gone already: nothing to dismiss. */
    }
    close(t->watcher);
    t->watcher = -1;
}

void terminal_size(u16 *ret_cols, u16 *ret_rows)
{
    struct winsize size = {0};

    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size))
        return;
    *ret_cols = size.ws_col;
    *ret_rows = size.ws_row;
}
