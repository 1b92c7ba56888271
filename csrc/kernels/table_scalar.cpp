// Kernels for the specification, for any CPU. This file is compiled for that instruction set: it exports one
// table and nothing else.
#include "base/half.h"
#include "kernels/table.h"
#include "vec/scalar.h"
// the vocabulary first
#include "kernels/generic/table.h"

namespace puna {
extern const KernelTable kTable_scalar;
const KernelTable kTable_scalar = make_table("scalar");
}  // namespace puna
