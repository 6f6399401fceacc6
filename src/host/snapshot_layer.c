/*
 * Overlays of disks: <root>/layers/<random>.qcow2. See snapshot.h. An overlay names the image below it by its absolute
 * path, so other tools find their way, too.
 *
 * Who uses a layer: manifests and claims name all of theirs; guests' records name their top one; and every image in use names
 * the one below. On shared storage that may be one of another host's: it is followed as well, since ours may be below it. What
 * is not reached from there is removed.
 *
 * A guest that moved to another host and left its disks here is on a layer of ours, and its record here may go. Then the layer
 * is marked as lent, by an empty file beside it, until the guest comes back.
 */
#include "base/log.h"
#include "block/image.h"
#include "block/qcow2.h"
#include "host/snapshot.h"
#include "vm/option.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define LAYERS_MAX 65536
#define LENT ".lent"

int layer_new(const struct host *h, const struct snapshot_layer *below, u64 size, char **ret_path,
              struct err *err)
{
    struct qcow2_create o = {.version = 3,
                             .cluster_bits = 16,
                             .refcount_order = 4,
                             .size = size,
                             .backing_name = below->path,
                             .backing_format = below->path ? below->format : NULL};
    struct block_file_options fo = BLOCK_FILE_OPTIONS;
    struct block_file *file;
    char *path = NULL;
    u64 number;

    if (getrandom(&number, sizeof(number), 0) != sizeof(number))
        return err_sys(err, errno, "random number");
    if (asprintf(&path, "%s/layers/%016llx.qcow2", h->place.root, (unsigned long long)number) < 0)
        return err_set(err, ENOMEM, "no memory");
    fo.create = true;
    int rc = block_file_open(path, &fo, &file, err);
    if (!rc) {
        /* Its content is worth nothing before the guest writes to it, and the guest's flushes sync it. */
        file->unsafe = true;
        rc = qcow2_create(file, &o, err);
        block_file_close(file);
    }
    if (rc) {
        unlink(path);
        free(path);
        return rc;
    }
    *ret_path = path;
    return 0;
}

int layer_open(const char *path, int *ret_fd, struct err *err)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int fd = open(path, O_RDWR | O_CLOEXEC);

    if (fd < 0)
        return err_sys(err, errno, "'%s'", path);
    if (fcntl(fd, F_OFD_SETLK, &lock)) {
        int rc = err_sys(err, errno, "'%s': cannot be locked", path);

        close(fd);
        return rc;
    }
    *ret_fd = fd;
    return 0;
}

/* With a slash at its end; NULL: no memory. */
static char *layers_folder(const struct host *h)
{
    char *folder;

    return asprintf(&folder, "%s/layers/", h->place.root) < 0 ? NULL : folder;
}

/* --- which ones are in use --- */

struct used {
    const char *folder; /* with a slash at its end */
    char **path;        /* also of images that are no layers of ours */
    size_t count;
    bool failed; /* then nothing is removed */
};

static bool is_used(const struct used *u, const char *path)
{
    for (size_t i = 0; i < u->count; i++)
        if (!strcmp(u->path[i], path))
            return true;
    return false;
}

static void use(struct used *u, const char *path)
{
    if (is_used(u, path))
        return;
    char **more = reallocarray(u->path, u->count + 1, sizeof(*more));
    char *copy = strdup(path);
    if (!more || !copy || u->count == LAYERS_MAX) {
        u->failed = true;
        free(copy);
        u->path = more ? more : u->path;
        return;
    }
    u->path = more;
    u->path[u->count++] = copy;
}

static void use_guest(struct used *u, const struct record *r)
{
    struct vm_config c;
    struct err why = ERR_INIT;

    vm_config_init(&c);
    if (vm_options_read(&c, r->config, &why))
        u->failed = true;
    for (unsigned i = 0; i < c.ndisks; i++)
        use(u, c.disk[i].path);
    vm_config_fini(&c);
}

/* A disk that no snapshot was ever taken of can be anything. */
static bool is_qcow2(const char *path, struct used *u)
{
    u8 start[4] = {0};
    auto_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0 || (pread(fd, start, sizeof(start), 0) < 0 && errno != EISDIR))
        u->failed = true;
    return qcow2_begins(start);
}

static void use_below(struct used *u, size_t index)
{
    struct block_image_options o = {
        .format = "qcow2", .readonly = true, .shared = true, .no_backing = true};
    struct block_image *image;

    if (access(u->path[index], F_OK))
        return; /* not there: nothing is below it either */
    if (!is_qcow2(u->path[index], u))
        return;
    if (block_image_open(u->path[index], &o, &image, NULL)) {
        u->failed = true;
        return;
    }
    if (image->fmt->backing_name)
        use(u, image->fmt->backing_name);
    block_image_close(image);
}

static void use_snapshots(struct used *u, struct snapshot *list, size_t count)
{
    for (size_t i = 0; i < count; i++)
        for (unsigned d = 0; d < list[i].ndisks; d++)
            for (unsigned k = 0; k < list[i].disk[d].nlayers; k++)
                use(u, list[i].disk[d].layer[k].path);
    snapshots_free_list(list, count);
}

static bool is_mark(const char *name)
{
    size_t len = strlen(name);

    return len > strlen(LENT) && !strcmp(name + len - strlen(LENT), LENT);
}

static void use_lent(struct used *u)
{
    DIR *d = opendir(u->folder);

    u->failed = u->failed || !d;
    for (struct dirent *e; d && (e = readdir(d));) {
        auto_free char *path = NULL;
        size_t len = strlen(e->d_name);

        if (!is_mark(e->d_name))
            continue;
        if (asprintf(&path, "%s%.*s", u->folder, (int)(len - strlen(LENT)), e->d_name) < 0)
            u->failed = true;
        else
            use(u, path);
    }
    if (d)
        closedir(d);
}

static void find_used(struct host *h, struct used *u)
{
    struct snapshot *list = NULL, *claimed = NULL;
    struct record *records = NULL;
    size_t count = 0, nclaimed = 0, nrecords = 0, damaged = 0;

    /* What a damaged manifest names is not known, so everything stays. */
    if (snapshots_list(h, &list, &count, &damaged, NULL) || damaged ||
        snapshots_claimed(h, &claimed, &nclaimed, NULL) ||
        records_list(h->records, &records, &nrecords, NULL))
        u->failed = true;
    use_snapshots(u, list, count);
    use_snapshots(u, claimed, nclaimed);
    for (size_t i = 0; i < nrecords; i++)
        use_guest(u, &records[i]);
    use_lent(u);
    for (size_t i = 0; i < u->count; i++)
        use_below(u, i);
    records_free_list(records, nrecords);
}

static void remove_unused(const struct used *u)
{
    DIR *d = opendir(u->folder);
    unsigned n = 0;

    for (struct dirent *e; d && (e = readdir(d));) {
        auto_free char *path = NULL;

        if (e->d_name[0] == '.' || is_mark(e->d_name) ||
            asprintf(&path, "%s%s", u->folder, e->d_name) < 0)
            continue;
        if (!is_used(u, path) && !unlink(path))
            n++;
    }
    if (d)
        closedir(d);
    if (n)
        log_info("%u disk layer%s that nobody needs %s removed", n, n == 1 ? "" : "s",
                 n == 1 ? "was" : "were");
}

void layers_sweep(struct host *h)
{
    auto_free char *folder = layers_folder(h);
    struct used u = {.folder = folder};

    if (!folder)
        return;
    find_used(h, &u);
    if (!u.failed)
        remove_unused(&u);
    for (size_t i = 0; i < u.count; i++)
        free(u.path[i]);
    free(u.path);
}

/* --- lending --- */

static void mark_lent(const char *path, bool lent)
{
    auto_free char *mark = NULL;

    if (asprintf(&mark, "%s" LENT, path) < 0)
        return;
    auto_close int fd = lent ? open(mark, O_WRONLY | O_CREAT | O_CLOEXEC, 0600) : -1;
    if (lent && fd < 0)
        log_warn("disk layer '%s' cannot be marked as lent (%s): it goes with the next snapshot "
                 "that is removed here",
                 path, strerror(errno));
    else if (!lent)
        unlink(mark);
}

void layers_lend(const struct host *h, const struct record *r, bool lent)
{
    auto_free char *folder = layers_folder(h);
    struct vm_config c;

    if (!folder)
        return;
    vm_config_init(&c);
    if (!vm_options_read(&c, r->config, NULL))
        for (unsigned i = 0; i < c.ndisks; i++)
            if (!strncmp(c.disk[i].path, folder, strlen(folder)))
                mark_lent(c.disk[i].path, lent);
    vm_config_fini(&c);
}
