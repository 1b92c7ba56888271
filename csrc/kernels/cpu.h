// What this CPU and its operating system allow. Nothing else in the tree asks.
#pragma once

namespace puna {

struct CpuFeatures {
    bool avx2;    // with FMA and F16C
    bool avx512;  // F, BW, DQ, VL
    bool vnni;    // AVX-512 VNNI
};

const CpuFeatures& cpu_features();

}  // namespace puna
