/*
 * A machine from a snapshot: its memory is left where it is until it is touched, so this takes as long for 64 GiB as for
 * 64 MiB, but for the map. Before vm_run(), in the thread that builds the machine.
 */
#include "vm/snapshot/parts.h"

#include "device/virtio.h"
#include "vm/snapshot/working_set.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int begin_memory(struct vm *vm, struct err *err)
{
    struct lazy_source source = {snapchain_fetch, vm->chain};
    auto_free u64 *bits = calloc(dirty_words(&vm->ram), sizeof(u64));

    if (!bits)
        return err_set(err, ENOMEM, "no memory for a list of pages");
    vm->chain->ram = &vm->ram;
    snapchain_bits(vm->chain, bits);
    int rc = lazy_begin(&vm->ram, &source, bits, err);
    return rc;
}

static int enter_sandbox(void *opaque)
{
    const struct vm *vm = opaque;
    struct err err = ERR_INIT;

    return sandbox_enter(vm->sandbox, SANDBOX_IO, &err);
}

/* What is new in its identity the guest hears of: another generation, other addresses of its network. */
static void announce(struct vm *vm)
{
    board_announce_generation(vm->board);
    for (unsigned i = 0; i < VM_NETS; i++) {
        const u8 *mac = &vm->id.mac[i * VM_MAC_BYTES];

        if (vm->net_device[i] && memcmp(vm->net_device[i]->config, mac, VM_MAC_BYTES))
            virtio_config_set(vm->net_device[i], 0, mac, VM_MAC_BYTES);
    }
}

int vm_restore(struct vm *vm, const struct vm_restore *from, struct err *err)
{
    int rc;

    vm->chain = from->memory;
    snprintf(vm->restored_from, sizeof(vm->restored_from), "%s", from->id);
    rc = begin_memory(vm, err);
    if (!rc && from->working_set >= 0)
        vm->working_set = working_set_start(vm->chain, from->working_set, enter_sandbox, vm);
    else if (from->working_set >= 0)
        close(from->working_set);
    if (!rc && from->kernel >= 0 && (rc = board_open_saved_kernel(vm->board, from->kernel, err)))
        err_wrap(err, "kernel");
    if (!rc && (rc = vm_state_load(vm, from->state, from->clock, err)))
        err_wrap(err, "state");
    if (!rc)
        announce(vm);
    return rc;
}
