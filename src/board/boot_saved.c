/*
 * A kernel's bytes in a snapshot: what a machine needs to boot again that was restored where its kernel's files are not.
 * A stream (state/stream.h) of its own: "cmdline", "kernel", then "module" and "arguments" for each module.
 *
 * Opening one reads the sections' heads only, so it takes microseconds however large the kernel is; the bytes are read
 * when the machine resets. Their checksums are looked at where a snapshot arrives on a host, not here.
 *
 * Thread: saving may happen in any while the machine runs, since opened files never change; opening before it runs.
 */
#include "board/boot.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CMDLINE_MAX (64 * KiB)

static int save_blob(const struct blob *b, const char *section, u32 instance,
                     const struct state_sink *to, struct err *err)
{
    struct blob copy = BLOB_INIT;
    int rc = blob_alloc(&copy, MAX(b->len, 1ull), b->name, err);

    rc = rc ? rc : blob_read(b, 0, copy.mem, b->len, err);
    rc = rc ? rc : state_write_section(to, section, instance, 1, copy.mem, b->len, err);
    blob_close(&copy);
    return rc;
}

static int save_text(const char *text, const char *section, u32 instance,
                     const struct state_sink *to, struct err *err)
{
    text = text ? text : "";
    return state_write_section(to, section, instance, 1, text, strlen(text), err);
}

int board_save_kernel(struct board *b, const struct state_sink *to, struct err *err)
{
    const struct boot_image *image = b->image;

    if (!image)
        return err_set(err, ENODATA, "%s: has no kernel to save", b->config.name);
    int rc = state_write_head(to, err);
    rc = rc ? rc : save_text(image->cmdline, "cmdline", 0, to, err);
    rc = rc ? rc : save_blob(&image->kernel, "kernel", 0, to, err);
    for (unsigned i = 0; i < image->nmodules && !rc; i++) {
        rc = save_blob(&image->module[i].blob, "module", i, to, err);
        rc = rc ? rc : save_text(image->module[i].cmdline, "arguments", i, to, err);
    }
    return rc ? rc : state_write_end(to, 2 + 2 * image->nmodules, err);
}

bool board_has_kernel(const struct board *b)
{
    return b->image != NULL;
}

/* Reads on at `at`. */
struct reader {
    int fd;
    u64 at, end;
};

static int read_on(void *opaque, void *buf, size_t len)
{
    struct reader *r = opaque;

    if (!range_fits(r->at, len, r->end))
        return -ENODATA;
    ssize_t n = pread(r->fd, buf, len, (off_t)r->at);
    if (n != (ssize_t)len)
        return n < 0 ? -errno : -ENODATA;
    r->at += len;
    return 0;
}

static int next_section(struct reader *r, const char *name, u32 instance,
                        struct state_section *ret_section, struct err *err)
{
    struct state_source from = {read_on, r};
    int rc = state_read_section(&from, ret_section, err);

    if (rc)
        return rc;
    if (strcmp(ret_section->name, name) || ret_section->instance != instance ||
        ret_section->version != 1)
        return err_set(err, EBADMSG, "section '%s' stands where '%s' belongs", ret_section->name,
                       name);
    if (!range_fits(r->at, ret_section->len, r->end) ||
        !range_fits(r->at + ret_section->len, 4, r->end))
        return err_set(err, ENODATA, "section '%s' ends too early", name);
    return 0;
}

/* The section's bytes stay in the file. */
static int open_blob(struct reader *r, const char *name, u32 instance, struct blob *ret_blob,
                     struct err *err)
{
    struct state_section section;
    int rc = next_section(r, name, instance, &section, err);

    if (rc)
        return rc;
    int fd = fcntl(r->fd, F_DUPFD_CLOEXEC, 3);
    if (fd < 0)
        return err_sys(err, errno, "section '%s'", name);
    *ret_blob = (struct blob){.fd = fd, .base = r->at, .len = section.len};
    memcpy(ret_blob->name, section.name, MIN(sizeof(section.name), sizeof(ret_blob->name) - 1));
    r->at += section.len + 4;
    return 0;
}

static int read_text(struct reader *r, const char *name, u32 instance, char **ret_text,
                     struct err *err)
{
    struct state_source from = {read_on, r};
    struct state_section section;
    auto_free char *text = NULL;
    int rc = next_section(r, name, instance, &section, err);

    if (!rc && section.len > CMDLINE_MAX)
        rc = err_set(err, EBADMSG, "section '%s' is too long", name);
    if (rc)
        return rc;
    text = calloc(1, section.len + 1);
    if (!text)
        return err_set(err, ENOMEM, "no memory");
    rc = state_read_bytes(&from, &section, text, err);
    if (rc)
        return rc;
    *ret_text = text;
    text = NULL;
    return 0;
}

static int open_modules(struct reader *r, struct boot_image *image, struct err *err)
{
    struct state_source from = {read_on, r};
    struct state_section peek;
    u64 at = r->at;
    int rc;

    while (!(rc = state_read_section(&from, &peek, err)) && !state_is_end(&peek)) {
        struct boot_module *m = &image->module[image->nmodules];

        r->at = at;
        if (image->nmodules == BOOT_MODULES)
            return err_set(err, EBADMSG, "more than %d modules", BOOT_MODULES);
        m->blob = BLOB_INIT;
        rc = open_blob(r, "module", image->nmodules, &m->blob, err);
        if (rc)
            return rc;
        image->nmodules++;
        rc = read_text(r, "arguments", image->nmodules - 1, &m->cmdline, err);
        if (rc)
            return rc;
        at = r->at;
    }
    return rc;
}

static int open_saved(struct boot_image *image, int fd, struct err *err)
{
    struct reader r = {.fd = fd};
    struct state_source from = {read_on, &r};
    struct stat st;

    if (fstat(fd, &st))
        return err_sys(err, errno, "kernel");
    r.end = (u64)st.st_size;
    int rc = state_read_head(&from, err);
    rc = rc ? rc : read_text(&r, "cmdline", 0, &image->cmdline, err);
    rc = rc ? rc : open_blob(&r, "kernel", 0, &image->kernel, err);
    rc = rc ? rc : boot_find_kind(image, err);
    return rc ? rc : open_modules(&r, image, err);
}

int board_open_saved_kernel(struct board *b, int fd, struct err *err)
{
    struct boot_image *image = calloc(1, sizeof(*image));

    if (!image)
        return err_set(err, ENOMEM, "no memory");
    image->kernel = image->vmlinux = BLOB_INIT;
    image->unpacked_max = b->config.ram->size;
    int rc = open_saved(image, fd, err);
    if (rc) {
        boot_image_free(image);
        return rc;
    }
    boot_close(b);
    b->image = image;
    return 0;
}
