/*
 * What a machine is made of, as asked for: filled by the options of `trapeze run` (vm/option.h),
 * read by everything that builds the machine, never changed once the machine exists.
 */
#ifndef VM_CONFIG_H
#define VM_CONFIG_H

#include "base/err.h"
#include "net/netport.h"

#define VM_CPUS_MAX 32
#define VM_MEMORY_MIN (2 * MiB)
#define VM_MEMORY_MAX (64 * GiB)
#define VM_DISKS 16
#define VM_NETS 8
#define VM_HOSTFWDS 16
#define VM_DISK_SERIAL_LEN 20 /* virtio 1.2, 5.2.6: VIRTIO_BLK_ID_BYTES */

enum vm_disk_error {
    VM_DISK_ENOSPC, /* a full host stops the machine, the guest gets other errors */
    VM_DISK_REPORT,
    VM_DISK_STOP,
};

struct vm_disk_config {
    char *path;
    bool readonly;
    char format[8];                      /* "raw", "qcow2"; empty: raw */
    bool trust;                          /* the image may name files outside its folder */
    char serial[VM_DISK_SERIAL_LEN + 1]; /* empty: none */
    u64 bytes_per_s, requests_per_s;     /* 0: no limit */
    enum vm_disk_error werror, rerror;   /* what becomes of writes and reads that the host cannot do */
};

enum vm_net_kind { VM_NET_USER, VM_NET_TAP, VM_NET_NONE };

struct vm_net_config {
    enum vm_net_kind kind;
    char ifname[16]; /* tap */
    bool restricted; /* user: the guest reaches nothing but what hostfwd leads to it */
    bool has_mac;    /* else the machine's identity has one */
    u8 mac[6];
    struct net_hostfwd fwd[VM_HOSTFWDS];
    unsigned nfwds;
};

enum vm_serial_kind {
    VM_SERIAL_STDIO,
    VM_SERIAL_FILE,
    VM_SERIAL_UNIX,
    VM_SERIAL_NULL,
    VM_SERIAL_LOG, /* the guest's own log, bounded (vm/stream_log.h) */
};

struct vm_serial_config {
    enum vm_serial_kind kind;
    char *path; /* file, unix; log: set by whoever starts the guest */
};

struct vm_config {
    char name[64];
    char *kernel, *initrd, *append; /* NULL: none */
    char *root;                     /* where host records live; NULL: the default place */
    char *trace;                    /* trace points to switch on; NULL: none */
    u64 memory_bytes;
    unsigned cpus;
    char cpu[32];
    char accel[16];
    struct vm_disk_config disk[VM_DISKS];
    unsigned ndisks;
    bool disks_given_up; /* another host has them, until the machine has arrived; no option */
    struct vm_net_config net[VM_NETS];
    unsigned nnets; /* that were asked for; what the machine has: vm_config_net() */
    struct vm_serial_config serial;
    struct vm_serial_config console; /* virtio-console */
    bool has_serial, has_console;    /* they were asked for */
    bool no_reboot;
    bool has_debug_console, has_debug_exit;
    u16 debug_console_port, debug_exit_port;
    char *debug_console_path; /* NULL: standard error */
};

void vm_config_init(struct vm_config *c);
void vm_config_fini(struct vm_config *c);
/* Decides where the serial port leads when only the other console was asked for, or none, in the background. */
void vm_config_consoles(struct vm_config *c, bool background);
/* The machine's i-th network: the default one where none was asked for, NULL behind the last. The only one may be of kind
 * none. */
const struct vm_net_config *vm_config_net(const struct vm_config *c, unsigned i);
/* What single options cannot see: missing ones, and ones that contradict each other. */
int vm_config_check(const struct vm_config *c, struct err *err);

#endif
