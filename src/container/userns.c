/*
 * Writing uid_map and gid_map. Root writes them itself. A normal user may map only itself, one line without
 * setgroups; for more, the setuid helpers newuidmap and newgidmap check /etc/subuid and write.
 */
#include "container/userns.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "container/file.h"
#include "container/sys.h"

/* "container host size\n" per entry. */
static void format_map(const struct spec_idmaps *maps, char *buf, size_t size)
{
    size_t used = 0;

    buf[0] = '\0';
    for (size_t i = 0; i < maps->n && used < size - 40; i++)
        used += (size_t)snprintf(buf + used, size - used, "%u %u %u\n", maps->v[i].container,
                                 maps->v[i].host, maps->v[i].size);
}

static int run_helper(const char *helper, int pid, const struct spec_idmaps *maps, struct err *err)
{
    struct pool pool = {0};
    struct strv args = {0};
    int child, status = 0;

    pool_strv_add(&pool, &args, (char *)helper);
    pool_strv_add(&pool, &args, pool_fmt(&pool, "%d", pid));
    for (size_t i = 0; i < maps->n; i++) {
        pool_strv_add(&pool, &args, pool_fmt(&pool, "%u", maps->v[i].container));
        pool_strv_add(&pool, &args, pool_fmt(&pool, "%u", maps->v[i].host));
        pool_strv_add(&pool, &args, pool_fmt(&pool, "%u", maps->v[i].size));
    }
    child = fork();
    if (child == 0) {
        execvp(helper, args.v);
        _exit(127);
    }
    pool_fini(&pool);
    if (child < 0)
        return err_sys(err, errno, "fork for %s", helper);
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
        return err_set(err, ENOENT, "%s is needed to map more than one id (Debian: package uidmap)",
                       helper);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        return err_set(err, EPERM, "%s refused the id maps", helper);
    return 0;
}

static bool is_own_id(const struct spec_idmaps *maps, u32 own)
{
    return maps->n == 1 && maps->v[0].size == 1 && maps->v[0].host == own;
}

static int write_map(int pid, const char *file, const struct spec_idmaps *maps, struct err *err)
{
    char path[48], text[340 * 36];
    int rc;

    format_map(maps, text, sizeof(text));
    snprintf(path, sizeof(path), "/proc/%d/%s", pid, file);
    rc = file_write_at(AT_FDCWD, path, text);
    return rc < 0 ? err_sys(err, -rc, "write %s", path) : 0;
}

int userns_write_maps(int pid, const struct spec_idmaps *uids, const struct spec_idmaps *gids,
                      bool privileged, struct err *err)
{
    char path[48];

    if (privileged)
        return write_map(pid, "uid_map", uids, err) < 0 || write_map(pid, "gid_map", gids, err) < 0
                   ? -err->code
                   : 0;
    if (is_own_id(gids, getegid())) {
        int rc;

        snprintf(path, sizeof(path), "/proc/%d/setgroups", pid);
        rc = file_write_at(AT_FDCWD, path, "deny");
        if (rc < 0 && rc != -ENOENT)
            return err_sys(err, -rc, "write %s", path);
        if (write_map(pid, "gid_map", gids, err) < 0)
            return -err->code;
    } else if (run_helper("newgidmap", pid, gids, err) < 0) {
        return -err->code;
    }
    return is_own_id(uids, geteuid()) ? write_map(pid, "uid_map", uids, err)
                                      : run_helper("newuidmap", pid, uids, err);
}

int userns_make(const struct spec_idmaps *uids, const struct spec_idmaps *gids, struct err *err)
{
    struct clone_args args = {.flags = CLONE_NEWUSER, .exit_signal = SIGCHLD};
    char path[48];
    int pid = (int)sys_clone3(&args), fd = -1, code;

    if (pid < 0)
        return err_sys(err, errno, "clone for an id-mapped mount");
    if (pid == 0) {
        /* Holds the namespace open until the maps are written; must not outlive a runtime that is killed. */
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;)
            pause();
    }
    snprintf(path, sizeof(path), "/proc/%d/ns/user", pid);
    if (userns_write_maps(pid, uids, gids, geteuid() == 0, err) == 0) {
        fd = open(path, O_RDONLY | O_CLOEXEC);
        code = errno;
        if (fd < 0)
            err_sys(err, code, "open %s", path);
    }
    kill(pid, SIGKILL);
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
    return fd < 0 ? -err->code : fd;
}
