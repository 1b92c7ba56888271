// Rates of the machine itself, with the engine's own threads and its kernels' instruction set, and of a
// kernel.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/table.h"
#include "model/model.h"

namespace puna {

// Bytes a second that `n_threads` read together from `n_bytes` of memory: the best of `passes`. The bytes
// should be several times the largest cache. Error where a number is out of range or there is no memory.
double read_rate(int n_threads, int64_t n_bytes, int passes);

// Products of bytes, added up in integers, that `n_threads` compute together a second: the best of `passes`.
double multiply_rate(int n_threads, int passes);

// Products that a table's matmul computes a second, its tiles shared by `n_threads`: the best of `passes`,
// over the processor time of the slowest thread.
// `x` [rows][columns of the weight]. They are rounded before the clock starts.
double matmul_rate(const KernelTable& table, const Weight& weight, const float* x, int64_t rows,
                   int n_threads, int passes);

}  // namespace puna
