// Kernels for AVX-512 with VNNI and BF16. This file is compiled for that instruction set: it exports one
// table and nothing else.
#include "base/half.h"
#include "kernels/table.h"
#include "vec/avx512.h"
// the vocabulary first
#include "kernels/generic/table.h"
// then what is quicker with products of pairs
#include "kernels/avx512_bf16_matmul.h"

namespace puna {

namespace {

constexpr KernelTable with_pairs(KernelTable table) {
    table.matmul = bf16_matmul;
    return table;
}

}  // namespace

extern const KernelTable kTable_avx512_bf16;
const KernelTable kTable_avx512_bf16 = with_pairs(make_table("avx512_bf16"));

}  // namespace puna
