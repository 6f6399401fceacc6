/*
 * A machine's identity and its description as a stream. Any thread; no state.
 */
#include "vm/identity.h"

#include "vm/option.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define CONFIG_MAX \
    (256 * KiB) /* paths and a kernel's command line: far more than any machine has */

static const struct field identity_fields[] = {
    STATE_BYTES(struct vm_identity, uuid, 1),
    STATE_BYTES(struct vm_identity, generation, 1),
    STATE_BYTES(struct vm_identity, mac, 1),
    STATE_BYTES(struct vm_identity, model.name, 1),
    STATE_UINT(struct vm_identity, model.nleaves, 1),
    STATE_EACH(struct vm_identity, model.leaf, leaf, 1, FIELD_HEX),
    STATE_EACH(struct vm_identity, model.leaf, subleaf, 1, FIELD_HEX),
    STATE_EACH(struct vm_identity, model.leaf, eax, 1, FIELD_HEX),
    STATE_EACH(struct vm_identity, model.leaf, ebx, 1, FIELD_HEX),
    STATE_EACH(struct vm_identity, model.leaf, ecx, 1, FIELD_HEX),
    STATE_EACH(struct vm_identity, model.leaf, edx, 1, FIELD_HEX),
    STATE_EACH(struct vm_identity, model.leaf, has_subleaf, 1, FIELD_BOOL),
    STATE_HEX(struct vm_identity, model.xcr0_mask, 1),
    STATE_UINT(struct vm_identity, model.xsave_bytes, 1),
    STATE_HEX(struct vm_identity, model.arch_capabilities, 1),
    STATE_HEX(struct vm_identity, model.cr4_mask, 1),
    STATE_UINT(struct vm_identity, model.tsc_khz, 1),
    STATE_UINT(struct vm_identity, model.cpus, 1),
    STATE_UINT(struct vm_identity, model.phys_bits, 1),
};
STATE_TABLE(vm_identity_table, struct vm_identity, 1, identity_fields);

static void random_bytes(u8 *to, size_t len)
{
    if (getrandom(to, len, 0) != (ssize_t)len)
        to[0] = 1; /* the host gives no randomness; it must not be zero all the same */
}

/* RFC 4122, 4.4 */
static void new_uuid(u8 *uuid)
{
    random_bytes(uuid, 16);
    uuid[6] = (u8)((uuid[6] & 0x0f) | 0x40);
    uuid[8] = (u8)((uuid[8] & 0x3f) | 0x80);
}

/* FNV-1a, goes on from `hash`. */
static u64 hash_bytes(u64 hash, const void *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++)
        hash = (hash ^ ((const u8 *)bytes)[i]) * 0x100000001b3ull;
    return hash;
}

/* Machines of several hosts meet behind taps, and many have the name that all get by default: what the host is called
 * counts there, too. */
static u64 hash_host(u64 hash, const char *ifname)
{
    char id[32];
    auto_close int fd = open("/etc/machine-id", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, id, sizeof(id));

    return hash_bytes(hash_bytes(hash, id, n > 0 ? (size_t)n : 0), ifname, strlen(ifname));
}

/* Locally administered, and the same for the same name: leases and interface names stay. */
static void make_mac(const struct vm_config *c, u8 index, u8 *mac)
{
    const struct vm_net_config *n = &c->net[index];
    u64 hash = hash_bytes(0xcbf29ce484222325ull, c->name, strlen(c->name));

    if (n->has_mac) {
        memcpy(mac, n->mac, VM_MAC_BYTES);
        return;
    }
    hash = hash_bytes(hash, &index, 1);
    if (n->kind == VM_NET_TAP)
        hash = hash_host(hash, n->ifname);
    mac[0] = 0x52;
    mac[1] = 0x54;
    for (unsigned i = 2; i < VM_MAC_BYTES; i++)
        mac[i] = (u8)(hash >> (8 * i));
}

int vm_identity_new(struct vm_identity *id, const struct vm_config *c, struct err *err)
{
    memset(id, 0, sizeof(*id));
    new_uuid(id->uuid);
    random_bytes(id->generation, sizeof(id->generation));
    for (unsigned i = 0; i < VM_NETS; i++)
        make_mac(c, (u8)i, &id->mac[i * VM_MAC_BYTES]);
    return cpu_model_init(&id->model, c->cpu, c->cpus, err);
}

void vm_identity_fork(struct vm_identity *id, bool new_mac)
{
    new_uuid(id->uuid);
    random_bytes(id->generation, sizeof(id->generation));
    for (unsigned i = 0; i < VM_NETS && new_mac; i++)
        random_bytes(&id->mac[i * VM_MAC_BYTES + 2], VM_MAC_BYTES - 2);
}

int vm_identity_fits(const struct vm_identity *id, struct err *err)
{
    return cpu_model_check(&id->model, err);
}

static bool is_left_out(const char *name)
{
    static const char *const names[] = {"kernel", "initrd", "root", "trace"};

    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (!strcmp(name, names[i]))
            return true;
    return false;
}

/* An option may print several lines; each must be one option again. */
static int check_lines(const char *text, const char *name, struct err *err)
{
    size_t len = strlen(name);

    for (const char *line = text; *line; line = strchr(line, '\n') + 1)
        if (strncmp(line, name, len) || (line[len] != '=' && line[len] != '\n'))
            return err_set(err, EINVAL,
                           "--%s holds a line break, which a saved machine cannot have", name);
    return 0;
}

static int print_option(const struct vm_option *o, const struct vm_config *c, FILE *out,
                        struct err *err)
{
    char *text = NULL;
    size_t len = 0;
    FILE *one = open_memstream(&text, &len);
    int rc = one ? 0 : err_sys(err, ENOMEM, "configuration");

    if (one) {
        o->print(c, one);
        if (fclose(one))
            rc = err_sys(err, ENOMEM, "configuration");
    }
    if (!rc)
        rc = check_lines(text, o->name, err);
    if (!rc)
        fputs(text, out);
    free(text);
    return rc;
}

static int print_config(const struct vm_config *c, char **ret_text, size_t *ret_len,
                        struct err *err)
{
    FILE *out = open_memstream(ret_text, ret_len);
    int rc = out ? 0 : err_sys(err, ENOMEM, "configuration");

    for (const struct vm_option *o = vm_options; !rc && o->name; o++)
        if (!is_left_out(o->name))
            rc = print_option(o, c, out, err);
    if (out && fclose(out) && !rc)
        rc = err_sys(err, ENOMEM, "configuration");
    return rc;
}

int vm_config_save(const struct vm_config *c, const struct vm_identity *id,
                   const struct state_sink *to, struct err *err)
{
    const struct state_table *t = &vm_identity_table;
    u64 id_len = state_table_bytes(t, t->version);
    auto_free u8 *bytes = malloc(id_len);
    auto_free char *text = NULL;
    size_t len = 0;
    int rc = bytes ? print_config(c, &text, &len, err) : err_sys(err, ENOMEM, "configuration");

    if (rc)
        return rc;
    state_table_save(t, id, bytes);
    rc = state_write_head(to, err);
    rc = rc ? rc : state_write_section(to, "config", 0, 1, text, len, err);
    rc = rc ? rc : state_write_section(to, "identity", 0, t->version, bytes, id_len, err);
    return rc ? rc : state_write_end(to, 2, err);
}

static int parse_line(struct vm_config *c, char *line, struct err *err)
{
    char *value = strchr(line, '=');

    if (value)
        *value++ = 0;
    for (const struct vm_option *o = vm_options; o->name; o++) {
        if (strcmp(o->name, line) || is_left_out(line))
            continue;
        if (!o->arg != !value)
            return err_set(err, EBADMSG, "option %s %s a value", line,
                           o->arg ? "lacks" : "takes no");
        return o->parse(c, value, err) ? err_wrap(err, "option %s", line) : 0;
    }
    return err_set(err, ENOTSUP, "has the option '%.40s', which this release does not know", line);
}

static int parse_config(struct vm_config *c, char *text, size_t len, struct err *err)
{
    char *save = NULL;

    if (strlen(text) != len)
        return err_set(err, EBADMSG, "a zero byte at offset %zu", strlen(text));
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        int rc = parse_line(c, line, err);

        if (rc)
            return rc;
    }
    return 0;
}

/* Reads the next section, which must be called `name`; one more byte than it has, for a text's end. */
static int read_section(const struct state_source *from, const char *name,
                        struct state_section *ret_section, u8 **ret_bytes, struct err *err)
{
    int rc = state_read_section(from, ret_section, err);

    if (rc)
        return rc;
    if (strcmp(ret_section->name, name) || ret_section->instance)
        return err_set(err, EBADMSG, "section '%s' stands where '%s' belongs", ret_section->name,
                       name);
    if (ret_section->len > CONFIG_MAX)
        return err_set(err, EBADMSG, "section '%s' is too long: %" PRIu64 " bytes", name,
                       ret_section->len);
    *ret_bytes = calloc(1, ret_section->len + 1);
    if (!*ret_bytes)
        return err_sys(err, ENOMEM, "section '%s'", name);
    return state_read_bytes(from, ret_section, *ret_bytes, err);
}

static int read_config(const struct state_source *from, struct vm_config *c, struct err *err)
{
    struct state_section section = {0};
    auto_free u8 *bytes = NULL;
    int rc = read_section(from, "config", &section, &bytes, err);

    if (!rc && section.version != 1)
        rc = err_set(err, ENOTSUP, "saved as version %u by a newer program", section.version);
    if (!rc && parse_config(c, (char *)bytes, section.len, err))
        rc = err_wrap(err, "section 'config'");
    return rc;
}

static int read_identity(const struct state_source *from, struct vm_identity *id, struct err *err)
{
    const struct state_table *t = &vm_identity_table;
    struct state_section section = {0};
    auto_free u8 *bytes = NULL;
    int rc = read_section(from, "identity", &section, &bytes, err);

    if (rc)
        return rc;
    if (section.version > t->version)
        return err_set(err, ENOTSUP, "section 'identity': saved as version %u by a newer program",
                       section.version);
    if (!section.version || section.len != state_table_bytes(t, section.version))
        return err_set(err, EBADMSG, "section 'identity': %" PRIu64 " bytes cannot be",
                       section.len);
    if (state_table_load(t, section.version, bytes, id, err))
        return err_wrap(err, "section 'identity'");
    return 0;
}

static int read_end(const struct state_source *from, struct err *err)
{
    struct state_section section = {0};
    u8 nothing;
    int rc = state_read_section(from, &section, err);

    if (rc)
        return rc;
    if (!state_is_end(&section) || section.instance != 2 || section.version || section.len)
        return err_set(err, EBADMSG, "section '%s' stands where the end belongs", section.name);
    return state_read_bytes(from, &section, &nothing, err);
}

int vm_config_load(const struct state_source *from, struct vm_config *ret_config,
                   struct vm_identity *ret_id, struct err *err)
{
    auto_free struct vm_identity *id = calloc(1, sizeof(*id));
    struct vm_config config;
    int rc = id ? state_read_head(from, err) : err_sys(err, ENOMEM, "configuration");

    vm_config_init(&config);
    rc = rc ? rc : read_config(from, &config, err);
    rc = rc ? rc : read_identity(from, id, err);
    rc = rc ? rc : read_end(from, err);
    if (!rc && id->model.cpus != config.cpus)
        rc = err_set(err, EBADMSG, "a processor model for %u processors in a machine with %u",
                     id->model.cpus, config.cpus);
    if (rc) {
        vm_config_fini(&config);
        return rc;
    }
    *ret_config = config;
    *ret_id = *id;
    return 0;
}
