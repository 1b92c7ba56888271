// Kernels for NEON with the int8 matrix extension. This file is compiled for that instruction set: it exports
// one table and nothing else.
#include "base/half.h"
#include "kernels/table.h"
#include "vec/neon.h"
// the vocabulary first
#include "kernels/generic/table.h"

namespace puna {
extern const KernelTable kTable_i8mm;
const KernelTable kTable_i8mm = make_table("i8mm");
}  // namespace puna
