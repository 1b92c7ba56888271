// The body of every kernels/table_<name>.cpp: include the vector vocabulary first, then this.
#pragma once

#include <type_traits>
#include <utility>

#include "kernels/generic/math.h"
// math before all that compute with it
#include "kernels/generic/hadamard.h"
#include "kernels/generic/kv.h"
#include "kernels/generic/rows.h"
// rows before attention, which uses largest and exp_sum
#include "kernels/generic/attention.h"
#include "kernels/generic/matmul.h"
#include "kernels/generic/probe.h"
#include "kernels/generic/unpack.h"
#include "kernels/table.h"

namespace {

constexpr puna::KernelTable make_table(const char* name) {
    return {
        name,         matmul,          quantize_row, std::is_same_v<Factor, int16_t> ? widen_row : nullptr,
        round_row,    add_rms_norm,    rope,         store_kv,
        attend,       merge_attention, silu_mul,     rotate_blocks,
        add_scaled,   largest,         exp_sum,      unpack_row,
        read_through, multiply_bytes};
}

}  // namespace
