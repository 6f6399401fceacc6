/* Pages into messages and back: every kind, with and without compression, and what is no message. */
#include "unit.h"

#include "vm/migrate/delta.h"
#include "vm/migrate/page.h"
#include <sys/mman.h>
#include <unistd.h>

#define PAGES 256
#define PAGE MIGRATE_PAGE_BYTES

struct pair {
    u8 *source, *ram;
    struct migrate_cache cache;
    struct migrate_counts counts;
    struct migrate_encoder encoder;
    struct migrate_decoder decoder;
    struct migrate_memory memory;
    atomic_ullong seen[PAGES / 64];
    u8 body[MIGRATE_BODY_MAX];
    u32 len;
    u8 flags;
};

static u64 random_at = 1;

static u64 random_word(void)
{
    random_at = random_at * 6364136223846793005ull + 1442695040888963407ull;
    return random_at ^ random_at >> 29;
}

static void fill_page(u8 *page)
{
    for (unsigned i = 0; i < PAGE; i += 8) {
        u64 word = random_word();

        memcpy(page + i, &word, 8);
    }
}

static struct pair *pair_new(u64 cache_pages, enum migrate_pack pack)
{
    struct pair *p = calloc(1, sizeof(*p));

    p->source = aligned_alloc(PAGE, PAGES * PAGE);
    p->memory.memfd = memfd_create("ram", MFD_CLOEXEC);
    assert_int_equal(ftruncate(p->memory.memfd, PAGES * PAGE), 0);
    p->ram = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, p->memory.memfd, 0);
    assert_ptr_not_equal(p->ram, MAP_FAILED);
    memset(p->source, 0, PAGES * PAGE);
    assert_int_equal(migrate_cache_init(&p->cache, cache_pages * PAGE, PAGES, 1, NULL), 0);
    assert_int_equal(migrate_encoder_init(&p->encoder, &p->cache, &p->counts, pack, NULL), 0);
    assert_int_equal(migrate_decoder_init(&p->decoder, NULL), 0);
    p->memory.ram = p->ram;
    p->memory.pages = PAGES;
    p->memory.seen = p->seen;
    return p;
}

static void pair_free(struct pair *p)
{
    migrate_encoder_fini(&p->encoder);
    migrate_decoder_fini(&p->decoder);
    migrate_cache_fini(&p->cache);
    free(p->source);
    munmap(p->ram, PAGES * PAGE);
    close(p->memory.memfd);
    free(p);
}

/* Encodes pages first..last into p->body. */
static bool encode(struct pair *p, u64 first, u64 last, bool again)
{
    u32 at = 0;

    migrate_encoder_begin(&p->encoder);
    for (u64 page = first; page <= last; page++)
        migrate_encoder_add(&p->encoder, page, p->source + page * PAGE, again);
    if (!migrate_encoder_end(&p->encoder, &p->flags, &p->len))
        return false;
    for (unsigned i = 0; i < p->encoder.niov; i++) {
        memcpy(p->body + at, p->encoder.iov[i].iov_base, p->encoder.iov[i].iov_len);
        at += (u32)p->encoder.iov[i].iov_len;
    }
    assert_int_equal(at, p->len);
    return true;
}

static int apply(struct pair *p, struct err *err)
{
    return migrate_decoder_apply(&p->decoder, &p->memory, p->flags, p->body, p->len, err);
}

static void send_all(struct pair *p, bool again)
{
    for (u64 first = 0; first < PAGES; first += MIGRATE_BATCH)
        if (encode(p, first, first + MIGRATE_BATCH - 1, again))
            assert_int_equal(apply(p, NULL), 0);
    assert_memory_equal(p->source, p->ram, PAGES * PAGE);
}

/* Many rounds of random changes of every size. */
static void rounds(u64 cache_pages, bool zstd)
{
    struct pair *p = pair_new(cache_pages, zstd);

    for (unsigned i = 0; i < PAGES; i += 3)
        fill_page(p->source + i * PAGE);
    send_all(p, false);
    for (unsigned round = 0; round < 20; round++) {
        for (unsigned i = 0; i < PAGES; i++) {
            u64 r = random_word();
            u8 *page = p->source + i * PAGE;

            if (r % 8 == 0)
                memset(page, 0, PAGE);
            else if (r % 8 == 1)
                fill_page(page);
            else if (r % 8 < 5)
                page[r / 64 % PAGE] ^= (u8)(r >> 40);
            else if (r % 8 == 5)
                memset(page + r / 64 % PAGE, (int)(r >> 50), PAGE - r / 64 % PAGE);
        }
        send_all(p, true);
    }
    pair_free(p);
}

static void rounds_plain(void **state)
{
    rounds(0, false);
}

static void rounds_cached(void **state)
{
    rounds(PAGES, false);
}

static void rounds_small_cache(void **state)
{
    rounds(64, true);
}

static void rounds_packed(void **state)
{
    rounds(PAGES, true);
}

/* A page of which one word changes costs a few bytes from the third time on, and none when equal. */
static void hot_page_is_cheap(void **state)
{
    struct pair *p = pair_new(PAGES, false);

    fill_page(p->source);
    assert_true(encode(p, 0, 0, false));
    assert_int_equal(apply(p, NULL), 0);
    p->source[8] ^= 1;
    assert_true(encode(p, 0, 0, true));
    assert_true(p->len > PAGE);
    assert_int_equal(apply(p, NULL), 0);
    p->source[800] ^= 1;
    assert_true(encode(p, 0, 0, true));
    assert_int_equal(p->len, 8 + 8 + 4 + 8);
    assert_int_equal(apply(p, NULL), 0);
    assert_memory_equal(p->source, p->ram, PAGE);
    assert_false(encode(p, 0, 0, true));
    pair_free(p);
}

/* Zero pages that never held anything leave the receiver's memory alone, holes stay holes. */
static void zero_pages_stay_holes(void **state)
{
    struct pair *p = pair_new(0, false);

    p->memory.ram = (u8 *)PAGE; /* nothing is there: touching it would crash */
    assert_true(encode(p, 0, 63, false));
    assert_int_equal(apply(p, NULL), 0);
    pair_free(p);
}

static void send(struct pair *p, u64 page)
{
    assert_true(encode(p, page, page, false));
    assert_int_equal(apply(p, NULL), 0);
    assert_memory_equal(p->source + page * PAGE, p->ram + page * PAGE, PAGE);
}

/* Only on a line that is slow, and only while it makes messages shorter. */
static void packs_by_itself(void **state)
{
    struct pair *p = pair_new(0, MIGRATE_PACK_AUTO);
    unsigned packed = 0;

    memset(p->source, 0x55, PAGES / 2 * PAGE);
    for (u64 page = PAGES / 2; page < PAGES; page++)
        fill_page(p->source + page * PAGE);
    send(p, 0);
    assert_int_equal(p->flags, 0);
    migrate_encoder_measure(&p->encoder, 64 * MiB, 64 * MiB); /* 1 GB/s */
    send(p, 1);
    assert_int_equal(p->flags, 0);
    migrate_encoder_measure(&p->encoder, 64 * MiB, 64 * 10 * MiB); /* 100 MB/s */
    send(p, 2);
    assert_int_equal(p->flags, MIGRATE_ZSTD);
    assert_true(p->len < 200);
    /* Noise does not get shorter: it is tried more and more seldom. */
    for (u64 page = PAGES / 2; page < PAGES; page++) {
        send(p, page);
        packed += p->encoder.zstd;
    }
    assert_in_range(packed, 2, 8);
    for (u64 page = 3; page < 80; page++)
        send(p, page);
    assert_int_equal(p->flags, MIGRATE_ZSTD);
    pair_free(p);
}

/* How many of 64 packed pages go over as differences the second time, on a line that carries so much. */
static u64 remembered(u64 bytes_per_s)
{
    struct pair *p = pair_new(PAGES, MIGRATE_PACK_AUTO);
    u64 count;

    memset(p->source, 0x55, 64 * PAGE);
    migrate_encoder_limit(&p->encoder, bytes_per_s);
    for (u64 page = 0; page < 64; page++)
        send(p, page);
    for (u64 page = 0; page < 64; page++) {
        p->source[page * PAGE] ^= 1;
        send(p, page);
    }
    count = atomic_load(&p->counts.pages[MIGRATE_DELTA]);
    pair_free(p);
    return count;
}

/* Pages are remembered where a line is slow, but not where they get so short that it has them in no time. */
static void remembers_what_is_worth_it(void **state)
{
    assert_int_equal(remembered(0), 0);
    assert_in_range(remembered(128 * MiB), 1, 8); /* until it is known how short they get */
    assert_int_equal(remembered(MiB), 64);
}

static void put_one(struct pair *p, u64 page, u32 len, u32 kind, u32 data_bytes)
{
    migrate_put(p->body, 1, 4);
    migrate_put(p->body + 4, data_bytes, 4);
    migrate_put(p->body + 8, page | (u64)len << 40 | (u64)kind << 56, 8);
    p->len = 16 + data_bytes;
    p->flags = 0;
}

static void hostile_pages(void **state)
{
    struct pair *p = pair_new(0, false);
    struct err err = ERR_INIT;

    put_one(p, PAGES, 0, MIGRATE_ZERO, 0);
    assert_int_equal(apply(p, &err), -EPROTO);
    assert_non_null(strstr(err.msg, "outside"));
    put_one(p, BIT(40) - 1, PAGE, MIGRATE_WHOLE, PAGE);
    assert_int_equal(apply(p, &err), -EPROTO);
    put_one(p, 0, 8, MIGRATE_ZERO, 8);
    assert_int_equal(apply(p, &err), -EPROTO);
    put_one(p, 0, 100, MIGRATE_WHOLE, 100);
    assert_int_equal(apply(p, &err), -EPROTO);
    put_one(p, 0, 0, MIGRATE_KINDS, 0);
    assert_int_equal(apply(p, &err), -EPROTO);
    put_one(p, 0, PAGE, MIGRATE_WHOLE, 100); /* ends within the page */
    assert_int_equal(apply(p, &err), -EPROTO);
    /* A difference against a page that never came. */
    put_one(p, 5, 12, MIGRATE_DELTA, 12);
    migrate_put(p->body + 16, 0x00010000, 4);
    assert_int_equal(apply(p, &err), -EPROTO);
    assert_non_null(strstr(err.msg, "never came"));
    /* Counts that lie. */
    put_one(p, 0, 0, MIGRATE_ZERO, 0);
    migrate_put(p->body, MIGRATE_BATCH + 1, 4);
    assert_int_equal(apply(p, &err), -EPROTO);
    migrate_put(p->body, 2, 4);
    assert_int_equal(apply(p, &err), -EPROTO);
    /* A bomb: says that it unpacks to more than a batch. */
    put_one(p, 0, PAGE, MIGRATE_WHOLE, PAGE);
    p->flags = MIGRATE_ZSTD;
    assert_int_equal(apply(p, &err), -EPROTO);
    migrate_put(p->body + 4, UINT32_MAX, 4);
    assert_int_equal(apply(p, &err), -EPROTO);
    pair_free(p);
}

static int refuse(void *opaque, u64 page, u64 count, const u8 *bytes)
{
    u64 *pages = opaque;

    for (u64 i = 0; i < count; i++)
        pages[0] += page + i;
    return bytes[0] == 9 ? -EIO : 0;
}

/* Once the machine runs, pages are handed over, and differences are refused. */
static void running_machine(void **state)
{
    struct pair *p = pair_new(PAGES, false);
    u64 sum = 0;

    p->memory.supply = refuse;
    p->memory.opaque = &sum;
    p->source[3 * PAGE] = 1;
    assert_true(encode(p, 3, 4, false));
    assert_int_equal(apply(p, NULL), 0);
    assert_int_equal(sum, 7);
    assert_int_equal(p->ram[3 * PAGE], 0);
    p->source[3 * PAGE] = 9;
    assert_true(encode(p, 3, 3, true));
    assert_int_equal(apply(p, NULL), -EIO);
    p->source[3 * PAGE] = 8;
    assert_true(encode(p, 3, 3, true));
    assert_int_equal(apply(p, NULL), -EPROTO);
    pair_free(p);
}

static void delta_limits(void **state)
{
    u8 old[PAGE] = {0}, new[PAGE] = {0}, delta[2 * PAGE], bad[8] = {0};

    assert_int_equal(migrate_delta_make(old, new, delta, PAGE), 0);
    new[PAGE - 1] = 1;
    int len = migrate_delta_make(old, new, delta, PAGE);
    assert_int_equal(len, 12);
    assert_int_equal(migrate_delta_make(old, new, delta, 11), -1);
    assert_int_equal(migrate_delta_apply(old, delta, 12, NULL), 0);
    assert_memory_equal(old, new, PAGE);
    for (u32 cut = 1; cut < 12; cut++)
        assert_int_equal(migrate_delta_apply(old, delta, cut, NULL), -EPROTO);
    migrate_put(delta, 512, 2); /* one word too far */
    assert_int_equal(migrate_delta_apply(old, delta, 12, NULL), -EPROTO);
    assert_int_equal(migrate_delta_apply(old, bad, 4, NULL), -EPROTO); /* an empty run */
    migrate_put(bad, 0xffff0000, 4);
    assert_int_equal(migrate_delta_apply(old, bad, 8, NULL), -EPROTO);
}

/* With several senders a slot is always one sender's, however small the cache. */
static void cache_slots_belong_to_senders(void **state)
{
    for (unsigned senders = 1; senders <= 5; senders++) {
        struct migrate_cache c;

        assert_int_equal(migrate_cache_init(&c, 700 * PAGE, 100000, senders, NULL), 0);
        assert_true(c.slots > 0 && c.slots % (64 * senders) == 0);
        for (u64 page = 0; page < 100000; page += 7)
            assert_int_equal(page % c.slots / 64 % senders, page / 64 % senders);
        migrate_cache_fini(&c);
    }
    migrate_cache_fini(NULL);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(rounds_plain),
    cmocka_unit_test(rounds_cached),
    cmocka_unit_test(rounds_small_cache),
    cmocka_unit_test(rounds_packed),
    cmocka_unit_test(hot_page_is_cheap),
    cmocka_unit_test(zero_pages_stay_holes),
    cmocka_unit_test(hostile_pages),
    cmocka_unit_test(running_machine),
    cmocka_unit_test(packs_by_itself),
        cmocka_unit_test(remembers_what_is_worth_it),
    cmocka_unit_test(delta_limits),
    cmocka_unit_test(cache_slots_belong_to_senders),
};

UNIT_MAIN(tests)
