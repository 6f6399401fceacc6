/* A byte to and fro between two processes through pipes, each pinned to a processor. */
#ifndef BENCH_PINGPONG_H
#define BENCH_PINGPONG_H

#include <stdint.h>

void bench_pingpong(uint64_t n, int cpu_a, int cpu_b);

#endif
