/*
 * A machine that arrives: can this host take it, and starting the process that it becomes. Runs in a process
 * forked for it, which stays until it is clear whether the machine runs here.
 */
#include "cmd/receive.h"

#include "accel/accel.h"
#include "block/block.h"
#include "cmd/launch.h"
#include "cmd/memory.h"
#include "cmd/status.h"
#include "host/client.h"
#include "host/guest.h"
#include "host/host.h"
#include "host/snapshot.h"
#include "vm/identity.h"
#include "vm/migrate/sizes.h"
#include "vm/migrate/vm.h"
#include "vm/option.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define LACKS_BYTES 4096
#define WAIT_MS 100
#define AGAIN_MS 3000
#define AGAIN_TRIES 5

struct receiving {
    const struct receive_options *options;
    const struct migrate_hello *hello;
    struct vm_config config;
    struct vm_identity id;
    unsigned ndisks, nnets;   /* that the machine has where it comes from */
    u64 disk_bytes[VM_DISKS]; /* of each there; 0: the source is of a release that does not say */
    struct arrival_file *file;
    int fds[MIGRATE_CONNECTIONS];
    unsigned nfds;
    char lacks[LACKS_BYTES];
};

void receive_say(int fd, enum migrate_type type, const void *bytes, u32 len)
{
    struct migrate_head head = {.type = type, .len = len};
    u8 message[MIGRATE_HEAD_BYTES + LACKS_BYTES];

    head.len = len = MIN(len, (u32)LACKS_BYTES);
    migrate_head_put(&head, message);
    memcpy(message + MIGRATE_HEAD_BYTES, bytes, len);
    if (write(fd, message, MIGRATE_HEAD_BYTES + len) < 0) {
        /* It has gone, and hears nothing more. */
    }
}

static void lack(struct receiving *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void lack(struct receiving *r, const char *fmt, ...)
{
    size_t len = strlen(r->lacks);
    va_list args;

    if (len && len + 2 < LACKS_BYTES) {
        r->lacks[len++] = '\n';
        r->lacks[len] = 0;
    }
    va_start(args, fmt);
    vsnprintf(r->lacks + len, LACKS_BYTES - len, fmt, args);
    va_end(args);
}

static void check_accel(struct receiving *r)
{
    const struct accel_ops *ops;
    struct err err = ERR_INIT;
    char why[256];

    if (accel_choose(r->config.accel, &ops, why, sizeof(why), &err))
        lack(r, "accelerator: %s", err.msg);
    err = ERR_INIT;
    if (vm_identity_fits(&r->id, &err))
        lack(r, "processor: %s", err.msg);
}

/* What our options name takes the place of all that it had. */
static void check_count(struct receiving *r, const char *what, unsigned has, unsigned named)
{
    if (has != named)
        lack(r, "%s: the machine has %u, and the receiver's --%s options name %u", what, has, what,
             named);
}

/* Without a lock: another host may have it, until the machine has arrived. */
static void check_image(struct receiving *r, unsigned index)
{
    const struct vm_disk_config *d = &r->config.disk[index];
    struct block_options o = {.readonly = true,
                              .format = *d->format ? d->format : NULL,
                              .trust = d->trust,
                              .given_up = true};
    struct err err = ERR_INIT;
    struct block *disk;

    if (block_open(d->path, &o, NULL, &disk, &err)) {
        lack(r, "disk %u: %s", index, err.msg);
        return;
    }
    if (index < r->ndisks && r->disk_bytes[index] && block_size(disk) != r->disk_bytes[index])
        lack(r,
             "disk %u: '%s' has %" PRIu64 " bytes and the machine's has %" PRIu64
             " (trapeze disk resize changes that)",
             index, d->path, block_size(disk), r->disk_bytes[index]);
    block_close(disk);
}

static void check_disks(struct receiving *r)
{
    check_count(r, "disk", r->ndisks, r->config.ndisks);
    for (unsigned i = 0; i < r->config.ndisks; i++) {
        const struct vm_disk_config *d = &r->config.disk[i];

        if (!access(d->path, d->readonly ? R_OK : R_OK | W_OK))
            check_image(r, i);
        else
            lack(r, "disk %u: '%s': %s%s", i, d->path, strerror(errno),
                 errno != ENOENT ? ""
                 : r->config.disks_given_up
                     ? " (is the storage shared? --disk says where it is here)"
                     : " (make one of the same size with trapeze disk create)");
    }
}

static unsigned networks_of(const struct vm_config *c)
{
    const struct vm_net_config *net;
    unsigned n = 0;

    for (unsigned i = 0; (net = vm_config_net(c, i)); i++)
        n += net->kind != VM_NET_NONE;
    return n;
}

static void check_nets(struct receiving *r)
{
    const struct vm_net_config *n;

    check_count(r, "net", r->nnets, networks_of(&r->config));
    for (unsigned i = 0; (n = vm_config_net(&r->config, i)); i++)
        if (n->kind == VM_NET_TAP && !if_nametoindex(n->ifname))
            lack(r, "network %u: there is no interface '%s' (--net says which one it is here)", i,
                 n->ifname);
}

/* All that this host lacks, at once. */
static void check_fit(struct receiving *r)
{
    u64 memory = memory_available();

    if (r->hello->ram_bytes != r->config.memory_bytes)
        lack(r, "memory: the machine has %" PRIu64 " bytes and its description says %" PRIu64,
             r->hello->ram_bytes, r->config.memory_bytes);
    if (memory && memory < r->config.memory_bytes)
        lack(r,
             "memory: %" PRIu64 " MiB are wanted, %" PRIu64
             " MiB are available (on the host, or to the receiver's control group)",
             r->config.memory_bytes / (u64)MiB, memory / (u64)MiB);
    check_accel(r);
    check_disks(r);
    check_nets(r);
}

static int read_description(struct receiving *r, const u8 *bytes, struct err *err)
{
    struct state_buf buf = {.data = (u8 *)(uintptr_t)bytes, .len = r->hello->config_bytes};
    struct state_source from = state_buf_source(&buf);
    const struct receive_options *o = r->options;
    bool disks = false;
    int rc = vm_config_load(&from, &r->config, &r->id, err);

    if (rc)
        return err_wrap(err, "the machine's description");
    r->ndisks = r->config.ndisks;
    if (buf.at < buf.len && (rc = migrate_sizes_load(&from, r->ndisks, r->disk_bytes, err)))
        return err_wrap(err, "behind the machine's description");
    r->nnets = networks_of(&r->config);
    /* A console on the source's terminal is a log here, and the source's sockets and files are not ours. */
    free(r->config.serial.path);
    r->config.serial = (struct vm_serial_config){.kind = VM_SERIAL_LOG};
    r->config.disks_given_up = !(r->hello->flags & MIGRATE_HELLO_DISKS);
    if (r->config.debug_console_path) {
        free(r->config.debug_console_path);
        r->config.debug_console_path = strdup("/dev/null");
    }
    for (unsigned i = 0; i < o->noverrides && !rc; i++) {
        const struct vm_option *option = &vm_options[o->override[i].option];

        if (!strcmp(option->name, "disk") && !disks) {
            while (r->config.ndisks)
                free(r->config.disk[--r->config.ndisks].path);
            disks = true;
        }
        if (!strcmp(option->name, "net") && r->config.nnets && o->override[i].value) {
            if (i == 0 || o->override[i - 1].option != o->override[i].option)
                r->config.nnets = 0;
        }
        rc = option->parse(&r->config, o->override[i].value, err);
    }
    if (!rc && o->root) {
        free(r->config.root);
        r->config.root = strdup(o->root);
    }
    return rc;
}

/* launch()'s hook: in the machine's own process. */
static int build(void *opaque, const struct vm_config *config, const char *id, struct vm **ret_vm,
                 struct err *err)
{
    struct receiving *r = opaque;
    struct vm *vm = NULL;
    int fds[MIGRATE_CONNECTIONS];
    int rc = vm_new_from(config, &r->id, &vm, err);

    snprintf(r->file->id, sizeof(r->file->id), "%s", id);
    /* Those that we were started with are closed when the process has gone into the background. */
    for (unsigned i = 0; i < r->nfds && !rc; i++)
        if ((fds[i] = fcntl(r->fds[i], F_DUPFD_CLOEXEC, 3)) < 0)
            rc = err_sys(err, errno, "connection");
    if (!rc)
        rc = vm_migrate_in(vm, fds, r->nfds, &r->file->word, err);
    if (rc) {
        receive_say(r->fds[0], MIGRATE_FIT, err->msg, (u32)strlen(err->msg));
        vm_free(vm);
        return rc;
    }
    *ret_vm = vm;
    return 0;
}

/* The name it had, if it is free here; what a guest left behind that moved away from here makes room. */
static bool name_is_free(const struct receiving *r)
{
    struct record record = {0};
    struct host h;
    bool free_here = true;

    if (host_open(&h, r->config.root, NULL))
        return false;
    if (!host_find(&h, r->config.name, &record, NULL)) {
        bool same = !strcmp(record.name, r->config.name);

        free_here = !same || (guest_moved_away(&record) && !guest_remove(&h, &record, NULL));
        record_fini(&record);
    }
    host_close(&h);
    return free_here;
}

/* Waits until *word is that, or the machine's process has ended; says whether it is. */
static bool comes_to_be(const struct receiving *r, struct host *h, const u32 *word, u32 wanted)
{
    while (__atomic_load_n(word, __ATOMIC_SEQ_CST) != wanted &&
           guest_wait(h, r->file->id, WAIT_MS) == -ETIMEDOUT)
        ;
    return __atomic_load_n(word, __ATOMIC_SEQ_CST) == wanted;
}

/* What is kept for a source that asks, until it is known that none will. */
static void forget(const struct receiving *r)
{
    struct place place = {0};

    if (!place_init(&place, r->options->root, NULL))
        arrival_forget(&place, r->hello->token);
    place_fini(&place);
}

/* Waits until the machine runs here, or its process has ended without it: then nothing is left of it. */
static int follow(struct receiving *r)
{
    const struct migrate_word *word = &r->file->word;
    struct record record = {0};
    struct host h;
    int status = STATUS_HOST;

    if (host_open(&h, r->config.root, NULL))
        return STATUS_HOST;
    if (comes_to_be(r, &h, &word->claim, MIGRATE_RAN)) {
        printf("%s\n", r->file->id);
        fflush(stdout);
        status = STATUS_OK;
        if (!records_get(h.records, r->file->id, &record, NULL))
            layers_lend(&h, &record, false);
        record_fini(&record);
    } else if (!host_settle(&h, NULL) && !records_get(h.records, r->file->id, &record, NULL)) {
        if (record.reason)
            fprintf(stderr, "trapeze receive: %s: %s\n", record.name, record.reason);
        guest_remove(&h, &record, NULL);
        record_fini(&record);
    }
    if (comes_to_be(r, &h, &word->settled, 1))
        forget(r);
    host_close(&h);
    return status;
}

/* launch() prints the id before anything has come; we print it when it runs. */
static int launch_quietly(const struct launch *l)
{
    int out = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC);

    fflush(stdout);
    dup2(null, STDOUT_FILENO);
    int status = launch(l);
    fflush(stdout);
    dup2(out, STDOUT_FILENO);
    close(out);
    close(null);
    return status;
}

static int start(struct receiving *r, struct err *err)
{
    struct launch l = {.verb = "receive",
                       .config = &r->config,
                       .named = name_is_free(r),
                       .background = true,
                       .build = build,
                       .opaque = r};
    struct place place = {0};
    int rc = place_init(&place, r->options->root, err);

    if (!rc)
        rc = arrival_map(&place, r->hello->token, true, &r->file, err);
    if (!rc)
        arrival_sweep(&place);
    place_fini(&place);
    if (rc)
        return rc;
    if (launch_quietly(&l) == STATUS_OK)
        return 0;
    forget(r); /* who has not heard that it fits asks nobody */
    return err_set(err, ENOTSUP,
                   "the machine's process could not be started there; the "
                   "receiver's messages say why");
}

int receive_machine(const struct receive_options *o, const struct migrate_hello *hello,
                    const u8 *config, const int *fds, unsigned nfds)
{
    struct receiving r = {.options = o, .hello = hello, .nfds = nfds};
    struct err err = ERR_INIT;
    int status = STATUS_HOST;

    memcpy(r.fds, fds, nfds * sizeof(*fds));
    int rc = read_description(&r, config, &err);
    if (rc)
        lack(&r, "%s", err.msg);
    else
        check_fit(&r);
    if (r.lacks[0] || hello->flags & MIGRATE_HELLO_DRY)
        receive_say(fds[0], MIGRATE_FIT, r.lacks, (u32)strlen(r.lacks));
    else if ((rc = start(&r, &err)))
        receive_say(fds[0], MIGRATE_FIT, err.msg, (u32)strlen(err.msg));
    for (unsigned i = 0; i < nfds; i++)
        close(fds[i]);
    if (r.lacks[0])
        fprintf(stderr, "trapeze receive: a machine was refused:\n%s\n", r.lacks);
    else if (rc)
        fprintf(stderr, "trapeze receive: %s\n", err.msg);
    else if (!(hello->flags & MIGRATE_HELLO_DRY))
        status = follow(&r);
    arrival_unmap(r.file);
    vm_config_fini(&r.config);
    return status;
}

/* Hands new lines to a machine. Its main loop may have taken our connection just before it began to wait for a page; then
 * the next one is its doorman's (vm/migrate/doorman.h). */
static int hand_lines(const char *path, const int *fds, unsigned nfds, struct err *err)
{
    int rc = -ETIMEDOUT;

    for (unsigned tries = 0; tries < AGAIN_TRIES && rc == -ETIMEDOUT; tries++) {
        struct client c = {.wire.fd = -1};

        *err = ERR_INIT;
        rc = client_open(path, &c, err);
        c.timeout_ms = AGAIN_MS;
        if (!rc)
            rc = client_send(&c, "migrate-again", NULL, fds, nfds, err);
        if (!rc)
            rc = client_wait(&c, NULL, NULL, err);
        client_close(&c);
        if (rc == -EINVAL && tries)
            rc = 0; /* it has the lines: of the try before */
    }
    return rc;
}

int receive_again(const struct receive_options *o, const struct migrate_hello *hello,
                  const int *fds, unsigned nfds, struct err *err)
{
    struct arrival_file *file = NULL;
    struct place place = {0};
    int rc = place_init(&place, o->root, err);

    if (!rc)
        rc = arrival_map(&place, hello->token, false, &file, err);
    auto_free char *path = rc ? NULL : place_socket(&place, file->id);
    if (!rc && !path)
        rc = err_set(err, ENOMEM, "no memory");
    if (!rc)
        rc = hand_lines(path, fds, nfds, err);
    arrival_unmap(file);
    place_fini(&place);
    return rc;
}

u8 receive_answer(const struct receive_options *o, const u8 *token)
{
    struct arrival_file *file = NULL;
    struct place place = {0};
    u8 said = 2;

    if (!place_init(&place, o->root, NULL) && !arrival_map(&place, token, false, &file, NULL))
        said = migrate_word_take(&file->word, MIGRATE_REFUSED) == MIGRATE_RAN;
    arrival_unmap(file);
    place_fini(&place);
    return said;
}
