/*
 * A fuzz target is one function over bytes. Built with -Dfuzz=true (clang) libFuzzer calls it;
 * always, a small program replays the corpus through it as a test. It must hold for any bytes: no
 * crash, no leak, no hang.
 */
#ifndef FUZZ_FUZZ_H
#define FUZZ_FUZZ_H

#include "base/types.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

#endif
