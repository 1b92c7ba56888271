// Products of bf16 and of the grouped integer formats on AMX tiles, for 16 rows of activations at a time. The
// same integers and the same float steps in the same order as kernels/generic/matmul.h, so the same bits.
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
template <class Config>
inline void load_tile_config(const Config& config) {
    __asm__ volatile("ldtilecfg %0" ::"m"(config));
}

// One group's weights as signed bytes, in the order in which they are packed: of 4 bits, then of 8.
template <class Block>
inline void expand_group(const Block& block, int g, int8_t* out) {
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
            const F32x16 scale = load_scales(blocks[b].scale[g]);
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

// Sums in tiles 0 to 3 (two blocks of rows by two weight tiles), activations in 4 and 5, weights in 6 and 7,
// all of 16 rows x 64 bytes.
struct alignas(64) Bf16TileConfig {
    uint8_t palette = 1;
    uint8_t start_row = 0;
    uint8_t reserved[14] = {};
    uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(Bf16TileConfig) == 64);

// 32 rows of activations by two weight tiles.
inline void bf16_block_2x2(const Product& p, int64_t tile, int64_t row) {
    const int64_t bytes = puna::tile_bytes(puna::Format::bf16, p.columns);
    const uint8_t* w = p.weights + tile * bytes;
    const auto* x = reinterpret_cast<const uint8_t*>(p.x.half + row * p.x.q_stride);
    const auto stride = static_cast<size_t>(2 * p.x.q_stride);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t k = 0; k < p.columns; k += kBf16Step) {
        _tile_loadd(4, x + 2 * k, stride);
        _tile_loadd(5, x + 16 * stride + 2 * k, stride);
        _tile_loadd(6, w + 32 * k, 64);
        _tile_loadd(7, w + bytes + 32 * k, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    float* y = p.y + row * p.y_stride + 16 * tile;
    const auto y_stride = static_cast<size_t>(4 * p.y_stride);
    _tile_stored(0, y, y_stride);
    _tile_stored(1, y + 16, y_stride);
    _tile_stored(2, y + 16 * p.y_stride, y_stride);
    _tile_stored(3, y + 16 * p.y_stride + 16, y_stride);
}

// The same for 16 rows and one tile.
inline void bf16_block(const Product& p, int64_t tile, int64_t row) {
    const uint8_t* w = p.weights + tile * puna::tile_bytes(puna::Format::bf16, p.columns);
    const auto* x = reinterpret_cast<const uint8_t*>(p.x.half + row * p.x.q_stride);
    _tile_zero(0);
    for (int64_t k = 0; k < p.columns; k += kBf16Step) {
        _tile_loadd(4, x + 2 * k, static_cast<size_t>(2 * p.x.q_stride));
        _tile_loadd(6, w + 32 * k, 64);
        _tile_dpbf16ps(0, 4, 6);
    }
    _tile_stored(0, p.y + row * p.y_stride + 16 * tile, static_cast<size_t>(4 * p.y_stride));
}

void amx_bf16(const Product& p, int64_t n_rows) {
    load_tile_config(Bf16TileConfig{});
    for (int64_t tile = p.tile_begin; tile < p.tile_end;) {
        const bool is_pair = tile + 2 <= p.tile_end;
        int64_t row = 0;
        for (; is_pair && row + 32 <= n_rows; row += 32) bf16_block_2x2(p, tile, row);
        for (; row < n_rows; row += kTileTokens) {
            bf16_block(p, tile, row);
            if (is_pair) bf16_block(p, tile + 1, row);
        }
        tile += is_pair ? 2 : 1;
    }
    _tile_release();
}

template <class Block>
void amx_groups(const Product& p, int64_t n_rows) {
    load_tile_config(TileConfig{});
    for (int64_t tile = p.tile_begin; tile < p.tile_end; tile++) amx_tile<Block>(p, tile, n_rows);
    _tile_release();
}

// Whole blocks of 16 rows on tiles, the rest as any other table would.
void amx_matmul(const Product& p) {
    const int64_t n_rows = p.x.rows / kTileTokens * kTileTokens;
    if (n_rows == 0) return matmul(p);
    switch (p.format) {
        case puna::Format::bf16:
            amx_bf16(p, n_rows);
            break;
        case puna::Format::int4_group32:
            amx_groups<puna::Int4GroupBlock>(p, n_rows);
            break;
        case puna::Format::int4_group32_f32:
            amx_groups<puna::Int4WideGroupBlock>(p, n_rows);
            break;
        case puna::Format::int8_group32:
            amx_groups<puna::Int8GroupBlock>(p, n_rows);
            break;
        default:
            return matmul(p);
    }
    if (n_rows < p.x.rows) matmul(rows_from(p, n_rows));
}

}  // namespace
