/*
 * KVM without a guest: a processor's state goes in and comes out the same, events stop a processor, memory and interrupts
 * can be set up. Skipped where /dev/kvm cannot be opened; a KVM that cannot run guests will do.
 */
#include "accel/kvm/kvm.h"
#include "mem/dirty.h"
#include "mem/lazy.h"
#include "unit.h"

#include <fcntl.h>
#include <unistd.h>

struct fixture {
    struct gmem ram;
    struct aspace mmio, pio;
    struct cpu_model model;
    struct accel_machine machine;
    struct accel *accel;
    struct vcpu *vcpu;
};

static void make(struct fixture *f)
{
    struct err err = ERR_INIT;
    int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

    if (fd < 0)
        skip();
    close(fd);
    memset(f, 0, sizeof(*f));
    aspace_init(&f->mmio, UINT64_MAX);
    aspace_init(&f->pio, 65536);
    assert_int_equal(gmem_init(&f->ram, 2 * MiB, &err), 0);
    assert_int_equal(gmem_add_rom(&f->ram, 0xfffff000, "\xf4", 1, &err), 0);
    assert_int_equal(cpu_model_init(&f->model, "host", 1, &err), 0);
    f->machine = (struct accel_machine){.ram = &f->ram,
                                        .mmio = &f->mmio,
                                        .pio = &f->pio,
                                        .model = &f->model,
                                        .cpus = 1,
                                        .name = "unit"};
    if (accel_kvm.new(&f->machine, &f->accel, &err) ||
        accel_kvm.vcpu_new(f->accel, 0, &f->vcpu, &err) || accel_kvm.vcpu_attach(f->vcpu, &err))
        fail_msg("%s", err.msg);
}

static void unmake(struct fixture *f)
{
    accel_kvm.vcpu_free(f->vcpu);
    accel_kvm.free(f->accel);
    aspace_fini(&f->mmio);
    aspace_fini(&f->pio);
    gmem_fini(&f->ram);
}

static u64 kvm_clock_now(const struct accel *a)
{
    struct kvm_clock_data clock = {0};

    assert_int_equal(kvm_ioctl(a->vm_fd, KVM_GET_CLOCK, &clock), 0);
    return clock.clock;
}

static void fill(struct x86_cpu *c)
{
    x86_cpu_reset(c, true);
    for (unsigned i = 0; i < X86_GPRS; i++)
        c->gpr[i] = 0x1111111111111111ull * i;
    c->rip = 0x1234;
    c->rflags = 2 | FL_CF | FL_ZF;
    c->cr2 = 0xdeadbeef000;
    c->dr[1] = 0x400000;
    c->msr.star = 0x23001000000000;
    c->msr.lstar = 0xffffffff81000000;
    c->msr.sysenter_eip = 0x5678;
    c->msr.kernel_gs_base = 0xffff888000000000;
    c->seg[SEG_ES].base = 0x20000;
    c->seg[SEG_ES].sel = 0x2000;
    c->gdt.base = 0x9000;
    c->gdt.limit = 0x27;
    c->xsave[160] = 0x5a; /* xmm0 */
    c->xsave[512] = 3;    /* x87 and SSE are there */
}

static void state_comes_back(void **state)
{
    static struct x86_cpu in, out;
    struct err err = ERR_INIT;
    struct fixture f;

    make(&f);
    fill(&in);
    if (accel_kvm.vcpu_set(f.vcpu, &in, &err) || accel_kvm.vcpu_get(f.vcpu, &out, &err))
        fail_msg("%s", err.msg);
    assert_memory_equal(in.gpr, out.gpr, sizeof(in.gpr));
    assert_int_equal(in.rip, out.rip);
    assert_int_equal(in.rflags, out.rflags);
    assert_int_equal(in.cr0, out.cr0);
    assert_int_equal(in.cr2, out.cr2);
    assert_int_equal(in.dr[1], out.dr[1]);
    assert_int_equal(in.msr.star, out.msr.star);
    assert_int_equal(in.msr.lstar, out.msr.lstar);
    assert_int_equal(in.msr.sysenter_eip, out.msr.sysenter_eip);
    assert_int_equal(in.msr.kernel_gs_base, out.msr.kernel_gs_base);
    for (unsigned i = 0; i < X86_SEGS; i++) {
        assert_int_equal(in.seg[i].base, out.seg[i].base);
        assert_int_equal(in.seg[i].sel, out.seg[i].sel);
        assert_int_equal(in.seg[i].limit, out.seg[i].limit);
    }
    assert_int_equal(in.gdt.base, out.gdt.base);
    assert_int_equal(in.gdt.limit, out.gdt.limit);
    assert_int_equal(in.xcr0, out.xcr0);
    assert_int_equal(out.xsave[160], 0x5a);
    assert_int_equal(out.activity, X86_RUNNING);
    unmake(&f);
}

static void a_stop_before_the_run_stops_it(void **state)
{
    static struct x86_cpu cpu;
    struct err err = ERR_INIT;
    struct fixture f;

    make(&f);
    fill(&cpu);
    assert_int_equal(accel_kvm.vcpu_set(f.vcpu, &cpu, &err), 0);
    accel_kvm.vcpu_event(f.vcpu, VCPU_EV_STOP);
    assert_int_equal(accel_kvm.vcpu_run(f.vcpu, &err), VCPU_STOPPED);
    assert_int_equal(accel_kvm.vcpu_get(f.vcpu, &cpu, &err), 0);
    assert_int_equal(cpu.rip, 0x1234);
    unmake(&f);
}

static void interrupts_can_be_raised(void **state)
{
    struct fixture f;

    make(&f);
    for (unsigned gsi = 0; gsi < 24; gsi++) {
        accel_kvm.irq_line(f.accel, gsi, true);
        accel_kvm.irq_line(f.accel, gsi, false);
    }
    accel_kvm.msi(f.accel, 0xfee00000, 0x41);
    accel_kvm.msi(f.accel, 0x1234, 0xffffffff); /* nonsense is dropped */
    unmake(&f);
}

/* kvmclock goes on from where the guest's TSC is, whoever ran the guest before. */
static void the_clock_follows_the_tsc(void **state)
{
    static struct x86_cpu cpu;
    struct err err = ERR_INIT;
    struct fixture f;
    s64 difference;

    make(&f);
    fill(&cpu);
    cpu.tsc_offset =
        (s64)(5000ull * f.model.tsc_khz * 1000) - (s64)__builtin_ia32_rdtsc(); /* 5000 s */
    if (accel_kvm.vcpu_set(f.vcpu, &cpu, &err))
        fail_msg("%s", err.msg);
    difference = (s64)kvm_clock_now(f.accel) - 5000 * NS_PER_S;
    assert_true(difference >= 0 && difference < 100 * NS_PER_S); /* what it took to get here */
    unmake(&f);
}

/* Controllers in the middle of something: all of it comes back. */
static void controllers_come_back(void **state)
{
    static struct x86_irqchip in, out;
    struct err err = ERR_INIT;
    struct fixture f;

    make(&f);
    if (accel_kvm.irqchip_get(f.accel, &in, &err))
        fail_msg("%s", err.msg);
    in.pic[0].imr = 0xfa;
    in.pic[0].base = 0x30;
    in.pic[1].isr = 0x04;
    in.pic[1].base = 0x38;
    in.pic[1].elcr = 0x08;
    in.pit[0].mode = 2;
    in.pit[0].count = 11932;
    in.pit[0].access = 3;
    in.pit[0].gate = 1;
    in.pit[2].mode = 3;
    in.pit[2].count = 65536;
    in.pit[2].access = 3;
    in.pit[2].latched = 1;
    in.pit[2].latch = 0x1234;
    in.ioapic_id = 5;
    in.ioapic_entry[4] = 0x34;
    in.ioapic_entry[17] = 0x1a041 | (1ull << 56); /* level, low, masked */
    in.lapic[0].reg[0x0f] = 0x1ff;                /* enabled */
    in.lapic[0].reg[0x08] = 0x20;
    in.lapic[0].reg[0x20 + 2] = 1u << 9; /* vector 73 waits */
    in.lapic[0].reg[0x32] = 0x30040;     /* timer: periodic, masked */
    in.lapic[0].reg[0x3e] = 0xb;
    if (accel_kvm.irqchip_set(f.accel, &in, &err) || accel_kvm.irqchip_get(f.accel, &out, &err))
        fail_msg("%s", err.msg);
    assert_memory_equal(in.pic, out.pic, sizeof(in.pic));
    for (unsigned i = 0; i < 3; i++) {
        in.pit[i].start_ns = out.pit[i].start_ns; /* counting begins when it is set, */
        if (!in.pit[i].count)
            in.pit[i].count = 65536; /* if need be from where a counter of zero begins */
        assert_memory_equal(&in.pit[i], &out.pit[i], sizeof(in.pit[i]));
    }
    assert_memory_equal(in.ioapic_entry, out.ioapic_entry, sizeof(in.ioapic_entry));
    assert_int_equal(in.ioapic_id, out.ioapic_id);
    in.lapic[0].reg[0x0a] = 0x20; /* the processor's priority follows from the task's */
    assert_memory_equal(in.lapic[0].reg, out.lapic[0].reg, sizeof(in.lapic[0].reg));
    assert_int_equal(in.lapic[0].apic_base, out.lapic[0].apic_base);
    unmake(&f);
}

/* --- memory --- */

#define DONE_PORT 0x80
#define GUEST_CODE 0x1000

/* Real mode: reads [0x3000], stores it plus 1 at [0x5000] and the address at [0x6000], then says so, and again. */
static const u8 guest_code[] = {
    0xa1, 0x00,      0x30,                   /* mov ax, [0x3000] */
    0x40,                                    /* inc ax */
    0xa3, 0x00,      0x50,                   /* mov [0x5000], ax */
    0xc7, 0x06,      0x00, 0x60, 0x34, 0x12, /* mov word [0x6000], 0x1234 */
    0xe6, DONE_PORT,                         /* out 0x80, al */
    0xeb, 0xef,                              /* jmp back */
};

static u64 done_read(void *opaque, u64 offset, unsigned size)
{
    return 0;
}

static void done_write(void *opaque, u64 offset, unsigned size, u64 value)
{
    struct fixture *f = opaque;

    accel_kvm.vcpu_event(f->vcpu, VCPU_EV_STOP);
}

static const struct io_ops done_ops = {done_read, done_write};

static void make_guest(struct fixture *f, struct io_region *done)
{
    static struct x86_cpu cpu;
    struct err err = ERR_INIT;
    u16 word = 41;

    make(f);
    *done = (struct io_region){
        .name = "done", .base = DONE_PORT, .len = 1, .ops = &done_ops, .opaque = f};
    assert_int_equal(aspace_map(&f->pio, done, &err), 0);
    assert_int_equal(gmem_write(&f->ram, GUEST_CODE, guest_code, sizeof(guest_code)), 0);
    assert_int_equal(gmem_write(&f->ram, 0x3000, &word, 2), 0);
    x86_cpu_reset(&cpu, true);
    cpu.seg[SEG_CS].base = 0;
    cpu.seg[SEG_CS].sel = 0;
    cpu.rip = GUEST_CODE;
    assert_int_equal(accel_kvm.vcpu_set(f->vcpu, &cpu, &err), 0);
}

static void run_once(struct fixture *f)
{
    struct err err = ERR_INIT;

    if (accel_kvm.vcpu_run(f->vcpu, &err) != VCPU_STOPPED)
        fail_msg("%s", err.msg);
}

static u16 word_at(struct fixture *f, u64 gpa)
{
    u16 word = 0;

    assert_int_equal(gmem_read(&f->ram, gpa, &word, 2), 0);
    return word;
}

static void the_dirty_log_hears_of_stores(void **state)
{
    struct err err = ERR_INIT;
    struct dirty_log log = {0};
    u64 bits[512 / 64], count = 0;
    struct io_region done;
    struct fixture f;

    make_guest(&f, &done);
    run_once(&f); /* before there is a log */
    if (dirty_start(&f.ram, &log, &err))
        fail_msg("%s", err.msg);
    assert_int_equal(dirty_collect(&f.ram, &log, bits, &count, &err), 0);
    assert_int_equal(count, 0);
    for (unsigned round = 0; round < 3; round++) {
        run_once(&f);
        if (dirty_collect(&f.ram, &log, bits, &count, &err))
            fail_msg("%s", err.msg);
        assert_true((bits[0] & (BIT(5) | BIT(6))) == (BIT(5) | BIT(6)));
        assert_false(bits[0] & BIT(3));
        assert_int_equal(dirty_collect(&f.ram, &log, bits, &count, &err), 0);
        assert_int_equal(count, 0); /* nothing ran */
    }
    gmem_wrote(&f.ram, 0x9000, 1);
    assert_int_equal(dirty_collect(&f.ram, &log, bits, &count, &err), 0);
    assert_int_equal(count, 1);
    dirty_stop(&f.ram, &log);
    run_once(&f);
    aspace_unmap(&f.pio, &done);
    unmake(&f);
}

struct elsewhere {
    u8 bytes[2 * MiB];
    unsigned fetches; /* atomic */
    u64 lost;
};

static int fetch(void *opaque, u64 page, void *dst4096)
{
    struct elsewhere *e = opaque;

    __atomic_fetch_add(&e->fetches, 1, __ATOMIC_SEQ_CST);
    if (page == e->lost)
        return -EIO;
    memcpy(dst4096, e->bytes + page * 4096, 4096);
    return 0;
}

/* Takes memory away behind the guest's back; what it touches comes back. */
static bool take_away(struct fixture *f, struct elsewhere *e)
{
    struct lazy_source source = {.fetch = fetch, .opaque = e};
    struct err err = ERR_INIT;
    u64 bits[512 / 64];
    int rc;

    memset(bits, 0xff, sizeof(bits));
    memcpy(e->bytes, f->ram.base, sizeof(e->bytes));
    rc = lazy_begin(&f->ram, &source, bits, &err);
    if (rc && rc != -ENOTSUP)
        fail_msg("%s", err.msg);
    return !rc;
}

static void absent_pages_come_when_touched(void **state)
{
    static struct elsewhere e;
    struct err err = ERR_INIT;
    struct io_region done;
    struct fixture f;

    e.lost = ~0ull;
    make_guest(&f, &done);
    if (!take_away(&f, &e)) {
        unmake(&f);
        UNIT_SKIP("no userfaultfd here");
    }
    run_once(&f);
    assert_true(lazy_missing(&f.ram) < 512 && lazy_missing(&f.ram) >= 500);
    assert_int_equal(word_at(&f, 0x5000), 42);
    assert_int_equal(word_at(&f, 0x6000), 0x1234);
    assert_int_equal(lazy_end(&f.ram, &err), 0);
    assert_int_equal(word_at(&f, 0x3000), 41);
    run_once(&f);
    aspace_unmap(&f.pio, &done);
    unmake(&f);
}

static void a_lost_page_fails_the_processor(void **state)
{
    static struct elsewhere e;
    struct err err = ERR_INIT;
    struct io_region done;
    struct fixture f;

    e.lost = 3;
    make_guest(&f, &done);
    if (!take_away(&f, &e)) {
        unmake(&f);
        UNIT_SKIP("no userfaultfd here");
    }
    while (!err.code && accel_kvm.vcpu_run(f.vcpu, &err) == VCPU_STOPPED)
        ;
    assert_int_equal(err.code, EIO);
    aspace_unmap(&f.pio, &done);
    unmake(&f);
}

static void takes_nothing(void **state)
{
    accel_kvm.vcpu_free(NULL);
    accel_kvm.free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(state_comes_back),
        cmocka_unit_test(a_stop_before_the_run_stops_it),
        cmocka_unit_test(interrupts_can_be_raised),
        cmocka_unit_test(the_clock_follows_the_tsc),
        cmocka_unit_test(controllers_come_back),
        cmocka_unit_test(the_dirty_log_hears_of_stores),
        cmocka_unit_test(absent_pages_come_when_touched),
        cmocka_unit_test(a_lost_page_fails_the_processor),
        cmocka_unit_test(takes_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
