// The work behind the machine's rates is done in full: a probe that a compiler shortened would tell of a
// machine that there is not.
#include "probe/probe.h"

#include <string>

#include "base/check.h"
#include "kernels/dispatch.h"
#include "tests/check.h"

namespace puna::test {

namespace {

constexpr int64_t kInts = 3 * 64;  // three steps of 256 bytes

void test_reading(const KernelTable& table) {
    // Every number counts with a weight of its own: small enough for a float to hold the sum exactly.
    std::vector<int32_t> numbers(kInts);
    float expected = 0;
    for (int64_t i = 0; i < kInts; i++) {
        numbers[static_cast<size_t>(i)] = static_cast<int32_t>(i * i % 1009);
        expected -= static_cast<float>(i * i % 1009);
    }
    for (const int64_t ahead : {0, 4096})
        REQUIRE(table.read_through(reinterpret_cast<const uint8_t*>(numbers.data()), 4 * kInts, ahead) ==
                expected);
}

void test_multiplying(const KernelTable& table, int64_t n) {
    int64_t expected = 0;  // eight runs of each row
    for (int row = 0; row < 8; row++)
        for (int byte = 0; byte < 64; byte++) expected -= n * 8 * (byte % 16) * (4 * row + byte % 4);
    REQUIRE(table.multiply_bytes(n) == static_cast<float>(expected));
}

bool is_refused(int n_threads, int64_t n_bytes, int passes) {
    try {
        read_rate(n_threads, n_bytes, passes);
        return false;
    } catch (const Error&) {
        return true;
    }
}

}  // namespace

void test_probe() {
    for (const char* isa : runnable_isas()) {
        const KernelTable& table = find_kernels(isa);
        test_reading(table);
        // Tiles multiply zeros.
        if (std::string(isa) != "amx") test_multiplying(table, 3);
        REQUIRE(std::isfinite(table.multiply_bytes(65536)));
    }
    for (const int n_threads : {1, 3}) {
        REQUIRE(read_rate(n_threads, 1000, 2) > 0);
        REQUIRE(multiply_rate(n_threads, 1) > 0);
    }
    REQUIRE(is_refused(0, 1000, 1));
    REQUIRE(is_refused(1, 100, 1));
    REQUIRE(is_refused(1, 1000, 0));
}

}  // namespace puna::test
