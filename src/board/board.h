/*
 * The board: a PC's fixed hardware put together, with its memory map, ACPI tables and ways to start
 * a kernel.
 *
 * How a VM uses it:
 *   board_new()                      devices, address spaces, PCI host; nothing runs yet
 *   board_accel_machine()            what the accelerator's new() wants
 *   board_set_cpu_timers()           for each cpu, once its vCPU exists (not with an in-accelerator
 * irqchip) virtio_pci_add(..., board_pci()) and other functions on the bus board_open_kernel()
 * reads kernel and initial RAM disk into the VMM; no file is opened after this board_boot() loads
 * guest memory and gives the first processor's state board_enter_cpu()                in each
 * vCPU's thread, before it runs guest code
 *   ... MACHINE_RESET: stop all vCPUs, board_reset(), board_boot() again, vcpu_set() for all, run
 *
 * Threads: everything here belongs to one thread while vCPUs are stopped, unless a function says
 * otherwise.
 */
#ifndef BOARD_BOARD_H
#define BOARD_BOARD_H

#include "accel/accel.h"
#include "board/memmap.h"
#include "device/chardev.h"
#include "device/event.h"
#include "device/irq.h"
#include "device/kick.h"
#include "device/pci.h"
#include "loop/timer.h"
#include "state/set.h"
#include "x86/irqchip.h"

struct board;
struct boot_image;

/* With ACCEL_IRQCHIP accelerators: where lines and messages go. All NULL otherwise. The board then
 * has no PIC, PIT, I/O APIC, local APIC or HPET of its own. Lines 0-15 are ISA interrupts, 16-23
 * PCI's. get and set: for saved state; vCPUs stopped. */
struct board_irqchip {
    void (*irq_line)(void *opaque, unsigned gsi, bool level);
    void (*msi)(void *opaque, u64 addr, u32 data);
    int (*get)(void *opaque, struct x86_irqchip *ret_state, struct err *err);
    int (*set)(void *opaque, const struct x86_irqchip *state, struct err *err);
    void *opaque;
};

struct board_config {
    const char *name;              /* for messages */
    struct gmem *ram;              /* outlives the board */
    const struct cpu_model *model; /* outlives the board; tsc_khz and phys_bits are used */
    const u8 *generation;          /* VM generation id, 16 bytes; NULL: any */
    unsigned cpus;                 /* 1..MEMMAP_CPUS */
    struct timerq *timers;         /* the main loop's: PIT, RTC, serial, ACPI, HPET */
    struct chardev *console;       /* COM1's other end, or NULL */
    struct event_sink
        sink; /* poweroff, reset, panic, debug exit: called in vCPU threads, see event.h */
    struct cpu_kicker
        kicker; /* ends in the accelerator's vcpu_event(); bits are enum vcpu_event's */
    struct board_irqchip irqchip;
    u16 debug_console, debug_exit;              /* ports, 0: none */
    void (*debug_write)(void *opaque, u8 byte); /* any vCPU thread */
    void *debug_opaque;
    bool hpet; /* wanted: kernels that have better clocks only lose time on it */
};

/* Makes the machine in power-on state. -EINVAL says what in the configuration is wrong. */
int board_new(const struct board_config *config, struct board **ret_board, struct err *err);
void board_free(struct board *b); /* frees functions on the PCI bus too; NULL is fine */
/* Every device to power-on state; memory stays. vCPUs stopped. */
void board_reset(struct board *b);

/* For the accelerator's new(): RAM, address spaces, model and interrupt controllers. Valid while
 * the board lives. */
struct accel_machine board_accel_machine(struct board *b);
/* The timers of the vCPU's own thread (accel_ops.vcpu_timers). Before it runs. */
void board_set_cpu_timers(struct board *b, unsigned cpu, struct timerq *q);
/* To be called in the thread that runs vCPU `cpu`, once, before guest code: memory-mapped accesses
 * to "the" local APIC made in this thread go to this cpu's. */
void board_enter_cpu(struct board *b, unsigned cpu);
/* The guest's TSC is host TSC + offset: keeps TSC-deadline timers right. In the vCPU's thread, or
 * stopped. */
void board_set_tsc_offset(struct board *b, unsigned cpu, s64 offset);

struct pci_host *board_pci(struct board *b);
struct aspace *board_mmio(struct board *b);
struct aspace *board_pio(struct board *b);
/* An interrupt line: 0-15 ISA, 16-23 PCI. */
struct irq board_irq(struct board *b, unsigned gsi);
struct msi_sink board_msi(struct board *b);

/* The 64-bit PCI window; its length is 0 when RAM leaves no room below the processor's address
 * limit. */
u64 board_mmio64_base(const struct board *b);
u64 board_mmio64_len(const struct board *b);

/* Registers the saved state of every fixed device (and of none on the PCI bus) in a set that the board outlives, or
 * that is emptied with board_remove_state(). Saving and loading want the vCPUs stopped and the timers' loop quiet. */
int board_add_state(struct board *b, struct state_set *set, struct err *err);
void board_remove_state(struct board *b, struct state_set *set);
/* Before saving, and after everything is loaded, processors included: the accelerator's interrupt controllers, if it
 * has them. */
int board_get_irqchip(struct board *b, struct err *err);
int board_set_irqchip(struct board *b, struct err *err);

/* Tells the guest that its generation id (board_config.generation) is another one: it may share its past with others. */
void board_announce_generation(struct board *b);
void board_power_button(struct board *b); /* any thread */
void board_nmi(struct board *b);          /* any thread; not with an irqchip */

/* What to boot. Paths are opened by board_open_kernel() and not used later. */
struct board_kernel {
    /* bzImage, vmlinux with a PVH note, Multiboot 1; or what board_save_kernel() has written, and then only this. */
    const char *kernel;
    const char *initrd;    /* or NULL; for Multiboot a comma-separated list of modules, "file
                              arguments" each */
    const char *cmdline;   /* or NULL */
    const char *cache_dir; /* where unpacked kernels are kept between starts, or NULL: nowhere */
};

/* Reads and checks the files; replaces what was opened before. Errors say what is wrong with which
 * file. */
int board_open_kernel(struct board *b, const struct board_kernel *k, struct err *err);
/* Writes what board_open_kernel() has opened as a stream (any thread, files do not change), and opens such a file
 * instead of a kernel's; fd stays the caller's. -ENODATA: there is none to save. */
int board_save_kernel(struct board *b, const struct state_sink *to, struct err *err);
bool board_has_kernel(const struct board *b);
int board_open_saved_kernel(struct board *b, int fd, struct err *err);
/* Puts ACPI tables, kernel, RAM disk and command line into guest memory, fresh each time (address
 * randomization included), and fills in the state of the first processor. The others are
 * x86_cpu_reset(c, false). */
int board_boot(struct board *b, struct x86_cpu *ret_cpu, struct err *err);
/* How the last board_boot() started the kernel, for `--trace boot` and messages; a static string.
 */
const char *board_boot_way(const struct board *b);

#endif
