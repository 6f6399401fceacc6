/*
 * From config.json's seccomp object to a BPF program (config-linux.md, seccomp) through libseccomp.
 *
 * The runtime compiles; the container's process only loads. libseccomp needs a megabyte, which would count
 * against a small memory limit, and its errors belong to `create`.
 */
#include "container/seccomp.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "container/create.h"

struct word {
    const char *name;
    u32 value;
};

static const struct word actions[] = {
    {"SCMP_ACT_ALLOW", SCMP_ACT_ALLOW},
    {"SCMP_ACT_ERRNO", SCMP_ACT_ERRNO(0)},
    {"SCMP_ACT_KILL", SCMP_ACT_KILL_THREAD},
    {"SCMP_ACT_KILL_PROCESS", SCMP_ACT_KILL_PROCESS},
    {"SCMP_ACT_KILL_THREAD", SCMP_ACT_KILL_THREAD},
    {"SCMP_ACT_LOG", SCMP_ACT_LOG},
    {"SCMP_ACT_NOTIFY", SCMP_ACT_NOTIFY},
    {"SCMP_ACT_TRACE", SCMP_ACT_TRACE(0)},
    {"SCMP_ACT_TRAP", SCMP_ACT_TRAP},
};

static const struct word operators[] = {
    {"SCMP_CMP_EQ", SCMP_CMP_EQ}, {"SCMP_CMP_GE", SCMP_CMP_GE},
    {"SCMP_CMP_GT", SCMP_CMP_GT}, {"SCMP_CMP_LE", SCMP_CMP_LE},
    {"SCMP_CMP_LT", SCMP_CMP_LT}, {"SCMP_CMP_MASKED_EQ", SCMP_CMP_MASKED_EQ},
    {"SCMP_CMP_NE", SCMP_CMP_NE},
};

static const struct word archs[] = {
    {"SCMP_ARCH_AARCH64", SCMP_ARCH_AARCH64},
    {"SCMP_ARCH_ARM", SCMP_ARCH_ARM},
    {"SCMP_ARCH_MIPS", SCMP_ARCH_MIPS},
    {"SCMP_ARCH_MIPS64", SCMP_ARCH_MIPS64},
    {"SCMP_ARCH_MIPS64N32", SCMP_ARCH_MIPS64N32},
    {"SCMP_ARCH_MIPSEL", SCMP_ARCH_MIPSEL},
    {"SCMP_ARCH_MIPSEL64", SCMP_ARCH_MIPSEL64},
    {"SCMP_ARCH_MIPSEL64N32", SCMP_ARCH_MIPSEL64N32},
    {"SCMP_ARCH_PARISC", SCMP_ARCH_PARISC},
    {"SCMP_ARCH_PARISC64", SCMP_ARCH_PARISC64},
    {"SCMP_ARCH_PPC", SCMP_ARCH_PPC},
    {"SCMP_ARCH_PPC64", SCMP_ARCH_PPC64},
    {"SCMP_ARCH_PPC64LE", SCMP_ARCH_PPC64LE},
    {"SCMP_ARCH_RISCV64", SCMP_ARCH_RISCV64},
    {"SCMP_ARCH_S390", SCMP_ARCH_S390},
    {"SCMP_ARCH_S390X", SCMP_ARCH_S390X},
    {"SCMP_ARCH_X32", SCMP_ARCH_X32},
    {"SCMP_ARCH_X86", SCMP_ARCH_X86},
    {"SCMP_ARCH_X86_64", SCMP_ARCH_X86_64},
};

/* Linux 5.19; not in Debian 12's headers. */
#define FLAG_WAIT_KILLABLE_RECV (1u << 5)

static const struct word flags[] = {
    {"SECCOMP_FILTER_FLAG_LOG", SECCOMP_FILTER_FLAG_LOG},
    {"SECCOMP_FILTER_FLAG_SPEC_ALLOW", SECCOMP_FILTER_FLAG_SPEC_ALLOW},
    {"SECCOMP_FILTER_FLAG_TSYNC", 0}, /* of no effect: the process has one thread */
    {"SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", FLAG_WAIT_KILLABLE_RECV},
};

static const struct {
    const struct word *words;
    size_t n;
} word_lists[] = {
    {actions, ARRAY_LEN(actions)},
    {operators, ARRAY_LEN(operators)},
    {archs, ARRAY_LEN(archs)},
    {flags, ARRAY_LEN(flags)},
};

const char *seccomp_word(int list, size_t i)
{
    return i < word_lists[list].n ? word_lists[list].words[i].name : NULL;
}

static int lookup(const struct word *table, size_t n, const char *name, const char *what, u32 *ret,
                  struct err *err)
{
    for (size_t i = 0; i < n; i++)
        if (name && strcmp(table[i].name, name) == 0) {
            *ret = table[i].value;
            return 0;
        }
    return err_set(err, EINVAL, "seccomp: string %s is not a valid %s", name ? name : "(none)",
                   what);
}

/* Reads the action at `key` with its errno at `errno_key`. */
static int parse_action(json_t *obj, const char *key, const char *errno_key, u32 *ret,
                        struct err *err)
{
    const char *name = NULL;
    u64 code = EPERM;
    u32 action = 0;

    if (json_str(obj, key, &name, err) < 0 || json_u64(obj, errno_key, 0xffff, &code, err) < 0)
        return err_wrap(err, "seccomp");
    if (lookup(actions, ARRAY_LEN(actions), name, "action", &action, err) < 0)
        return -err->code;
    if (action == SCMP_ACT_ERRNO(0) || action == SCMP_ACT_TRACE(0))
        action |= (u32)code;
    else if (json_has(obj, errno_key))
        return err_set(err, EINVAL, "seccomp: %s is not for action %s", errno_key, name);
    *ret = action;
    return 0;
}

static int parse_arg(json_t *obj, struct scmp_arg_cmp *ret, struct err *err)
{
    const char *op = NULL;
    u32 index = 0, code = 0;
    u64 value = 0, two = 0;

    if (json_u32(obj, "index", &index, err) < 0 ||
        json_u64(obj, "value", UINT64_MAX, &value, err) < 0 ||
        json_u64(obj, "valueTwo", UINT64_MAX, &two, err) < 0 || json_str(obj, "op", &op, err) < 0 ||
        lookup(operators, ARRAY_LEN(operators), op, "operator", &code, err) < 0)
        return -err->code;
    if (index > 5)
        return err_set(err, EINVAL, "seccomp: argument index %u is above 5", index);
    *ret = (struct scmp_arg_cmp){index, (enum scmp_compare)code, value, two};
    return 0;
}

static int add_rule(scmp_filter_ctx ctx, const char *name, u32 action,
                    const struct scmp_arg_cmp *args, size_t n, struct err *err)
{
    int nr = seccomp_syscall_resolve_name(name);
    bool same_index = false;
    int rc = 0;

    /* A name that this libseccomp or kernel does not know cannot be called under it either. */
    if (nr == __NR_SCMP_ERROR)
        return 0;
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < i; j++)
            same_index |= args[i].arg == args[j].arg;
    /* Two conditions on one argument are alternatives (as in runc); libseccomp takes one each. */
    for (size_t i = 0; same_index && i < n && rc == 0; i++)
        rc = seccomp_rule_add_array(ctx, action, nr, 1, &args[i]);
    if (!same_index)
        rc = seccomp_rule_add_array(ctx, action, nr, (unsigned)n, args);
    return rc < 0 && rc != -EEXIST ? err_sys(err, -rc, "seccomp: rule for %s", name) : 0;
}

static int add_entry(scmp_filter_ctx ctx, json_t *entry, u32 default_action, bool *notify,
                     struct err *err)
{
    struct scmp_arg_cmp args[6];
    json_t *names, *conds;
    size_t n;
    u32 action = 0;

    if (json_arr(entry, "names", &names, err) < 0 || json_arr(entry, "args", &conds, err) < 0 ||
        parse_action(entry, "action", "errnoRet", &action, err) < 0)
        return -err->code;
    n = json_len(conds);
    if (n > ARRAY_LEN(args))
        return err_set(err, EINVAL, "seccomp: more than six conditions");
    for (size_t i = 0; i < n; i++)
        if (parse_arg(json_at(conds, i), &args[i], err) < 0)
            return -err->code;
    /* libseccomp refuses rules that repeat the default; they change nothing. */
    if (action == default_action)
        return 0;
    for (size_t i = 0; i < json_len(names); i++) {
        const char *name = json_object_get_string(json_at(names, i));

        if (action == SCMP_ACT_NOTIFY && name && strcmp(name, "write") == 0)
            return err_set(err, EINVAL,
                           "seccomp: SCMP_ACT_NOTIFY cannot be used for the write syscall");
        if (name && add_rule(ctx, name, action, args, n, err) < 0)
            return -err->code;
    }
    *notify |= action == SCMP_ACT_NOTIFY;
    return 0;
}

static int add_archs(scmp_filter_ctx ctx, json_t *seccomp, struct err *err)
{
    json_t *arr;

    if (json_arr(seccomp, "architectures", &arr, err) < 0)
        return -err->code;
    for (size_t i = 0; i < json_len(arr); i++) {
        const char *name = json_object_get_string(json_at(arr, i));
        u32 arch = 0;
        int rc;

        if (lookup(archs, ARRAY_LEN(archs), name, "architecture", &arch, err) < 0)
            return -err->code;
        rc = seccomp_arch_add(ctx, arch);
        if (rc == -EDOM)
            return err_set(err, EDOM, "seccomp: %s has another byte order than this machine", name);
        if (rc < 0 && rc != -EEXIST)
            return err_sys(err, -rc, "seccomp: architecture %s", name);
    }
    return 0;
}

static int parse_flags(json_t *seccomp, struct seccomp_prog *prog, struct err *err)
{
    json_t *arr;

    if (json_arr(seccomp, "flags", &arr, err) < 0)
        return -err->code;
    for (size_t i = 0; i < json_len(arr); i++) {
        u32 flag = 0;

        if (lookup(flags, ARRAY_LEN(flags), json_object_get_string(json_at(arr, i)), "flag", &flag,
                   err) < 0)
            return -err->code;
        prog->flags |= flag;
    }
    return 0;
}

/* Copies libseccomp's output into memory that survives a fork without being copied. */
static int export_program(scmp_filter_ctx ctx, json_t *syscalls, u32 default_action,
                          struct seccomp_prog *prog, struct err *err)
{
    auto_close int fd = memfd_create("seccomp", MFD_CLOEXEC);
    struct stat st;
    int rc = fd < 0 ? -errno : seccomp_write_newer(ctx, syscalls, default_action, fd);

    if (rc == 0)
        rc = seccomp_export_bpf(ctx, fd);
    if (rc < 0 || fstat(fd, &st) < 0)
        return err_sys(err, rc < 0 ? -rc : errno, "seccomp: export");
    if (st.st_size / (off_t)sizeof(struct sock_filter) > BPF_MAXINSNS)
        return err_set(err, E2BIG, "seccomp: the filter is larger than the kernel takes");
    prog->count = (u32)((size_t)st.st_size / sizeof(struct sock_filter));
    prog->insns = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
    if (prog->insns == MAP_FAILED)
        return err_sys(err, errno, "seccomp: map the filter");
    return 0;
}

static int fill(scmp_filter_ctx ctx, json_t *seccomp, u32 default_action, struct seccomp_prog *prog,
                struct err *err)
{
    json_t *arr;

    if (seccomp_attr_set(ctx, SCMP_FLTATR_CTL_NNP, 0) < 0)
        return err_set(err, EIO, "seccomp: cannot set an attribute");
    if (add_archs(ctx, seccomp, err) < 0 || json_arr(seccomp, "syscalls", &arr, err) < 0)
        return -err->code;
    for (size_t i = 0; i < json_len(arr); i++)
        if (add_entry(ctx, json_at(arr, i), default_action, &prog->notify, err) < 0)
            return -err->code;
    return export_program(ctx, arr, default_action, prog, err);
}

int seccomp_compile(json_t *seccomp, struct seccomp_prog *ret, struct err *err)
{
    struct seccomp_prog prog = {0};
    u32 default_action;
    scmp_filter_ctx ctx;
    int rc;

    if (!seccomp) {
        *ret = prog;
        return 0;
    }
    if (parse_action(seccomp, "defaultAction", "defaultErrnoRet", &default_action, err) < 0 ||
        parse_flags(seccomp, &prog, err) < 0 ||
        json_str(seccomp, "listenerPath", &prog.listener_path, err) < 0 ||
        json_str(seccomp, "listenerMetadata", &prog.listener_metadata, err) < 0)
        return -err->code;
    if (default_action == SCMP_ACT_NOTIFY)
        return err_set(err, EINVAL, "seccomp: SCMP_ACT_NOTIFY cannot be the default action");
    if (prog.listener_metadata && !prog.listener_path)
        return err_set(err, EINVAL, "seccomp: listenerMetadata without listenerPath");
    /* "Allow everything" is no filter. */
    if (default_action == SCMP_ACT_ALLOW && json_len(json_get(seccomp, "syscalls")) == 0) {
        *ret = prog;
        return 0;
    }
    ctx = seccomp_init(default_action);
    if (!ctx)
        return err_set(err, ENOMEM, "seccomp: cannot begin a filter");
    rc = fill(ctx, seccomp, default_action, &prog, err);
    seccomp_release(ctx);
    if (rc == 0 && prog.notify && !prog.listener_path)
        return err_set(err, EINVAL, "seccomp: SCMP_ACT_NOTIFY needs a listenerPath");
    if (rc == 0)
        *ret = prog;
    return rc;
}

int seccomp_install(const struct seccomp_prog *prog, int *ret_listener, struct err *err)
{
    struct sock_fprog fprog = {(unsigned short)prog->count, prog->insns};
    u32 flag_bits = prog->flags | (prog->notify ? SECCOMP_FILTER_FLAG_NEW_LISTENER : 0);
    long rc;

    *ret_listener = -1;
    if (!prog->count)
        return 0;
    if (!prog->notify)
        flag_bits &= ~FLAG_WAIT_KILLABLE_RECV;
    rc = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flag_bits, &fprog);
    if (rc < 0)
        return err_sys(err, errno, "unable to init seccomp: load the filter");
    if (prog->notify)
        *ret_listener = (int)rc;
    return 0;
}

int seccomp_send_listener(const struct seccomp_prog *prog, json_t *state, int pid, int listener,
                          struct err *err)
{
    auto_close int sock = create_connect(prog->listener_path, err);
    json_t *o = json_object_new_object(), *fds = json_object_new_array();
    union {
        struct cmsghdr head;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {.head = {CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS}};
    struct iovec iov;
    struct msghdr mh = {.msg_iov = &iov,
                        .msg_iovlen = 1,
                        .msg_control = &control,
                        .msg_controllen = sizeof(control.space)};
    int rc;

    json_object_array_add(fds, json_object_new_string("seccompFd"));
    json_object_object_add(o, "ociVersion", json_object_new_string(SPEC_VERSION));
    json_object_object_add(o, "fds", fds);
    json_object_object_add(o, "pid", json_object_new_int(pid));
    json_object_object_add(
        o, "metadata",
        json_object_new_string(prog->listener_metadata ? prog->listener_metadata : ""));
    json_object_object_add(o, "state", json_object_get(state));
    iov.iov_base = (char *)json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN);
    iov.iov_len = strlen(iov.iov_base);
    memcpy(CMSG_DATA(&control.head), &listener, sizeof(int));
    rc = sock < 0 || sendmsg(sock, &mh, MSG_NOSIGNAL) >= 0
             ? 0
             : err_sys(err, errno, "send to %s", prog->listener_path);
    json_object_put(o);
    return sock < 0 || rc < 0 ? err_wrap(err, "seccomp listener") : 0;
}
