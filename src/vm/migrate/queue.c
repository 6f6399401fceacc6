/*
 * The list of pages to send. Invariants:
 *  1. A page leaves `todo` before its bytes are read, never after: a write between is seen by the
 *     next look at the dirty log.
 *  2. `pass` is a subset of what was in `todo` when the pass began; being in it alone means nothing.
 */
#include "vm/migrate/queue.h"

#include "vm/migrate/wire.h"
#include <errno.h>
#include <stdlib.h>

int migrate_queue_init(struct migrate_queue *q, u64 pages, unsigned senders, struct err *err)
{
    u64 words = (pages + 63) / 64;

    *q = (struct migrate_queue){.pages = pages, .words = words, .senders = senders};
    q->todo = calloc(words, sizeof(*q->todo));
    q->pass = calloc(words, sizeof(*q->pass));
    q->sent = calloc(words, sizeof(*q->sent));
    q->fresh = calloc(words, sizeof(*q->fresh));
    q->history = calloc(words, 64);
    q->round = calloc(words, sizeof(*q->round));
    q->touched = calloc((words + 63) / 64, sizeof(*q->touched));
    if (q->todo && q->pass && q->sent && q->fresh && q->history && q->round && q->touched)
        return 0;
    migrate_queue_fini(q);
    return err_set(err, ENOMEM, "no memory for the list of pages");
}

void migrate_queue_fini(struct migrate_queue *q)
{
    if (!q)
        return;
    free(q->todo);
    free(q->pass);
    free(q->sent);
    free(q->fresh);
    free(q->history);
    free(q->round);
    free(q->touched);
    *q = (struct migrate_queue){0};
}

void migrate_queue_fill(struct migrate_queue *q, u64 first_page, u64 count)
{
    u64 end = MIN(first_page + count, q->pages);

    for (u64 page = first_page; page < end;) {
        u64 bits = ~0ull << (page % 64);
        u64 next = ALIGN_DOWN(page, 64) + 64;

        if (next > end)
            bits &= BIT(end % 64) - 1;
        atomic_fetch_or_explicit(&q->todo[page / 64], bits, memory_order_relaxed);
        page = next;
    }
}

/* Shifts the history of a word's 64 pages. */
static void age(struct migrate_queue *q, u64 word)
{
    u8 *history = q->history + 64 * word, any = 0;
    u64 bits = q->fresh[word];

    for (unsigned i = 0; i < 64; i++) {
        history[i] = (u8)(history[i] << 1 | (bits >> i & 1));
        any |= history[i];
    }
    if (any)
        q->touched[word / 64] |= BIT(word % 64);
    else
        q->touched[word / 64] &= ~BIT(word % 64);
}

static u64 sent(const struct migrate_queue *q, u64 word)
{
    return atomic_load_explicit(&q->sent[word], memory_order_relaxed);
}

u64 migrate_queue_written(struct migrate_queue *q)
{
    u64 count = 0;

    for (u64 w = 0; w < q->words; w++) {
        u64 bits = q->fresh[w];

        if (bits) {
            atomic_fetch_or_explicit(&q->todo[w], bits, memory_order_relaxed);
            atomic_fetch_and_explicit(&q->pass[w], ~bits, memory_order_relaxed);
            count += (u64)__builtin_popcountll(bits & ~q->round[w]);
            q->wasted += (u64)__builtin_popcountll(bits & ~q->round[w] & sent(q, w));
            q->round[w] |= bits;
        }
        if (bits || q->touched[w / 64] >> (w % 64) & 1)
            age(q, w);
    }
    return count;
}

void migrate_queue_written_last(struct migrate_queue *q)
{
    for (u64 w = 0; w < q->words; w++)
        if (q->fresh[w])
            atomic_fetch_or_explicit(&q->todo[w], q->fresh[w], memory_order_relaxed);
}

/* Pages of a word that are written again and again: in two of the last four looks. */
static u64 restless(const struct migrate_queue *q, u64 word)
{
    const u8 *history = q->history + 64 * word;
    u64 bits = 0;

    if (!(q->touched[word / 64] >> (word % 64) & 1))
        return 0;
    for (unsigned i = 0; i < 64; i++)
        bits |= (u64)(__builtin_popcount(history[i] & 15) >= 2) << i;
    return bits;
}

/* Every so many-th word with pages that went over and are to be sent again, so that there are about `limit` of them. */
static u64 stride_of(const struct migrate_queue *q, u64 limit)
{
    u64 count = 0;

    for (u64 w = 0; w < q->words; w++)
        count += (u64)__builtin_popcountll(atomic_load_explicit(&q->todo[w], memory_order_relaxed) &
                                           sent(q, w));
    return MAX(count / MAX(limit, (u64)1), (u64)1);
}

u64 migrate_queue_begin(struct migrate_queue *q, enum migrate_pass pass, u64 limit)
{
    u64 stride = pass == MIGRATE_PASS_AGAIN ? stride_of(q, limit) : 1;
    u64 count = 0, nth = 0;

    q->wasted = q->first = 0;
    for (u64 w = 0; w < q->words; w++) {
        u64 bits = atomic_load_explicit(&q->todo[w], memory_order_relaxed);

        if (pass == MIGRATE_PASS_CALM && bits)
            bits &= ~restless(q, w);
        if (pass == MIGRATE_PASS_RESTLESS && bits)
            bits &= restless(q, w);
        if (pass == MIGRATE_PASS_AGAIN && (bits &= sent(q, w)) && nth++ % stride)
            bits = 0;
        if (pass == MIGRATE_PASS_NONE || (pass == MIGRATE_PASS_RESTLESS && count >= limit))
            bits = 0;
        atomic_store_explicit(&q->pass[w], bits, memory_order_relaxed);
        q->round[w] = 0;
        count += (u64)__builtin_popcountll(bits);
        q->first += (u64)__builtin_popcountll(bits & ~sent(q, w));
    }
    for (unsigned i = 0; i < ARRAY_LEN(q->at); i++)
        atomic_store(&q->at[i], 0);
    return count;
}

void migrate_queue_cut(struct migrate_queue *q)
{
    for (u64 w = 0; w < q->words; w++)
        atomic_store_explicit(&q->pass[w], 0, memory_order_relaxed);
}

u64 migrate_queue_left(const struct migrate_queue *q)
{
    u64 count = 0;

    for (u64 w = 0; w < q->words; w++)
        count += (u64)__builtin_popcountll(atomic_load_explicit(&q->todo[w], memory_order_relaxed));
    return count;
}

/* Takes what is left of one word, or its first pages. */
static u64 take_word(struct migrate_queue *q, u64 word, unsigned most)
{
    u64 left = atomic_load_explicit(&q->pass[word], memory_order_relaxed), bits = left;

    if (!bits)
        return 0;
    for (unsigned i = 0; i < most; i++)
        left &= left - 1;
    bits &= ~left;
    bits &= atomic_fetch_and(&q->pass[word], ~bits);
    /* Another took some by name (claim), or the pass lost them: only what is still to do. */
    return bits & atomic_fetch_and(&q->todo[word], ~bits);
}

bool migrate_queue_take(struct migrate_queue *q, unsigned sender, unsigned most, u64 *ret_first,
                        u64 *ret_bits)
{
    u64 mine = (q->words + q->senders - 1 - sender) / q->senders; /* words of this sender */
    u64 start = atomic_load_explicit(&q->at[sender], memory_order_relaxed);

    for (u64 i = 0; i < mine; i++) {
        u64 n = (start + i) % mine, word = n * q->senders + sender;
        u64 bits = 0;

        while (!bits && atomic_load_explicit(&q->pass[word], memory_order_relaxed))
            bits = take_word(q, word, most);
        if (!bits)
            continue;
        atomic_store_explicit(&q->at[sender], n, memory_order_relaxed);
        *ret_first = 64 * word;
        *ret_bits = bits;
        return true;
    }
    return false;
}

void migrate_queue_go_on_at(struct migrate_queue *q, u64 page)
{
    u64 word = page / 64;

    atomic_store_explicit(&q->at[word % q->senders], word / q->senders, memory_order_relaxed);
}

bool migrate_queue_claim(struct migrate_queue *q, u64 page)
{
    u64 bit = BIT(page % 64);

    return page < q->pages && (atomic_fetch_and(&q->todo[page / 64], ~bit) & bit);
}
