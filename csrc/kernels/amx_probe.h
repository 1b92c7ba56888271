// The integer rate of AMX tiles: four products of whole tiles on two by two of them, without a load.
#pragma once

namespace {

// Sums in tiles 0 to 3, activations in 4 and 5, weights in 6 and 7: the configuration of bf16, whose tiles
// are as large. A unit of n is what it is without tiles, 64 x 64 products.
float multiply_tiles(int64_t n) {
    constexpr int64_t kUnits = 4 * 16 * 16 * 64 / (64 * 64);
    load_tile_config(Bf16TileConfig{});
    alignas(64) int32_t sums[16][16];
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_zero(4);
    _tile_zero(5);
    _tile_zero(6);
    _tile_zero(7);
    for (int64_t i = 0; i < n; i += kUnits) {
        _tile_dpbssd(0, 4, 6);
        _tile_dpbssd(1, 4, 7);
        _tile_dpbssd(2, 5, 6);
        _tile_dpbssd(3, 5, 7);
    }
    _tile_stored(0, sums, 64);
    _tile_release();
    return static_cast<float>(sums[0][0]);
}

}  // namespace
