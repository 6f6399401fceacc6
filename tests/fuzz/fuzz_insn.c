/*
 * The decoder over any bytes, as code of each size: never reads behind the bytes, agrees with Zydis about what is an
 * instruction and how long it is, and what is truncated stays so until its bytes are there. hostile.md: guest code.
 */
#include <Zydis/Zydis.h>
#include <stdlib.h>
#include <string.h>

#include "accel/bt/insn.h"
#include "fuzz.h"
#include "x86/cpuid.h"

static ZydisDecoder decoder[3];

/* A model with everything. */
static void setup(void)
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
        ZydisDecoderInit(&decoder[i], modes[i], (ZydisStackWidth)i);
        ZydisDecoderEnableMode(&decoder[i], ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
        ZydisDecoderEnableMode(&decoder[i], ZYDIS_DECODER_MODE_CET, ZYAN_FALSE);
        ZydisDecoderEnableMode(&decoder[i], ZYDIS_DECODER_MODE_CLDEMOTE, ZYAN_FALSE);
    }
}

/* Decodes the instruction at the start of `bytes`, which are exactly `avail`; returns its length, or 1. */
static unsigned try_one(const u8 *bytes, unsigned avail, unsigned mode)
{
    ZydisDecodedInstruction zi;
    struct insn in;
    int got = insn_decode(bytes, avail, mode, &in);
    bool valid =
        ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&decoder[mode >> 5], NULL, bytes, avail, &zi));

    if (got != INSN_OK && got != (avail < INSN_MAX ? INSN_TRUNCATED : INSN_TOO_LONG))
        abort();
    if (got != INSN_OK)
        return 1;
    if (!in.form || in.len < 1 || in.len > avail || in.opcode_at >= in.len)
        abort();
    if (in.form->cls == INSN_INVALID)
        return 1;
    if (!valid || zi.length != in.len)
        abort();
    for (unsigned less = 1; less < in.len; less++)
        if (insn_decode(bytes, less, mode, &in) == INSN_OK && in.form->cls != INSN_INVALID)
            abort();
    return (unsigned)zi.length;
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
    static bool ready;

    if (!ready)
        setup();
    ready = true;
    for (unsigned mode = 16; mode <= 64; mode *= 2)
        for (size_t at = 0; at < size;) {
            unsigned avail = (unsigned)MIN(size - at, (size_t)INSN_MAX);
            u8 *exact = malloc(avail); /* so that a sanitizer sees what is read behind it */

            if (!exact)
                abort();
            memcpy(exact, data + at, avail);
            at += try_one(exact, avail, mode);
            free(exact);
        }
    return 0;
}
