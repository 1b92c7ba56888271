#include "cache/cache.h"

#include "base/check.h"

namespace puna {

Cache::Cache(const ModelConfig& config, int64_t n_blocks, CacheType type)
    : n_blocks_(n_blocks), n_kv_heads_(config.n_kv_heads) {
    PUNA_CHECK(n_blocks >= 1, "cache: need at least 1 block, got " + std::to_string(n_blocks));
    PUNA_CHECK(n_blocks <= INT32_MAX, "cache: at most 2^31 - 1 blocks, got " + std::to_string(n_blocks));
    const int64_t size = type == CacheType::f16 ? 2 : 4;
    layout_.type = type;
    layout_.head_dim = config.head_dim;
    layout_.padded_head_dim = round_up(config.head_dim, 16);
    // Whole lines, so that vector loads of a block do not straddle them.
    layout_.key_bytes = round_up(config.head_dim * kBlockTokens * size, 64);
    layout_.block_bytes = layout_.key_bytes + layout_.padded_head_dim * kBlockTokens * size;
    layout_.block_stride = layout_.block_bytes;
    per_head_bytes_ = checked_mul(n_blocks, layout_.block_bytes);
    bytes_per_block_ = checked_mul(layout_.block_bytes, checked_mul(config.n_layers, config.n_kv_heads));
    const int64_t total = checked_mul(n_blocks, bytes_per_block_);
    // Zeroed by the system when first touched; calloc of this size takes fresh pages. A block's unwritten
    // positions are read as keys (and masked), so they must not hold garbage that traps a sanitizer.
    memory_.reset(static_cast<uint8_t*>(std::calloc(static_cast<size_t>(total), 1)));
    PUNA_CHECK(memory_ != nullptr, "cache: no memory for " + std::to_string(total) + " bytes (" +
                                       std::to_string(n_blocks * kBlockTokens) +
                                       " tokens); ask for a smaller context");
}

}  // namespace puna
