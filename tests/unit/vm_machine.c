/*
 * A whole machine made and freed: two beside each other in one process, and one that cannot be made. Whatever happens,
 * no descriptor and no thread stays behind; this is an abort(), so that the tier in which each call fails in turn
 * (tests/fault) sees it, too.
 */
#include "unit.h"
#include "vm/vm.h"
#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

struct files {
    char kernel[64], disk[64];
};

static void write_file(char path[64], const char *name, const void *bytes, size_t len, off_t size)
{
    int fd;

    snprintf(path, 64, "/tmp/trapeze-test-%u-%s", (unsigned)getpid(), name);
    fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, len), (ssize_t)len);
    if (size)
        assert_int_equal(truncate(path, size), 0);
    close(fd);
}

/* A Multiboot kernel (1, 3.1.1) of one instruction. */
static void make_files(struct files *f)
{
    static const u32 kernel[] = {0x1badb002, 0x10000,  -(0x1badb002u + 0x10000),
                                 0x100000,   0x100000, 0x100024,
                                 0x100024,   0x100020, 0x90f4fa90};

    write_file(f->kernel, "kernel", kernel, sizeof(kernel), 0);
    write_file(f->disk, "disk", "", 0, MiB);
}

static void remove_files(const struct files *f)
{
    unlink(f->kernel);
    unlink(f->disk);
}

static unsigned entries(const char *folder)
{
    DIR *dir = opendir(folder);
    unsigned n = 0;

    while (dir && readdir(dir))
        n++;
    if (dir)
        closedir(dir);
    return n;
}

static unsigned count_fds(void)
{
    return entries("/proc/self/fd");
}

static void stays_behind(const char *what, unsigned before, unsigned after)
{
    if (!before || !after || before == after)
        return;
    printf("# %u %s before, %u after\n", before, what, after);
    fflush(NULL);
    abort();
}

/* Ends the test when there is no memory for a path: no machine is asked for without its kernel. */
static void make_config(struct vm_config *c, const struct files *f)
{
    vm_config_init(c);
    c->kernel = strdup(f->kernel);
    c->disk[0].path = strdup(f->disk);
    c->ndisks = 1;
    c->memory_bytes = 4 * MiB;
    c->cpus = 2;
    snprintf(c->accel, sizeof(c->accel), "bt");
    c->serial.kind = VM_SERIAL_NULL;
    if (c->kernel && c->disk[0].path)
        return;
    vm_config_fini(c);
    remove_files(f);
    fail_msg("no memory for the test's own paths");
}

static void test_made_and_freed(void **state)
{
    unsigned fds, threads = entries("/proc/self/task");
    struct vm *vm[2] = {NULL, NULL};
    struct err err = ERR_INIT;
    struct vm_config config;
    struct files f;
    int rc[2];

    make_files(&f);
    make_config(&config, &f);
    config.disk[0].readonly = true; /* shared */
    fds = count_fds();
    for (unsigned i = 0; i < 2; i++) {
        rc[i] = vm_new(&config, &vm[i], &err);
        if (rc[i] && !*err.msg)
            abort(); /* nobody would know why */
    }
    for (unsigned i = 0; i < 2; i++)
        vm_free(vm[i]);
    stays_behind("descriptors", fds, count_fds());
    stays_behind("threads", threads, entries("/proc/self/task"));
    vm_config_fini(&config);
    remove_files(&f);
    for (unsigned i = 0; i < 2; i++)
        if (rc[i])
            fail_msg("%s", err.msg);
}

static void test_cannot_be_made(void **state)
{
    struct vm *vm = NULL;
    struct err err = ERR_INIT;
    struct vm_config config;
    struct files f;
    unsigned fds;
    bool made;
    int rc;

    make_files(&f);
    make_config(&config, &f);
    unlink(f.disk);
    fds = count_fds();
    rc = vm_new(&config, &vm, &err);
    made = vm != NULL;
    vm_free(vm); /* there when nothing is left to keep the disk's name */
    stays_behind("descriptors", fds, count_fds());
    vm_config_fini(&config);
    remove_files(&f);
    assert_true(rc < 0);
    assert_false(made);
    assert_non_null(strstr(err.msg, "--disk"));
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_made_and_freed),
    cmocka_unit_test(test_cannot_be_made),
};

UNIT_MAIN(tests)
