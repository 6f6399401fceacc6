/*
 * The decoder's table of forms, and the shape of the opcode maps.
 *
 * Open addressing over pointers to entries. Readers take no lock: an entry is complete before its
 * pointer is published and never changes or goes away. Invariants:
 *   1. Entries are only added, under `lock`, and at most MAX_ENTRIES of them, so that a guest that
 * runs every encoding there is cannot make the table grow without end; later keys are computed anew
 * each time.
 *   2. Forms are shared by content. There are only so many distinct ones (a few thousand), however
 * many keys are asked for, so they can be kept for ever even when their entry was not. Any thread.
 * Intel SDM volume 2, appendix A (opcode maps).
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "accel/bt/insn_form.h"

#define SLOTS 32768u
#define MAX_ENTRIES (SLOTS / 2)
#define FORM_BUCKETS 1024u

struct form_pair {
    struct insn_form form[2];
    struct form_pair *next;
};

static struct form_entry entries[MAX_ENTRIES]; /* [0] is not used */
static _Atomic u16 slots[SLOTS];               /* index into entries, 0: free */
static struct form_pair *pairs[FORM_BUCKETS];
static unsigned nentries = 1;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* over all writes */

static unsigned hash(u64 key)
{
    return (unsigned)((key * 0x9e3779b97f4a7c15ull) >> 40);
}

/* The kept copy of a pair. With the lock held. Out of memory is fatal: no other form would be
 * right. */
static const struct insn_form *keep_forms(const struct insn_form form[2])
{
    const u8 *bytes = (const u8 *)form;
    u64 sum = 0;
    struct form_pair *p, **head;

    for (size_t i = 0; i < sizeof(p->form); i++)
        sum = sum * 31 + bytes[i];
    head = &pairs[hash(sum) % FORM_BUCKETS];
    for (p = *head; p; p = p->next)
        if (!memcmp(p->form, form, sizeof(p->form)))
            return p->form;
    p = calloc(1, sizeof(*p));
    if (!p)
        abort();
    memcpy(p->form, form, sizeof(p->form));
    p->next = *head;
    *head = p;
    return p->form;
}

static const struct form_entry *find(u64 key, unsigned *ret_slot)
{
    unsigned i = hash(key) % SLOTS;
    unsigned n;

    while ((n = atomic_load_explicit(&slots[i], memory_order_acquire)) && entries[n].key != key)
        i = (i + 1) % SLOTS;
    *ret_slot = i;
    return n ? &entries[n] : NULL;
}

static const struct form_entry *add(u64 key, struct form_entry *scratch,
                                    const struct insn_form form[2])
{
    unsigned slot;
    const struct form_entry *e = find(key, &slot);

    if (e)
        return e; /* another thread was faster */
    scratch->key = key;
    scratch->form = keep_forms(form);
    if (nentries == MAX_ENTRIES)
        return scratch;
    entries[nentries] = *scratch;
    atomic_store_explicit(&slots[slot], (u16)nentries, memory_order_release);
    return &entries[nentries++];
}

/* style: a function of its own, so that the common way has no large stack frame */
static __attribute__((noinline)) const struct form_entry *miss(union form_key key,
                                                               struct form_entry *scratch)
{
    struct insn_form form[2];
    const struct form_entry *e;

    insn_form_build(key, scratch, form);
    pthread_mutex_lock(&lock);
    e = add(key.bits, scratch, form);
    pthread_mutex_unlock(&lock);
    return e;
}

const struct form_entry *insn_form_lookup(union form_key key, struct form_entry *scratch)
{
    unsigned slot;
    const struct form_entry *e = find(key.bits, &slot);

    return __builtin_expect(e != NULL, 1) ? e : miss(key, scratch);
}

void insn_form_reset(void)
{
    pthread_mutex_lock(&lock);
    for (unsigned i = 0; i < SLOTS; i++)
        atomic_store_explicit(&slots[i], 0, memory_order_relaxed);
    nentries = 1;
    pthread_mutex_unlock(&lock);
}

#define M OP_MODRM
#define G (OP_MODRM | OP_REG) /* group */
#define GR (OP_MODRM | OP_REG | OP_RM)
#define CTL (OP_MODRM | OP_REG | OP_ISREG | OP_EXT_R)
#define K (OP_MODRM | OP_K)

/* clang-format off */
const u8 insn_op_attr[2][4][256] = {
    [0] = {
        [MAP_1] = {
            [0x00 ... 0x03] = M, [0x08 ... 0x0b] = M, [0x10 ... 0x13] = M, [0x18 ... 0x1b] = M,
            [0x20 ... 0x23] = M, [0x28 ... 0x2b] = M, [0x30 ... 0x33] = M, [0x38 ... 0x3b] = M,
            [0x62 ... 0x63] = M, [0x69] = M, [0x6b] = M,
            [0x80 ... 0x83] = G, [0x84 ... 0x8b] = M, [0x8c] = G, [0x8d] = M, [0x8e ... 0x8f] = G,
            [0x90] = OP_EXT_B, [0xc0 ... 0xc1] = G, [0xc4 ... 0xc5] = M, [0xc6 ... 0xc7] = GR,
            [0xd0 ... 0xd3] = G, [0xd8 ... 0xdf] = GR, [0xf6 ... 0xf7] = G, [0xfe ... 0xff] = G,
        },
        [MAP_0F] = {
            [0x00] = G, [0x01] = GR, [0x02 ... 0x03] = M, [0x0d] = G, [0x0f] = M,
            [0x10 ... 0x17] = M, [0x18 ... 0x1d] = G, [0x1e] = GR, [0x1f] = G,
            [0x20 ... 0x23] = CTL, [0x24] = M | OP_ISREG, [0x26] = M | OP_ISREG, [0x28 ... 0x2f] = M,
            [0x40 ... 0x6f] = M, [0x70] = M, [0x71 ... 0x73] = G, [0x74 ... 0x76] = M,
            [0x78] = G, [0x79] = M, [0x7c ... 0x7f] = M, [0x90 ... 0x9f] = M,
            [0xa3 ... 0xa5] = M, [0xa6 ... 0xa7] = GR, [0xab ... 0xad] = M, [0xae] = GR, [0xaf] = M,
            [0xb0 ... 0xb9] = M, [0xba] = G, [0xbb ... 0xc6] = M, [0xc7] = G, [0xd0 ... 0xff] = M,
        },
        [MAP_0F38] = { [0x00 ... 0xd7] = M, [0xd8] = G, [0xd9 ... 0xff] = M },
        [MAP_0F3A] = { [0x00 ... 0xff] = M },
    },
    [1] = {
        [MAP_0F] = {
            [0x00 ... 0x40] = M, [0x41 ... 0x4b] = K, [0x4c ... 0x70] = M, [0x71 ... 0x73] = G,
            [0x74 ... 0x76] = M, [0x78 ... 0x8f] = M, [0x90 ... 0x99] = K, [0x9a ... 0xad] = M,
            [0xae] = G, [0xaf ... 0xff] = M,
        },
        [MAP_0F38] = { [0x00 ... 0x48] = M, [0x49] = GR, [0x4a ... 0xc5] = M, [0xc6 ... 0xc7] = G,
            [0xc8 ... 0xf2] = M, [0xf3] = G, [0xf4 ... 0xff] = M },
        [MAP_0F3A] = { [0x00 ... 0x2f] = M, [0x30 ... 0x33] = K, [0x34 ... 0xff] = M },
    },
};
/* clang-format on */
