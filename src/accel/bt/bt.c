/*
 * The translator as an accelerator: machines, vCPUs, their run loop and the conversion to canonical state.
 */
#include <cpuid.h>
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include "accel/bt/cache.h"
#include "accel/bt/sys.h"
#include "accel/trace.h"

#define CACHE_BYTES (64 * MiB)
#define CACHE_MIN_BYTES (128 * KiB)
#define HWCAP2_FSGSBASE 2
#define TIMER_SIGNAL (SIGRTMIN + 1)

struct accel {
    struct bt bt;
};

static struct vcpu **slot_of(struct bt *bt, unsigned index)
{
    return &bt->vcpu[index];
}

/* --- does it work here? --- */

static int probe_host_cpu(struct err *err)
{
    u32 a, b, c, d;

    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & bit_BMI2))
        return err_set(err, ENOTSUP, "the host's processor lacks BMI2 (pext), which translated code needs");
    if (!__get_cpuid(0x80000001, &a, &b, &c, &d) || !(c & bit_LAHF_LM))
        return err_set(err, ENOTSUP, "the host's processor lacks LAHF in 64-bit mode, which translated code needs");
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE))
        return err_set(err, ENOTSUP, "the host's processor or kernel lacks XSAVE");
    if (!(getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE))
        return err_set(err, ENOTSUP, "the host's kernel does not let programs set the GS base (FSGSBASE, Linux 5.9)");
    return 0;
}

static int bt_probe(struct err *err)
{
    int r = probe_host_cpu(err);

    if (r < 0)
        return r;
    int fd = memfd_create("trapeze-probe", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, 4096) < 0)
        r = err_sys(err, errno, "cannot create memory for code");
    void *p = r < 0 ? MAP_FAILED : mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    if (!r && p == MAP_FAILED)
        r = err_sys(err, errno, "cannot map memory as executable");
    if (p != MAP_FAILED)
        munmap(p, 4096);
    if (fd >= 0)
        close(fd);
    void *t = mmap(NULL, TABLE_BYTES * TABLE_KINDS, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (!r && t == MAP_FAILED)
        r = err_sys(err, errno, "cannot reserve address space for translation tables (see ulimit -v)");
    if (t != MAP_FAILED)
        munmap(t, TABLE_BYTES * TABLE_KINDS);
    return r;
}

/* --- the machine --- */

static void ram_written(void *opaque, u64 gpa, u64 len)
{
    struct bt *bt = opaque;

    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    for (u64 at = gpa; at - gpa < len; at = (at | 0xfff) + 1)
        if (code_page(bt, at))
            code_invalidate(bt, at, MIN(len - (at - gpa), 4096 - (at & 0xfff)));
}

static void bt_free(struct accel *a)
{
    if (!a)
        return;
    struct bt *bt = &a->bt;
    if (bt->m && bt->m->ram->wrote_opaque == bt) {
        bt->m->ram->wrote = NULL;
        bt->m->ram->wrote_opaque = NULL;
        bt->m->ram->accel = NULL;
        bt->m->ram->accel_opaque = NULL;
    }
    free(bt->heat);
    cache_fini(bt);
    if (bt->gview && bt->gview != MAP_FAILED)
        munmap(bt->gview, bt->view_bytes);
    if (bt->roview && bt->roview != MAP_FAILED)
        munmap(bt->roview, bt->view_bytes);
    free(bt->vcpu);
    free(a);
}

/* For tests: a small cache is full soon. */
static u64 cache_bytes(void)
{
    const char *kib = getenv("TRAPEZE_BT_CACHE_KIB");
    u64 bytes = kib ? strtoull(kib, NULL, 10) * KiB : CACHE_BYTES;

    return bytes < CACHE_MIN_BYTES || bytes > CACHE_BYTES ? CACHE_BYTES : ALIGN_UP(bytes, 4096);
}

/* A view has an unmapped page behind it: an access that starts in the last page and runs over must not find a neighbour. */
static u8 *map_view(const struct gmem *ram, int prot)
{
    u64 bytes = ram->mapped + 4096;
    u8 *p = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (p == MAP_FAILED)
        return MAP_FAILED;
    return mmap(p, ram->mapped, prot, MAP_SHARED | MAP_FIXED | MAP_NORESERVE, ram->memfd, 0);
}

static int bt_new(struct accel_machine *m, struct accel **ret_accel, struct err *err)
{
    struct accel *a = calloc(1, sizeof(*a));

    if (!a)
        return err_set(err, ENOMEM, "bt: no memory");
    struct bt *bt = &a->bt;
    bt->m = m;
    bt->nvcpus = m->cpus;
    bt->vcpu = calloc(m->cpus, sizeof(*bt->vcpu));
    bt->heat = calloc(m->ram->size >> 12, 1);
    bt->view_bytes = m->ram->mapped + 4096;
    bt->gview = map_view(m->ram, PROT_READ | PROT_WRITE);
    bt->roview = map_view(m->ram, PROT_READ);
    int r = 0;
    if (!bt->vcpu || !bt->heat)
        r = err_set(err, ENOMEM, "bt: no memory");
    else if (bt->gview == MAP_FAILED || bt->roview == MAP_FAILED)
        r = err_sys(err, errno, "bt: cannot map guest memory");
    if (!r)
        r = cache_init(bt, cache_bytes(), err);
    if (!r)
        r = signals_init(err);
    if (r < 0) {
        bt_free(a);
        return r;
    }
    insn_init(m->model);
    m->ram->wrote = ram_written;
    m->ram->wrote_opaque = bt;
    m->ram->accel = &bt_gmem_accel;
    m->ram->accel_opaque = bt;
    *ret_accel = a;
    return 0;
}

/* --- vCPUs --- */

static void bt_vcpu_event(struct vcpu *v, u32 events)
{
    __atomic_fetch_or(&v->c->events, events, __ATOMIC_SEQ_CST);
    if (__atomic_exchange_n(&v->sleeping, 0, __ATOMIC_SEQ_CST))
        syscall(SYS_futex, &v->sleeping, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static _Thread_local struct vcpu *timer_vcpu;

static void on_timer_signal(int sig)
{
    struct vcpu *v = timer_vcpu;

    (void)sig;
    if (!v)
        return;
    v->armed_ns = TIMER_NEVER;
    __atomic_fetch_or(&v->c->events, BT_EV_TIMER, __ATOMIC_SEQ_CST);
    __atomic_store_n(&v->sleeping, 0, __ATOMIC_SEQ_CST);
}

/* Sets the host timer to the first deadline of the vCPU's queue; it interrupts whatever the thread is doing. */
static void arm_host_timer(struct vcpu *v)
{
    s64 at = timerq_deadline(&v->timers);

    if (!v->has_host_timer || at == v->armed_ns)
        return;
    v->armed_ns = at;
    struct itimerspec its = {0};
    if (at != TIMER_NEVER) {
        s64 ns = at < 1 ? 1 : at;
        its.it_value.tv_sec = ns / NS_PER_S;
        its.it_value.tv_nsec = ns % NS_PER_S;
    }
    timer_settime(v->host_timer, TIMER_ABSTIME, &its, NULL);
}

static void timers_earlier(void *opaque)
{
    struct vcpu *v = opaque;

    if (timer_vcpu == v)
        arm_host_timer(v);
    else
        bt_vcpu_event(v, BT_EV_TIMER);
}

static void init_xsave(struct cpu *c)
{
    memset(c->xsave, 0, 4096);
    *(u16 *)c->xsave = 0x37f;                      /* FCW */
    *(u32 *)((u8 *)c->xsave + 24) = 0x1f80;        /* MXCSR */
    *(u64 *)((u8 *)c->xsave + 512) = 3;            /* XSTATE_BV: x87 and SSE are here */
}

static u64 host_xcr0(void)
{
    u32 lo, hi;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return (u64)hi << 32 | lo;
}

static void init_cpu(struct vcpu *v, unsigned index)
{
    struct cpu *c = v->c;
    struct bt *bt = v->bt;

    c->self = c;
    c->vcpu = v;
    c->bt = bt;
    c->m = bt->m;
    c->model = bt->m->model;
    c->index = index;
    c->vec_saved = true;
    c->priv[P_PEXT_MASK] = PAGE_INDEX_MASK;
    c->priv[P_EXEC_TABLE] = EXEC_TABLE;
    c->priv[P_RAM_BYTES] = bt->m->ram->mapped;
    c->priv[P_LINES] = (u64)bt->cache->lines;
    relative_reset(c);
    c->priv[P_XSAVE_MASK] = host_xcr0() & (c->model->xcr0_mask | 3);
    for (unsigned i = 0; i < STUBS; i++)
        c->priv[P_STUB0 + i] = stub_address[i];
    for (unsigned i = 0; i < JT_ENTRIES; i++)
        v->jt[i] = stub_address[STUB_JT_MISS];
}

static void bt_vcpu_free(struct vcpu *v)
{
    if (!v)
        return;
    if (v->has_host_timer)
        timer_delete(v->host_timer);
    if (timer_vcpu == v)
        timer_vcpu = NULL;
    if (this_vcpu == v)
        this_vcpu = NULL;
    if (v->bt)
        for (unsigned i = 0; i < v->bt->nvcpus; i++)
            if (*slot_of(v->bt, i) == v)
                *slot_of(v->bt, i) = NULL;
    timerq_fini(&v->timers);
    if (v->c)
        free(v->c->xsave);
    mmu_fini(v);
    free(v);
}

static int bt_vcpu_new(struct accel *a, unsigned index, struct vcpu **ret_vcpu, struct err *err)
{
    struct vcpu *v = aligned_alloc(64, ALIGN_UP(sizeof(*v), 64));

    if (!v)
        return err_set(err, ENOMEM, "bt: no memory for a vCPU");
    memset(v, 0, sizeof(*v));
    v->bt = &a->bt;
    v->armed_ns = TIMER_NEVER;
    timerq_init(&v->timers);
    v->timers.earlier = timers_earlier;
    v->timers.opaque = v;
    int r = mmu_init(v, err);
    if (r < 0) {
        v->c = NULL;
        bt_vcpu_free(v);
        return r;
    }
    v->c->xsave = aligned_alloc(64, 4096);
    if (!v->c->xsave) {
        bt_vcpu_free(v);
        return err_set(err, ENOMEM, "bt: no memory for a vCPU");
    }
    init_cpu(v, index);
    init_xsave(v->c);
    cpu_power_on(v->c, index == 0);
    *slot_of(&a->bt, index) = v;
    *ret_vcpu = v;
    return 0;
}

static int bt_vcpu_attach(struct vcpu *v, struct err *err)
{
    struct sigaction sa = {.sa_handler = on_timer_signal, .sa_flags = SA_ONSTACK | SA_RESTART};
    struct sigevent ev = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = TIMER_SIGNAL};

    v->thread = pthread_self();
    timer_vcpu = v;
    if (sigaction(TIMER_SIGNAL, &sa, NULL) < 0)
        return err_sys(err, errno, "bt: cannot handle the timer signal");
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, TIMER_SIGNAL);
    sigaddset(&set, SIGSEGV);
    sigaddset(&set, SIGFPE);
    sigaddset(&set, SIGILL);
    sigaddset(&set, SIGBUS);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    ev._sigev_un._tid = (pid_t)syscall(SYS_gettid);
    if (timer_create(CLOCK_MONOTONIC, &ev, &v->host_timer) < 0)
        return err_sys(err, errno, "bt: cannot create a timer");
    v->has_host_timer = true;
    return signals_attach(v, err);
}

static void bt_vcpu_warm(struct vcpu *v)
{
    if (v == *slot_of(v->bt, 0))
        cache_warm(v->bt);
}

static struct timerq *bt_vcpu_timers(struct vcpu *v)
{
    return &v->timers;
}

/* --- the run loop --- */

static void sleep_until_event(struct vcpu *v)
{
    arm_host_timer(v);
    __atomic_store_n(&v->sleeping, 1, __ATOMIC_SEQ_CST);
    while (!__atomic_load_n(&v->c->events, __ATOMIC_SEQ_CST) && __atomic_load_n(&v->sleeping, __ATOMIC_SEQ_CST))
        syscall(SYS_futex, &v->sleeping, FUTEX_WAIT_PRIVATE, 1, NULL, NULL, 0);
    __atomic_store_n(&v->sleeping, 0, __ATOMIC_SEQ_CST);
}

static bool take_event(struct cpu *c, u32 bit)
{
    return __atomic_fetch_and(&c->events, ~bit, __ATOMIC_SEQ_CST) & bit;
}

static void startup_messages(struct vcpu *v)
{
    struct cpu *c = v->c;
    struct accel_intc *intc = &v->bt->m->intc;

    if (take_event(c, VCPU_EV_INIT)) {
        cpu_reset(c, c->index == 0);
        v->held.valid = false;
    }
    if (take_event(c, VCPU_EV_SIPI)) {
        int vector = intc->take_sipi ? intc->take_sipi(intc->opaque, c->index) : -1;
        if (vector >= 0 && c->activity == X86_WAIT_SIPI)
            cpu_start_at(c, (u8)vector);
    }
}

static enum vcpu_exit bt_vcpu_run(struct vcpu *v, struct err *err)
{
    struct cpu *c = v->c;

    cpu_update_mode(c);
    for (;;) {
        if (take_event(c, VCPU_EV_STOP))
            return VCPU_STOPPED;
        take_event(c, BT_EV_SYNC);
        startup_messages(v);
        take_event(c, BT_EV_TIMER);
        if (timerq_deadline(&v->timers) <= timerq_now(&v->timers))
            timerq_run(&v->timers);
        if (c->activity != X86_RUNNING && !(__atomic_load_n(&c->events, __ATOMIC_SEQ_CST))) {
            sleep_until_event(v);
            continue;
        }
        arm_host_timer(v);
        cpu_update_mode(c);
        cache_enter(v->bt, v);
        bt_enter(c);
        cache_leave(v->bt, v);
        if (v->cache_full) {
            v->cache_full = false;
            trace_accel_bt_full(v->bt->cache->used, v->bt->cache->norder);
            cache_flush(v->bt);
        }
        if (v->exit == EXIT_SHUTDOWN)
            return VCPU_SHUTDOWN;
        if (v->want_page && wanted_page(v, err))
            return VCPU_FAILED;
    }
}

const struct accel_ops accel_bt = {
    .name = "bt",
    .summary = "binary translation in user space; needs no /dev/kvm",
    .probe = bt_probe,
    .new = bt_new,
    .free = bt_free,
    .vcpu_new = bt_vcpu_new,
    .vcpu_free = bt_vcpu_free,
    .vcpu_attach = bt_vcpu_attach,
    .vcpu_warm = bt_vcpu_warm,
    .vcpu_run = bt_vcpu_run,
    .vcpu_event = bt_vcpu_event,
    .vcpu_get = vcpu_state_get,
    .vcpu_set = vcpu_state_set,
    .vcpu_timers = bt_vcpu_timers,
};
