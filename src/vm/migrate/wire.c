/*
 * Heads of messages, and HELLO. Invariant: what a type allows (direction, shortest and longest
 * body, flags) stands in one table, and a head that breaks it is refused before its body is read.
 * No state, any thread.
 */
#include "vm/migrate/wire.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define MAGIC 0x5a54 /* "TZ" */

struct rule {
    const char *name;
    enum migrate_side side;
    u8 flags; /* those that may be set */
    u32 min, max;
};

#define TEXT_MAX (16u * KiB)

static const struct rule rules[MIGRATE_TYPES] = {
    [MIGRATE_HELLO] = {"HELLO", MIGRATE_TO_DESTINATION, 0, MIGRATE_HELLO_BYTES,
                       MIGRATE_HELLO_BYTES + MIGRATE_CONFIG_MAX},
    [MIGRATE_JOIN] = {"JOIN", MIGRATE_TO_DESTINATION, 0, MIGRATE_JOIN_BYTES, MIGRATE_JOIN_BYTES},
    [MIGRATE_QUERY] = {"QUERY", MIGRATE_TO_DESTINATION, 0, MIGRATE_TOKEN_BYTES,
                       MIGRATE_TOKEN_BYTES},
    [MIGRATE_PAGES] = {"PAGES", MIGRATE_TO_DESTINATION, MIGRATE_ZSTD, 16, MIGRATE_BODY_MAX},
    [MIGRATE_BLOCKS] = {"BLOCKS", MIGRATE_TO_DESTINATION, MIGRATE_ZSTD, 24, MIGRATE_BODY_MAX},
    [MIGRATE_FENCE] = {"FENCE", MIGRATE_TO_DESTINATION, 0, 4, 4},
    [MIGRATE_STATE] = {"STATE", MIGRATE_TO_DESTINATION, MIGRATE_LAST | MIGRATE_ZSTD, 1,
                       MIGRATE_BODY_MAX},
    [MIGRATE_ABSENT] = {"ABSENT", MIGRATE_TO_DESTINATION, MIGRATE_LAST, 16, MIGRATE_BODY_MAX},
    [MIGRATE_GO] = {"GO", MIGRATE_TO_DESTINATION, 0, 0, 0},
    [MIGRATE_CANCEL] = {"CANCEL", MIGRATE_TO_DESTINATION, 0, 0, TEXT_MAX},
    [MIGRATE_FIT] = {"FIT", MIGRATE_TO_SOURCE, 0, 0, TEXT_MAX},
    [MIGRATE_FENCED] = {"FENCED", MIGRATE_TO_SOURCE, 0, 4, 4},
    [MIGRATE_READY] = {"READY", MIGRATE_TO_SOURCE, 0, 0, 0},
    [MIGRATE_RUNNING] = {"RUNNING", MIGRATE_TO_SOURCE, 0, 0, 0},
    [MIGRATE_NEED] = {"NEED", MIGRATE_TO_SOURCE, 0, 8, 8 * MIGRATE_BATCH},
    [MIGRATE_COMPLETE] = {"COMPLETE", MIGRATE_TO_SOURCE, 0, 0, 0},
    [MIGRATE_FAILED] = {"FAILED", MIGRATE_TO_SOURCE, 0, 0, TEXT_MAX},
    [MIGRATE_ANSWER] = {"ANSWER", MIGRATE_TO_SOURCE, 0, 1, 1},
    [MIGRATE_LACK] = {"LACK", MIGRATE_TO_SOURCE, MIGRATE_LAST, 16, MIGRATE_BODY_MAX},
    [MIGRATE_BYE] = {"BYE", MIGRATE_TO_DESTINATION, 0, 0, 0},
    [MIGRATE_FRAMES] = {"FRAMES", MIGRATE_TO_DESTINATION, 0, 30, MIGRATE_BODY_MAX},
};

const char *migrate_type_name(enum migrate_type type)
{
    return (unsigned)type < MIGRATE_TYPES && rules[type].name ? rules[type].name : "?";
}

void migrate_head_put(const struct migrate_head *head, u8 ret_bytes[MIGRATE_HEAD_BYTES])
{
    migrate_put(ret_bytes, MAGIC, 2);
    migrate_put(ret_bytes + 2, head->type, 1);
    migrate_put(ret_bytes + 3, head->flags, 1);
    migrate_put(ret_bytes + 4, head->len, 4);
    migrate_put(ret_bytes + 8, head->sequence, 4);
    migrate_put(ret_bytes + 12, 0, 4);
}

int migrate_head_get(const u8 bytes[MIGRATE_HEAD_BYTES], enum migrate_side side, u32 sequence,
                     struct migrate_head *ret_head, struct err *err)
{
    struct migrate_head head = {.flags = bytes[3],
                                .len = (u32)migrate_get(bytes + 4, 4),
                                .sequence = (u32)migrate_get(bytes + 8, 4)};
    unsigned type = bytes[2];

    if (migrate_get(bytes, 2) != MAGIC || migrate_get(bytes + 12, 4))
        return err_set(err, EPROTO, "these are not bytes of a migration of ours");
    if (type >= MIGRATE_TYPES || !rules[type].name)
        return err_set(err, EPROTO, "message of unknown type %u", type);
    head.type = (enum migrate_type)type;
    const struct rule *rule = &rules[type];
    if (rule->side != side)
        return err_set(err, EPROTO, "message %s goes the other way", rule->name);
    if (head.flags & ~rule->flags)
        return err_set(err, EPROTO, "message %s with flags 0x%x", rule->name, head.flags);
    if (head.len < rule->min || head.len > rule->max)
        return err_set(err, EPROTO, "message %s of %u bytes: %u to %u are allowed", rule->name,
                       head.len, rule->min, rule->max);
    if (head.sequence != sequence)
        return err_set(err, EPROTO, "message %s is number %u, number %u was to come", rule->name,
                       head.sequence, sequence);
    *ret_head = head;
    return 0;
}

void migrate_hello_put(const struct migrate_hello *h, u8 ret_bytes[MIGRATE_HELLO_BYTES])
{
    u8 *p = ret_bytes;

    migrate_put(p, h->version, 4);
    memcpy(p + 4, h->token, MIGRATE_TOKEN_BYTES);
    p += 4 + MIGRATE_TOKEN_BYTES;
    migrate_put(p, h->connections, 4);
    migrate_put(p + 4, h->flags, 4);
    migrate_put(p + 8, h->ram_bytes, 8);
    migrate_put(p + 16, h->config_bytes, 4);
}

int migrate_hello_get(const u8 *body, u32 len, struct migrate_hello *ret_hello,
                      const u8 **ret_config, struct err *err)
{
    struct migrate_hello h = {0};
    const u8 *p = body + 4 + MIGRATE_TOKEN_BYTES;

    if (len < MIGRATE_HELLO_BYTES)
        return err_set(err, EPROTO, "HELLO of %u bytes is too short", len);
    h.version = (u32)migrate_get(body, 4);
    /* Before anything else: what another version means by the rest we cannot know. */
    if (h.version != MIGRATE_VERSION)
        return err_set(err, ENOTSUP, "the source speaks version %u of the protocol, we speak %d",
                       h.version, MIGRATE_VERSION);
    memcpy(h.token, body + 4, MIGRATE_TOKEN_BYTES);
    h.connections = (u32)migrate_get(p, 4);
    h.flags = (u32)migrate_get(p + 4, 4);
    h.ram_bytes = migrate_get(p + 8, 8);
    h.config_bytes = (u32)migrate_get(p + 16, 4);
    if (h.config_bytes != len - MIGRATE_HELLO_BYTES)
        return err_set(err, EPROTO, "HELLO with %u bytes of configuration in %u", h.config_bytes,
                       len - (u32)MIGRATE_HELLO_BYTES);
    if (!h.connections || h.connections > MIGRATE_CONNECTIONS)
        return err_set(err, EPROTO, "%u connections: 1 to %d are allowed", h.connections,
                       MIGRATE_CONNECTIONS);
    if (h.flags & ~(u32)(MIGRATE_HELLO_DRY | MIGRATE_HELLO_DISKS | MIGRATE_HELLO_RESUME |
                         MIGRATE_HELLO_FRAMES))
        return err_set(err, ENOTSUP, "the source wants what we do not know: flags 0x%x", h.flags);
    *ret_hello = h;
    *ret_config = body + MIGRATE_HELLO_BYTES;
    return 0;
}
