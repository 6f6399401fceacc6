/* The set: all or nothing, hooks in order, and streams that are not what they claim. */
#include "unit.h"

#include "state/set.h"
#include "state_sample.h"

/* A component with two instances' worth of hooks that count. */
struct part {
    struct state_entry entry;
    struct sample s;
    unsigned saves, loads;
    bool refuse_check, refuse_load;
};

static void pre_save(void *opaque)
{
    ((struct part *)opaque)->saves++;
}

static int check(void *opaque, const void *scratch, struct err *err)
{
    const struct sample *s = scratch;

    if (((struct part *)opaque)->refuse_check || s->queue[0].size > 256)
        return err_set(err, EINVAL, "queue 0 has %u entries", s->queue[0].size);
    return 0;
}

static int post_load(void *opaque, struct err *err)
{
    struct part *p = opaque;

    p->loads++;
    return p->refuse_load ? err_set(err, EBUSY, "host is busy") : 0;
}

static void part_init(struct part *p, struct state_set *set, u32 instance)
{
    memset(p, 0, sizeof(*p));
    p->entry = (struct state_entry){.name = "part",
                                    .instance = instance,
                                    .table = &sample_table,
                                    .object = &p->s,
                                    .opaque = p,
                                    .check = check,
                                    .pre_save = pre_save,
                                    .post_load = post_load};
    assert_int_equal(state_set_add(set, &p->entry, NULL), 0);
}

/* Two parts in a set, and a stream that holds what sample_fill() makes of them. */
struct fixture {
    struct state_set set;
    struct part a, b;
    struct state_buf buf;
};

static void fixture_init(struct fixture *f)
{
    struct state_sink to = state_buf_sink(&f->buf);

    memset(f, 0, sizeof(*f));
    part_init(&f->a, &f->set, 0);
    part_init(&f->b, &f->set, 1);
    sample_fill(&f->a.s);
    sample_fill(&f->b.s);
    assert_int_equal(state_set_save(&f->set, &to, NULL), 0);
    memset(&f->a.s, 0, sizeof(f->a.s));
    memset(&f->b.s, 0, sizeof(f->b.s));
}

static int load(struct fixture *f, struct err *err)
{
    struct state_source from = state_buf_source(&f->buf);

    f->buf.at = 0;
    return state_set_load(&f->set, &from, err);
}

/* Loading fails with this code and a message that has this text, and nothing has changed. */
static void expect_refused(struct fixture *f, int code, const char *text)
{
    struct sample zero;
    struct err err = ERR_INIT;

    memset(&zero, 0, sizeof(zero));
    assert_int_equal(load(f, &err), -code);
    assert_non_null(strstr(err.msg, text));
    assert_memory_equal(&f->a.s, &zero, sizeof(zero));
    assert_memory_equal(&f->b.s, &zero, sizeof(zero));
    assert_int_equal(f->a.loads + f->b.loads, 0);
    assert_null(f->a.entry.scratch);
    state_buf_fini(&f->buf);
}

static void test_save_load_save_is_identical(void **state)
{
    struct fixture f;
    struct state_buf again = {0};
    struct state_sink to = state_buf_sink(&again);

    fixture_init(&f);
    assert_int_equal(load(&f, NULL), 0);
    assert_int_equal(f.b.s.port, 0x3f8);
    assert_int_equal(f.a.loads, 1);
    assert_int_equal(state_set_save(&f.set, &to, NULL), 0);
    assert_int_equal(again.len, f.buf.len);
    assert_memory_equal(again.data, f.buf.data, again.len);
    assert_int_equal(f.a.saves, 2);
    state_buf_fini(&again);
    state_buf_fini(&f.buf);
}

static void test_check_refuses_and_nothing_changes(void **state)
{
    struct fixture f;

    fixture_init(&f);
    f.b.refuse_check = true;
    expect_refused(&f, EINVAL, "state of part 1: queue 0 has 256 entries");
}

static void test_failing_hook_is_told(void **state)
{
    struct fixture f;
    struct err err = ERR_INIT;

    fixture_init(&f);
    f.a.refuse_load = true;
    assert_int_equal(load(&f, &err), -EBUSY);
    assert_string_equal(err.msg, "state of part 0: host is busy");
    state_buf_fini(&f.buf);
}

static void test_unknown_section_is_refused(void **state)
{
    struct fixture f;

    fixture_init(&f);
    f.b.entry.instance = 2;
    expect_refused(&f, ENODEV, "part 1, which this machine has not");
}

static void test_missing_section_is_refused(void **state)
{
    struct fixture f;
    struct part c;

    fixture_init(&f);
    part_init(&c, &f.set, 2);
    expect_refused(&f, ENODATA, "lacks part 2");
}

/* A stream of the given sections, each with the bytes of one sample. */
static void rewrite(struct fixture *f, const u32 *instances, unsigned n, u32 version, u64 len)
{
    struct state_sink to = state_buf_sink(&f->buf);
    u8 bytes[512] = {0};

    f->buf.len = 0;
    assert_int_equal(state_write_head(&to, NULL), 0);
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(state_write_section(&to, "part", instances[i], version, bytes, len, NULL),
                         0);
    assert_int_equal(state_write_end(&to, n, NULL), 0);
}

static void test_doubled_section_is_refused(void **state)
{
    struct fixture f;

    fixture_init(&f);
    rewrite(&f, (u32[]){0, 0}, 2, 2, SAMPLE_V1_BYTES + 4);
    expect_refused(&f, EBADMSG, "part 0: there twice");
}

static void test_order_of_sections_does_not_matter(void **state)
{
    struct fixture f;

    fixture_init(&f);
    rewrite(&f, (u32[]){1, 0}, 2, 2, SAMPLE_V1_BYTES + 4);
    assert_int_equal(load(&f, NULL), 0);
    state_buf_fini(&f.buf);
}

static void test_older_version_loads_newer_is_refused(void **state)
{
    struct fixture f;

    fixture_init(&f);
    f.a.s.late = 9;
    rewrite(&f, (u32[]){0, 1}, 2, 1, SAMPLE_V1_BYTES);
    assert_int_equal(load(&f, NULL), 0);
    assert_int_equal(f.a.s.late, 9);
    state_buf_fini(&f.buf);

    fixture_init(&f);
    rewrite(&f, (u32[]){0, 1}, 2, 3, SAMPLE_V1_BYTES + 4);
    expect_refused(&f, ENOTSUP, "version 3 by a newer program; this one reads up to 2");
    fixture_init(&f);
    rewrite(&f, (u32[]){0, 1}, 2, 0, 0);
    expect_refused(&f, EBADMSG, "0 bytes in version 0 cannot be");
}

static void test_wrong_lengths_are_refused(void **state)
{
    struct fixture f;

    fixture_init(&f);
    rewrite(&f, (u32[]){0, 1}, 2, 2, SAMPLE_V1_BYTES + 5);
    expect_refused(&f, EBADMSG, "cannot be");
    fixture_init(&f);
    /* The length field of the first section: 16 bytes of head, 32 of name, instance, version. */
    memset(f.buf.data + 16 + 32 + 8, 0xff, 8);
    expect_refused(&f, EBADMSG, "18446744073709551615 bytes");
}

static void test_wrong_count_at_the_end_is_refused(void **state)
{
    struct fixture f;
    struct state_sink to;

    fixture_init(&f);
    f.buf.len -= 52;
    to = state_buf_sink(&f.buf);
    assert_int_equal(state_write_end(&to, 3, NULL), 0);
    expect_refused(&f, EBADMSG, "ends after 2 sections, not after 3");
}

static void test_damage_and_cuts_never_change_anything(void **state)
{
    struct fixture f;
    size_t whole;

    fixture_init(&f);
    whole = f.buf.len;
    /* Every byte is the stream's own test; here a sample of them is enough. */
    for (size_t i = 0; i < whole; i += 11) {
        f.buf.data[i] ^= 0x41;
        assert_true(load(&f, NULL) < 0);
        f.buf.data[i] ^= 0x41;
        f.buf.len = i;
        assert_int_equal(load(&f, NULL), -ENODATA);
        f.buf.len = whole;
    }
    expect_refused(&(struct fixture){.set = {0}, .buf = {0}}, ENODATA, "too early");
    state_buf_fini(&f.buf);
}

static void test_names_are_unique_and_can_be_taken_back(void **state)
{
    struct fixture f;
    struct part c;
    struct err err = ERR_INIT;

    fixture_init(&f);
    c.entry = f.a.entry;
    assert_int_equal(state_set_add(&f.set, &c.entry, &err), -EEXIST);
    state_set_remove(&f.set, &f.a.entry);
    state_set_remove(&f.set, &f.a.entry);
    part_init(&c, &f.set, 0);
    assert_int_equal(load(&f, NULL), 0);
    assert_int_equal(c.s.port, 0x3f8);
    state_buf_fini(&f.buf);
}

static void test_print_shows_each_part(void **state)
{
    struct fixture f;
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);

    assert_non_null(out);
    fixture_init(&f);
    state_set_print(&f.set, out);
    fclose(out);
    assert_ptr_equal(strstr(text, "part 0\n  ready: 0\n"), text);
    assert_non_null(strstr(text, "part 1\n"));
    free(text);
    state_buf_fini(&f.buf);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_save_load_save_is_identical),
    cmocka_unit_test(test_check_refuses_and_nothing_changes),
    cmocka_unit_test(test_failing_hook_is_told),
    cmocka_unit_test(test_unknown_section_is_refused),
    cmocka_unit_test(test_missing_section_is_refused),
    cmocka_unit_test(test_doubled_section_is_refused),
    cmocka_unit_test(test_order_of_sections_does_not_matter),
    cmocka_unit_test(test_older_version_loads_newer_is_refused),
    cmocka_unit_test(test_wrong_lengths_are_refused),
    cmocka_unit_test(test_wrong_count_at_the_end_is_refused),
    cmocka_unit_test(test_damage_and_cuts_never_change_anything),
    cmocka_unit_test(test_names_are_unique_and_can_be_taken_back),
    cmocka_unit_test(test_print_shows_each_part),
};
UNIT_MAIN(tests)
