/* What far returns (RET, IRET) and far calls share: the checks on a new code segment. Light. */
#ifndef BT_FAR_H
#define BT_FAR_H

#include "accel/bt/seg.h"

/* The code segment a RET or IRET in protected mode goes back to; RPL becomes the privilege level. Raises #GP or #NP. */
void cs_check_return(struct cpu *c, u16 sel, struct desc *ret_d);
/* The stack segment such a return to level `cpl` loads: null is allowed for 64-bit code below CPL 3. */
struct x86_seg ss_check_return(struct cpu *c, u16 sel, const struct desc *cs, unsigned cpl);
static inline bool desc_code64(const struct cpu *c, const struct desc *d)
{
    return long_mode(c) && (desc_attr(d) & SEG_ATTR_L);
}

#endif
