/*
 * Which devices the container may use. v1: lines written to devices.deny and devices.allow. v2: an eBPF
 * program on the group (cgroup-v2.rst, "Device controller").
 *
 * The rules are those of the configuration, then the devices every container has (config-linux.md, default
 * devices). The last rule that matches decides, so the program tests them from the end.
 */
#include "container/cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/bpf.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ANY (-1)
#define MAX_RULES 400

struct rule {
    bool allow;
    char type; /* a b c */
    s64 major, minor;
    char access[4];
};

static const struct rule defaults[] = {
    {true, 'c', ANY, ANY, "m"},   {true, 'b', ANY, ANY, "m"}, {true, 'c', 1, 3, "rwm"},
    {true, 'c', 1, 5, "rwm"},     {true, 'c', 1, 7, "rwm"},   {true, 'c', 1, 8, "rwm"},
    {true, 'c', 1, 9, "rwm"},     {true, 'c', 5, 0, "rwm"},   {true, 'c', 5, 2, "rwm"},
    {true, 'c', 136, ANY, "rwm"},
};

static int parse_rule(json_t *obj, struct rule *r, struct err *err)
{
    const char *type = "a", *access = "rwm";

    *r = (struct rule){.major = ANY, .minor = ANY};
    if (json_flag(obj, "allow", &r->allow, err) < 0 || json_str(obj, "type", &type, err) < 0 ||
        json_str(obj, "access", &access, err) < 0 ||
        json_s64(obj, "major", ANY, UINT32_MAX, &r->major, err) < 0 ||
        json_s64(obj, "minor", ANY, UINT32_MAX, &r->minor, err) < 0)
        return -err->code;
    if (!type[0])
        type = "a";
    if (!access[0])
        access = "rwm";
    if (strlen(type) != 1 || !strchr("abcu", type[0]))
        return err_set(err, EINVAL, "invalid device type %s", type);
    if (strlen(access) > 3 || strspn(access, "rwm") != strlen(access))
        return err_set(err, EINVAL, "invalid device access %s", access);
    r->type = type[0] == 'u' ? 'c' : type[0];
    snprintf(r->access, sizeof(r->access), "%s", access);
    return 0;
}

static int write_v1(const struct cgroup_dir *d, const struct rule *r, struct err *err)
{
    char major[24] = "*", minor[24] = "*", text[80];

    if (r->major != ANY)
        snprintf(major, sizeof(major), "%" PRId64, r->major);
    if (r->minor != ANY)
        snprintf(minor, sizeof(minor), "%" PRId64, r->minor);
    if (r->type == 'a')
        snprintf(text, sizeof(text), "a");
    else
        snprintf(text, sizeof(text), "%c %s:%s %s", r->type, major, minor, r->access);
    return cgroup_write(d, r->allow ? "devices.allow" : "devices.deny", text, err);
}

/* --- v2: the program ------------------------------------------------------------------------------- */

struct program {
    struct bpf_insn insns[16 + MAX_RULES * 8];
    size_t n;
};

static void emit(struct program *p, u8 code, u8 dst, u8 src, s16 off, s32 imm)
{
    p->insns[p->n++] =
        (struct bpf_insn){.code = code, .dst_reg = dst, .src_reg = src, .off = off, .imm = imm};
}

/* r2 = type, r3 = access, r4 = major, r5 = minor, out of struct bpf_cgroup_dev_ctx (r1). */
static void emit_head(struct program *p)
{
    emit(p, BPF_LDX | BPF_W | BPF_MEM, 2, 1, 0, 0);
    emit(p, BPF_ALU | BPF_MOV | BPF_X, 3, 2, 0, 0);
    emit(p, BPF_ALU | BPF_AND | BPF_K, 2, 0, 0, 0xffff);
    emit(p, BPF_ALU | BPF_RSH | BPF_K, 3, 0, 0, 16);
    emit(p, BPF_LDX | BPF_W | BPF_MEM, 4, 1, 4, 0);
    emit(p, BPF_LDX | BPF_W | BPF_MEM, 5, 1, 8, 0);
}

/* "Unless the condition holds, go to the end of this rule"; the distance is filled in by emit_rule. */
static void emit_unless(struct program *p, u8 op, u8 reg, s32 imm)
{
    emit(p, BPF_JMP | op | BPF_K, reg, 0, -1, imm);
}

static void emit_rule(struct program *p, const struct rule *r)
{
    size_t start = p->n;
    s32 access = (strchr(r->access, 'm') ? BPF_DEVCG_ACC_MKNOD : 0) |
                 (strchr(r->access, 'r') ? BPF_DEVCG_ACC_READ : 0) |
                 (strchr(r->access, 'w') ? BPF_DEVCG_ACC_WRITE : 0);

    if (r->type != 'a')
        emit_unless(p, BPF_JNE, 2, r->type == 'c' ? BPF_DEVCG_DEV_CHAR : BPF_DEVCG_DEV_BLOCK);
    if (access != 7 && r->allow) { /* everything asked for must be in the rule */
        emit(p, BPF_ALU | BPF_MOV | BPF_X, 1, 3, 0, 0);
        emit(p, BPF_ALU | BPF_AND | BPF_K, 1, 0, 0, ~access & 7);
        emit_unless(p, BPF_JNE, 1, 0);
    } else if (access != 7) { /* anything asked for that the rule forbids */
        emit(p, BPF_ALU | BPF_MOV | BPF_X, 1, 3, 0, 0);
        emit(p, BPF_ALU | BPF_AND | BPF_K, 1, 0, 0, access);
        emit_unless(p, BPF_JEQ, 1, 0);
    }
    if (r->major != ANY)
        emit_unless(p, BPF_JNE, 4, (s32)r->major);
    if (r->minor != ANY)
        emit_unless(p, BPF_JNE, 5, (s32)r->minor);
    emit(p, BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, r->allow);
    emit(p, BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
    for (size_t i = start; i < p->n; i++)
        if (BPF_CLASS(p->insns[i].code) == BPF_JMP && p->insns[i].off == -1)
            p->insns[i].off = (s16)(p->n - i - 1);
}

static int attach_program(const struct cgroup_dir *d, struct program *p, struct err *err)
{
    union bpf_attr load = {
        .prog_type = BPF_PROG_TYPE_CGROUP_DEVICE,
        .insns = (u64)(uintptr_t)p->insns,
        .insn_cnt = (u32)p->n,
        .license = (u64)(uintptr_t) "Apache-2.0",
    };
    auto_close int dir = open(d->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    auto_close int prog = (int)syscall(SYS_bpf, BPF_PROG_LOAD, &load, sizeof(load));
    union bpf_attr attach = {
        .target_fd = (u32)dir,
        .attach_bpf_fd = (u32)prog,
        .attach_type = BPF_CGROUP_DEVICE,
        .attach_flags = BPF_F_ALLOW_MULTI,
    };

    if (dir < 0 || prog < 0)
        return err_sys(err, errno, "load the device program for %s", d->path);
    if (syscall(SYS_bpf, BPF_PROG_ATTACH, &attach, sizeof(attach)) < 0)
        return err_sys(err, errno, "attach the device program to %s", d->path);
    return 0;
}

static int limit_v2(const struct cgroup_dir *d, const struct rule *rules, size_t n, struct err *err)
{
    static struct program
        p; /* 50 KiB, too much for a stack that a memory limit counts; used once */

    p.n = 0;
    emit_head(&p);
    for (size_t i = n; i > 0; i--) {
        emit_rule(&p, &rules[i - 1]);
        /* What stands before a rule for everything can never be reached. */
        if (rules[i - 1].type == 'a' && strlen(rules[i - 1].access) == 3 &&
            rules[i - 1].major == ANY && rules[i - 1].minor == ANY)
            return attach_program(d, &p, err);
    }
    emit(&p, BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 0);
    emit(&p, BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
    return attach_program(d, &p, err);
}

int cgroup_limit_devices(const struct cgroup *cg, json_t *res, struct err *err)
{
    const struct cgroup_dir *d = cgroup_find(cg, "devices");
    struct rule rules[MAX_RULES];
    json_t *arr;
    size_t n = 0;

    if (json_arr(res, "devices", &arr, err) < 0)
        return -err->code;
    if (json_len(arr) > MAX_RULES - ARRAY_LEN(defaults))
        return err_set(err, E2BIG, "more than %zu rules", MAX_RULES - ARRAY_LEN(defaults));
    for (size_t i = 0; i < json_len(arr); i++)
        if (parse_rule(json_at(arr, i), &rules[n++], err) < 0)
            return -err->code;
    memcpy(&rules[n], defaults, sizeof(defaults));
    n += ARRAY_LEN(defaults);
    if (!d)
        d = cgroup_v2(cg);
    /* An unprivileged user can make no device node, and those there are keep their file modes. */
    if (!d || cg->rootless)
        return 0;
    if (d->v2)
        return json_len(arr) ? limit_v2(d, rules, n, err) : 0;
    for (size_t i = 0; i < n; i++)
        if (write_v1(d, &rules[i], err) < 0)
            return -err->code;
    return 0;
}
