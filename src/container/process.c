/*
 * Identity and privileges of the container's process, then its program (config.md, process).
 *
 * Order, and why:
 * 1. The bounding set is dropped and the ids are changed while everything is still permitted; KEEPCAPS holds
 *    the permitted set over setuid.
 * 2. A filter without no_new_privs needs CAP_SYS_ADMIN, so it is loaded before the final capset; with
 *    no_new_privs it is loaded last, so that it sees none of our own calls but execve.
 * 3. The working directory is entered after the root is; getcwd then proves that it lies inside
 *    (CVE-2024-21626: a cwd of /proc/self/fd/N leads out).
 */
#include "container/process.h"

#include <errno.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "container/caps.h"
#include "container/file.h"
#include "container/path.h"
#include "container/report.h"
#include "container/sys.h"

#include <linux/close_range.h>

#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

static void reset_signals(void)
{
    struct sigaction act = {.sa_handler = SIG_DFL};
    sigset_t none;

    for (int sig = 1; sig < NSIG; sig++)
        sigaction(sig, &act, NULL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

int process_begin(struct init *in, struct err *err)
{
    const struct spec_process *p = in->process;
    char text[16];
    int rc = 0;

    reset_signals();
    umask(0);
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
        return err_sys(err, errno, "prctl");
    /* Who runs a command in a container has been told when it was created; now it would be in the output. */
    if (task_raise_limits(p, p == &in->spec->process ? REPORT_WARN : REPORT_DEBUG, err) < 0)
        return -err->code;
    if (p->has_oom) {
        snprintf(text, sizeof(text), "%d", p->oom_score);
        rc = procfs_write(in->procfd, "self/oom_score_adj", text);
    }
    /* Lowering the score takes CAP_SYS_RESOURCE; without it the container is only a likelier victim. */
    if (rc == -EACCES || rc == -EPERM)
        report(REPORT_WARN,
               "oomScoreAdj %d is not permitted here (CAP_SYS_RESOURCE is missing); left as it is",
               p->oom_score);
    else if (rc < 0)
        return err_sys(err, -rc, "set oomScoreAdj");
    return 0;
}

/*
 * A null device that the engine opened outside is a file of the host's mounts: replaced by the container's own,
 * so that nothing of the host is held, and checkpoints know every file.
 */
static void reopen_null(const struct init *in)
{
    for (int fd = 0; fd < 3; fd++) {
        auto_close int null = -1;
        struct stat st;

        if (fstat(fd, &st) < 0 || !S_ISCHR(st.st_mode) || st.st_rdev != makedev(1, 3))
            continue;
        null = path_open_nolinks(in->root, "/dev/null", O_RDWR);
        if (null >= 0 && fstat(null, &st) == 0 && S_ISCHR(st.st_mode) &&
            st.st_rdev == makedev(1, 3))
            dup2(null, fd);
    }
}

/* Programs may reopen /dev/stdout, so the pipes the engine made must be the user's. */
static void own_stdio(const struct spec_process *p)
{
    for (int fd = 0; fd < 3; fd++) {
        struct stat st;

        if (fstat(fd, &st) < 0 || st.st_uid == p->uid || (S_ISCHR(st.st_mode) && !isatty(fd)))
            continue;
        if (fchown(fd, p->uid, (gid_t)-1) < 0 && errno != EPERM && errno != EROFS &&
            errno != EINVAL)
            report(REPORT_DEBUG, "stdio %d keeps its owner", fd);
    }
}

static int set_ids(struct init *in, struct err *err)
{
    const struct spec_process *p = in->process;
    char text[8] = "";

    if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0)
        return err_sys(err, errno, "keep capabilities");
    file_read_at(in->procfd, "self/setgroups", text, sizeof(text));
    if (strncmp(text, "deny", 4) == 0) {
        if (p->gid_count)
            report(REPORT_WARN,
                   "additionalGids cannot be set in a user namespace without setgroups");
    } else if (setgroups(p->gid_count, p->gids) < 0) {
        return err_sys(err, errno, "setgroups");
    }
    if (setresgid(p->gid, p->gid, p->gid) < 0)
        return err_sys(err, errno, "setgid %u", p->gid);
    if (setresuid(p->uid, p->uid, p->uid) < 0)
        return err_sys(err, errno, "setuid %u", p->uid);
    return 0;
}

/* What the process may still need until its program starts: its own sets, and the filter's privilege. */
static int keep_for_finish(struct init *in, const struct caps_own *own, struct err *err)
{
    u64 need = in->process->caps[CAPS_PERMITTED] | in->process->caps[CAPS_EFFECTIVE] |
               in->process->caps[CAPS_INHERITABLE];

    if (in->seccomp->count && !in->process->no_new_privs)
        need |= BIT(caps_number("CAP_SYS_ADMIN"));
    need &= own->permitted;
    return caps_set(need, need, 0, err);
}

static int limit_caps(struct init *in, const struct caps_own *own, struct err *err)
{
    struct spec_process *p = (struct spec_process *)in->process;
    u64 lost = caps_limit(p->caps, own);
    char names[256] = "";
    size_t used = 0;

    for (int i = 0; i < CAPS_KNOWN && used < sizeof(names) - 32; i++)
        if (lost & BIT(i))
            used += (size_t)snprintf(names + used, sizeof(names) - used, " %s", caps_name(i));
    if (lost)
        report(REPORT_WARN, "not available here and left out of the container's capabilities:%s",
               names);
    return caps_drop_bounding(p->caps[CAPS_BOUNDING], err);
}

/* Resolved inside the root and without magic links; getcwd then confirms what resolution promised. */
static int enter_cwd(const struct init *in, struct err *err)
{
    auto_close int fd = path_open(in->root, in->process->cwd, O_PATH | O_DIRECTORY);
    char now[4096];

    if (fd < 0 || fchdir(fd) < 0)
        return err_sys(err, fd < 0 ? -fd : errno, "chdir to cwd (\"%s\") set in config.json failed",
                       in->process->cwd);
    if (!getcwd(now, sizeof(now)) || now[0] != '/')
        return err_set(err, ENOENT,
                       "current working directory is outside of container mount namespace root -- "
                       "possible container breakout detected");
    return 0;
}

static const char *env_value(const struct spec_process *p, const char *key)
{
    size_t len = strlen(key);

    for (size_t i = p->env.n; i > 0; i--)
        if (strncmp(p->env.v[i - 1], key, len) == 0 && p->env.v[i - 1][len] == '=')
            return p->env.v[i - 1] + len + 1;
    return NULL;
}

static int check_file(const char *path)
{
    struct stat st;

    if (stat(path, &st) < 0)
        return -errno;
    if (S_ISDIR(st.st_mode) || faccessat(AT_FDCWD, path, X_OK, AT_EACCESS) < 0)
        return -EACCES;
    return 0;
}

/* Finds the program as execvp would; the name is put in place of args[0]'s lookup by process_exec. */
static int find_program(const struct spec_process *p, char *ret, size_t size, struct err *err)
{
    const char *name = p->args.v[0], *path = env_value(p, "PATH");
    int worst = -ENOENT;

    if (strchr(name, '/')) {
        int rc = check_file(name);

        if (rc == -EACCES)
            return err_set(err, EACCES, "exec: \"%s\": permission denied", name);
        if (rc < 0)
            return err_sys(err, -rc, "exec: \"%s\": stat %s", name, name);
        return snprintf(ret, size, "%s", name) >= (int)size
                   ? err_set(err, ENAMETOOLONG, "exec: \"%.60s...\": file name too long", name)
                   : 0;
    }
    for (const char *at = path ? path : DEFAULT_PATH; *at;) {
        size_t len = strcspn(at, ":");

        if (snprintf(ret, size, "%.*s/%s", len ? (int)len : 1, len ? at : ".", name) < (int)size) {
            int rc = check_file(ret);

            if (rc == 0)
                return 0;
            worst = rc == -EACCES ? rc : worst;
        }
        at += len + (at[len] == ':');
    }
    if (worst == -EACCES)
        return err_set(err, EACCES, "exec: \"%s\": permission denied", name);
    return err_set(err, ENOENT, "exec: \"%s\": executable file not found in $PATH", name);
}

int process_become(struct init *in, struct err *err)
{
    const struct spec_process *p = in->process;
    struct caps_own own;
    struct err first = ERR_INIT;
    char program[4096];

    reopen_null(in);
    own_stdio(p);
    umask(p->has_umask ? p->umask : 0022);
    /* As root first: the directory may be closed to the user. Then as the user: root may be squashed. */
    enter_cwd(in, &first);
    if (task_set_limits(p, err) < 0 || caps_read_own(&own, err) < 0 ||
        limit_caps(in, &own, err) < 0 || set_ids(in, err) < 0 || keep_for_finish(in, &own, err) < 0)
        return -err->code;
    if (first.code && enter_cwd(in, err) < 0)
        return -err->code;
    /* A change of ids resets both of these by the kernel's own rules (prctl(2)). */
    prctl(PR_SET_DUMPABLE, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    return p->args.n ? find_program(p, program, sizeof(program), err) : 0;
}

int process_finish(struct init *in, int *ret_listener, struct err *err)
{
    const struct spec_process *p = in->process;

    *ret_listener = -1;
    /* The filter may refuse these; behind it only what it must see anyway is called. */
    if (find_program(p, in->program, sizeof(in->program), err) < 0)
        return -err->code;
    sys_close_range(3 + in->preserve_fds, ~0u, CLOSE_RANGE_CLOEXEC);
    prctl(PR_SET_PDEATHSIG, 0);
    if (!p->no_new_privs && seccomp_install(in->seccomp, ret_listener, err) < 0)
        return -err->code;
    if (caps_set(p->caps[CAPS_EFFECTIVE] & p->caps[CAPS_PERMITTED], p->caps[CAPS_PERMITTED],
                 p->caps[CAPS_INHERITABLE], err) < 0 ||
        caps_set_ambient(p->caps[CAPS_AMBIENT], err) < 0)
        return -err->code;
    if (p->no_new_privs && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return err_sys(err, errno, "set no_new_privs");
    if (p->no_new_privs && seccomp_install(in->seccomp, ret_listener, err) < 0)
        return -err->code;
    return 0;
}

int process_exec(struct init *in, struct err *err)
{
    execve(in->program, in->process->args.v, in->process->env.v);
    return err_sys(err, errno, "exec %s", in->program);
}
