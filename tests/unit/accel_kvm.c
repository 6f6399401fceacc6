/*
 * KVM without a guest: a processor's state goes in and comes out the same, events stop a processor, memory and interrupts
 * can be set up. Skipped where /dev/kvm cannot be opened; a KVM that cannot run guests will do.
 */
#include "accel/accel.h"
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
        cmocka_unit_test(takes_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
