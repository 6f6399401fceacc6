/*
 * The decoder over any bytes, as code of each size: never reads behind the bytes, agrees with Zydis about what is an
 * instruction and how long it is, and what is truncated stays so until its bytes are there. hostile.md: guest code.
 */
#include <stdlib.h>
#include <string.h>

#include "zydis_decoders.h"
#include "fuzz.h"

/* Decodes the instruction at the start of `bytes`, which are exactly `avail`; returns its length, or 1. */
static unsigned try_one(const u8 *bytes, unsigned avail, unsigned mode)
{
    ZydisDecodedInstruction zi;
    struct insn in;
    int got = insn_decode(bytes, avail, mode, &in);
    bool valid = ZYAN_SUCCESS(
        ZydisDecoderDecodeInstruction(&zydis_decoder[mode >> 5], NULL, bytes, avail, &zi));

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
        zydis_setup();
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
