// The kernels for one instruction set, in a namespace of its own. No include guard: dcnv3_cpu.cpp includes this file
// once per set, with DCNV3_ISA (the namespace), DCNV3_VECTOR_BYTES (of a register) and DCNV3_TARGET (the attribute, or
// nothing) defined.
//
// Every function that touches a vector carries the attribute itself, through DCNV3_INLINE or DCNV3_NOINLINE. To inline
// a portable function into one for AVX-512 would not do: the compiler splits its vectors before it inlines. And no
// function of one set can be mistaken for another's by the linker, as happens with files compiled under different
// flags.

#define DCNV3_INLINE inline __attribute__((always_inline)) DCNV3_TARGET
#define DCNV3_INLINE_LAMBDA __attribute__((always_inline)) DCNV3_TARGET
#define DCNV3_NOINLINE __attribute__((noinline)) DCNV3_TARGET

namespace dcnv3::cpu::DCNV3_ISA {

// Each block needs those above it.
#include "../sample.h"
#include "pack.h"

#include "softmax.h"

#include "plan.h"

#include "walk.h"

#include "backward.h"
#include "forward.h"

}  // namespace dcnv3::cpu::DCNV3_ISA

#undef DCNV3_INLINE
#undef DCNV3_INLINE_LAMBDA
#undef DCNV3_NOINLINE
