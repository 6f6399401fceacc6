/*
 * For tests of our decoder: a processor model with everything, and Zydis' decoders of the same instructions for 16, 32 and
 * 64 bits (index: mode >> 5). Include it in one file per program.
 */
#ifndef UNIT_ZYDIS_DECODERS_H
#define UNIT_ZYDIS_DECODERS_H

#include <Zydis/Zydis.h>

#include "accel/bt/insn.h"
#include "x86/cpuid.h"

static ZydisDecoder zydis_decoder[3];

static void zydis_setup(void)
{
    static const u32 leaves[5][2] = {{1, 0}, {7, 0}, {7, 1}, {0xd, 1}, {0x80000001, 0}};
    static const ZydisMachineMode modes[3] = {
        ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_MACHINE_MODE_LONG_64};
    static struct cpu_model m;

    m.nleaves = ARRAY_LEN(leaves);
    for (unsigned i = 0; i < m.nleaves; i++)
        m.leaf[i] = (struct cpuid_leaf){leaves[i][0], leaves[i][1], ~0u, ~0u, ~0u, ~0u, true};
    insn_init(&m);
    for (unsigned i = 0; i < 3; i++) {
        ZydisDecoderInit(&zydis_decoder[i], modes[i], (ZydisStackWidth)i);
        ZydisDecoderEnableMode(&zydis_decoder[i], ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
        ZydisDecoderEnableMode(&zydis_decoder[i], ZYDIS_DECODER_MODE_CET, ZYAN_FALSE);
        ZydisDecoderEnableMode(&zydis_decoder[i], ZYDIS_DECODER_MODE_CLDEMOTE, ZYAN_FALSE);
    }
}

#endif
