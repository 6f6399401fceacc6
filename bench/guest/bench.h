/*
 * The guest benchmark: one static program that is /init in a guest and an ordinary command on the host. Each row is one
 * operation of an operating system or a program; what it costs is printed as "row NAME NANOSECONDS".
 */
#ifndef BENCH_BENCH_H
#define BENCH_BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct row {
    const char *name;
    const char
        *class; /* rows of one class make one mean: int, memory, float, system, code, smp, other */
    void (*run)(uint64_t n); /* does the operation n times */
    bool (*setup)(void);     /* before; false: this processor or system cannot. May be NULL */
    unsigned batch;          /* n is a multiple of this; 0: any */
};

extern const struct row cpu_rows[], memory_rows[], float_rows[], system_rows[], process_rows[],
    code_rows[], smp_rows[];

/* Keeps a value from being optimized away. */
static inline void use(uint64_t v)
{
    asm volatile("" : : "r"(v) : "memory");
}
/* Hides a value's origin from the compiler. */
static inline uint64_t hide(uint64_t v)
{
    asm volatile("" : "+r"(v));
    return v;
}

/* Memory that is there: mapped and touched. Exits when there is none. */
void *bench_alloc(size_t bytes);
/* A directory on a file system in memory. */
const char *bench_tmp(void);
void bench_pin(int cpu); /* this thread to one processor; -1: any */
void bench_sha256_block(uint32_t state[8], const uint8_t block[64]);

#endif
