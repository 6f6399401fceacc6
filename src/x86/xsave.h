/*
 * The canonical layout of vector state: the one that Intel's processors use in XSAVE's standard format (SDM 1, 13.4), up to
 * and including AVX-512 and PKRU. Other processors have the same components elsewhere; a file may not depend on that.
 *
 * Bytes of components that are in their initial state (XSTATE_BV), and all that software may not see, are 0: so that
 * the same state is the same bytes.
 */
#ifndef X86_XSAVE_H
#define X86_XSAVE_H

#include "x86/cpu.h"

enum { XSAVE_MXCSR = 24, XSAVE_BV = 512, XSAVE_HEADER_END = 576 };

/* From what this host's XSAVE wrote (standard format, `len` bytes) to X86_XSAVE_BYTES, and back. What has no canonical
 * place is dropped; what this host lacks, too (cpu_model_check() refuses such a move). `len` is at least 576. */
void xsave_from_host(u8 *ret_canonical, const u8 *host, size_t len);
void xsave_to_host(const u8 *canonical, u8 *ret_host, size_t len);

/* One extended component in each layout; for tests, which have but one host. */
struct xsave_part {
    u8 bit;
    u16 offset, size;
};
#define XSAVE_PARTS 5
extern const struct xsave_part xsave_parts[XSAVE_PARTS];
void xsave_convert(u8 *to, const struct xsave_part *to_parts, const u8 *from,
                   const struct xsave_part *from_parts);

#endif
