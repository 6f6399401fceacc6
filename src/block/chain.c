/*
 * Files that an image names: its backing file, its data file. The names come from whoever made the image, who may be
 * after /etc/passwd. So they must be plain paths that stay beneath the image's folder, symbolic links included, unless
 * the user trusts the image. "json:", "nbd:" and the like are refused always. Any thread.
 */
#include "block/image.h"
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* "nbd:...": what other programs take for a protocol. */
static bool is_protocol(const char *name)
{
    size_t n = 0;

    while (isalnum((unsigned char)name[n]) || name[n] == '+' || name[n] == '-' || name[n] == '.')
        n++;
    return n && name[n] == ':';
}

/* The folder part of a path: "." or something that ends in '/'. */
static char *folder_of(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
}

static char *joined(const char *folder, const char *name)
{
    char *path = NULL;

    if (name[0] == '/' || !strcmp(folder, "."))
        return strdup(name);
    return asprintf(&path, "%s%s", folder, name) < 0 ? NULL : path;
}

/* An absolute name that lies in the folder, as one that is relative to it; else the name. */
static const char *relative(const char *folder, const char *name)
{
    auto_free char *real = realpath(folder, NULL);
    size_t len = real ? strlen(real) : 0;

    if (!len || strncmp(name, real, len) || name[len] != '/')
        return name;
    return name + len + strspn(name + len, "/");
}

static int open_beneath(const char *folder, const char *name, bool readonly,
                        struct block_file **ret_file, struct err *err)
{
    struct block_file_options o = {.readonly = readonly, .shared = true};
    auto_close int dir = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    int rc;

    if (dir < 0)
        return err_sys(err, errno, "%s", folder);
    o.dir_fd = dir;
    rc = block_file_open(relative(folder, name), &o, ret_file, err);
    if (rc == -EXDEV)
        return err_set(err, EPERM,
                       "%s: lies outside the folder of the image that names it, which is allowed "
                       "only for images that are trusted (disk --trust; run --disk "
                       "FILE,trust)",
                       name);
    return rc;
}

int block_chain_open(const struct block_image *from, const char *name, bool trust, bool readonly,
                     struct block_file **ret_file, struct err *err)
{
    struct block_file_options o = BLOCK_FILE_OPTIONS;
    auto_free char *folder = folder_of(from->path);
    auto_free char *path = folder ? joined(folder, name) : NULL;
    struct block_file *file;
    int rc;

    if (!path)
        return err_set(err, ENOMEM, "%s: no memory", from->path);
    if (is_protocol(name))
        return err_set(err, EPERM, "%s: names '%s', which is no plain file", from->path, name);
    o.readonly = readonly;
    o.shared = true;
    rc = trust ? block_file_open(path, &o, &file, err)
               : open_beneath(folder, name, readonly, &file, err);
    if (rc)
        return err_wrap(err, "%s", from->path);
    char *old = file->name;
    file->name = path; /* so that what it names in turn is found */
    path = old;
    *ret_file = file;
    return 0;
}
