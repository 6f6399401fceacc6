/*
 * The KVM accelerator: the virtual machine, its memory and its interrupt controllers (Linux, Documentation/virt/kvm/api.rst).
 *
 * PIC, I/O APIC, local APICs and the PIT live in the kernel. GSI 0-15 are the ISA interrupts and reach both the PICs and
 * the I/O APIC (GSI 0, the PIT, at pin 2 of the latter), 16-23 the I/O APIC alone.
 *
 * Threads: new and free belong to the thread that owns the machine; irq_line and msi may be called from any.
 */
#include "accel/kvm/kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* Three pages that Intel's virtualization needs for real mode, one for its page table; nothing of the board is there. */
#define TSS_ADDR 0xfeffd000ul
#define IDENTITY_MAP_ADDR 0xfeffc000ull

#define PIC_PINS 8
#define ISA_IRQS 16
#define IOAPIC_PINS 24
#define CASCADE 2

int kvm_ioctl(int fd, unsigned long request, void *arg)
{
    int rc;

    do
        rc = ioctl(fd, request, arg);
    while (rc < 0 && errno == EINTR);
    return rc < 0 ? -errno : rc;
}

static const struct {
    int cap;
    const char *name;
} needed_caps[] = {
    {KVM_CAP_USER_MEMORY, "user memory"},
    {KVM_CAP_READONLY_MEM, "read-only memory"},
    {KVM_CAP_IRQCHIP, "an in-kernel interrupt controller"},
    {KVM_CAP_PIT2, "an in-kernel timer"},
    {KVM_CAP_IRQ_ROUTING, "interrupt routing"},
    {KVM_CAP_SIGNAL_MSI, "message-signalled interrupts"},
    {KVM_CAP_IMMEDIATE_EXIT, "immediate exit"},
    {KVM_CAP_VCPU_EVENTS, "event state"},
    {KVM_CAP_DEBUGREGS, "debug register state"},
    {KVM_CAP_XSAVE, "extended register state"},
    {KVM_CAP_XCRS, "extended control registers"},
    {KVM_CAP_MP_STATE, "multiprocessing state"},
    {KVM_CAP_USER_NMI, "NMIs"},
};

static int check_caps(int fd, struct err *err)
{
    int version = kvm_ioctl(fd, KVM_GET_API_VERSION, NULL);

    if (version != KVM_API_VERSION)
        return err_set(err, ENOTSUP, "/dev/kvm speaks version %d of its interface, not %d", version,
                       KVM_API_VERSION);
    for (size_t i = 0; i < ARRAY_LEN(needed_caps); i++)
        if (kvm_ioctl(fd, KVM_CHECK_EXTENSION, (void *)(long)needed_caps[i].cap) <= 0)
            return err_set(err, ENOTSUP, "this kernel's KVM lacks %s", needed_caps[i].name);
    return 0;
}

int kvm_open(int *ret_fd, struct err *err)
{
    auto_close int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    int rc;

    if (fd < 0 && errno == ENOENT)
        return err_set(
            err, ENOENT,
            "there is no /dev/kvm: the host has no hardware virtualization, or hides it");
    if (fd < 0 && errno == EACCES)
        return err_set(err, EACCES, "no permission to open /dev/kvm (its group is usually `kvm`)");
    if (fd < 0)
        return err_sys(err, errno, "/dev/kvm");
    rc = check_caps(fd, err);
    if (rc)
        return rc;
    *ret_fd = fd;
    fd = -1;
    return 0;
}

int kvm_set_slots(struct accel *a, struct err *err)
{
    struct gmem *ram = a->m->ram;

    for (unsigned i = 0; i < ram->nslots; i++) {
        const struct gmem_slot *s = &ram->slot[i];
        struct kvm_userspace_memory_region region = {
            .slot = i,
            .flags = s->readonly ? KVM_MEM_READONLY : a->slot_flags,
            .guest_phys_addr = s->gpa,
            .memory_size = s->len,
            .userspace_addr = (u64)(uintptr_t)s->hva,
        };
        int rc = kvm_ioctl(a->vm_fd, KVM_SET_USER_MEMORY_REGION, &region);

        if (rc < 0)
            return err_sys(err, -rc, "kvm: %s at 0x%" PRIx64, s->readonly ? "ROM" : "RAM", s->gpa);
    }
    return 0;
}

static void add_route(struct kvm_irq_routing *table, u32 gsi, u32 chip, u32 pin)
{
    table->entries[table->nr++] = (struct kvm_irq_routing_entry){
        .gsi = gsi, .type = KVM_IRQ_ROUTING_IRQCHIP, .u.irqchip = {.irqchip = chip, .pin = pin}};
}

static int set_routes(struct accel *a, struct err *err)
{
    auto_free struct kvm_irq_routing *table =
        calloc(1, sizeof(*table) + (ISA_IRQS + IOAPIC_PINS) * sizeof(table->entries[0]));
    int rc;

    if (!table)
        return err_sys(err, ENOMEM, "kvm: interrupt routes");
    for (u32 gsi = 0; gsi < IOAPIC_PINS; gsi++) {
        if (gsi == CASCADE)
            continue;
        if (gsi < ISA_IRQS)
            add_route(table, gsi, gsi < PIC_PINS ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE,
                      gsi % PIC_PINS);
        add_route(table, gsi, KVM_IRQCHIP_IOAPIC, gsi ? gsi : CASCADE);
    }
    rc = kvm_ioctl(a->vm_fd, KVM_SET_GSI_ROUTING, table);
    return rc < 0 ? err_sys(err, -rc, "kvm: interrupt routes") : 0;
}

static int create_chips(struct accel *a, struct err *err)
{
    /* Port 0x61 is served there as well, without sound. */
    struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY};
    u64 identity = IDENTITY_MAP_ADDR;
    int rc;

    rc = kvm_ioctl(a->vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity);
    if (rc < 0)
        return err_sys(err, -rc, "kvm: identity map");
    rc = kvm_ioctl(a->vm_fd, KVM_SET_TSS_ADDR, (void *)TSS_ADDR);
    if (rc < 0)
        return err_sys(err, -rc, "kvm: task state segment");
    rc = kvm_ioctl(a->vm_fd, KVM_CREATE_IRQCHIP, NULL);
    if (rc < 0)
        return err_sys(err, -rc, "kvm: interrupt controllers");
    rc = kvm_ioctl(a->vm_fd, KVM_CREATE_PIT2, &pit);
    if (rc < 0)
        return err_sys(err, -rc, "kvm: timer");
    return set_routes(a, err);
}

static void on_kick(int signal)
{
}

/* The handler must exist, or the kick would end the process; it interrupts ioctl() because SA_RESTART is not given. */
static int catch_kick(struct err *err)
{
    struct sigaction action = {.sa_handler = on_kick};

    if (sigaction(KVM_KICK_SIGNAL, &action, NULL))
        return err_sys(err, errno, "kvm: signal handler");
    return 0;
}

static void kvm_free(struct accel *a)
{
    if (!a)
        return;
    if (a->m->ram->accel_opaque == a) {
        a->m->ram->accel = NULL;
        a->m->ram->accel_opaque = NULL;
    }
    kvm_absent_fini(a);
    free(a->vcpu);
    if (a->vm_fd >= 0)
        close(a->vm_fd);
    if (a->kvm_fd >= 0)
        close(a->kvm_fd);
    free(a);
}

static int init(struct accel *a, struct err *err)
{
    int rc = kvm_open(&a->kvm_fd, err);

    if (rc)
        return rc;
    rc = kvm_ioctl(a->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, NULL);
    if (rc < 0)
        return err_sys(err, -rc, "kvm: size of a processor's shared memory");
    a->run_bytes = (size_t)rc;
    a->vm_fd = kvm_ioctl(a->kvm_fd, KVM_CREATE_VM, NULL);
    if (a->vm_fd < 0)
        return err_sys(err, -a->vm_fd, "kvm: new machine");
    rc = create_chips(a, err);
    if (!rc)
        rc = kvm_set_slots(a, err);
    if (!rc)
        rc = catch_kick(err);
    return rc;
}

/* Where the kernel can, pages are protected again in a step of their own (KVM_CLEAR_DIRTY_LOG). */
static void enable_manual_protect(struct accel *a)
{
    struct kvm_enable_cap cap = {.cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
                                 .args = {KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE}};

    a->manual_protect = kvm_ioctl(a->vm_fd, KVM_ENABLE_CAP, &cap) >= 0;
}

static int kvm_new(struct accel_machine *m, struct accel **ret_accel, struct err *err)
{
    struct accel *a = calloc(1, sizeof(*a));
    int rc;

    if (!a)
        return err_sys(err, ENOMEM, "kvm");
    a->m = m;
    a->kvm_fd = a->vm_fd = -1;
    a->vcpu = calloc(m->cpus, sizeof(*a->vcpu));
    rc = a->vcpu ? init(a, err) : err_sys(err, ENOMEM, "kvm");
    if (rc) {
        kvm_free(a);
        return rc;
    }
    enable_manual_protect(a);
    kvm_absent_init(a);
    m->ram->accel = &kvm_gmem_accel;
    m->ram->accel_opaque = a;
    *ret_accel = a;
    return 0;
}

static void kvm_irq_line(struct accel *a, unsigned gsi, bool level)
{
    struct kvm_irq_level line = {.irq = gsi, .level = level};

    kvm_ioctl(a->vm_fd, KVM_IRQ_LINE, &line);
}

/* A message to an address or processor that there is not is the guest's mistake; KVM drops it. */
static void kvm_msi(struct accel *a, u64 addr, u32 data)
{
    struct kvm_msi msi = {.address_lo = (u32)addr, .address_hi = (u32)(addr >> 32), .data = data};

    kvm_ioctl(a->vm_fd, KVM_SIGNAL_MSI, &msi);
}

const struct accel_ops accel_kvm = {
    .name = "kvm",
    .summary = "hardware virtualization through the host kernel's /dev/kvm",
    .caps = ACCEL_IRQCHIP,
    .probe = kvm_probe,
    .new = kvm_new,
    .free = kvm_free,
    .vcpu_new = kvm_vcpu_new,
    .vcpu_free = kvm_vcpu_free,
    .vcpu_attach = kvm_vcpu_attach,
    .vcpu_run = kvm_vcpu_run,
    .vcpu_event = kvm_vcpu_event,
    .vcpu_get = kvm_vcpu_get,
    .vcpu_set = kvm_vcpu_set,
    .irq_line = kvm_irq_line,
    .msi = kvm_msi,
    .irqchip_get = kvm_irqchip_get,
    .irqchip_set = kvm_irqchip_set,
};
