/*
 * How a process gets into the container's groups: by itself, where that is possible.
 *
 * Who moves another process (writes its number to cgroup.procs) takes a kernel-wide lock against threads coming
 * and going, and the first to take it after a while waits for an RCU grace period: some 10 ms. A process that
 * moves its only thread itself, by "0" to v1's `tasks`, needs no such lock; one that is cloned into a v2 group
 * does not either. So the runtime opens the doors, since it has the rights and sees the host's files, and the
 * process goes through them.
 */
#include "container/cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "container/file.h"

static bool may_skip(const struct cgroup *cg, int code)
{
    return cg->rootless && (code == EACCES || code == EPERM || code == ENOENT);
}

int cgroup_open_doors(const struct cgroup *cg, struct cgroup_doors *ret, struct err *err)
{
    const struct cgroup_dir *memory = cgroup_find(cg, "memory");
    struct cgroup_doors doors = {.memory = -1};

    for (size_t i = 0; i < cg->n; i++) {
        char path[4096];
        int fd;

        if (cg->dirs[i].v2)
            continue;
        snprintf(path, sizeof(path), "%s/tasks", cg->dirs[i].path);
        fd = open(path, O_WRONLY | O_CLOEXEC);
        if (fd < 0 && may_skip(cg, errno))
            continue;
        if (fd < 0) {
            err_sys(err, errno, "open %s", path);
            cgroup_close_doors(&doors);
            return -err->code;
        }
        if (&cg->dirs[i] == memory)
            doors.memory = (int)doors.n;
        doors.fds[doors.n++] = fd;
    }
    *ret = doors;
    return 0;
}

void cgroup_close_doors(struct cgroup_doors *doors)
{
    for (size_t i = 0; i < doors->n; i++)
        if (doors->fds[i] >= 0)
            close(doors->fds[i]);
    *doors = (struct cgroup_doors){.memory = -1};
}

int cgroup_enter(struct cgroup_doors *doors, bool memory, struct err *err)
{
    for (size_t i = 0; i < doors->n; i++) {
        ssize_t n;
        int code;

        if (doors->fds[i] < 0 || (!memory && (int)i == doors->memory))
            continue;
        n = write(doors->fds[i], "0", 1);
        code = errno;
        close(doors->fds[i]);
        doors->fds[i] = -1;
        if (n < 0 && !(doors->rootless && (code == EACCES || code == EPERM)))
            return err_sys(err, code, "enter a cgroup");
    }
    return 0;
}

int cgroup_open_v2(const struct cgroup *cg)
{
    const struct cgroup_dir *d = cgroup_v2(cg);

    return d ? open(d->path, O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;
}

int cgroup_attach_v2(const struct cgroup *cg, int pid, struct err *err)
{
    const struct cgroup_dir *d = cgroup_v2(cg);
    char text[16];
    int rc;

    if (!d)
        return 0;
    snprintf(text, sizeof(text), "%d", pid);
    rc = cgroup_write(d, "cgroup.procs", text, err);
    return rc < 0 && may_skip(cg, -rc) ? 0 : rc;
}

int cgroup_attach_beside(const struct cgroup *cg, int other, int pid, struct err *err)
{
    const struct cgroup_dir *d = cgroup_v2(cg);
    char path[4600], text[8192], number[16], *at;
    int rc;

    snprintf(path, sizeof(path), "/proc/%d/cgroup", other);
    if (!d || file_read_at(AT_FDCWD, path, text, sizeof(text)) <= 0)
        return err_set(err, ENOENT, "find the cgroup of process %d", other);
    at = strncmp(text, "0::/", 4) == 0 ? text : strstr(text, "\n0::/");
    if (!at || strstr(at, "/.."))
        return err_set(err, ENOENT, "process %d is in no cgroup that can be reached", other);
    at = strchr(at, '/');
    at[strcspn(at, "\n")] = '\0';
    snprintf(path, sizeof(path), "%s%.4000s/cgroup.procs", d->mount, at);
    snprintf(number, sizeof(number), "%d", pid);
    rc = file_write_at(AT_FDCWD, path, number);
    return rc < 0 ? err_sys(err, -rc, "write %s to %s", number, path) : 0;
}
