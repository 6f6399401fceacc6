/*
 * Driving CRIU. It is a program with a stable command line, so it is run as one; its log is where its reasons
 * are, and the first of them becomes our message.
 */
#include "container/criu.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "container/file.h"

#define MIN_VERSION 31700

/* Reads the first line of `criu --version`; 0 when it cannot be run. */
static unsigned criu_version(const char *path)
{
    unsigned major = 0, minor = 0, sub = 0;
    char text[256] = "";
    int out[2], child, status;
    ssize_t n;

    if (pipe2(out, O_CLOEXEC) < 0)
        return 0;
    child = fork();
    if (child == 0) {
        dup2(out[1], 1);
        execlp(path, path, "--version", (char *)NULL);
        _exit(127);
    }
    close(out[1]);
    n = read(out[0], text, sizeof(text) - 1);
    close(out[0]);
    while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    if (n <= 0 || sscanf(text, "Version: %u.%u.%u", &major, &minor, &sub) < 2)
        return 0;
    return major * 10000 + minor * 100 + sub;
}

int criu_find(const struct runtime *rt, const char **ret, struct err *err)
{
    const char *path = rt->criu && rt->criu[0] ? rt->criu : "criu";
    unsigned version = criu_version(path);

    if (!version)
        return err_set(
            err, ENOENT,
            "checkpoint and restore need CRIU, and %s cannot be run: install one that works "
            "on this kernel, or name it with --criu",
            path);
    if (version < MIN_VERSION)
        return err_set(err, ENOTSUP, "CRIU %u.%u is too old, 3.17 is needed", version / 10000,
                       version / 100 % 100);
    *ret = path;
    return 0;
}

static void add(struct runtime *rt, struct strv *args, const char *word, const char *value)
{
    pool_strv_add(&rt->pool, args, (char *)word);
    if (value)
        pool_strv_add(&rt->pool, args, (char *)value);
}

static int make_dir(const char *path, struct err *err)
{
    if (mkdir(path, 0755) < 0 && errno != EEXIST)
        return err_sys(err, errno, "make %s", path);
    return 0;
}

int criu_add_options(struct runtime *rt, const struct criu_opts *o, struct strv *args,
                     struct err *err)
{
    const struct {
        bool on;
        const char *word;
    } flags[] = {
        {o->tcp_established, "--tcp-established"},
        {o->ext_unix_sk, "--ext-unix-sk"},
        {o->shell_job, "--shell-job"},
        {o->file_locks, "--file-locks"},
        {o->auto_dedup, "--auto-dedup"},
        {o->link_remap, "--link-remap"},
        {o->tcp_skip_in_flight, "--skip-in-flight"},
    };
    const char *images = o->image_path ? o->image_path : "checkpoint";
    const char *mode = o->cgroups_mode ? o->cgroups_mode : "soft";

    if (strcmp(mode, "soft") != 0 && strcmp(mode, "full") != 0 && strcmp(mode, "strict") != 0 &&
        strcmp(mode, "ignore") != 0)
        return err_set(err, EINVAL, "Invalid manage-cgroups-mode value: %s", mode);
    if (o->empty_ns && strcmp(o->empty_ns, "network") != 0)
        return err_set(err, EINVAL, "namespace %s is not supported by --empty-ns", o->empty_ns);
    if (make_dir(images, err) < 0 || (o->work_path && make_dir(o->work_path, err) < 0))
        return -err->code;
    add(rt, args, "-D", images);
    if (o->work_path)
        add(rt, args, "-W", o->work_path);
    for (size_t i = 0; i < ARRAY_LEN(flags); i++)
        if (flags[i].on)
            add(rt, args, flags[i].word, NULL);
    add(rt, args, pool_fmt(&rt->pool, "--manage-cgroups=%s", mode), NULL);
    if (o->empty_ns)
        add(rt, args, "--empty-ns", "net");
    add(rt, args, "-v4", NULL);
    return 0;
}

static void add_external(struct runtime *rt, struct strv *args, const char *dest,
                         const char *source, bool restore)
{
    add(rt, args, "--external",
        restore ? pool_fmt(&rt->pool, "mnt[%s]:%s", dest, source)
                : pool_fmt(&rt->pool, "mnt[%s]:%s", dest, dest));
}

/* The binds that stand for a cgroup mount (cgroup_mount.c). */
static void add_cgroups(struct runtime *rt, const struct state *st, const struct spec_mount *m,
                        bool restore, struct strv *args)
{
    for (size_t i = 0; i < st->cgroup.n; i++) {
        const struct cgroup_dir *d = &st->cgroup.dirs[i];
        const char *name = strrchr(d->mount, '/');

        add_external(rt, args,
                     st->cgroup.pure_v2 ? m->dest : pool_fmt(&rt->pool, "%s%s", m->dest, name),
                     d->path, restore);
    }
}

static bool is_bind(const struct spec_mount *m)
{
    bool bind = m->type && strcmp(m->type, "bind") == 0;

    for (size_t i = 0; i < m->options.n; i++)
        bind |= strcmp(m->options.v[i], "bind") == 0 || strcmp(m->options.v[i], "rbind") == 0;
    return bind;
}

void criu_add_mounts(struct runtime *rt, const struct state *st, const struct spec *s, bool restore,
                     struct strv *args)
{
    for (size_t i = 0; i < s->mount_count; i++) {
        const struct spec_mount *m = &s->mounts[i];

        if (is_bind(m))
            add_external(rt, args, m->dest, m->source, restore);
        else if (m->type && strncmp(m->type, "cgroup", 6) == 0)
            add_cgroups(rt, st, m, restore, args);
    }
    /*
     * Masked files are binds of the host's /dev/null; masked directories are file systems of their own. Which
     * is which shows only while the container lives; a mapping that nobody asks for does no harm.
     */
    for (size_t i = 0; i < s->masked.n; i++) {
        char *path = pool_fmt(&rt->pool, "/proc/%d/root%s", st->pid, s->masked.v[i]);
        struct stat info;

        if (restore || (stat(path, &info) == 0 && !S_ISDIR(info.st_mode)))
            add_external(rt, args, s->masked.v[i], "/dev/null", restore);
    }
}

/* "(00.012) Error (criu/x.c:1): text": the first such line says why, the later ones what followed. */
static void explain(const char *dir, const char *log, struct err *err)
{
    char path[4096], line[512];
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s", dir, log);
    f = fopen(path, "re");
    while (f && fgets(line, sizeof(line), f)) {
        if (!strstr(line, "Error (") || strstr(line, "RLIMIT_NOFILE"))
            continue;
        line[strcspn(line, "\n")] = '\0';
        err_set(err, EIO, "criu failed: %.300s; log file: %.150s", strstr(line, "Error ("), path);
        break;
    }
    if (f)
        fclose(f);
}

int criu_run(const struct strv *args, const char *work_path, const char *log, struct err *err)
{
    int child = fork(), status = 0;

    if (child == 0) {
        execvp(args->v[0], args->v);
        _exit(127);
    }
    if (child < 0)
        return err_sys(err, errno, "fork for criu");
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return 0;
    err_set(err, EIO, "criu failed with status %d; log file: %s/%s",
            WIFEXITED(status) ? WEXITSTATUS(status) : 128, work_path, log);
    explain(work_path, log, err);
    return -err->code;
}
