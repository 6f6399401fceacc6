/*
 * The machine's configuration: defaults, checks across options, release. Any thread; no state of
 * its own.
 */
#include "vm/config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void vm_config_init(struct vm_config *c)
{
    *c = (struct vm_config){
        .name = "vm",
        .memory_bytes = 512 * MiB,
        .cpus = 1,
        .cpu = "x86-64-v3",
        .accel = "auto",
        .serial.kind = VM_SERIAL_STDIO,
        .console.kind = VM_SERIAL_NULL,
    };
}

void vm_config_fini(struct vm_config *c)
{
    free(c->kernel);
    free(c->initrd);
    free(c->append);
    free(c->root);
    free(c->trace);
    free(c->serial.path);
    free(c->console.path);
    free(c->debug_console_path);
    for (unsigned i = 0; i < c->ndisks; i++)
        free(c->disk[i].path);
    *c = (struct vm_config){0};
}

const struct vm_net_config *vm_config_net(const struct vm_config *c, unsigned i)
{
    static const struct vm_net_config by_default = {.kind = VM_NET_USER};

    if (!c->nnets)
        return i ? NULL : &by_default;
    return i < c->nnets ? &c->net[i] : NULL;
}

static int check_disks(const struct vm_config *c, struct err *err)
{
    for (unsigned i = 0; i < c->ndisks; i++)
        for (unsigned j = 0; j < i; j++)
            if (!strcmp(c->disk[i].path, c->disk[j].path) &&
                !(c->disk[i].readonly && c->disk[j].readonly))
                return err_set(
                    err, EINVAL,
                    "--disk: '%s' is given twice; only read-only disks (,ro) may share a file",
                    c->disk[i].path);
    return 0;
}

void vm_config_consoles(struct vm_config *c, bool background)
{
    bool main_console =
        c->has_console && (c->console.kind == VM_SERIAL_STDIO || c->console.kind == VM_SERIAL_LOG);

    if (c->has_serial)
        return;
    if (main_console)
        c->serial.kind = VM_SERIAL_NULL;
    else if (background)
        c->serial.kind = VM_SERIAL_LOG;
}

/* Both cannot have the terminal, or the log. */
static int check_consoles(const struct vm_config *c, struct err *err)
{
    if (c->console.kind == VM_SERIAL_STDIO && c->serial.kind == VM_SERIAL_STDIO)
        return err_set(err, EINVAL,
                       "--console stdio: --serial has standard input and output already");
    if (c->console.kind == VM_SERIAL_LOG && c->serial.kind == VM_SERIAL_LOG)
        return err_set(err, EINVAL, "--console log: --serial has the log already");
    return 0;
}

int vm_config_check(const struct vm_config *c, struct err *err)
{
    if (!c->kernel)
        return err_set(
            err, EINVAL,
            "--kernel is missing: say which kernel to boot, such as --kernel /boot/vmlinuz");
    if (c->has_debug_console && c->has_debug_exit && c->debug_console_port == c->debug_exit_port)
        return err_set(err, EINVAL, "--debug-exit: port 0x%x is already that of --debug-console",
                       c->debug_exit_port);
    int rc = check_consoles(c, err);
    return rc ? rc : check_disks(c, err);
}
