/*
 * Runs the machine of a snapshot's folder, whatever frequency the time stamp counter had where it was taken: the model is
 * given this host's, which `trapeze snapshot restore` rightly refuses to do. Its serial port is standard input and output.
 *
 * usage: golden ACCELERATOR FOLDER [DISK...]
 */
#include "vm/identity.h"
#include "vm/snapshot/snapshot.h"
#include "vm/state.h"
#include "x86/cpuid.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STATE_MAX (4 * MiB)

static int open_in(const char *folder, const char *file)
{
    char path[4096];

    snprintf(path, sizeof(path), "%s/%s", folder, file);
    return open(path, O_RDONLY | O_CLOEXEC);
}

static int read_state(const char *folder, struct state_buf *b, struct err *err)
{
    auto_close int fd = open_in(folder, "state");

    b->data = malloc(STATE_MAX);
    ssize_t n = fd < 0 || !b->data ? -1 : read(fd, b->data, STATE_MAX);
    if (n < 0)
        return err_sys(err, errno, "state");
    b->len = (size_t)n;
    return 0;
}

static struct snapchain *open_memory(const char *folder, u64 ram_bytes, struct err *err)
{
    struct snapchain *c = snapchain_new("golden", err);

    if (c && (snapchain_add(c, open_in(folder, "memory"), open_in(folder, "map"), ram_bytes, err) ||
              snapchain_ready(c, err))) {
        snapchain_free(c);
        return NULL;
    }
    return c;
}

static void adapt(struct vm_config *c, struct vm_identity *id, const char *accel, char **disks)
{
    c->serial.kind = VM_SERIAL_STDIO;
    snprintf(c->accel, sizeof(c->accel), "%s", accel);
    for (unsigned i = 0; i < c->ndisks && disks[i]; i++) {
        free(c->disk[i].path);
        c->disk[i].path = strdup(disks[i]);
        snprintf(c->disk[i].format, sizeof(c->disk[i].format), "qcow2");
        c->disk[i].trust = true;
    }
    id->model.tsc_khz = host_tsc_khz();
}

static int restore(const char *accel, const char *folder, char **disks, struct err *err)
{
    struct state_buf state = {0};
    struct state_source from = state_buf_source(&state);
    struct vm_restore what = {
        .state = &from, .kernel = -1, .working_set = -1, .id = "golden", .clock = VM_CLOCK_FROZEN};
    struct vm_report report;
    struct vm_identity id;
    struct vm_config c;
    struct vm *vm = NULL;
    int rc = read_state(folder, &state, err);

    rc = rc ? rc : vm_config_load(&from, &c, &id, err);
    if (rc)
        return rc;
    adapt(&c, &id, accel, disks);
    what.memory = open_memory(folder, c.memory_bytes, err);
    what.kernel = open_in(folder, "kernel");
    rc = what.memory ? vm_new_from(&c, &id, &vm, err) : -err->code;
    rc = rc ? rc : vm_restore(vm, &what, err);
    rc = rc ? rc : vm_resume(vm);
    rc = rc ? rc : vm_run(vm, &report, err);
    vm_free(vm);
    vm_config_fini(&c);
    state_buf_fini(&state);
    return rc;
}

int main(int argc, char **argv)
{
    struct err err = ERR_INIT;

    if (argc < 3)
        return 2;
    int rc = restore(argv[1], argv[2], argv + 3, &err);
    if (rc)
        fprintf(stderr, "golden: %s\n", err.msg);
    return rc ? 1 : 0;
}
