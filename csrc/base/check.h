// Errors and checked sizes, for the C++ side of the API. Kernels neither throw nor allocate: what they
// are given has been checked here first.
#pragma once

#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>

namespace puna {

// Becomes puna.errors.NativeError in Python.
class Error : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
};

// Throws Error(message) unless `ok`. The message is built by the caller only on the failing path.
#define PUNA_CHECK(ok, message)                  \
    do {                                         \
        if (!(ok)) throw ::puna::Error(message); \
    } while (false)

inline int64_t checked_mul(int64_t a, int64_t b) {
    int64_t product = 0;
    if (a < 0 || b < 0 || __builtin_mul_overflow(a, b, &product))
        throw Error("a size overflows: " + std::to_string(a) + " x " + std::to_string(b));
    return product;
}

inline int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

}  // namespace puna
