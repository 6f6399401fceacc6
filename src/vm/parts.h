/* What the files of a machine share. The machine's users see vm.h only. */
#ifndef VM_PARTS_H
#define VM_PARTS_H

#include "accel/accel.h"
#include "block/block.h"
#include "board/board.h"
#include "loop/loop.h"
#include "net/netport.h"
#include "state/set.h"
#include "vm/identity.h"
#include "vm/sandbox.h"
#include "vm/stream.h"
#include "vm/terminal.h"
#include "vm/vm.h"
#include <pthread.h>
#include <stdatomic.h>

enum vm_want { VM_WANT_STOP, VM_WANT_RUN, VM_WANT_QUIT };

struct vm_cpu;
/* Work for a parked vCPU's thread; its result is c->err. */
typedef void vm_cpu_fn(struct vm_cpu *c, struct err *err);

struct vm_cpu {
    struct vm *vm;
    unsigned index;
    struct vcpu *vcpu;
    pthread_t thread;
    bool started, warm; /* warm: vcpu_warm was called, or nobody does */
    /* Written while the thread is parked: the state to take before running on. */
    struct x86_cpu *state;
    bool load;
    vm_cpu_fn *call; /* asked of the parked thread; NULL: nothing, or done */
    struct state_entry saved; /* of `state` in the machine's set */
    /* Of a VCPU_FAILED or a failed start; read after the thread is parked. */
    struct err err;
};

struct snapchain;
struct working_set;
struct vm_snapshots;

struct vm_clock_state {
    s64 wall_ns;  /* CLOCK_REALTIME when it was saved */
    u64 host_tsc; /* the host's, at that moment */
};

struct vm {
    const struct vm_config *config;
    struct vm_report report;
    bool ended;
    struct err failure; /* why it ended with VM_END_FAILED; none: a processor's */
    s64 start_ns;
    struct sandbox *sandbox;
    struct terminal terminal;
    struct loop *loop;
    struct loop_fd signals;
    struct timer trim; /* see vm/trim.h */
    bool button_pressed; /* SIGTERM came once */

    struct gmem ram;
    bool has_ram;
    struct vm_identity id;
    bool from_state; /* built to be loaded, not to boot */
    bool in_loop;    /* vm_run() has locked the process in */
    bool resume_due; /* resumed before that */
    struct vm_snapshots *snapshots; /* NULL: none can be taken */
    char restored_from[40];         /* the snapshot's id; empty: none */
    struct snapchain *chain;        /* where absent memory is, NULL: nowhere */
    struct working_set *working_set; /* of it; may be NULL */
    struct state_set states;
    struct vm_clock_state clock;
    struct state_entry clock_entry;
    struct board *board;
    struct stream *serial, *console_stream;
    int debug_fd; /* where the debug console writes */
    struct block_engine *engine;
    struct block *disk[VM_DISKS];
    struct netport *net[VM_NETS];
    struct virtio *console, *disk_device[VM_DISKS], *net_device[VM_NETS]; /* NULL: none */
    void (*started)(void *opaque); /* NULL: nobody waits for it */
    void *started_opaque;
    /* See vm_on_handover(); NULL: nobody looks. */
    int (*handed_over)(void *opaque, const char *place, struct err *err);
    void *handed_over_opaque;
    struct worker *worker; /* for long work, locked in */
    struct vm_migration *migration; /* NULL: there never was one */
    struct control *control; /* NULL: nobody asked for one */

    const struct accel_ops *ops;
    struct accel_machine machine;
    struct accel *accel;
    struct vm_cpu cpu[VM_CPUS_MAX];
    unsigned ncpus; /* vCPUs made */

    pthread_mutex_t lock; /* protects want, parked and cpu[].load; vCPU threads wait on `go` */
    pthread_cond_t go, stopped;
    enum vm_want want;
    unsigned parked; /* threads that are not in vcpu_run */
    bool paused;

    /* Set by devices in any thread, taken by the main loop. */
    atomic_uint events; /* BIT(enum machine_event) */
    struct block *_Atomic stopped_disk; /* could not be read or written; NULL: none since the machine last went on */
    atomic_int stopped_error;           /* errno */
    atomic_int exit_code;
    atomic_llong first_user_ns;
};

/* Building, in the order of the calls (build.c). */
int vm_build_devices(struct vm *vm, struct err *err);
void vm_free_devices(struct vm *vm);
s64 vm_now_ns(void);

/* vCPU threads (vcpu.c). */
int vm_cpus_new(struct vm *vm, struct err *err); /* makes the vCPUs, starts their threads, parked */
void vm_cpus_end(struct vm *vm);                 /* ends the threads */
void vm_cpus_free(struct vm *vm); /* after the devices: local APICs have timers in the vCPUs */
void vm_cpus_stop(struct vm *vm); /* returns when all are parked */
void vm_cpus_go(struct vm *vm);
void vm_cpus_interrupt(struct vm *vm); /* any thread: makes all leave vcpu_run */
/* Runs fn in every vCPU's thread, all parked, and waits. The first error, as vm_cpus_failed(). */
int vm_cpus_call(struct vm *vm, vm_cpu_fn *fn, struct err *err);
int vm_cpus_failed(struct vm *vm,
                   struct err *err); /* the error of a vCPU that failed, all parked; 0: none */
/* The state every vCPU starts from; all parked. */
int vm_cpus_load(struct vm *vm, const struct x86_cpu *boot, struct err *err);

/* vm_resume() without asking who the machine belongs to. */
void vm_go_on(struct vm *vm);

/* Saved state (state.c). */
int vm_state_init(struct vm *vm, struct err *err); /* registers everything; the machine is built */
void vm_state_fini(struct vm *vm);                 /* before the devices go */

/* What devices report (event.c). */
/* A virtio_blk_options.stopped. */
bool vm_disk_stopped(void *opaque, struct block *disk, int error);
void vm_machine_event(void *opaque, enum machine_event event, int value);
void vm_take_events(void *opaque);
void vm_debug_byte(void *opaque, u8 byte);
void vm_cpu_ended(struct vm *vm, enum vcpu_exit exit);

/* Signals to the process (signal.c). */
void vm_signals_block(void);
int vm_signals_start(struct vm *vm, struct err *err);
void vm_key(void *opaque, char key);

#endif
