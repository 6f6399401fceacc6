/* All instruction forms worth testing, found by asking the decoder about every encoding. */
#ifndef DIFF_CATALOGUE_H
#define DIFF_CATALOGUE_H

#include "accel/bt/insn_form.h"
#include "random.h"

/* What is fixed of an instruction; everything else may be chosen freely. */
struct template
{
    union form_key key;
    u8 attr; /* OP_* */
    const struct insn_form *form;
};

struct catalogue {
    struct template *list;
    size_t n;
};

/* Every form of the classes in `classes` (bits 1 << enum insn_class) once, for 32- or 64-bit code. insn_init() has run. */
void catalogue_init(struct catalogue *c, unsigned mode, unsigned classes, bool with_evex);
void catalogue_fini(struct catalogue *c);

/* An instruction of this template with operands chosen by `r`, at most INSN_MAX bytes; returns its length and decodes it
 * into *ret. Immediates are random, register numbers and addressing too. */
unsigned template_emit(const struct template *t, struct random *r, struct insn *ret);

#endif
