// Products of the grouped integer formats on AMX tiles, for 16 rows of activations at a time. The same
// integers and the same float steps in the same order as kernels/generic/matmul.h, so the same bits.
//
// A weight tile's columns are expanded once to signed bytes, kPanelColumns at a time, and used for all rows.
// Per group of 32 columns one tile product gives 16 rows x 16 outputs of exact sums.
#pragma once

namespace {

constexpr int64_t kTileTokens = 16;
constexpr int64_t kPanelColumns = 1024;  // 16 KiB of expanded weights: they stay in the nearest cache
constexpr int64_t kGroupBytes = puna::kGroup * puna::kTileRows;

// Tiles 0 and 1 hold sums, 2 and 3 activations (16 rows x 32 bytes), 4 and 5 weights (8 runs x 64 bytes).
struct alignas(64) TileConfig {
    uint8_t palette = 1;
    uint8_t start_row = 0;
    uint8_t reserved[14] = {};
    uint16_t row_bytes[16] = {64, 64, 32, 32, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 8, 8};
};
static_assert(sizeof(TileConfig) == 64);

// The intrinsic of GCC 12 tells the compiler that it reads 8 bytes; the rest would be dropped as dead stores.
inline void load_tile_config() {
    const TileConfig config;
    __asm__ volatile("ldtilecfg %0" ::"m"(config));
}

// One group's weights as signed bytes, in the order in which they are packed.
inline void expand_group(const puna::Int4GroupBlock& block, int g, int8_t* out) {
    const __m512i eight = _mm512_set1_epi8(8);
    for (int v = 0; v < 4; v++) {
        U8x64 low, high;
        load_nibbles(block.q[g][v], low, high);
        _mm512_store_si512(out + 64 * v, _mm512_sub_epi8(low.v, eight));
        _mm512_store_si512(out + 64 * (v + 4), _mm512_sub_epi8(high.v, eight));
    }
}
inline void expand_group(const puna::Int8GroupBlock& block, int g, int8_t* out) {
    const __m512i sign = _mm512_set1_epi8(static_cast<char>(0x80));
    for (int v = 0; v < 8; v++)
        _mm512_store_si512(out + 64 * v, _mm512_xor_si512(load_u8(block.q[g][v]).v, sign));
}

// Sums of two neighbouring groups into `sums`, [2][16 rows][16 outputs].
inline void two_groups(const int8_t* x, int64_t stride, const int8_t* panel, int32_t* sums) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_loadd(2, x, static_cast<size_t>(stride));
    _tile_loadd(4, panel, 64);
    _tile_loadd(3, x + puna::kGroup, static_cast<size_t>(stride));
    _tile_loadd(5, panel + kGroupBytes, 64);
    _tile_dpbssd(0, 2, 4);
    _tile_dpbssd(1, 3, 5);
    _tile_stored(0, sums, 64);
    _tile_stored(1, sums + 256, 64);
}

// Adds n_blocks x 64 columns of 16 rows to `totals`, [16 rows][16 outputs].
template <class Block>
void add_panel(const Block* blocks, int64_t n_blocks, const int8_t* panel, const int8_t* x, int64_t stride,
               float* y, int64_t y_stride, bool is_first) {
    alignas(64) int32_t sums[2][16][16];
    F32x16 total[16];
    for (int r = 0; r < 16; r++) total[r] = is_first ? set1(0.0f) : load(y + r * y_stride);
    for (int64_t b = 0; b < n_blocks; b++) {
        two_groups(x + 64 * b, stride, panel + 2 * kGroupBytes * b, &sums[0][0][0]);
        for (int g = 0; g < 2; g++) {
            const F32x16 scale = load_f16(blocks[b].scale[g]);
            for (int r = 0; r < 16; r++) total[r] = fma(scale, to_f32(i32_load(sums[g][r])), total[r]);
        }
    }
    for (int r = 0; r < 16; r++) store(y + r * y_stride, total[r]);
}

template <class Block>
void amx_tile(const Product& p, int64_t tile, int64_t n_rows) {
    alignas(64) int8_t panel[kPanelColumns * puna::kTileRows];
    const int64_t n_blocks = p.columns / puna::kColumnBlock, step = kPanelColumns / puna::kColumnBlock;
    const auto* blocks =
        reinterpret_cast<const Block*>(p.weights + tile * puna::tile_bytes(p.format, p.columns));
    float* y = p.y + 16 * tile;
    for (int64_t first = 0; first < n_blocks; first += step) {
        const int64_t n = n_blocks - first < step ? n_blocks - first : step;
        for (int64_t b = 0; b < n; b++)
            for (int g = 0; g < 2; g++) expand_group(blocks[first + b], g, panel + (2 * b + g) * kGroupBytes);
        for (int64_t row = 0; row < n_rows; row += kTileTokens)
            add_panel(blocks + first, n, panel, p.x.q + row * p.x.q_stride + first * puna::kColumnBlock,
                      p.x.q_stride, y + row * p.y_stride, p.y_stride, first == 0);
    }
    const F32x16 weight_sum = load(reinterpret_cast<const float*>(blocks + n_blocks));
    for (int64_t row = 0; row < n_rows; row++) {
        const F32x16 zero = set1(-static_cast<float>(p.x.zero[row]));
        const F32x16 total = load(y + row * p.y_stride);
        store(y + row * p.y_stride, fma(zero, weight_sum, total) * set1(p.x.scale[row]));
    }
}

// Whole blocks of 16 rows on tiles, the rest as any other table would.
void amx_matmul(const Product& p) {
    const int64_t n_rows = p.x.rows / kTileTokens * kTileTokens;
    const bool is_grouped = p.format == puna::Format::int4_group32 || p.format == puna::Format::int8_group32;
    if (n_rows == 0 || !is_grouped) return matmul(p);
    load_tile_config();
    for (int64_t tile = p.tile_begin; tile < p.tile_end; tile++) {
        if (p.format == puna::Format::int4_group32)
            amx_tile<puna::Int4GroupBlock>(p, tile, n_rows);
        else
            amx_tile<puna::Int8GroupBlock>(p, tile, n_rows);
    }
    _tile_release();
    if (n_rows < p.x.rows) matmul(rows_from(p, n_rows));
}

}  // namespace
