// Products of bf16 weights with many rows by vdpbf16ps: twice as many products an instruction as a fused
// multiply-add.
//
// The instruction takes pairs of columns: it adds the product of the second, rounds, adds that of the first,
// rounds. With columns k + 2 and k as a pair it does two steps of the sum over even columns in the order of
// kernels/generic/matmul_float.h, and the same for odd ones: the same bits. It takes denormals for zero, as
// tiles do.
//
// A piece of the activations is brought into that order for some tiles at once, a piece of a tile for all
// rows; the totals of those tiles stay near until all pieces are added.
#pragma once

namespace {

constexpr int64_t kPieceRows = 256, kPieceColumns = 256, kPieceTiles = 8;
constexpr int kPairRows = 8;

// In every four columns, 0 to 3: 2, 0, 3, 1.
struct alignas(64) PairedRows {
    uint16_t x[kPieceRows][kPieceColumns];
};
// [four columns][pairs of columns 2 and 0, then 3 and 1, of 16 rows]
struct alignas(64) PairedTile {
    uint16_t w[kPieceColumns / 4][2][32];
};

inline void pair_row(const uint16_t* x, int64_t columns, uint16_t* out) {
    const __m512i order = _mm512_set4_epi32(0x0b0a0f0e, 0x09080d0c, 0x03020706, 0x01000504);
    for (int64_t k = 0; k < columns; k += 32)
        _mm512_store_si512(out + k, _mm512_shuffle_epi8(_mm512_loadu_si512(x + k), order));
}

inline void pair_tile(const uint16_t* w, int64_t columns, PairedTile& out) {
    constexpr __mmask32 seconds = 0xaaaaaaaa;
    for (int64_t i = 0; i < columns / 4; i++) {
        const __m512i first = _mm512_loadu_si512(w + 64 * i), next = _mm512_loadu_si512(w + 64 * i + 32);
        _mm512_store_si512(out.w[i][0], _mm512_mask_mov_epi16(next, seconds, _mm512_slli_epi32(first, 16)));
        _mm512_store_si512(out.w[i][1], _mm512_mask_mov_epi16(_mm512_srli_epi32(next, 16), seconds, first));
    }
}

inline __m512 add_pairs(__m512 acc, const uint16_t* w, const uint16_t* x) {
    int32_t pair;
    std::memcpy(&pair, x, sizeof pair);
    const auto pairs = reinterpret_cast<__m512bh>(_mm512_set1_epi32(pair));
    return _mm512_dpbf16_ps(acc, reinterpret_cast<__m512bh>(_mm512_load_si512(w)), pairs);
}

using PieceTotals = float[kPieceRows][16];

// Adds a piece's columns to the totals of R rows.
template <int R>
void add_piece(const PairedTile& tile, const uint16_t (*x)[kPieceColumns], int64_t columns,
               float (*totals)[16]) {
    F32x16 total[R];
    for (int r = 0; r < R; r++) total[r] = load(totals[r]);
    for (int64_t k = 0; k < columns; k += kBf16Step) {
        __m512 even[R], odd[R];
        for (int r = 0; r < R; r++) even[r] = odd[r] = _mm512_setzero_ps();
        for (int64_t i = k; i < k + kBf16Step; i += 4)
            for (int r = 0; r < R; r++) {
                even[r] = add_pairs(even[r], tile.w[i / 4][0], x[r] + i);
                odd[r] = add_pairs(odd[r], tile.w[i / 4][1], x[r] + i + 2);
            }
        for (int r = 0; r < R; r++) total[r] = total[r] + (F32x16{even[r]} + F32x16{odd[r]});
    }
    for (int r = 0; r < R; r++) store(totals[r], total[r]);
}

inline const uint8_t* piece_at(const Product& p, int64_t tile, int64_t column) {
    return p.weights + tile * puna::tile_bytes(p.format, p.columns) + 32 * column;
}

// At most kPieceRows rows and kPieceTiles tiles.
template <int... R>
void multiply_piece(const Product& p, std::integer_sequence<int, R...>) {
    constexpr decltype(&add_piece<1>) add[] = {nullptr, add_piece<R + 1>...};
    PairedRows rows;
    PairedTile paired;
    alignas(64) PieceTotals totals[kPieceTiles];
    std::memset(totals, 0, sizeof totals);
    for (int64_t first = 0; first < p.columns; first += kPieceColumns) {
        const int64_t columns = least(p.columns - first, kPieceColumns);
        for (int64_t r = 0; r < p.x.rows; r++)
            pair_row(p.x.half + r * p.x.q_stride + first, columns, rows.x[r]);
        for (int64_t tile = p.tile_begin; tile < p.tile_end; tile++) {
            pair_tile(reinterpret_cast<const uint16_t*>(piece_at(p, tile, first)), columns, paired);
            const uint8_t* next = tile + 1 < p.tile_end ? piece_at(p, tile + 1, first)
                                                        : piece_at(p, p.tile_begin, first + kPieceColumns);
            for (int64_t r = 0; r < p.x.rows; r += kPairRows) {
                const int64_t n = least(p.x.rows - r, kPairRows);
                prefetch_share(next, 32 * columns, r, n, p.x.rows);
                add[n](paired, rows.x + r, columns, totals[tile - p.tile_begin] + r);
            }
        }
    }
    for (int64_t r = 0; r < p.x.rows; r++)
        for (int64_t tile = p.tile_begin; tile < p.tile_end; tile++)
            store(p.y + r * p.y_stride + 16 * tile, load(totals[tile - p.tile_begin][r]));
}

void bf16_matmul(const Product& p) {
    // Few rows wait for the weights, however they are multiplied.
    if (p.format != puna::Format::bf16 || p.x.rows < kPairRows) return matmul(p);
    for (int64_t row = 0; row < p.x.rows; row += kPieceRows) {
        Product piece = rows_from(p, row);
        piece.x.rows = least(piece.x.rows, kPieceRows);
        for (int64_t tile = p.tile_begin; tile < p.tile_end; tile += kPieceTiles) {
            piece.tile_begin = tile;
            piece.tile_end = least(tile + kPieceTiles, p.tile_end);
            multiply_piece(piece, std::make_integer_sequence<int, kPairRows>());
        }
    }
}

}  // namespace
