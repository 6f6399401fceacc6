/*
 * Absent pages under KVM: userfaultfd in missing mode on the VMM's mapping of RAM, which is also KVM's
 * (Documentation/admin-guide/mm/userfaultfd.rst). Absent pages are holes in the memfd; who touches one, guest or VMM, waits in
 * the kernel until one of our threads has fetched it.
 *
 * A vCPU that waits can be stopped where the kernel lets a signal end such a wait (Linux 6.2); before, it stops when its
 * page comes. A page that cannot be had: zeros are put there, so that nobody waits for ever, and every vCPU fails.
 *
 * The threads are made with the machine, because later no thread can be made, and sleep until there is something to do.
 */
#include "accel/kvm/kvm.h"
#include "mem/lazy.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define THREADS 2 /* one waits for the network, another reads what is there already */

struct absent {
    struct accel *accel;
    int fd, quit_fd; /* quit_fd: a pipe's end; its other end is closed to end the threads */
    int quit_other;
    pthread_t thread[THREADS];
    unsigned nthreads;
    bool registered;
};

static void lose(struct accel *a, u64 page, int rc)
{
    struct uffdio_zeropage zero = {
        .range = {.start = (u64)(uintptr_t)a->m->ram->base + (page << 12), .len = 4096}};

    atomic_store(&a->lost, -rc);
    for (unsigned i = 0; i < a->m->cpus; i++)
        if (a->vcpu[i])
            kvm_vcpu_event(a->vcpu[i], 0);
    ioctl(a->absent->fd, UFFDIO_ZEROPAGE, &zero);
}

static void wake(struct absent *ab, u64 page)
{
    struct uffdio_range range = {.start = (u64)(uintptr_t)ab->accel->m->ram->base + (page << 12),
                                 .len = 4096};

    ioctl(ab->fd, UFFDIO_WAKE, &range);
}

static void serve(struct absent *ab)
{
    const struct gmem *ram = ab->accel->m->ram;
    struct uffd_msg msg;
    int rc;

    if (read(ab->fd, &msg, sizeof(msg)) != (ssize_t)sizeof(msg) ||
        msg.event != UFFD_EVENT_PAGEFAULT)
        return;
    u64 page = (msg.arg.pagefault.address - (u64)(uintptr_t)ram->base) >> 12;
    if (!lazy_absent(ram, page << 12)) {
        /* It came meanwhile, or was never there: a hole that only reads as zeros. */
        struct uffdio_zeropage zero = {
            .range = {.start = (u64)(uintptr_t)ram->base + (page << 12), .len = 4096}};
        if (ioctl(ab->fd, UFFDIO_ZEROPAGE, &zero) && errno == EEXIST)
            wake(ab, page);
        return;
    }
    do
        rc = lazy_fetch(ram, page, 1);
    while (rc == -EINTR);
    if (rc)
        lose(ab->accel, page, rc);
}

static void *serve_all(void *opaque)
{
    struct absent *ab = opaque;
    struct accel_machine *m = ab->accel->m;
    struct pollfd fds[] = {{.fd = ab->fd, .events = POLLIN}, {.fd = ab->quit_fd, .events = POLLIN}};
    struct err err = ERR_INIT;

    if (m->enter_thread && m->enter_thread(m->enter_opaque, &err))
        return NULL;
    while (poll(fds, ARRAY_LEN(fds), -1) > 0 || errno == EINTR) {
        if (fds[1].revents)
            break;
        if (fds[0].revents & POLLIN)
            serve(ab);
    }
    return NULL;
}

static int open_fault_fd(void)
{
    struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_MISSING_SHMEM};
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

    if (fd < 0) {
        auto_close int dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);

        if (dev >= 0)
            fd = ioctl(dev, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
    }
    if (fd >= 0 && ioctl(fd, UFFDIO_API, &api)) {
        close(fd);
        fd = -1;
    }
    return fd;
}

void kvm_absent_init(struct accel *a)
{
    struct absent *ab = calloc(1, sizeof(*ab));
    int ends[2];

    if (!ab)
        return;
    ab->accel = a;
    ab->fd = open_fault_fd();
    if (ab->fd < 0 || pipe2(ends, O_CLOEXEC)) {
        if (ab->fd >= 0)
            close(ab->fd);
        free(ab);
        return;
    }
    ab->quit_fd = ends[0];
    ab->quit_other = ends[1];
    a->absent = ab;
    while (ab->nthreads < THREADS &&
           !pthread_create(&ab->thread[ab->nthreads], NULL, serve_all, ab))
        ab->nthreads++;
    if (!ab->nthreads)
        kvm_absent_fini(a);
}

void kvm_absent_fini(struct accel *a)
{
    struct absent *ab = a->absent;

    if (!ab)
        return;
    kvm_absent_end(a);
    close(ab->quit_other);
    for (unsigned i = 0; i < ab->nthreads; i++)
        pthread_join(ab->thread[i], NULL);
    close(ab->quit_fd);
    close(ab->fd);
    free(ab);
    a->absent = NULL;
}

/* Gives absent pages back to the host: from then on touching one is a fault. */
static int make_holes(const struct gmem *ram)
{
    u64 pages = ram->size >> 12, from = 0;

    for (u64 at = 0; at <= pages; at++) {
        bool absent = at < pages && lazy_absent(ram, at << 12);

        if (absent)
            continue;
        if (at > from && fallocate(ram->memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                   (off_t)(from << 12), (off_t)((at - from) << 12)))
            return -errno;
        from = at + 1;
    }
    return 0;
}

int kvm_absent_begin(void *opaque, struct err *err)
{
    struct accel *a = opaque;
    struct absent *ab = a->absent;
    const struct gmem *ram = a->m->ram;
    struct uffdio_register reg = {.range = {.start = (u64)(uintptr_t)ram->base, .len = ram->size},
                                  .mode = UFFDIO_REGISTER_MODE_MISSING};
    int rc;

    if (!ab)
        return err_set(err, ENOTSUP,
                       "kvm: this host has no userfaultfd for us (vm.unprivileged_userfaultfd, or "
                       "/dev/userfaultfd)");
    if (ioctl(ab->fd, UFFDIO_REGISTER, &reg))
        return err_sys(err, errno, "kvm: userfaultfd");
    ab->registered = true;
    rc = make_holes(ram);
    if (rc)
        kvm_absent_end(a);
    return rc ? err_sys(err, -rc, "kvm: holes in guest memory") : 0;
}

void kvm_absent_end(void *opaque)
{
    struct accel *a = opaque;
    const struct gmem *ram = a->m->ram;
    struct uffdio_range range = {.start = (u64)(uintptr_t)ram->base, .len = ram->size};

    if (!a->absent || !a->absent->registered)
        return;
    ioctl(a->absent->fd, UFFDIO_UNREGISTER, &range);
    a->absent->registered = false;
}

int kvm_absent_place(void *opaque, u64 page, const void *bytes4096)
{
    struct accel *a = opaque;
    struct uffdio_copy copy = {.dst = (u64)(uintptr_t)a->m->ram->base + (page << 12),
                               .src = (u64)(uintptr_t)bytes4096,
                               .len = 4096};
    int rc;

    do
        rc = ioctl(a->absent->fd, UFFDIO_COPY, &copy) ? -errno : 0;
    while (rc == -EAGAIN);
    if (rc == -EEXIST) {
        wake(a->absent, page);
        return 0;
    }
    return rc;
}
