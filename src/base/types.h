/* The names every other header uses: integers by width, checked sums, cleanup of locals. */
#ifndef BASE_TYPES_H
#define BASE_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int8_t s8;
typedef int16_t s16;
typedef int32_t s32;
typedef int64_t s64;

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define ALIGN_UP(x, to) (((x) + ((to)-1)) & ~((__typeof__(x))(to)-1))
#define ALIGN_DOWN(x, to) ((x) & ~((__typeof__(x))(to)-1))
#define BIT(n) (1ull << (n))
#define KiB (1ull << 10)
#define MiB (1ull << 20)
#define GiB (1ull << 30)
#define NS_PER_S 1000000000ll
#define CONTAINER_OF(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

/* True when the sum or product does not fit; the result is then unspecified. */
#define ADD_OVERFLOWS(a, b, ret) __builtin_add_overflow(a, b, ret)
#define MUL_OVERFLOWS(a, b, ret) __builtin_mul_overflow(a, b, ret)

/* True when [start, start + len) lies within [0, limit). Cannot be fooled by wrap-around. */
static inline bool range_fits(u64 start, u64 len, u64 limit)
{
    return start <= limit && len <= limit - start;
}

/* Cleanup of locals; never mixed with goto in one function. */
void auto_free_fn(void *ptr_to_ptr); /* free(*p) */
void auto_close_fn(int *fd);         /* close(*fd) when >= 0 */
#define auto_free __attribute__((cleanup(auto_free_fn)))
#define auto_close __attribute__((cleanup(auto_close_fn)))

#endif
