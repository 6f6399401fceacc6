/*
 * The translator's private state: per machine (struct bt) and per vCPU (struct vcpu).
 */
#ifndef BT_VCPU_H
#define BT_VCPU_H

#include <pthread.h>
#include <time.h>
#include "accel/bt/layout.h"
#include "loop/timer.h"

#define MMU_SLOTS 8
#define RELATIVE_CHUNKS 64

/* Tables differ by what the mode may touch. */
enum table_kind { TABLE_USER, TABLE_KERNEL /* no user pages */, TABLE_KERNEL_AC /* user pages as well */, TABLE_KINDS };

/* One page of a data table (2 MiB of guest addresses) that holds entries. */
struct touched {
    u32 index;      /* linear address >> 21, 27 bits */
    u8 local;       /* holds entries of pages that are not global */
    u8 large, huge; /* holds entries that come from a 2M/4M or 1G page */
    u8 stores;      /* holds entries that lead into gview */
};

struct table {
    u8 *base;           /* gs value */
    u8 *bits;           /* sparse bitmap, bit (linear >> 21): listed in touched[] */
    struct touched *touched;
    unsigned ntouched, max_touched;
};

struct slot {
    u64 cr3;       /* page-table base */
    u16 pcid;
    bool used;
    u64 stamp;     /* for least-recently-used replacement */
    struct table table[TABLE_KINDS];
};

struct code_cache;

/* The light twin of gmem_find(). */
static inline const struct gmem_slot *ram_slot(const struct gmem *m, u64 gpa)
{
    for (unsigned i = 0; i < m->nslots; i++)
        if (gpa - m->slot[i].gpa < m->slot[i].len)
            return &m->slot[i];
    return NULL;
}

/* The VMM's view of the byte at gpa, RAM or ROM, or NULL. Light. */
static inline u8 *ram_byte(const struct gmem *m, u64 gpa)
{
    const struct gmem_slot *s = ram_slot(m, gpa);
    return s ? s->hva + (gpa - s->gpa) : NULL;
}

struct bt {
    struct accel_machine *m;
    u8 *gview;         /* RAM as guest stores see it: read-write, translated pages read-only */
    u8 *roview;        /* RAM read-only: clean or read-only guest pages */
    u64 view_bytes;
    struct code_cache *cache;
    unsigned nvcpus;
    struct vcpu **vcpu;
    u8 *heat;          /* per page of RAM, see heat.c */
    u64 reached;       /* while pages are absent: the last one that a vCPU came to; atomic */
};

enum sync_state { VCPU_OUTSIDE, VCPU_INSIDE };

struct vcpu {
    struct cpu *c;     /* lives in the area; this alias is c->self */
    struct bt *bt;
    int area_fd;
    u8 *area;
    u64 *jt;
    struct slot slot[MMU_SLOTS];
    unsigned nslots;
    struct slot *cur;
    u64 stamp;
    int exit;          /* enum cpu_exit: why bt_enter() returned */
    bool cache_full;   /* it returned for want of room in the code cache */
    struct timerq timers;
    s64 armed_ns;      /* deadline the host timer is set to */
    timer_t host_timer;
    bool has_host_timer;
    pthread_t thread;
    u32 sleeping;      /* futex: 1 while halted */
    u32 sync;          /* enum sync_state, atomic */
    void *altstack;
    bool intr_waiting; /* an interrupt is pending but RFLAGS.IF was clear */
    u64 want_page;     /* an access met absent page want_page - 1: the run loop fetches it, see absent.c */
    bool translating;  /* translate() is running, with the cache's lock */
    /* An event whose delivery has begun, with what it needs to begin again. */
    struct { bool valid, has_error; u8 vector, kind /* enum deliver_kind */; u32 error; } held;
    u64 shadow_rip;    /* the last instruction that ran in an interrupt shadow, and which one */
    u8 shadow;
    /* careful accesses */
    struct { u64 cr3, chunk, slide; } near[RELATIVE_CHUNKS]; /* see relative.c */
    u8 bounce[256] __attribute__((aligned(64)));
    struct { u64 lin[2], gpa[2]; u16 len[2]; u8 mmio, acc, code, bounced; u16 size; u8 *host; } access;
    u64 stat_blocks, stat_insns, stat_slow, stat_careful, stat_flush, stat_faults, stat_link, stat_miss;
};

/* Returned by the C side of every stub: where to go on (0: leave to the run loop) and the value of host R15. */
struct stub_ret { u64 host, s2; };

/* enter.c */
void bt_enter(struct cpu *c);  /* runs guest code until a stub returns host == 0 */
extern const u64 stub_address[STUBS];
noreturn void bt_unwind(struct cpu *c); /* light: drops the helper's stack and goes on in light_exception() */

/* light*.c: C sides of the stubs */
struct stub_ret light_start(struct cpu *c);
struct stub_ret light_exception(struct cpu *c);
struct stub_ret light_slow(struct cpu *c, u64 lin, u64 info);
struct stub_ret light_link(struct cpu *c, u64 s1, u64 rec);
struct stub_ret light_jt_miss(struct cpu *c, u64 vpc, u64 s2);
struct stub_ret light_special(struct cpu *c, u64 s1, u64 rec);
struct stub_ret light_poll(struct cpu *c, u64 s1, u64 vpc);
struct stub_ret light_begin(struct cpu *c, u64 s1, u64 rec);
struct stub_ret light_end(struct cpu *c, u64 s1, u64 rec);
struct stub_ret light_window(struct cpu *c, u64 lin, u64 rec);
struct stub_ret light_fault(struct cpu *c, u64 s1, u64 s2);

/* state.c */
int vcpu_state_get(struct vcpu *v, struct x86_cpu *ret_state, struct err *err);
int vcpu_state_set(struct vcpu *v, const struct x86_cpu *state, struct err *err);

/* mmu.c */
int mmu_init(struct vcpu *v, struct err *err);
void mmu_fini(struct vcpu *v);
/* Makes the table of the current mode and address space current (gs). Light. */
void mmu_select(struct cpu *c);
struct mmu_page { u64 gpa; u64 delta; bool ram, writable; };
/* Walks for an access (raising #PF), fills the current data table, and says where the page is. delta is 0 when the
 * page is not plain RAM for this access. Light. */
void mmu_lookup(struct cpu *c, u64 lin, bool write, enum mem_as as, struct mmu_page *ret);
/* As mmu_lookup for AS_CPL, but asks the current data table first. */
void mmu_find(struct cpu *c, u64 lin, bool write, struct mmu_page *ret);
/* What the current data table says of a page, without walking. Light. */
u64 mmu_peek(struct cpu *c, u64 lin);
/* The guest-physical address of a byte of the memfd. */
u64 gpa_of_offset(const struct gmem *m, u64 offset);
/* The same for a read that may never happen: false instead of a fault. will_write: a store may follow; it has to do so
 * through a walk of its own unless ret->writable. */
bool mmu_try(struct cpu *c, u64 lin, bool will_write, struct mmu_page *ret);
/* Walks for an instruction fetch, raising #PF; fills the exec table. Returns the guest-physical address. Light. */
u64 mmu_fetch(struct cpu *c, u64 lin);

/* Entries that lead into gview are dropped, or (all) all entries of all tables. The vCPU is outside (cache_stop_all). */
void mmu_forget(struct vcpu *v, bool all);

/* heat.c (light): a load met a page that the guest may write, while the dirty log wants to hear of its first write. */
enum heat_guess { HEAT_NOTE /* as if written */, HEAT_ONCE /* let this load through only */, HEAT_READ /* for reading */ };
enum heat_guess heat_load(struct bt *bt, u64 page);
void heat_store(struct bt *bt, u64 page);

/* absent.c (light): gmem_accel.need. wanted_page() brings the page in the run loop, where the vCPU is outside. */
int absent_need(void *opaque, u64 page);
int wanted_page(struct vcpu *v, struct err *err); /* heavy, dirty.c */
extern _Thread_local struct vcpu *this_vcpu;      /* signal.c; NULL in other threads */

/* dirty.c: what the machine's memory asks of an accelerator */
extern const struct gmem_accel bt_gmem_accel;

/* debug.c (light): breakpoints */
#define DR6_BS BIT(14)
void debug_fetch(struct cpu *c, u64 lin);  /* raises #DB when an execution breakpoint is at lin */
void debug_access(struct cpu *c, u64 lin, unsigned size, bool write); /* notes hits in dr_hits */

/* signal.c */
int signals_init(struct err *err);
int signals_attach(struct vcpu *v, struct err *err);

#endif
