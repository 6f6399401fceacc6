/*
 * What a machine got when it was first built and keeps wherever it goes: names that must stay, and what depended on
 * the host it was built on. A snapshot and a migration carry it, so that the guest finds the same machine.
 */
#ifndef VM_IDENTITY_H
#define VM_IDENTITY_H

#include "state/field.h"
#include "state/stream.h"
#include "vm/config.h"
#include "x86/cpuid.h"

#define VM_MAC_BYTES 6

struct vm_identity {
    u8 uuid[16];
    u8 generation[16];              /* VM generation id: new whenever the guest's life forks */
    u8 mac[VM_NETS * VM_MAC_BYTES]; /* of each network interface */
    struct cpu_model model;         /* with the TSC's frequency */
};

/* A new machine's. Errors are the CPU model's. */
int vm_identity_new(struct vm_identity *id, const struct vm_config *c, struct err *err);
/* A clone: another uuid and generation; new MACs as well if asked. */
void vm_identity_fork(struct vm_identity *id, bool new_mac);
/* Can this host be that machine? Refuses with everything that is missing. */
int vm_identity_fits(const struct vm_identity *id, struct err *err);

/*
 * A machine's description as a stream of its own: section "config" (options, one "name=value" a line) and "identity".
 * Left out is what only means something to the host that saved it: kernel, initrd, root, trace.
 */
int vm_config_save(const struct vm_config *c, const struct vm_identity *id,
                   const struct state_sink *to, struct err *err);
/* Both outputs are the caller's to vm_config_fini(), untouched on failure. Read as hostile input. */
int vm_config_load(const struct state_source *from, struct vm_config *ret_config,
                   struct vm_identity *ret_id, struct err *err);

extern const struct state_table vm_identity_table;

#endif
