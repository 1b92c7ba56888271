#include "kernels/cpu.h"

#if defined(__x86_64__) || defined(_M_X64)
#include <cpuid.h>

#include <cstdint>
#endif

namespace puna {

#if defined(__x86_64__) || defined(_M_X64)

namespace {

struct Registers {
    uint32_t a = 0, b = 0, c = 0, d = 0;
};

Registers cpuid(uint32_t leaf, uint32_t subleaf) {
    Registers r;
    __get_cpuid_count(leaf, subleaf, &r.a, &r.b, &r.c, &r.d);
    return r;
}

// The register state that the operating system saves on a switch of threads.
uint64_t xcr0() {
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return uint64_t{high} << 32 | low;
}

CpuFeatures detect() {
    const auto bit = [](uint32_t word, int i) { return (word >> i & 1) != 0; };
    const Registers one = cpuid(1, 0), seven = cpuid(7, 0);
    const bool has_xsave = bit(one.c, 27);
    const uint64_t saved = has_xsave ? xcr0() : 0;
    const bool saves_ymm = (saved & 0x6) == 0x6, saves_zmm = (saved & 0xe6) == 0xe6;
    CpuFeatures f{};
    f.avx2 = saves_ymm && bit(seven.b, 5) && bit(one.c, 12) && bit(one.c, 29);
    f.avx512 =
        f.avx2 && saves_zmm && bit(seven.b, 16) && bit(seven.b, 30) && bit(seven.b, 17) && bit(seven.b, 31);
    f.vnni = f.avx512 && bit(seven.c, 11);
    return f;
}

}  // namespace

#else

namespace {
CpuFeatures detect() { return {}; }
}  // namespace

#endif

const CpuFeatures& cpu_features() {
    static const CpuFeatures features = detect();
    return features;
}

}  // namespace puna
