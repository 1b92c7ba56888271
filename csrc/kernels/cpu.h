// What this CPU and its operating system allow. Nothing else in the tree asks.
#pragma once

namespace puna {

struct CpuFeatures {
    bool avx2;         // with FMA and F16C
    bool avx512;       // F, BW, DQ, VL
    bool vnni;         // AVX-512 VNNI
    bool avx512_bf16;  // products of bfloat16 pairs, with VNNI
    bool amx;          // AMX tiles with int8 and bf16 products, permitted by the operating system
    bool dotprod;      // Arm: signed int8 dot products
    bool i8mm;         // Arm: the int8 matrix extension, with dotprod
};

const CpuFeatures& cpu_features();

}  // namespace puna
