/*
 * The host's string instructions on host memory: the guest's chunk runs at full speed with exactly its semantics, also
 * when source and destination overlap. The host's DF is clear before and after. Light.
 */
#ifndef BT_NATIVE_STRING_H
#define BT_NATIVE_STRING_H

#include "base/types.h"

#define NATIVE_BY_SIZE(size, OP, ...) \
    do {                              \
        switch (size) {               \
        case 1:                       \
            OP("b", __VA_ARGS__);     \
            break;                    \
        case 2:                       \
            OP("w", __VA_ARGS__);     \
            break;                    \
        case 4:                       \
            OP("l", __VA_ARGS__);     \
            break;                    \
        default:                      \
            OP("q", __VA_ARGS__);     \
            break;                    \
        }                             \
    } while (0)

/* n elements from the one at src to the one at dst; down: towards lower addresses. */
static inline void native_movs(void *dst, const void *src, u64 n, unsigned size, bool down)
{
#define MOVS(suffix, before, after)                  \
    __asm__ volatile(before "rep movs" suffix after  \
                     : "+D"(dst), "+S"(src), "+c"(n) \
                     :                               \
                     : "memory", "cc")
    if (down)
        NATIVE_BY_SIZE(size, MOVS, "std\n\t", "\n\tcld");
    else
        NATIVE_BY_SIZE(size, MOVS, "", "");
#undef MOVS
}

static inline void native_stos(void *dst, u64 value, u64 n, unsigned size, bool down)
{
#define STOS(suffix, before, after)                 \
    __asm__ volatile(before "rep stos" suffix after \
                     : "+D"(dst), "+c"(n)           \
                     : "a"(value)                   \
                     : "memory", "cc")
    if (down)
        NATIVE_BY_SIZE(size, STOS, "std\n\t", "\n\tcld");
    else
        NATIVE_BY_SIZE(size, STOS, "", "");
#undef STOS
}

/* Compares while equal (repe) or unequal; returns the elements done (at least 1 of n > 0) and the flags. */
static inline u64 native_cmps(const void *a, const void *b, u64 n, unsigned size, bool down,
                              bool repe, u64 *ret_flags)
{
    u64 left = n, flags;
#define CMPS(suffix, prefix, before)                                            \
    __asm__ volatile(before prefix "cmps" suffix "\n\tcld\n\tpushfq\n\tpopq %3" \
                     : "+D"(b), "+S"(a), "+c"(left), "=r"(flags)                \
                     :                                                          \
                     : "memory", "cc")
    if (down && repe)
        NATIVE_BY_SIZE(size, CMPS, "repe ", "std\n\t");
    else if (down)
        NATIVE_BY_SIZE(size, CMPS, "repne ", "std\n\t");
    else if (repe)
        NATIVE_BY_SIZE(size, CMPS, "repe ", "");
    else
        NATIVE_BY_SIZE(size, CMPS, "repne ", "");
#undef CMPS
    *ret_flags = flags;
    return n - left;
}

static inline u64 native_scas(const void *p, u64 value, u64 n, unsigned size, bool down, bool repe,
                              u64 *ret_flags)
{
    u64 left = n, flags;
#define SCAS(suffix, prefix, before)                                            \
    __asm__ volatile(before prefix "scas" suffix "\n\tcld\n\tpushfq\n\tpopq %2" \
                     : "+D"(p), "+c"(left), "=r"(flags)                         \
                     : "a"(value)                                               \
                     : "memory", "cc")
    if (down && repe)
        NATIVE_BY_SIZE(size, SCAS, "repe ", "std\n\t");
    else if (down)
        NATIVE_BY_SIZE(size, SCAS, "repne ", "std\n\t");
    else if (repe)
        NATIVE_BY_SIZE(size, SCAS, "repe ", "");
    else
        NATIVE_BY_SIZE(size, SCAS, "repne ", "");
#undef SCAS
    *ret_flags = flags;
    return n - left;
}

#endif
