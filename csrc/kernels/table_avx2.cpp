// Kernels for AVX2, FMA and F16C. This file is compiled for that instruction set: it exports one table and
// nothing else.
#include "base/half.h"
#include "kernels/table.h"
#include "vec/avx2.h"
// the vocabulary first
#include "kernels/generic/table.h"

namespace puna {
extern const KernelTable kTable_avx2;
const KernelTable kTable_avx2 = make_table("avx2");
}  // namespace puna
