/*
 * Staying with a container's process: its terminal is ours, signals we get are its, its exit status becomes
 * ours. One thread, one poll loop over a signalfd, the terminal's master and our own input.
 */
#include "container/create.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "container/file.h"
#include "container/sync.h"

struct foreground {
    int pid, signals, master;
    bool stdin_open, raw;
    struct termios saved;
};

static int receive_master(int sock, struct err *err)
{
    struct sync_msg msg;
    int fd = -1, rc = sync_recv(sock, &msg, &fd);

    if (rc < 0 || fd < 0)
        return err_set(err, EPROTO, "the container's terminal did not arrive");
    return fd;
}

static void pass_size(const struct foreground *f)
{
    struct winsize size;

    if (f->master >= 0 && ioctl(STDIN_FILENO, TIOCGWINSZ, &size) == 0)
        ioctl(f->master, TIOCSWINSZ, &size);
}

static void make_raw(struct foreground *f)
{
    struct termios raw;

    if (f->master < 0 || tcgetattr(STDIN_FILENO, &f->saved) < 0)
        return;
    raw = f->saved;
    cfmakeraw(&raw);
    f->raw = tcsetattr(STDIN_FILENO, TCSANOW, &raw) == 0;
}

/* Moves what is there; false at the end of the input. */
static bool copy_some(int from, int to)
{
    char buf[8192];
    ssize_t n = read(from, buf, sizeof(buf));

    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return true;
    return n > 0 && file_write_all(to, buf, (size_t)n) == 0;
}

/* Reaps whatever ended; true when the one we wait for did. */
static bool reap(const struct foreground *f, int *ret_status)
{
    int status, pid;
    bool ended = false;

    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        if (pid == f->pid) {
            *ret_status = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
            ended = true;
        }
    }
    return ended;
}

static bool handle_signals(struct foreground *f, int *ret_status)
{
    struct signalfd_siginfo info;

    while (read(f->signals, &info, sizeof(info)) == sizeof(info)) {
        if (info.ssi_signo == SIGCHLD) {
            if (reap(f, ret_status))
                return true;
        } else if (info.ssi_signo == SIGWINCH) {
            pass_size(f);
        } else if (info.ssi_signo != SIGURG) {
            kill(f->pid, (int)info.ssi_signo);
        }
    }
    return false;
}

/* What the program wrote last may still be in the terminal. */
static void drain(struct foreground *f)
{
    if (f->master < 0)
        return;
    fcntl(f->master, F_SETFL, O_NONBLOCK);
    for (int i = 0; i < 1024; i++) {
        struct pollfd p = {f->master, POLLIN, 0};

        if (poll(&p, 1, 0) <= 0 || !(p.revents & POLLIN) || !copy_some(f->master, STDOUT_FILENO))
            break;
    }
}

static int loop(struct foreground *f)
{
    int status = 0;

    while (!reap(f, &status)) {
        struct pollfd p[3] = {{f->signals, POLLIN, 0},
                              {f->master, POLLIN, 0},
                              {f->stdin_open ? STDIN_FILENO : -1, POLLIN, 0}};

        if (poll(p, 3, -1) < 0 && errno != EINTR)
            break;
        if ((p[0].revents & POLLIN) && handle_signals(f, &status))
            break;
        if ((p[1].revents & (POLLIN | POLLHUP)) && !copy_some(f->master, STDOUT_FILENO)) {
            /* EIO: no process has the terminal open; the next SIGCHLD ends the loop. */
            close(f->master);
            f->master = -1;
            f->stdin_open = false;
        }
        if ((p[2].revents & (POLLIN | POLLHUP)) && !copy_some(STDIN_FILENO, f->master))
            f->stdin_open = false;
    }
    drain(f);
    return status;
}

int foreground_wait(int pid, int master_socket, bool subreaper, struct err *err)
{
    struct foreground f = {.pid = pid, .signals = -1, .master = -1};
    sigset_t all, old;
    int status;

    if (subreaper)
        prctl(PR_SET_CHILD_SUBREAPER, 1);
    if (master_socket >= 0) {
        f.master = receive_master(master_socket, err);
        if (f.master < 0)
            return f.master;
        f.stdin_open = true;
    }
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &old);
    f.signals = signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
    if (f.signals < 0)
        return err_sys(err, errno, "signalfd");
    pass_size(&f);
    make_raw(&f);
    status = loop(&f);
    if (f.raw)
        tcsetattr(STDIN_FILENO, TCSANOW, &f.saved);
    if (f.master >= 0)
        close(f.master);
    close(f.signals);
    sigprocmask(SIG_SETMASK, &old, NULL);
    return status;
}
