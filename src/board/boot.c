/*
 * Opening a kernel and starting it: which boot protocol it speaks, its files, its memory.
 *
 * Files are opened once, by board_open_kernel(), so that a machine that has locked itself in can
 * still reset.
 *
 * Thread: the one that starts or resets the machine.
 */
#include "board/boot.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "board/acpi.h"
#include "board/trace.h"
#include "state/stream.h"

/* In order of probing: a bzImage may carry other signatures, Multiboot ones sit in ELF files. */
static const struct boot_kind *const kinds[] = {&boot_linux, &boot_multiboot, &boot_pvh};

void boot_image_free(struct boot_image *image)
{
    if (!image)
        return;
    blob_close(&image->kernel);
    for (unsigned i = 0; i < image->nmodules; i++) {
        blob_close(&image->module[i].blob);
        free(image->module[i].cmdline);
    }
    blob_close(&image->vmlinux);
    free(image->cache_dir);
    free(image->cmdline);
    free(image);
}

void boot_close(struct board *b)
{
    boot_image_free(b->image);
    b->image = NULL;
}

int boot_find_kind(struct boot_image *image, struct err *err)
{
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        if (kinds[i]->probe(&image->kernel)) {
            image->kind = kinds[i];
            return 0;
        }
    }
    return err_set(
        err, EINVAL,
        "%s: is no kernel this machine can start: neither a Linux bzImage, nor an ELF file "
        "with a PVH note, nor Multiboot",
        image->kernel.name);
}

/* "file arguments": the first blank ends the path. */
static int add_module(struct boot_image *image, const char *text, bool arguments, struct err *err)
{
    struct boot_module *m = &image->module[image->nmodules];
    auto_free char *path = strdup(text);
    char *blank;
    int rc;

    if (!path)
        return err_set(err, ENOMEM, "no memory");
    if (image->nmodules == BOOT_MODULES)
        return err_set(err, E2BIG, "more than %d modules", BOOT_MODULES);
    blank = arguments ? strchr(path, ' ') : NULL;
    if (blank)
        *blank = '\0';
    rc = blob_open(&m->blob, path, err);
    if (rc)
        return rc;
    image->nmodules++;
    m->cmdline = arguments ? strdup(text) : NULL;
    return 0;
}

static int add_modules(struct boot_image *image, const char *text, struct err *err)
{
    auto_free char *copy = strdup(text);
    char *save = NULL;
    int rc = 0;

    if (!copy)
        return err_set(err, ENOMEM, "no memory");
    if (!image->kind->modules)
        return add_module(image, text, false, err);
    for (char *m = strtok_r(copy, ",", &save); m && !rc; m = strtok_r(NULL, ",", &save))
        rc = add_module(image, m, true, err);
    return rc;
}

static int open_image(struct boot_image *image, const struct board_kernel *k, struct err *err)
{
    int rc = blob_open(&image->kernel, k->kernel, err);

    rc = rc ? rc : boot_find_kind(image, err);
    if (!rc && k->initrd)
        rc = add_modules(image, k->initrd, err);
    if (rc)
        return rc;
    image->cmdline = strdup(k->cmdline ? k->cmdline : "");
    image->cache_dir = k->cache_dir ? strdup(k->cache_dir) : NULL;
    if (!image->cmdline || (k->cache_dir && !image->cache_dir))
        return err_set(err, ENOMEM, "no memory");
    if (image->kind->prepare)
        image->kind->prepare(image);
    return 0;
}

/* Of a guest that came from a snapshot: board_save_kernel() has written it, with its RAM disk and its command line. */
static int open_if_saved(struct board *b, const char *path, bool *ret_saved, struct err *err)
{
    struct blob file = BLOB_INIT;
    u8 begin[sizeof(STATE_MAGIC)];
    int rc = blob_open(&file, path, err);

    if (rc)
        return rc;
    *ret_saved = file.len >= sizeof(begin) && !blob_read(&file, 0, begin, sizeof(begin), NULL) &&
                 !memcmp(begin, STATE_MAGIC, sizeof(begin));
    if (*ret_saved && (rc = board_open_saved_kernel(b, file.fd, err)))
        err_wrap(err, "%s", file.name);
    blob_close(&file);
    return rc;
}

int board_open_kernel(struct board *b, const struct board_kernel *k, struct err *err)
{
    struct boot_image *image;
    bool saved = false;
    int rc = open_if_saved(b, k->kernel, &saved, err);

    if (rc || saved)
        return rc;
    if (!(image = calloc(1, sizeof(*image))))
        return err_set(err, ENOMEM, "no memory");
    image->kernel = image->vmlinux = BLOB_INIT;
    image->unpacked_max = b->config.ram->size;
    rc = open_image(image, k, err);
    if (rc) {
        boot_image_free(image);
        return rc;
    }
    boot_close(b);
    b->image = image;
    return 0;
}

int board_boot(struct board *b, struct x86_cpu *ret_cpu, struct err *err)
{
    auto_free struct x86_cpu *cpu = NULL;
    int rc;

    if (!b->image)
        return err_set(err, EINVAL, "%s: no kernel to start", b->config.name);
    if (posix_memalign((void **)&cpu, _Alignof(struct x86_cpu), sizeof(*cpu)))
        return err_set(err, ENOMEM, "no memory");
    x86_cpu_reset(cpu, true);
    rc = acpi_write_tables(b, err);
    b->boot_way = b->image->kind->name;
    rc = rc ? rc : b->image->kind->load(b, b->image, cpu, err);
    if (rc)
        return rc;
    trace_board_boot(board_boot_way(b), cpu->rip, cpu->cr0);
    *ret_cpu = *cpu;
    return 0;
}

const char *board_boot_way(const struct board *b)
{
    return b->boot_way ? b->boot_way : "nothing was started yet";
}
