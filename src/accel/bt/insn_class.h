/* Inside the decoder: what a form is to the translator, and which instructions the CPU model has.
 * Needs Zydis. */
#ifndef BT_INSN_CLASS_H
#define BT_INSN_CLASS_H

#include <Zydis/Zydis.h>

#include "accel/bt/insn_form.h"

enum isa_answer {
    ISA_UNKNOWN, /* not in our list: never copied */
    ISA_ABSENT,  /* the CPU model does not have it */
    ISA_SYSTEM,  /* there, but only some of its instructions may be copied: see insn_class.c */
    ISA_PURE,    /* there, and computes on registers and its memory operand only */
};
enum isa_answer insn_isa(ZydisISASet set);
static inline bool insn_isa_allowed(ZydisISASet set)
{
    return insn_isa(set) >= ISA_SYSTEM;
}

/* Corrections of what Zydis says; before insn_classify(). */
void insn_fix_flags(union form_key k, ZydisMnemonic mnemonic, struct insn_form *f);
void insn_fix_operands(union form_key k, const ZydisDecodedInstruction *zi, struct form_entry *e,
                       struct insn_form *f);
/* Fills masked and what belongs to it. */
void insn_find_mask(union form_key k, const ZydisDecodedInstruction *zi,
                    const ZydisDecodedOperand *ops, struct insn_form *f);
/* Fills cls, need, align, lockable, atomic, ends_block, no_64 and sys, and adapts the operands to
 * the class. */
void insn_classify(union form_key k, const ZydisDecodedInstruction *zi,
                   const ZydisDecodedOperand *ops, struct insn_form *f);

#endif
