// Kernels for AVX-512 with VNNI. This file is compiled for that instruction set: it exports one table and
// nothing else.
#include "base/half.h"
#include "kernels/table.h"
#include "vec/avx512.h"
// the vocabulary first
#include "kernels/generic/table.h"

namespace puna {
extern const KernelTable kTable_vnni;
const KernelTable kTable_vnni = make_table("vnni");
}  // namespace puna
