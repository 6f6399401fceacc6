/* Where this host's records are. Any thread; reads the environment. */
#include "host/place.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int place_make(const char *path, struct err *err)
{
    auto_free char *copy = strdup(path);

    if (!copy)
        return err_set(err, ENOMEM, "folder '%s': no memory", path);
    for (char *p = copy + 1;; p++) {
        if (*p && *p != '/')
            continue;
        char rest = *p;
        *p = 0;
        int rc = mkdir(copy, 0700) ? errno : 0;
        if (rc && rc != EEXIST && access(copy, F_OK))
            return err_sys(err, rc, "cannot make the folder '%s'", copy);
        if (!rest)
            break;
        *p = rest;
    }
    return 0;
}

static const char *environment(const char *name)
{
    const char *value = getenv(name);

    return value && *value ? value : NULL;
}

/* FORMAT with one %s, or NULL. */
static char *join(const char *folder, const char *rest)
{
    char *path = NULL;

    return folder && asprintf(&path, "%s%s", folder, rest) >= 0 ? path : NULL;
}

static char *default_root(void)
{
    if (geteuid() == 0)
        return strdup("/var/lib/trapeze");
    if (environment("XDG_DATA_HOME"))
        return join(environment("XDG_DATA_HOME"), "/trapeze");
    return join(environment("HOME"), "/.local/share/trapeze");
}

/* Of the default root only: an explicit one is a host of its own, with its own sockets. */
static char *default_run(const char *root)
{
    if (geteuid() == 0)
        return strdup("/run/trapeze");
    if (environment("XDG_RUNTIME_DIR"))
        return join(environment("XDG_RUNTIME_DIR"), "/trapeze");
    return join(root, "/run");
}

int place_init(struct place *p, const char *root, struct err *err)
{
    const char *given = root ? root : environment("TRAPEZE_ROOT");
    auto_free char *wanted = given ? strdup(given) : default_root();
    int rc;

    *p = (struct place){0};
    if (!wanted)
        return err_set(
            err, ENOENT,
            "no place for records: neither --root nor $TRAPEZE_ROOT is given, nor $HOME");
    if ((rc = place_make(wanted, err)))
        return given ? rc
                     : err_wrap(err, "no place for records; --root or $TRAPEZE_ROOT names another");
    if (!(p->root = realpath(wanted, NULL)))
        return err_sys(err, errno, "the folder of records, '%s'", wanted);
    p->run = given ? join(p->root, "/run") : default_run(p->root);
    if (!p->run)
        rc = err_set(err, ENOMEM, "the folder of records: no memory");
    else
        rc = place_make(p->run, err);
    auto_free char *guests = join(p->root, "/guests");
    if (!rc)
        rc = guests ? place_make(guests, err)
                    : err_set(err, ENOMEM, "the folder of records: no memory");
    if (rc)
        place_fini(p);
    return rc;
}

void place_fini(struct place *p)
{
    free(p->root);
    free(p->run);
    *p = (struct place){0};
}

char *place_guest(const struct place *p, const char *id, const char *file)
{
    char *path = NULL;

    return asprintf(&path, "%s/guests/%s%s%s", p->root, id, file ? "/" : "", file ? file : "") < 0
               ? NULL
               : path;
}

char *place_socket(const struct place *p, const char *id)
{
    char *path = NULL;

    return asprintf(&path, "%s/%s.sock", p->run, id) < 0 ? NULL : path;
}
