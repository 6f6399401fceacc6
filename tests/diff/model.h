/* The CPU model that decides which forms exist. */
#ifndef DIFF_MODEL_H
#define DIFF_MODEL_H

#include "x86/cpuid.h"

/* What this host has, with or without its AVX-512. Only the leaves that the decoder looks at. */
void model_init(struct cpu_model *m, bool with_avx512);

#endif
