/*
 * Builds a machine's devices from its configuration. Everything that has a name on the host is opened here, before
 * the process locks itself in.
 */
#include "vm/parts.h"

#include "device/virtio.h"
#include "device/virtio_blk.h"
#include "device/virtio_console.h"
#include "device/virtio_net.h"
#include "device/virtio_rng.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void set_gsi(void *opaque, unsigned gsi, bool level)
{
    struct vm *vm = opaque;

    if (vm->accel) /* not yet while devices are made */
        vm->ops->irq_line(vm->accel, gsi, level);
}

static void send_msi(void *opaque, u64 addr, u32 data)
{
    struct vm *vm = opaque;

    if (vm->accel)
        vm->ops->msi(vm->accel, addr, data);
}

static int get_irqchip(void *opaque, struct x86_irqchip *ret_state, struct err *err)
{
    struct vm *vm = opaque;

    return vm->ops->irqchip_get(vm->accel, ret_state, err);
}

static int set_irqchip(void *opaque, const struct x86_irqchip *state, struct err *err)
{
    struct vm *vm = opaque;

    return vm->ops->irqchip_set(vm->accel, state, err);
}

static void kick(void *opaque, unsigned cpu, u32 bits)
{
    struct vm *vm = opaque;

    if (cpu < vm->ncpus && vm->cpu[cpu].vcpu)
        vm->ops->vcpu_event(vm->cpu[cpu].vcpu, bits);
}

static int build_board(struct vm *vm, struct err *err)
{
    const struct vm_config *c = vm->config;
    struct board_config board = {
        .name = c->name,
        .ram = &vm->ram,
        .model = &vm->id.model,
        .generation = vm->id.generation,
        .cpus = c->cpus,
        .timers = loop_timers(vm->loop),
        .console = stream_chardev(vm->serial),
        .sink = {vm_machine_event, vm},
        .kicker = {kick, vm},
        .debug_console = c->has_debug_console ? c->debug_console_port : 0,
        .debug_exit = c->has_debug_exit ? c->debug_exit_port : 0,
        .debug_write = vm_debug_byte,
        .debug_opaque = vm,
    };

    if (vm->ops->caps & ACCEL_IRQCHIP)
        board.irqchip = (struct board_irqchip){set_gsi, send_msi, get_irqchip, set_irqchip, vm};
    return board_new(&board, &vm->board, err);
}

static int open_streams(struct vm *vm, struct err *err)
{
    const struct vm_config *c = vm->config;
    struct stream_keys keys = {vm_key, vm};
    int rc = stream_open(&c->serial, vm->loop, &keys, &vm->serial, err);

    if (rc)
        return err_wrap(err, "--serial");
    if ((rc = stream_open(&c->console, vm->loop, &keys, &vm->console_stream, err)))
        return err_wrap(err, "--console");
    if (!c->has_debug_console)
        return 0;
    if (c->debug_console_path)
        vm->debug_fd = open(c->debug_console_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    else
        vm->debug_fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
    if (vm->debug_fd < 0 && c->debug_console_path)
        return err_sys(err, errno, "--debug-console: cannot write '%s'", c->debug_console_path);
    return 0;
}

static int start_engine(void *opaque, struct err *err)
{
    struct vm *vm = opaque;

    return block_engine_new("auto", &vm->engine, err);
}

static const enum virtio_blk_on_error disk_error[] = {[VM_DISK_ENOSPC] = VIRTIO_BLK_STOP_FULL,
                                                      [VM_DISK_REPORT] = VIRTIO_BLK_REPORT,
                                                      [VM_DISK_STOP] = VIRTIO_BLK_STOP};

static int add_disk(struct vm *vm, const struct virtio_env *env, unsigned index, struct err *err)
{
    const struct vm_disk_config *d = &vm->config->disk[index];
    struct block_options options = {
        .readonly = d->readonly,
        .format = *d->format ? d->format : NULL,
        .trust = d->trust,
        .given_up = vm->config->disks_given_up};
    int rc = block_open(d->path, &options, vm->engine, &vm->disk[index], err);

    if (rc)
        return rc;
    struct virtio_blk_options device = {.disk = vm->disk[index],
                                        .serial = *d->serial ? d->serial : NULL,
                                        .bytes_per_s = d->bytes_per_s,
                                        .requests_per_s = d->requests_per_s,
                                        .on_write = disk_error[d->werror],
                                        .on_read = disk_error[d->rerror],
                                        .stopped = vm_disk_stopped,
                                        .opaque = vm};
    return virtio_new(env, &virtio_blk_type, PCI_SLOT_ANY, &device, &vm->disk_device[index], err);
}

static int add_disks(struct vm *vm, const struct virtio_env *env, struct err *err)
{
    int rc = 0;

    /* The engine's threads are born locked in: they exist before the disks are opened, and need no names. */
    if (vm->config->ndisks)
        rc = sandbox_run(vm->sandbox, SANDBOX_IO, start_engine, vm, err);
    for (unsigned i = 0; i < vm->config->ndisks && !rc; i++)
        if ((rc = add_disk(vm, env, i, err)))
            err_wrap(err, "--disk");
    return rc;
}

static int open_user(struct vm *vm, const struct vm_net_config *n, struct netport **ret_port,
                     struct err *err)
{
    struct net_user_options options = {
        .restricted = n->restricted,
        .hostname = vm->config->name,
        .fwd = n->fwd,
        .nfwds = n->nfwds,
    };

    return net_user_open(vm->loop, &options, ret_port, err);
}

static int add_net(struct vm *vm, const struct virtio_env *env, unsigned index, struct err *err)
{
    const struct vm_net_config *n = vm_config_net(vm->config, index);
    struct virtio_net_options device = {0};
    int rc = 0;

    switch (n->kind) {
    case VM_NET_USER:
        rc = open_user(vm, n, &vm->net[index], err);
        break;
    case VM_NET_TAP:
        rc = net_tap_open(vm->loop, n->ifname, &vm->net[index], err);
        break;
    case VM_NET_NONE:
        return 0;
    }
    if (rc)
        return err_wrap(err, "--net");
    device.port = vm->net[index];
    memcpy(device.mac, &vm->id.mac[index * VM_MAC_BYTES], VM_MAC_BYTES);
    return virtio_new(env, &virtio_net_type, PCI_SLOT_ANY, &device, &vm->net_device[index], err);
}

static int add_functions(struct vm *vm, struct err *err)
{
    struct virtio_env env = {
        .pci = board_pci(vm->board),
        .ram = &vm->ram,
        .loop = vm->loop,
        .timers = loop_timers(vm->loop),
        .cpus = vm->config->cpus,
    };
    struct virtio_console_options console = {.port = stream_chardev(vm->console_stream)};
    int rc = add_disks(vm, &env, err);

    for (unsigned i = 0; vm_config_net(vm->config, i) && !rc; i++)
        rc = add_net(vm, &env, i, err);
    if (!rc)
        rc = virtio_new(&env, &virtio_rng_type, PCI_SLOT_ANY, NULL, NULL, err);
    terminal_size(&console.cols, &console.rows);
    if (!rc)
        rc = virtio_new(&env, &virtio_console_type, PCI_SLOT_ANY, &console, &vm->console, err);
    return rc;
}

int vm_build_devices(struct vm *vm, struct err *err)
{
    int rc = open_streams(vm, err);

    if (!rc)
        rc = build_board(vm, err);
    if (!rc)
        rc = add_functions(vm, err);
    return rc;
}

void vm_free_devices(struct vm *vm)
{
    board_free(vm->board);
    vm->board = NULL;
    for (unsigned i = 0; i < VM_DISKS; i++)
        block_close(vm->disk[i]);
    block_engine_free(vm->engine);
    for (unsigned i = 0; i < VM_NETS; i++)
        netport_close(vm->net[i]);
    stream_close(vm->serial);
    stream_close(vm->console_stream);
    vm->serial = vm->console_stream = NULL;
    if (vm->debug_fd >= 0)
        close(vm->debug_fd);
}
