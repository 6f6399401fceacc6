/* Heads and HELLO: what is written is read, and nothing else is. */
#include "unit.h"

#include "vm/config.h"
#include "vm/migrate/sizes.h"
#include "vm/migrate/wire.h"

static int get(const u8 *bytes, enum migrate_side side, u32 sequence)
{
    struct migrate_head head;
    struct err err = ERR_INIT;

    return migrate_head_get(bytes, side, sequence, &head, &err);
}

static void head_round_trip(void **state)
{
    struct migrate_head in = {
        .type = MIGRATE_STATE, .flags = MIGRATE_LAST, .len = 77, .sequence = 9};
    struct migrate_head out;
    u8 bytes[MIGRATE_HEAD_BYTES];

    migrate_head_put(&in, bytes);
    assert_int_equal(migrate_head_get(bytes, MIGRATE_TO_DESTINATION, 9, &out, NULL), 0);
    assert_int_equal(out.type, MIGRATE_STATE);
    assert_int_equal(out.flags, MIGRATE_LAST);
    assert_int_equal(out.len, 77);
    assert_int_equal(get(bytes, MIGRATE_TO_SOURCE, 9), -EPROTO);
    assert_int_equal(get(bytes, MIGRATE_TO_DESTINATION, 8), -EPROTO);
}

/* Every head that differs in one byte is refused, or says something else that its type allows. */
static void head_bytes_changed(void **state)
{
    struct migrate_head in = {.type = MIGRATE_FENCE, .len = 4, .sequence = 1}, out;
    u8 bytes[MIGRATE_HEAD_BYTES];

    for (unsigned at = 0; at < MIGRATE_HEAD_BYTES; at++) {
        for (unsigned value = 0; value < 256; value++) {
            migrate_head_put(&in, bytes);
            if (bytes[at] == value)
                continue;
            bytes[at] = (u8)value;
            if (migrate_head_get(bytes, MIGRATE_TO_DESTINATION, 1, &out, NULL))
                continue;
            assert_int_equal(at, 2); /* another type whose body may have 4 bytes */
            assert_true(out.type == MIGRATE_STATE || out.type == MIGRATE_CANCEL);
        }
    }
}

static void head_lengths(void **state)
{
    for (unsigned type = 0; type < MIGRATE_TYPES; type++) {
        struct migrate_head in = {.type = (enum migrate_type)type, .len = UINT32_MAX};
        u8 bytes[MIGRATE_HEAD_BYTES];

        migrate_head_put(&in, bytes);
        assert_int_equal(get(bytes, MIGRATE_TO_DESTINATION, 0), -EPROTO);
        assert_int_equal(get(bytes, MIGRATE_TO_SOURCE, 0), -EPROTO);
    }
    assert_string_equal(migrate_type_name(MIGRATE_GO), "GO");
    assert_string_equal(migrate_type_name((enum migrate_type)200), "?");
}

static void hello_round_trip(void **state)
{
    static const char text[] = "cpus=2\nmemory=1G\n";
    struct migrate_hello in = {.version = MIGRATE_VERSION,
                               .connections = 3,
                               .flags = MIGRATE_HELLO_DISKS,
                               .ram_bytes = GiB,
                               .config_bytes = sizeof(text) - 1},
                         out;
    u8 body[MIGRATE_HELLO_BYTES + sizeof(text)];
    u32 len = MIGRATE_HELLO_BYTES + in.config_bytes;
    const u8 *config;

    memset(in.token, 7, sizeof(in.token));
    migrate_hello_put(&in, body);
    memcpy(body + MIGRATE_HELLO_BYTES, text, sizeof(text));
    assert_int_equal(migrate_hello_get(body, len, &out, &config, NULL), 0);
    assert_memory_equal(&in, &out, sizeof(in));
    assert_memory_equal(config, text, in.config_bytes);
    /* Too short, too long. */
    assert_int_equal(migrate_hello_get(body, len - 1, &out, &config, NULL), -EPROTO);
    assert_int_equal(migrate_hello_get(body, len + 1, &out, &config, NULL), -EPROTO);
    assert_int_equal(migrate_hello_get(body, 3, &out, &config, NULL), -EPROTO);
}

/* Version skew is said as such, whatever else is in the message. */
static void hello_other_version(void **state)
{
    struct migrate_hello in = {.version = MIGRATE_VERSION + 1, .connections = 999}, out;
    struct err err = ERR_INIT;
    u8 body[MIGRATE_HELLO_BYTES];
    const u8 *config;

    migrate_hello_put(&in, body);
    assert_int_equal(migrate_hello_get(body, sizeof(body), &out, &config, &err), -ENOTSUP);
    assert_non_null(strstr(err.msg, "version 2"));
    in.version = MIGRATE_VERSION;
    migrate_hello_put(&in, body);
    assert_int_equal(migrate_hello_get(body, sizeof(body), &out, &config, &err), -EPROTO);
}

static int load_sizes(struct state_buf *b, unsigned n, u64 *ret_bytes, struct err *err)
{
    struct state_source from = state_buf_source(b);

    b->at = 0;
    *err = ERR_INIT;
    return migrate_sizes_load(&from, n, ret_bytes, err);
}

static void sizes_round_trip(void **state)
{
    static const u64 in[VM_DISKS] = {512, 3 * GiB, 0, UINT64_MAX};
    struct state_buf b = {0};
    struct state_sink to = state_buf_sink(&b);
    struct err err = ERR_INIT;

    for (unsigned n = 0; n <= VM_DISKS; n++) {
        u64 out[VM_DISKS] = {0};

        b.len = 0;
        assert_int_equal(migrate_sizes_save(in, n, &to, &err), 0);
        assert_int_equal(load_sizes(&b, n, out, &err), 0);
        assert_memory_equal(in, out, n * sizeof(*in));
    }
    state_buf_fini(&b);
}

/* Every stream that is cut off or differs in a byte, and those of machines with other disks. */
static void sizes_hostile(void **state)
{
    static const u64 in[] = {1 * MiB, 2 * MiB};
    struct state_buf b = {0};
    struct state_sink to = state_buf_sink(&b);
    u64 out[VM_DISKS] = {7, 7};
    struct err err = ERR_INIT;

    assert_int_equal(migrate_sizes_save(in, 2, &to, &err), 0);
    assert_int_equal(load_sizes(&b, 1, out, &err), -EBADMSG);
    assert_int_equal(load_sizes(&b, VM_DISKS, out, &err), -EBADMSG);
    const size_t whole = b.len;
    for (b.len = 0; b.len < whole; b.len++)
        assert_int_equal(load_sizes(&b, 2, out, &err), -ENODATA);
    for (size_t at = 0; at < b.len; at++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            b.data[at] ^= (u8)BIT(bit);
            assert_int_not_equal(load_sizes(&b, 2, out, &err), 0);
            b.data[at] ^= (u8)BIT(bit);
        }
    }
    assert_int_equal(out[0], 7);
    state_buf_fini(&b);
}

/* What later releases may say besides is passed over; what they say otherwise is not guessed. */
static void sizes_of_later_releases(void **state)
{
    static const u8 size[8] = {0, 16};
    struct state_buf b = {0};
    struct state_sink to = state_buf_sink(&b);
    struct err err = ERR_INIT;
    u64 out[1] = {0};

    assert_int_equal(state_write_head(&to, &err), 0);
    assert_int_equal(state_write_section(&to, "colours", 3, 9, "red", 3, &err), 0);
    size_t end = b.len;
    assert_int_equal(state_write_section(&to, "disks", 0, 1, size, 8, &err), 0);
    assert_int_equal(state_write_end(&to, 2, &err), 0);
    assert_int_equal(load_sizes(&b, 1, out, &err), 0);
    assert_int_equal(out[0], 4096);
    b.len = end;
    assert_int_equal(state_write_section(&to, "disks", 0, 2, size, 8, &err), 0);
    assert_int_equal(state_write_end(&to, 2, &err), 0);
    assert_int_equal(load_sizes(&b, 1, out, &err), -ENOTSUP);
    b.len = end;
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(state_write_section(&to, "disks", 0, 1, size, 8, &err), 0);
    assert_int_equal(load_sizes(&b, 1, out, &err), -EBADMSG);
    state_buf_fini(&b);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(head_round_trip),     cmocka_unit_test(head_bytes_changed),
    cmocka_unit_test(head_lengths),        cmocka_unit_test(hello_round_trip),
    cmocka_unit_test(hello_other_version), cmocka_unit_test(sizes_round_trip),
    cmocka_unit_test(sizes_hostile),       cmocka_unit_test(sizes_of_later_releases),
};

UNIT_MAIN(tests)
