/* The files about arrivals, <run>/arrivals/<token>. */
#include "cmd/arrival.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define KEPT_S (24 * 3600)

static char *folder_of(const struct place *p)
{
    char *path;

    return asprintf(&path, "%s/arrivals", p->run) < 0 ? NULL : path;
}

static char *path_of(const struct place *p, const u8 *token)
{
    char hex[2 * MIGRATE_TOKEN_BYTES + 1], *path;

    for (unsigned i = 0; i < MIGRATE_TOKEN_BYTES; i++)
        snprintf(hex + 2 * i, 3, "%02x", token[i]);
    return asprintf(&path, "%s/arrivals/%s", p->run, hex) < 0 ? NULL : path;
}

int arrival_map(const struct place *p, const u8 *token, bool make, struct arrival_file **ret_file,
                struct err *err)
{
    auto_free char *folder = folder_of(p), *path = path_of(p, token);
    struct stat st;
    int rc = folder && path ? 0 : err_set(err, ENOMEM, "no memory");

    if (!rc && make)
        rc = place_make(folder, err);
    if (rc)
        return rc;
    auto_close int fd =
        open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | (make ? O_CREAT | O_EXCL : 0), 0600);
    if (fd < 0)
        return err_sys(err, errno, "'%s'", path);
    if (make && ftruncate(fd, sizeof(struct arrival_file)))
        return err_sys(err, errno, "'%s'", path);
    if (fstat(fd, &st) || st.st_size != sizeof(struct arrival_file))
        return err_set(err, EINVAL, "'%s' is damaged", path);
    void *map = mmap(NULL, sizeof(struct arrival_file), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        return err_sys(err, errno, "'%s'", path);
    *ret_file = map;
    return 0;
}

void arrival_unmap(struct arrival_file *f)
{
    if (f)
        munmap(f, sizeof(*f));
}

void arrival_forget(const struct place *p, const u8 *token)
{
    auto_free char *path = path_of(p, token);

    if (path)
        unlink(path);
}

void arrival_sweep(const struct place *p)
{
    auto_free char *folder = folder_of(p);
    DIR *d = folder ? opendir(folder) : NULL;
    time_t now = time(NULL);
    struct stat st;

    for (struct dirent *e; d && (e = readdir(d));)
        if (!fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) && S_ISREG(st.st_mode) &&
            now - st.st_mtime > KEPT_S)
            unlinkat(dirfd(d), e->d_name, 0);
    if (d)
        closedir(d);
}
