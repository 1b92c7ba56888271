#include "kernels/cpu.h"

#if defined(__x86_64__) || defined(_M_X64)
#include <cpuid.h>

#include <cstdint>
#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
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

// Linux grants the tiles' registers, 8 KiB a thread, to a process that asks.
bool may_use_tiles() {
#ifdef __linux__
    constexpr long kRequestPermission = 0x1023, kTileData = 18;
    return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
    return false;
#endif
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
    f.avx512_bf16 = f.vnni && bit(cpuid(7, 1).a, 5);
    const bool saves_tiles = (saved & 0x60000) == 0x60000;
    f.amx =
        f.vnni && saves_tiles && bit(seven.d, 22) && bit(seven.d, 24) && bit(seven.d, 25) && may_use_tiles();
    return f;
}

}  // namespace

#elif defined(__aarch64__) && defined(__linux__)

namespace {

CpuFeatures detect() {
    CpuFeatures f{};
    f.dotprod = (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
    f.i8mm = f.dotprod && (getauxval(AT_HWCAP2) & HWCAP2_I8MM) != 0;
    return f;
}

}  // namespace

#elif defined(__aarch64__) && defined(__APPLE__)

namespace {

bool has(const char* name) {
    int value = 0;
    size_t size = sizeof value;
    return sysctlbyname(name, &value, &size, nullptr, 0) == 0 && value != 0;
}

CpuFeatures detect() {
    CpuFeatures f{};
    f.dotprod = has("hw.optional.arm.FEAT_DotProd");
    f.i8mm = f.dotprod && has("hw.optional.arm.FEAT_I8MM");
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
