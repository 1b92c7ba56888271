// Kernels for AMX with int8 tiles, on top of AVX-512 with VNNI. This file is compiled for that instruction
// set: it exports one table and nothing else.
#include "base/half.h"
#include "kernels/table.h"
#include "vec/avx512.h"
// the vocabulary first
#include "kernels/generic/table.h"
// then what is quicker on tiles
#include "kernels/amx_matmul.h"
// whose tiles the probe uses
#include "kernels/amx_probe.h"

namespace puna {

namespace {

constexpr KernelTable with_tiles(KernelTable table) {
    table.matmul = amx_matmul;
    table.multiply_bytes = multiply_tiles;
    return table;
}

}  // namespace

extern const KernelTable kTable_amx;
const KernelTable kTable_amx = with_tiles(make_table("amx"));

}  // namespace puna
