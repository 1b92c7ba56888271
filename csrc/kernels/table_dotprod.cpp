// Kernels for NEON with signed dot products. This file is compiled for that instruction set: it exports one
// table and nothing else.
#include "base/half.h"
#include "kernels/table.h"
#include "vec/neon.h"
// the vocabulary first
#include "kernels/generic/table.h"

namespace puna {
extern const KernelTable kTable_dotprod;
const KernelTable kTable_dotprod = make_table("dotprod");
}  // namespace puna
