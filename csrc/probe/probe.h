// Rates of the machine itself, with the engine's own threads and its kernels' instruction set.
#pragma once

#include <cstdint>

namespace puna {

// Bytes a second that `n_threads` read together from `n_bytes` of memory: the best of `passes`. The bytes
// should be several times the largest cache. Error where a number is out of range or there is no memory.
double read_rate(int n_threads, int64_t n_bytes, int passes);

// Products of bytes, added up in integers, that `n_threads` compute together a second: the best of `passes`.
double multiply_rate(int n_threads, int passes);

}  // namespace puna
