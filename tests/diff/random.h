/* A small generator of pseudo-random numbers (xorshift64*), seeded per case so that each can be made again. */
#ifndef DIFF_RANDOM_H
#define DIFF_RANDOM_H

#include "base/types.h"

struct random {
    u64 state;
};

static inline void random_init(struct random *r, u64 seed, u64 number)
{
    r->state = (seed ^ (number + 1) * 0x9e3779b97f4a7c15ull) | 1;
}

static inline u64 random_next(struct random *r)
{
    r->state ^= r->state >> 12;
    r->state ^= r->state << 25;
    r->state ^= r->state >> 27;
    return r->state * 0x2545f4914f6cdd1dull;
}

static inline unsigned random_below(struct random *r, unsigned n)
{
    return (unsigned)((random_next(r) >> 32) % n);
}

/* Numbers that find bugs: extremes, small ones, single bits, and anything. */
static inline u64 random_value(struct random *r)
{
    static const u64 special[] = {0,
                                  1,
                                  2,
                                  0x7f,
                                  0x80,
                                  0xff,
                                  0x7fff,
                                  0x8000,
                                  0xffff,
                                  0x7fffffff,
                                  0x80000000,
                                  0xffffffff,
                                  1ull << 63,
                                  ~0ull >> 1,
                                  ~0ull,
                                  0x3ff0000000000000,
                                  0x7ff0000000000000,
                                  0x3f8000003f800000};

    switch (random_below(r, 4)) {
    case 0:
        return special[random_below(r, ARRAY_LEN(special))];
    case 1:
        return 1ull << random_below(r, 64);
    default:
        return random_next(r);
    }
}

#endif
